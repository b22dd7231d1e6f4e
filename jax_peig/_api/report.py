"""Estimate how accurate the gradient of a function is that calls partial_eigh inside.

The gradient is computed three times: as asked; with eigenpairs after one step of refinement, which
squares their error; and with the linear systems solved further as well. The differences are its
error to first order, in two parts. The checks and the systems need the cotangents that reach each
call: they are the gradient with respect to offsets that are added to the call's result.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_peig._api.call_report import CallReport, examine
from jax_peig._core import tolerances
from jax_peig._core.checks import UNTRACEABLE, failure, integer, is_array, is_concrete, kind_of
from jax_peig._core.recording import visited_by
from jax_peig._core.results import PartialEigh
from jax_peig._core.types import Array, PyTree
from jax_peig._derivatives.rules import Rule
from jax_peig._problem.problem import Inputs, Problem

# For the reference the systems are solved to this part of their tolerance.
FURTHER = 1e-3


@dataclasses.dataclass(frozen=True, repr=False)
class DerivativeReport:
    """The result of `derivative_report`; ``print`` it.

    Attributes
    ----------
    value : float
        f(*args).
    gradient : pytree
        As ``jax.grad`` computes it, but never NaN because of `Derivative.on_gauge`.
    error : float
        An estimate of its relative error, in the Euclidean norm over all leaves; NaN if the verdict
        is that the gradient is not to be trusted.
    error_of_eigenpairs, error_of_systems : float
        The two parts of the error: due to the eigenvectors, and due to the linear systems.
    calls : tuple of CallReport
        One report for each call of `partial_eigh`.
    verdict : str
        The conclusion in words.
    """

    value: float
    gradient: PyTree
    error: float
    error_of_eigenpairs: float
    error_of_systems: float
    calls: tuple[CallReport, ...]
    verdict: str

    def __str__(self) -> str:
        lines = []
        if not np.isnan(self.error):
            lines.append(
                f"gradient: relative error about {self.error:.1e} "
                f"(eigenpairs {self.error_of_eigenpairs:.1e}, systems {self.error_of_systems:.1e})"
            )
        lines += [f"call {i}: {call}" for i, call in enumerate(self.calls)]
        return "\n".join([*lines, self.verdict])

    __repr__ = __str__


def derivative_report(f: Callable[..., Any], *args: Any, argnums: Any = 0) -> DerivativeReport:
    """Estimate the accuracy of ``jax.grad(f)(*args)`` for an f that calls `partial_eigh`.

    Parameters
    ----------
    f : callable
        A real scalar function. It may be jitted, and call `partial_eigh` any number of times, in
        loops too, but not under ``vmap`` (report one member) nor inside another derivative.
    *args
        Its arguments, concrete.
    argnums : int or tuple of int
        As in ``jax.grad``.

    Returns
    -------
    DerivativeReport
        ``print(report)`` for a summary.

    Raises
    ------
    ValueError, TypeError
        If f makes no call of `partial_eigh`, or one inside a transformation, or is no real scalar.

    Differentiability
    -----------------
    * In: nothing. It computes the gradient of f itself, on the host.
    * Modes: none.
    * Orders: none.
    * Refused: with ValueError inside a transformation, and where f calls `partial_eigh` in one.

    Notes
    -----
    It costs about three gradients, and one more eigensolve for each call. The estimate is of first
    order: it is right within a small factor if the error is small. The eigenvectors' error is
    dX = -S(R), with R their residuals and S the solve of the reverse rule (Kasim, arXiv:2011.04366,
    eqs 2.11, 2.12); X + dX takes the place of X. If eigenpairs or systems did not converge, or the
    gradient is ill-posed, the verdict says so, and there is no estimate.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig import derivative_report, partial_eigh
    >>> def share(levels):
    ...     return jnp.sum(partial_eigh(jnp.diag(levels) + 0.1, k=2).eigenvectors[:20] ** 4)
    >>> report = derivative_report(share, jnp.linspace(1.0, 2.0, 40))
    >>> report.verdict
    'The gradient is well-posed.'
    >>> report.error < 1e-9
    True
    """
    argnums, alone = _checked(f, args, argnums)
    seen = _Visitor()
    value = _run(f, args, seen)
    _check_value(value)
    if not seen.results:
        raise ValueError("derivative_report: f makes no call of partial_eigh; nothing to report.")
    shapes = [(result.eigenvalues, result.eigenvectors) for result in seen.results]
    zeros = jax.tree.map(jnp.zeros_like, shapes)
    try:
        (gradient, cotangents), pairs = _gradient(f, args, argnums, zeros)
    except UNTRACEABLE as error:
        raise TypeError(
            f"derivative_report: f cannot be differentiated: {failure(error, '')}"
        ) from error
    (refined, _), _ = _gradient(f, args, argnums, zeros, refine=True)
    (best, _), _ = _gradient(f, args, argnums, zeros, refine=True, further=FURTHER)
    calls = tuple(
        examine(*call, *both) for call, *both in zip(seen.calls, pairs, cotangents, strict=True)
    )
    size = _norm(best) or 1.0

    def distance(one: PyTree, other: PyTree) -> float:
        return _norm(jax.tree.map(jnp.subtract, one, other)) / size

    trusted = not any(call.problems for call in calls)
    return DerivativeReport(
        value=float(value),
        gradient=gradient[0] if alone else gradient,
        error=distance(gradient, best) if trusted else np.nan,
        error_of_eigenpairs=distance(gradient, refined) if trusted else np.nan,
        error_of_systems=distance(refined, best) if trusted else np.nan,
        calls=calls,
        verdict=_verdict(calls, gradient),
    )


def _checked(
    f: Callable[..., Any], args: tuple[Any, ...], argnums: Any
) -> tuple[tuple[int, ...], bool]:
    """The numbers of the arguments to differentiate in, checked, and whether there is one alone."""
    if not callable(f):
        raise TypeError(
            f"derivative_report: f is {f!r}; expected a function that calls partial_eigh, then its "
            "arguments."
        )
    listed = argnums if isinstance(argnums, (tuple, list)) else (argnums,)
    numbers = tuple(integer(i, "derivative_report: argnums") for i in listed)
    if not numbers or not all(-len(args) <= i < len(args) for i in numbers):
        raise ValueError(
            f"derivative_report: argnums is {argnums}, and f is given {len(args)} arguments; "
            "expected their numbers, counted from 0."
        )
    if not is_concrete(*jax.tree.leaves(args)):
        raise TypeError(
            "derivative_report: an argument of f is traced; expected concrete ones. Call it "
            "outside of jit, grad and vmap."
        )
    for i in numbers:
        for leaf in jax.tree.leaves(args[i]):
            dtype = getattr(leaf, "dtype", np.dtype(type(leaf)))
            if not jnp.issubdtype(dtype, jnp.inexact):
                raise TypeError(
                    f"derivative_report: argument {i} of f is of {kind_of(leaf)}; expected "
                    "floating numbers. Convert it, or choose other arguments by argnums."
                )
    return numbers, len(numbers) == 1


def _check_value(value: Any) -> None:
    if not (is_array(value) or isinstance(value, (float, np.floating))):
        raise TypeError(
            f"derivative_report: f returns a {type(value).__name__}; expected a real scalar. "
            "Report a number that depends on it."
        )
    if jnp.shape(value) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise TypeError(
            f"derivative_report: f returns shape {jnp.shape(value)} of "
            f"{jnp.result_type(value)}; expected a real scalar. Report a number that depends on it."
        )


class _Visitor:
    """Runs calls with changed rules, adds offsets to their results, and remembers both."""

    def __init__(
        self,
        offsets: list[tuple[Array, Array]] | None = None,
        refine: bool = False,
        further: float = 1.0,
    ) -> None:
        self.offsets, self.refine, self.further = offsets, refine, further
        self.calls: list[tuple[Problem, Rule, Inputs]] = []
        self.results: list[PartialEigh] = []

    def __call__(
        self,
        problem: Problem,
        rule: Rule,
        inputs: Inputs,
        run: Callable[[Rule, Inputs], PartialEigh],
    ) -> PartialEigh:
        settings = dataclasses.replace(rule.settings, on_unconverged="ignore")
        rule = dataclasses.replace(rule, settings=settings, on_gauge="ignore")
        self.calls.append((problem, rule, inputs))
        if self.refine:
            rule = dataclasses.replace(rule, refine=True)
        if self.further != 1:
            tol = inputs.derivative_tol
            tol = jnp.where(jnp.isnan(tol), tolerances.derivative(problem.dtype), tol)
            inputs = inputs._replace(derivative_tol=self.further * tol)
        with jax.disable_jit(False):
            result = run(rule, inputs)
        self.results.append(result)
        if self.offsets is None:
            _refuse_tracers((inputs, result.eigenvectors))
            return result
        dw, dx = self.offsets[len(self.results) - 1]
        return result._replace(
            eigenvalues=result.eigenvalues + dw, eigenvectors=result.eigenvectors + dx
        )


def _refuse_tracers(tree: PyTree) -> None:
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree)):
        raise ValueError(
            "derivative_report: f calls partial_eigh inside a transformation (vmap, grad, "
            "or such); expected plain calls: report the function of one member."
        )


def _run(f: Callable[..., Any], args: tuple[Any, ...], visitor: _Visitor) -> Any:
    """f(*args) with loops and jitted parts run step by step, so that a visitor sees every call."""
    with visited_by(visitor), jax.disable_jit():
        return f(*args)


def _gradient(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    argnums: tuple[int, ...],
    offsets: list[tuple[Array, Array]],
    **options: Any,
) -> tuple[tuple[PyTree, list[Any]], list[tuple[Array, Array]]]:
    """The gradients in the arguments and in offsets of the calls' results, and those results."""

    def moved(some: tuple[Any, ...], offsets: list[tuple[Array, Array]]) -> tuple[Any, list[Any]]:
        full = list(args)
        for i, arg in zip(argnums, some, strict=True):
            full[i] = arg
        visitor = _Visitor(offsets, **options)
        value = _run(f, tuple(full), visitor)
        return value, [(result.eigenvalues, result.eigenvectors) for result in visitor.results]

    some = tuple(jax.tree.map(jnp.asarray, args[i]) for i in argnums)
    return jax.grad(moved, (0, 1), has_aux=True)(some, offsets)


def _norm(tree: PyTree) -> float:
    return float(np.sqrt(sum(np.sum(np.abs(np.asarray(x)) ** 2) for x in jax.tree.leaves(tree))))


def _verdict(calls: tuple[CallReport, ...], gradient: PyTree) -> str:
    found = [f"call {i}: {p}" for i, call in enumerate(calls) for p in call.problems]
    if found:
        return "The gradient is not to be trusted: " + "; ".join(found) + "."
    if not np.isfinite(_norm(gradient)):
        return "The gradient is not finite, though every call is well-posed: look at f itself."
    return "The gradient is well-posed."
