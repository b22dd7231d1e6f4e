"""Estimate how accurate the gradient of a function is that calls partial_eigh inside.

The gradient is computed three times: as asked; with eigenpairs after one step of refinement, which
squares their error; and with the linear systems solved further as well. The differences are its
error to first order, in two parts. The checks and the systems need the cotangents that reach each
call: they are the gradient with respect to offsets that are added to the call's result.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_peig._api.solution import solve_and_judge
from jax_peig._core import blocks, tolerances
from jax_peig._core.recording import visited_by
from jax_peig._core.results import Info, PartialEigh, Status
from jax_peig._core.types import Array, Block, PyTree
from jax_peig._derivatives import solve as systems_solve
from jax_peig._derivatives.rounds import solver_of
from jax_peig._derivatives.rules import Rule
from jax_peig._derivatives.sylvester import Settings
from jax_peig._derivatives.systems import Point, SylvesterSystem, Systems
from jax_peig._eigensolvers.problem import Inputs, Problem

# For the reference the systems are solved to this part of their tolerance.
FURTHER = 1e-3


@dataclasses.dataclass(frozen=True)
class CallReport:
    """One call of `partial_eigh` inside the function, in the order in which they were made.

    Attributes
    ----------
    n, k, method : int, int, str
        The problem, and the eigensolver.
    solvers : tuple
        The solvers of the linear systems, in the order in which they are tried.
    info : Info
        The account of the eigenpairs.
    gap : float
        Distance of the k-th eigenvalue, in the order wanted, to the next.
    residuals : (k,)
        True relative residuals of the linear systems; 0 for a pair whose vector has no cotangent.
    tolerance : float
        The relative residual that they had to reach.
    steps, matvecs : int
        Iterations of the linear systems, and their products of A with one vector. Those of "cg",
        "gmres" and callables are not known, and products with OPinv are not counted.
    gauge : float
        The part of the cotangent that depends on an arbitrary choice, over the cotangent. It is
        zero up to rounding if the loss is well-posed.
    problems : tuple of str
        The reasons why the derivative is ill-posed or inaccurate; empty if there are none.
    """

    n: int
    k: int
    method: str
    solvers: tuple[Any, ...]
    info: Info
    gap: float
    residuals: np.ndarray
    tolerance: float
    steps: int
    matvecs: int
    gauge: float
    problems: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
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
        for i, call in enumerate(self.calls):
            names = " then ".join(s if isinstance(s, str) else "a callable" for s in call.solvers)
            worst = np.max(call.residuals, initial=0.0)
            count = f"{call.steps} steps, {call.matvecs} matvecs"
            count = count if solver_of(call.solvers[0]).counted else "not counted"
            lines.append(
                f"call {i}: n = {call.n}, k = {call.k}, {call.method}; gap {call.gap:.1e}; systems "
                f"by {names}: residual {worst:.1e} (tolerance {call.tolerance:.1e}), "
                f"{count}; gauge-dependent part {call.gauge:.1e}"
            )
        return "\n".join([*lines, self.verdict])


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
    argnums = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    seen = _Visitor()
    value = _run(f, args, seen)
    if not seen.results:
        raise ValueError("derivative_report: f makes no call of partial_eigh; nothing to report.")
    if jnp.shape(value) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise TypeError(
            f"derivative_report: f returns shape {jnp.shape(value)} of "
            f"{jnp.result_type(value)}; expected a real scalar."
        )
    shapes = [(result.eigenvalues, result.eigenvectors) for result in seen.results]
    zeros = jax.tree.map(jnp.zeros_like, shapes)
    (gradient, cotangents), pairs = _gradient(f, args, argnums, zeros)
    (refined, _), _ = _gradient(f, args, argnums, zeros, refine=True)
    (best, _), _ = _gradient(f, args, argnums, zeros, refine=True, further=FURTHER)
    calls = tuple(
        _examine(*call, *both) for call, *both in zip(seen.calls, pairs, cotangents, strict=True)
    )
    size = _norm(best) or 1.0

    def distance(one: PyTree, other: PyTree) -> float:
        return _norm(jax.tree.map(jnp.subtract, one, other)) / size

    trusted = not any(call.problems for call in calls)
    return DerivativeReport(
        value=float(value),
        gradient=gradient[0] if len(argnums) == 1 else gradient,
        error=distance(gradient, best) if trusted else np.nan,
        error_of_eigenpairs=distance(gradient, refined) if trusted else np.nan,
        error_of_systems=distance(refined, best) if trusted else np.nan,
        calls=calls,
        verdict=_verdict(calls, gradient),
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


class _Judgement(NamedTuple):
    """The account of one call, of its systems and of its cotangents."""

    info: Info
    tol: Array
    residuals: Array  # (k,), relative
    steps: Array
    matvecs: Array
    solved: Array  # all systems reached their tolerance
    gauge: Array  # the gauge-dependent part of the cotangents, over the cotangents
    ill_posed: Array


@functools.partial(jax.jit, static_argnums=0)
def _judge(
    static: tuple[Problem, Rule],
    inputs: Inputs,
    pairs: tuple[Array, Array],
    cotangents: tuple[Array, Array],
) -> _Judgement:
    """Solve a call once more, for its account, and then its systems; apply the checks.

    The pairs are those that the cotangents belong to: another program may round to other vectors
    inside a cluster.
    """
    problem, rule = static
    a, m, _, _, info, forward = solve_and_judge(problem, rule, inputs)
    lam, x = rule.eigenvalues(pairs[0]), pairs[1]
    mx = x if m is None else m(x)
    system = SylvesterSystem(a, m, x, mx, jnp.diag(lam).astype(x.dtype), forward.data)
    at = Point(system, lam, forward)
    lb, xb = cotangents[0].conj(), cotangents[1].conj()
    solution, residuals = _solve_systems(system, xb, rule.settings)
    skew = rule.gauge_part(at, lb, blocks.gram(x, xb))
    size = rule.cotangent_size(at, lb, xb)
    return _Judgement(
        info=info,
        tol=forward.data.tol,
        residuals=residuals,
        steps=solution.steps,
        matvecs=solution.matvecs,
        solved=jnp.all(solution.converged),
        gauge=jnp.max(jnp.abs(skew)) * blocks.reciprocal(size),
        ill_posed=rule.ill_posed(at, skew, lb, xb, derived=False),
    )


def _solve_systems(
    system: SylvesterSystem, xb: Block, settings: Settings
) -> tuple[systems_solve.Solution, Array]:
    """The linear systems of a gradient, and their relative residuals (k,)."""
    n, k = xb.shape
    if k == n:
        none, lengths = jnp.array(0), jnp.zeros_like(jnp.diagonal(system.r).real)
        solution = systems_solve.Solution(xb, jnp.ones(k, bool), lengths, none, none)
        return solution, lengths
    systems = Systems.of(system, settings.sign)
    rhs, full = systems.dual(systems.dual(xb)), blocks.column_norms(xb)
    solution = systems_solve.solve(systems, rhs, full, settings.solvers, settings.max_steps)
    return solution, solution.residuals * blocks.reciprocal(blocks.column_norms(rhs))


def _examine(
    problem: Problem,
    rule: Rule,
    inputs: Inputs,
    pairs: tuple[Array, Array],
    cotangents: tuple[Array, Array],
) -> CallReport:
    """The checks and the linear systems of one call."""
    found = _judge((problem, rule), inputs, pairs, cotangents)
    return CallReport(
        n=inputs.a.n,
        k=problem.k,
        method=problem.method.name,
        solvers=rule.settings.solvers,
        info=found.info,
        gap=float(found.info.gap),
        residuals=np.asarray(found.residuals),
        tolerance=float(found.tol),
        steps=int(found.steps),
        matvecs=int(found.matvecs),
        gauge=float(found.gauge),
        problems=_problems(found),
    )


def _problems(found: _Judgement) -> tuple[str, ...]:
    """The reasons why the derivative of a call is ill-posed or inaccurate."""
    info, problems = found.info, []
    if int(info.status) != Status.CONVERGED:
        problems.append(f"the eigenpairs: {info.message}")
    if not bool(found.solved) and not bool(info.cut):  # a cut makes a system singular
        problems.append("a linear system did not reach its tolerance")
    if bool(found.ill_posed):
        problems.append(
            "the loss uses vectors of a cluster that k cuts"
            if bool(info.cut)
            else "the loss depends on an arbitrary choice of vectors, or weighs the eigenvalues of "
            "a cluster differently"
        )
    return tuple(problems)


def _verdict(calls: tuple[CallReport, ...], gradient: PyTree) -> str:
    found = [f"call {i}: {p}" for i, call in enumerate(calls) for p in call.problems]
    if found:
        return "The gradient is not to be trusted: " + "; ".join(found) + "."
    if not np.isfinite(_norm(gradient)):
        return "The gradient is not finite, though every call is well-posed: look at f itself."
    return "The gradient is well-posed."
