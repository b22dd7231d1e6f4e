"""One interface for every solver that is compared, and the judge of what a solver returns.

The judge works with the SciPy matrices and the exact spectrum alone; it takes nothing from a
solver's own account of itself.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse.linalg as spla

from .base import Problem

Pairs = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Forward:
    """A prepared forward solve.

    Attributes
    ----------
    call : callable
        The thing to time; takes nothing.
    pairs : callable
        What `call` returned -> NumPy eigenvalues (k,) and eigenvectors (n, k), in any order;
        with the batch in front where the problem has one.
    products : callable or None
        What `call` returned -> number of products with A; or None when nobody counts.
    compile_seconds : float or None
        Compilation, or the set-up of a preconditioner, that `call` does not repeat.
    claim : callable or None
        What `call` returned -> whether the solver says that all pairs converged.
    method : callable or None
        What `call` returned -> the method that a solver with several chose.
    """

    call: Callable[[], Any]
    pairs: Callable[[Any], Pairs]
    matvecs: Callable[[Any], int] | None = None
    compile_seconds: float | None = None
    claim: Callable[[Any], bool] | None = None
    method: Callable[[Any], str] | None = None


@dataclass(frozen=True)
class Gradient:
    """A prepared value and gradient of a loss.

    Attributes
    ----------
    call : callable
        The thing to time; takes nothing.
    gradient : callable
        What `call` returned -> the gradient in NumPy, of the shape of theta.
    compile_seconds : float or None
        As in `Forward`.
    backward_products : callable or None
        Counts, in runs of its own, the products that the gradient adds to the forward solve.
    """

    call: Callable[[], Any]
    gradient: Callable[[Any], np.ndarray]
    compile_seconds: float | None = None
    backward_products: Callable[[], int] | None = None


class Solver:
    """A solver in the table; the methods below are what a peer overrides.

    Attributes
    ----------
    name : str
        Its row in the table.
    package : str
        The module that must be importable.
    differentiable : bool
        Whether it offers gradients at all.
    """

    name = ""
    package = ""
    differentiable = False

    def unavailable(self) -> str | None:
        """Why it cannot run here, or None."""
        if importlib.util.find_spec(self.package.partition(".")[0]) is None:
            return f"{self.package} is not installed"
        return None

    def unsuited(self, problem: Problem) -> str | None:
        """Why this problem is not for it, or None."""
        return None

    def slow(self, problem: Problem) -> bool:
        """Whether it takes so long here that it runs only when asked for."""
        return False

    def first_tolerance(self, problem: Problem, target: float) -> float:
        """The solver's own tolerance from which the search for the right one begins."""
        return target

    def forward(self, problem: Problem, tol: float, start: int) -> Forward:
        """Prepare a forward solve from the start-th starting vector."""
        raise NotImplementedError

    def value_and_grad(self, problem: Problem, loss: str, tol: float, start: int) -> Gradient:
        """Prepare the value and gradient of ``"L1"`` or ``"L2"``."""
        raise NotImplementedError


def starting_block(problem: Problem, columns: int, start: int) -> np.ndarray:
    """The start-th reproducible random block, (n, columns)."""
    return np.random.default_rng(1000 + start).standard_normal((problem.n, columns))


class Counter:
    """Counts products with single vectors that SciPy-like solvers ask of a matrix."""

    def __init__(self, matrix: Any) -> None:
        self.count = 0
        self.matrix = matrix

        def product(x: np.ndarray) -> np.ndarray:
            self.count += 1 if x.ndim == 1 else x.shape[1]
            return matrix @ x

        self.operator = spla.LinearOperator(
            matrix.shape, matvec=product, matmat=product, dtype=np.float64
        )


@dataclass(frozen=True)
class Judgement:
    """How good computed pairs really are.

    Attributes
    ----------
    residual : float
        max_j ||A x_j - lam_j M x_j|| / (||A|| ||x_j||), with the exact ||A||.
    right : bool
        Whether these are the wanted pairs, every copy of a repeated one included.
    eigenvalue_error : float
        max_j |lam_j - exact_j| over the largest |exact|.
    orthonormality : float
        max |X^H M X - I|, the columns first normalised.
    """

    residual: float
    right: bool
    eigenvalue_error: float
    orthonormality: float


def judge(problem: Problem, lam: np.ndarray, X: np.ndarray) -> Judgement:
    """Measure computed pairs against the SciPy matrices and the exact spectrum."""
    lam, X = np.asarray(lam), np.asarray(X)
    if problem.batched:
        every = [
            _judge(problem, lam[b], X[b], problem.matrix[b], problem.wanted[b])
            for b in range(len(lam))
        ]
        return Judgement(
            residual=max(one.residual for one in every),
            right=all(one.right for one in every),
            eigenvalue_error=max(one.eigenvalue_error for one in every),
            orthonormality=max(one.orthonormality for one in every),
        )
    return _judge(problem, lam, X, problem.matrix, problem.wanted)


def _judge(
    problem: Problem, lam: np.ndarray, X: np.ndarray, matrix: Any, wanted: np.ndarray
) -> Judgement:
    k = problem.k
    if lam.shape != (k,) or X.shape != (problem.n, k) or not np.isfinite(X).all():
        return Judgement(float("nan"), False, float("nan"), float("nan"))
    order = np.argsort(lam)[:: 1 if problem.which == "smallest" else -1]
    lam, X = lam[order], X[:, order]
    MX = X if problem.mass is None else problem.mass @ X
    residual = np.linalg.norm(matrix @ X - MX * lam, axis=0) / np.linalg.norm(X, axis=0)
    length = np.sqrt(np.einsum("ij,ij->j", X, MX))
    off = np.abs((X / length).T @ (MX / length) - np.eye(k)).max()
    # Right: each in its own place to a quarter of the distance to any other exact eigenvalue,
    # and independent of the rest, so that no copy is counted twice.
    exact, miss = wanted[:k], np.abs(lam - wanted[:k])
    distance = np.abs(exact[:, None] - wanted[None, :])
    distance[distance < 1e-9 * np.abs(exact).max()] = np.inf
    right = bool(np.all(miss < 0.25 * distance.min(1)) and off < 1e-3)
    return Judgement(
        residual=float(residual.max() / problem.norm),
        right=right,
        eigenvalue_error=float(miss.max() / np.abs(exact).max()),
        orthonormality=float(off),
    )


def gradient_error(problem: Problem, loss: str, gradient: np.ndarray) -> float:
    """Relative error ||g - exact|| / ||exact||, a matrix gradient symmetrised first; or NaN."""
    gradient = np.asarray(gradient)
    if not np.isfinite(gradient).all():
        return float("nan")
    if not problem.potential:
        gradient = (gradient + np.swapaxes(gradient, -1, -2)) / 2.0
    exact = problem.exact.gradient[loss]
    return float(np.linalg.norm(gradient - exact) / np.linalg.norm(exact))
