"""Exact losses and gradients for the benchmark problems, in NumPy and SciPy alone.

With all pairs A x_p = lam_p M x_p, X^T M X = I, known, the sum over states gives

    dlam_j = x_j^T dA x_j
    dx_j   = sum_{p != j} x_p (x_p^T dA x_j) / (lam_j - lam_p)                    (dM = 0)

Inside the occupied set the terms (p, j) and (j, p) cancel in the density, so that for
L2 = sum_r c_r rho_r^2, with g_j = c o rho o x_j,

    dL2 = 4 sum_{j occupied} y_j^T dA x_j,     y_j = sum_{p free} x_p (x_p^T g_j) / (lam_j - lam_p)

No difference of two members of one cluster is ever divided by. For a diagonal dA the gradient is
4 sum_j x_j o y_j; for a symmetric one it is 2 sum_j (y_j x_j^T + x_j y_j^T).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .base import Problem


@dataclass(frozen=True)
class Reference:
    """Exact values of the losses and their gradients with respect to theta.

    Attributes
    ----------
    value : dict
        ``{"L1": float, "L2": float}``.
    gradient : dict
        ``{"L1": array, "L2": array}``, each of the shape of theta; symmetric for a matrix.
    """

    value: dict[str, float]
    gradient: dict[str, np.ndarray]


def reference(problem: Problem) -> Reference:
    """Exact L1 and L2 of a problem and their gradients, by the sum over all states."""
    k, lam, X = problem.k, problem.wanted[..., : problem.k], problem.vectors
    value = {name: float(problem.loss(name, lam, X, problem.w, problem.c)) for name in ("L1", "L2")}
    if problem.batched:
        pairs = [
            _gradients(problem, X[b], functools.partial(problem.resolvent, b))
            for b in range(len(X))
        ]
        gradient = {name: np.stack([pair[name] for pair in pairs]) for name in ("L1", "L2")}
    else:
        assert X.shape == (problem.n, k)
        gradient = _gradients(problem, X, problem.resolvent)
    return Reference(value, gradient)


def _gradients(
    problem: Problem, X: np.ndarray, resolvent: Callable[[int, np.ndarray], np.ndarray]
) -> dict[str, np.ndarray]:
    """Gradients of L1 and L2 for one matrix with exact eigenvectors X (n, k)."""
    Xo = X[:, : problem.occupied]  # (n, occupied)
    g = (problem.c * (Xo**2).sum(1))[:, None] * Xo
    Y = np.stack([resolvent(j, g[:, j]) for j in range(problem.occupied)], axis=1)
    if problem.potential:
        return {"L1": X**2 @ problem.w, "L2": 4.0 * (Xo * Y).sum(1)}
    half = 2.0 * Y @ Xo.T
    return {"L1": (X * problem.w) @ X.T, "L2": half + half.T}


def deflated_resolvent(
    matrix: Any,
    values: np.ndarray,
    vectors: np.ndarray,
    occupied: int,
    j: int,
    g: np.ndarray,
    tolerance: float = 1e-13,
) -> np.ndarray:
    """``sum_p x_p (x_p^T g) / (lam_j - lam_p)`` over p >= occupied, from some top pairs alone.

    The known pairs past `occupied` enter in closed form; the rest is the solution of
    ``P (lam_j - A) P y = P g``, positive definite because lam_j is above everything that P keeps.

    Parameters
    ----------
    matrix : SciPy sparse array
        A, symmetric, M = I.
    values, vectors : numpy.ndarray
        The leading pairs, to rounding: (d,) descending and (n, d).
    occupied : int
        Number of leading pairs left out of the sum.
    j : int
        Which occupied eigenvalue.
    g : numpy.ndarray
        Right-hand side, (n,).
    tolerance : float
        Of the linear solve, relative to ``||P g||``; the true residual is checked against ten
        times this.

    Returns
    -------
    numpy.ndarray
        (n,)
    """
    known, lam = vectors[:, occupied:], values[j]
    exact = known @ ((known.T @ g) / (lam - values[occupied:]))

    def project(x: np.ndarray) -> np.ndarray:
        return x - vectors @ (vectors.T @ x)

    def product(x: np.ndarray) -> np.ndarray:
        return project(lam * x - matrix @ x)

    right = project(project(g))
    rest, _ = projected_cg(product, right, tolerance)
    miss = np.linalg.norm(right - product(rest)) / np.linalg.norm(right)
    if miss > 10.0 * tolerance:
        raise RuntimeError(f"the reference solve stopped at a relative residual of {miss:.1e}")
    return exact + project(rest)


def projected_cg(
    product: Callable[[np.ndarray], np.ndarray],
    right: np.ndarray,
    tolerance: float,
    max_steps: int = 20_000,
) -> tuple[np.ndarray, int]:
    """Conjugate gradients for a positive definite product that keeps to the complement.

    Returns
    -------
    (numpy.ndarray, int)
        The solution and the number of products it took.
    """
    x, residual = np.zeros_like(right), right.copy()
    direction, square = residual.copy(), float(residual @ residual)
    goal = tolerance**2 * square
    steps = 0
    while square > goal and steps < max_steps:
        image = product(direction)
        steps += 1
        length = square / float(direction @ image)
        x += length * direction
        residual -= length * image
        square, last = float(residual @ residual), square
        direction = residual + (square / last) * direction
    return x, steps


def backward_products(problem: Problem, tolerance: float = 1e-8) -> int | None:
    """Products that deflated CG needs for the linear systems of L2's gradient.

    One system ``P^T (A - lam_j M) P y_j = P^T g_j`` for each occupied pair, projected with all k
    exact vectors in every step, to `tolerance`: what a backward pass is to be measured against.

    Returns
    -------
    int or None
        The total over the occupied pairs; None for a batched problem, where nobody iterates.
    """
    if problem.batched:
        return None
    X, lam = problem.vectors, problem.wanted
    MX = X if problem.mass is None else problem.mass @ X
    sign = 1.0 if problem.which == "smallest" else -1.0
    Xo = X[:, : problem.occupied]
    g = (problem.c * (Xo**2).sum(1))[:, None] * Xo
    total = 0
    for j in range(problem.occupied):

        def product(y: np.ndarray, j: int = j) -> np.ndarray:
            y = y - X @ (MX.T @ y)  # P y
            z = problem.matrix @ y
            z = z - lam[j] * (y if problem.mass is None else problem.mass @ y)
            return sign * (z - MX @ (X.T @ z))  # P^T z

        right = g[:, j] - MX @ (X.T @ g[:, j])
        total += projected_cg(product, right, tolerance)[1]
    return total
