"""The peers in NumPy and JAX: PRIMME, SciPy's ARPACK and LOBPCG, and what JAX itself offers.

Those of the torch world are in ``torch_peers.py``; `all_peers` lists both. A peer that is not
installed, or not made for a problem, says so in its row; one that fails keeps its failure there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg as spla

from .base import Problem
from .solvers import Counter, Forward, Gradient, Solver, starting_block
from .timing import compile_ahead

MAX_STEPS = 3000


def all_peers() -> list[Solver]:
    """Every peer, installed or not, in the order of the table."""
    from .torch_peers import TorchEigh, TorchLobpcg, Xitorch

    return [
        Primme("", "PRIMME_DEFAULT_MIN_TIME"),
        Primme("fewest products", "PRIMME_DEFAULT_MIN_MATVECS"),
        ScipyArpack(),
        ScipyShiftInvert(),
        ScipyLobpcg(),
        ScipyLobpcg(incomplete=True),
        JaxLobpcg(),
        JaxEigh(),
        TorchLobpcg(),
        TorchEigh(),
        Xitorch(),
    ]


def _identity(pairs: Any) -> Any:
    return pairs


def _counted(solve: Callable[[Any], Any], matrix: Any) -> Callable[[Any], int]:
    """Products of one more solve, on a counting operator; the timed one runs on the matrix."""

    def count(_: Any) -> int:
        counter = Counter(matrix)
        solve(counter.operator)
        return counter.count

    return count


class _OneMatrix(Solver):
    """What the host libraries share: one matrix at a time."""

    def unsuited(self, problem: Problem) -> str | None:
        """No batches."""
        return "solves one matrix at a time" if problem.batched else None


class Primme(_OneMatrix):
    """PRIMME without preconditioner, by one of its presets.

    Not by its default, which chooses a method by timing both, and so differs from run to run.
    """

    package = "primme"

    def __init__(self, label: str, preset: str) -> None:
        self.name = f"PRIMME {label}".strip()
        self.preset = preset

    def first_tolerance(self, problem: Problem, target: float) -> float:
        """PRIMME scales by the largest eigenvalue of (A, M), and vectors to M-norm 1."""
        if problem.mass is None:
            return target
        return target * problem.mass_norm

    def forward(self, problem: Problem, tol: float, start: int) -> Forward:
        """Counted on a counting operator: its own statistics add the products with M."""
        import primme

        v0 = starting_block(problem, 1, start)
        which = "SA" if problem.which == "smallest" else "LA"

        def solve(matrix: Any) -> Any:
            return primme.eigsh(
                matrix, problem.k, M=problem.mass, which=which, v0=v0, tol=tol,
                method=self.preset, return_unconverged=True, raise_for_unconverged=False,
            )  # fmt: skip

        return Forward(
            call=lambda: solve(problem.matrix),
            pairs=_identity,
            matvecs=_counted(solve, problem.matrix),
        )


class ScipyArpack(_OneMatrix):
    """`scipy.sparse.linalg.eigsh`: products with A alone."""

    name, package = "SciPy eigsh", "scipy"

    def unsuited(self, problem: Problem) -> str | None:
        """With M it would need solves with M in every step."""
        if problem.mass is not None:
            return "with M it needs a factorisation of M"
        return super().unsuited(problem)

    def forward(self, problem: Problem, tol: float, start: int) -> Forward:
        """ARPACK's implicitly restarted Lanczos method with its default basis."""
        v0 = starting_block(problem, 1, start)[:, 0]
        which = "SA" if problem.which == "smallest" else "LA"

        def solve(matrix: Any) -> Any:
            return spla.eigsh(matrix, problem.k, which=which, v0=v0, tol=tol, maxiter=MAX_STEPS)

        return Forward(
            call=lambda: solve(problem.matrix),
            pairs=_identity,
            matvecs=_counted(solve, problem.matrix),
        )


class ScipyShiftInvert(_OneMatrix):
    """`scipy.sparse.linalg.eigsh` with sigma = 0: a sparse LU in every call."""

    name, package = "SciPy eigsh, sparse LU", "scipy"

    def unsuited(self, problem: Problem) -> str | None:
        """For the smallest pairs of a positive definite sparse matrix."""
        if problem.which == "largest":
            return "shift-invert is for the smallest pairs"
        return super().unsuited(problem)

    def forward(self, problem: Problem, tol: float, start: int) -> Forward:
        """The factorisation is part of the call: a new potential needs a new one."""
        v0 = starting_block(problem, 1, start)[:, 0]
        matrix = problem.matrix.tocsc()
        mass = None if problem.mass is None else problem.mass.tocsc()
        return Forward(
            call=lambda: spla.eigsh(matrix, problem.k, M=mass, sigma=0.0, v0=v0, tol=tol),
            pairs=_identity,
        )


