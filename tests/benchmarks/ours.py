"""jax_peig behind the interface of the table."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .base import Problem
from .solvers import Forward, Gradient, Solver
from .timing import compile_ahead


class JaxPeig(Solver):
    """`jax_peig.partial_eigh` on one form of the operator.

    Parameters
    ----------
    method : str
        Passed on.
    form : {"block", "vector"}
        Whether the product is given as a `BlockProduct` or as a function of one vector. An
        explicit matrix is given as an array in both.
    """

    package = "jax_peig"
    differentiable = True
    iterations = ("chebyshev", "lobpcg", "davidson")

    def __init__(self, method: str = "auto", form: str = "block") -> None:
        self.method, self.form = method, form
        options = [o for o in (method, form) if o not in ("auto", "block")]
        self.name = " ".join(["jax_peig", *options])
        self._programs: dict[Any, tuple[Callable[..., Any], float]] = {}

    def first_tolerance(self, problem: Problem, target: float) -> float:
        """The package divides by ||A|| + |lam| ||M||, the judge by ||A|| alone."""
        lam = np.abs(problem.wanted[..., : problem.k]).max()
        return target * problem.norm / (problem.norm + lam * problem.mass_norm)

    def unsuited(self, problem: Problem) -> str | None:
        """A matrix is given as an array, whatever the form."""
        if self.form == "vector" and not problem.potential:
            return "an explicit matrix has no one-vector form"
        return None

    def solve(
        self,
        problem: Problem,
        tol: float,
        theta: Any,
        key: Any,
        v0: Any = None,
        product: Callable[[Any, Any], Any] | None = None,
    ) -> Any:
        """`partial_eigh` of a problem at theta, with another ``product`` in place of its own."""
        import jax_peig

        options: dict[str, Any] = {
            "k": problem.k,
            "which": problem.which,
            "method": self.method,
            "tol": tol,
            "key": key,
            "v0": v0,
        }
        if not problem.potential:
            return jax_peig.partial_eigh(theta, **options)
        A: Any = jax.tree_util.Partial(problem.product if product is None else product, theta)
        M: Any = problem.mass_product
        if self.form == "block":
            A = jax_peig.BlockProduct(A)
            M = None if M is None else jax_peig.BlockProduct(M)
        return jax_peig.partial_eigh(A, M, n=problem.n, dtype=jnp.float64, **options)

    def program(
        self, problem: Problem, tol: float, warm: bool = False
    ) -> tuple[Callable[..., Any], float]:
        """``(theta, key) -> PartialEigh``, compiled once for a problem and a tolerance.

        Parameters
        ----------
        problem, tol : Problem, float
        warm : bool
            Whether it takes a starting block (n, k) as its third argument.

        Returns
        -------
        (callable, float)
            The program, and the seconds of its compilation.
        """
        label = (problem, tol, warm)
        if label not in self._programs:
            one = functools.partial(self.solve, problem, tol)
            function = jax.vmap(one, in_axes=(0, None)) if problem.batched else one
            arguments = [jnp.asarray(problem.theta), jax.random.key(0)]
            arguments += [jnp.asarray(problem.vectors)] if warm else []
            self._programs[label] = compile_ahead(function, *arguments)
        return self._programs[label]

    def forward(self, problem: Problem, tol: float, start: int) -> Forward:
        """One jitted call; theta is its argument, so that nothing is folded away."""
        theta, key = jnp.asarray(problem.theta), jax.random.key(start)
        compiled, seconds = self.program(problem, tol)

        def matvecs(out: Any) -> int:
            return int(np.sum(np.asarray(out.info.matvecs)))

        return Forward(
            call=lambda: compiled(theta, key),
            pairs=lambda out: (np.asarray(out.eigenvalues), np.asarray(out.eigenvectors)),
            matvecs=matvecs,
            compile_seconds=seconds,
            claim=lambda out: bool(np.all(np.asarray(out.info.converged) == problem.k)),
            method=lambda out: out.info.method,
        )

    def value_and_grad(self, problem: Problem, loss: str, tol: float, start: int) -> Gradient:
        """``jax.value_and_grad`` of the loss of what `partial_eigh` returns."""
        theta, key = jnp.asarray(problem.theta), jax.random.key(start)
        w, c = jnp.asarray(problem.w), jnp.asarray(problem.c)

        def value(product: Any, t: Any) -> Any:
            def one(member: Any) -> Any:
                return self.solve(problem, tol, member, key, product=product)[:2]

            lam, X = jax.vmap(one)(t) if problem.batched else one(t)
            return problem.loss(loss, lam, X, w, c)

        def backward_products() -> int:
            """The products of the gradient that the forward solve does not make."""
            gradient = jax.value_and_grad(value, argnums=1)
            return _counted(problem, gradient) - _counted(problem, value)

        compiled, seconds = compile_ahead(
            jax.value_and_grad(functools.partial(value, problem.product)), theta
        )
        return Gradient(
            call=lambda: compiled(theta),
            gradient=lambda out: np.asarray(out[1]),
            compile_seconds=seconds,
            backward_products=backward_products if problem.potential else None,
        )


def _counted(problem: Problem, function: Callable[[Any, Any], Any]) -> int:
    """Products with A, of one vector, that ``function(product, theta)`` spends.

    Each product reports its number of columns to the host by `jax.debug.callback`: it needs a
    compilation of its own, and is never in a timed run.
    """
    total = 0

    def report(_: Any, columns: int) -> None:
        nonlocal total
        total += columns

    def product(theta: Any, x: Any) -> Any:
        columns = 1 if x.ndim == 1 else x.shape[1]
        jax.debug.callback(functools.partial(report, columns=columns), x[(0,) * x.ndim])
        return problem.product(theta, x)

    counted = jax.jit(functools.partial(function, product))
    jax.block_until_ready(counted(jnp.asarray(problem.theta)))
    jax.effects_barrier()
    return total
