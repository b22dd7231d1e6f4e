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

    def __init__(self, method: str = "auto", form: str = "block") -> None:
        self.method, self.form = method, form
        options = [o for o in (method, form) if o not in ("auto", "block")]
        self.name = " ".join(["jax_peig", *options])

    def first_tolerance(self, problem: Problem, target: float) -> float:
        """The package divides by ||A|| + |lam| ||M||, the judge by ||A|| alone."""
        lam = np.abs(problem.wanted[..., : problem.k]).max()
        return target * problem.norm / (problem.norm + lam * problem.mass_norm)

    def unsuited(self, problem: Problem) -> str | None:
        """A matrix is given as an array, whatever the form."""
        if self.form == "vector" and not problem.potential:
            return "an explicit matrix has no one-vector form"
        return None

    def _solve(
        self,
        problem: Problem,
        theta: Any,
        tol: float,
        start: int,
        product: Callable[[Any, Any], Any] | None = None,
    ) -> Any:
        import jax_peig

        options: dict[str, Any] = {
            "k": problem.k,
            "which": problem.which,
            "method": self.method,
            "tol": tol,
            "key": jax.random.key(start),
        }
        if not problem.potential:
            return jax_peig.partial_eigh(theta, **options)
        A: Any = jax.tree_util.Partial(problem.product if product is None else product, theta)
        M: Any = problem.mass_product
        if self.form == "block":
            A = jax_peig.BlockProduct(A)
            M = None if M is None else jax_peig.BlockProduct(M)
        return jax_peig.partial_eigh(A, M, n=problem.n, dtype=jnp.float64, **options)

    def _batched(self, problem: Problem, theta: Any, tol: float, start: int) -> Any:
        def one(t: Any) -> Any:
            return self._solve(problem, t, tol, start)

        return jax.vmap(one)(theta) if problem.batched else one(theta)

    def forward(self, problem: Problem, tol: float, start: int) -> Forward:
        """One jitted call; theta is its argument, so that nothing is folded away."""
        theta = jnp.asarray(problem.theta)

        def solve(t: Any) -> Any:
            return self._batched(problem, t, tol, start)

        compiled, seconds = compile_ahead(solve, theta)
        return Forward(
            call=lambda: compiled(theta),
            pairs=lambda out: (np.asarray(out[0]), np.asarray(out[1])),
            products=lambda out: int(np.sum(np.asarray(out[2].products))),
            compile_seconds=seconds,
            claim=lambda out: bool(np.all(np.asarray(out[2].converged) == problem.k)),
        )

    def value_and_grad(self, problem: Problem, loss: str, tol: float, start: int) -> Gradient:
        """``jax.value_and_grad`` of the loss of what `partial_eigh` returns."""
        theta = jnp.asarray(problem.theta)
        w, c = jnp.asarray(problem.w), jnp.asarray(problem.c)

        def value(t: Any) -> Any:
            lam, X, _ = self._batched(problem, t, tol, start)
            return problem.loss(loss, lam, X, w, c)

        compiled, seconds = compile_ahead(jax.value_and_grad(value), theta)
        return Gradient(
            call=lambda: compiled(theta),
            gradient=lambda out: np.asarray(out[1]),
            compile_seconds=seconds,
            backward_products=self._backward_counter(problem, loss, tol, start),
        )

    def _backward_counter(
        self, problem: Problem, loss: str, tol: float, start: int
    ) -> Callable[[], int] | None:
        """Count the products of a gradient that the forward solve does not make.

        Each product reports its number of columns to the host by `jax.debug.callback`: it needs
        a compilation of its own, and is never in a timed run.
        """
        if not problem.potential:
            return None
        total = 0

        def report(_: Any, columns: int) -> None:
            nonlocal total
            total += columns

        def product(theta: Any, x: Any) -> Any:
            columns = 1 if x.ndim == 1 else x.shape[1]
            jax.debug.callback(functools.partial(report, columns=columns), x[(0,) * x.ndim])
            return problem.product(theta, x)

        def value(theta: Any) -> Any:
            lam, X, _ = self._solve(problem, theta, tol, start, product)
            w, c = jnp.asarray(problem.w), jnp.asarray(problem.c)
            return problem.loss(loss, lam, X, w, c)

        def count() -> int:
            nonlocal total
            counts = []
            for function in (value, jax.value_and_grad(value)):
                total = 0
                jax.block_until_ready(jax.jit(function)(jnp.asarray(problem.theta)))
                jax.effects_barrier()
                counts.append(total)
            return counts[1] - counts[0]

        return count