class ScipyLobpcg(_OneMatrix):
    """`scipy.sparse.linalg.lobpcg` with k columns, with or without incomplete LU.

    The incomplete LU is made before the call and its time shown as set-up.
    """

    package = "scipy"

    def __init__(self, incomplete: bool = False) -> None:
        self.incomplete = incomplete
        self.name = "SciPy lobpcg, ILU" if incomplete else "SciPy lobpcg"

    def unsuited(self, problem: Problem) -> str | None:
        """The incomplete LU is for sparse matrices and their smallest pairs."""
        if self.incomplete and problem.which == "largest":
            return "an inverse does not precondition the largest pairs"
        return super().unsuited(problem)

    def first_tolerance(self, problem: Problem, target: float) -> float:
        """Its tolerance is absolute, for vectors of M-norm 1."""
        return target * problem.norm * float(np.sqrt((problem.vectors**2).sum(0).min()))

    def forward(self, problem: Problem, tol: float, start: int) -> Forward:
        """Warnings of not having converged are left to the judge."""
        X = starting_block(problem, problem.k, start)
        inverse, seconds = None, None
        if self.incomplete:
            import time

            begin = time.perf_counter()
            factors = spla.spilu(problem.matrix.tocsc())
            seconds = time.perf_counter() - begin
            shape = problem.matrix.shape
            inverse = spla.LinearOperator(shape, matvec=factors.solve, matmat=factors.solve)

        def solve(matrix: Any) -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return spla.lobpcg(
                    matrix, X, B=problem.mass, M=inverse, tol=tol, maxiter=MAX_STEPS,
                    largest=problem.which == "largest",
                )  # fmt: skip

        return Forward(
            call=lambda: solve(problem.matrix),
            pairs=_identity,
            matvecs=_counted(solve, problem.matrix),
            compile_seconds=seconds,
        )


class JaxLobpcg(_OneMatrix):
    """`jax.experimental.sparse.linalg.lobpcg_standard`: largest pairs, M = I, no gradient.

    For the smallest pairs it is given ||A|| I - A, with the exact norm.
    """

    name, package = "jax lobpcg_standard", "jax"

    def unsuited(self, problem: Problem) -> str | None:
        """The standard problem only."""
        return "no M" if problem.mass is not None else super().unsuited(problem)

    def forward(self, problem: Problem, tol: float, start: int) -> Forward:
        """Its test is ||r|| < 10 n tol (lam + ||A v||): divide by 20 n for a relative tolerance."""
        from jax.experimental.sparse.linalg import lobpcg_standard

        X = jnp.asarray(starting_block(problem, problem.k, start))
        theta = jnp.asarray(problem.theta)
        small = problem.which == "smallest"
        steps = MAX_STEPS

        def solve(t: Any, block: Any) -> Any:
            def product(x: Any) -> Any:
                y = problem.product(t, x)
                return problem.norm * x - y if small else y

            return lobpcg_standard(product, block, m=steps, tol=tol / (20 * problem.n))

        compiled, seconds = compile_ahead(solve, theta, X)

        def pairs(out: Any) -> Any:
            lam = np.asarray(out[0])
            return (problem.norm - lam if small else lam), np.asarray(out[1])

        return Forward(
            call=lambda: compiled(theta, X),
            pairs=pairs,
            # a step takes the product of its whole basis (3 k) and of the new X (k)
            matvecs=lambda out: problem.k * (4 * int(out[2]) + 1),
            compile_seconds=seconds,
        )


class JaxEigh(Solver):
    """`jnp.linalg.eigh` of the whole matrix, with its gradient."""

    name, package, differentiable = "jnp.linalg.eigh", "jax", True

    def unsuited(self, problem: Problem) -> str | None:
        """Explicit matrices."""
        return "matrix-free" if problem.potential else None

    def _solve(self, problem: Problem, theta: Any) -> Any:
        lam, X = jnp.linalg.eigh(theta)
        if problem.which == "largest":
            lam, X = lam[..., ::-1], X[..., ::-1]
        return lam[..., : problem.k], X[..., : problem.k]

    def forward(self, problem: Problem, tol: float, start: int) -> Forward:
        """No tolerance, no start."""
        theta = jnp.asarray(problem.theta)
        compiled, seconds = compile_ahead(lambda t: self._solve(problem, t), theta)
        return Forward(
            call=lambda: compiled(theta),
            pairs=lambda out: (np.asarray(out[0]), np.asarray(out[1])),
            compile_seconds=seconds,
        )

    def value_and_grad(self, problem: Problem, loss: str, tol: float, start: int) -> Gradient:
        """Where a cluster makes it NaN, the table says so."""
        theta = jnp.asarray(problem.theta)
        w, c = jnp.asarray(problem.w), jnp.asarray(problem.c)

        def value(t: Any) -> Any:
            return problem.loss(loss, *self._solve(problem, t), w, c)

        compiled, seconds = compile_ahead(jax.value_and_grad(value), theta)
        return Gradient(
            call=lambda: compiled(theta),
            gradient=lambda out: np.asarray(out[1]),
            compile_seconds=seconds,
        )
