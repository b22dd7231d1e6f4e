"""Default tolerances and thresholds that depend on the dtype, each with its reason."""

import numpy as np

from jax_peig._core.types import DTypeLike


def eps(dtype: DTypeLike) -> float:
    """The spacing of numbers near one, in the real precision of ``dtype``."""
    return float(np.finfo(dtype).eps)


def residual(dtype: DTypeLike) -> float:
    """Relative residual of a converged pair, ||A x - lam M x|| <= tol (||A|| + |lam| ||M||) ||x||.

    It is eps^(2/3), 3.7e-11 in float64. An eigenvalue is then right to rounding, as its error is of
    second order, and an eigenvector to tol ||A|| / gap. The rounding of the residual itself, some
    10 eps, is well below.
    """
    return eps(dtype) ** (2 / 3)


def derivative(dtype: DTypeLike) -> float:
    """Relative residual of a derivative's linear systems.

    It is no tighter than the eigenvectors' own error justifies.
    """
    return residual(dtype)


def degeneracy(dtype: DTypeLike) -> float:
    """Relative distance below which two eigenvalues are one cluster: sqrt(eps).

    Division by a distance d amplifies the numerator's rounding by 1/d. If d is taken for zero
    instead, the relative error is d. Both errors are equal at sqrt(eps).
    """
    return eps(dtype) ** 0.5


def hermiticity(dtype: DTypeLike) -> float:
    """Estimate of ||A - A^H|| / ||A|| above which A is not taken for Hermitian: sqrt(eps).

    Rounding in a product and in the probe's inner products stays well below. A wrong sign or a
    missing conjugation is well above.
    """
    return eps(dtype) ** 0.5


def gauge(dtype: DTypeLike) -> float:
    """Relative size of a cotangent's gauge-dependent part below which it is taken for rounding.

    It is 10 sqrt(eps), 1.5e-7 in float64. A loss that does not depend on the gauge has no such part
    but for the rounding of its own evaluation. In a loss that does, the part is of order one.
    """
    return 10 * eps(dtype) ** 0.5


def rank(dtype: DTypeLike) -> float:
    """Relative eigenvalue of a scaled Gram matrix below which a direction is dropped.

    It is 100 eps. The rounding of a Gram matrix of unit columns is some eps times its order. A
    direction above 100 eps is orthogonal to a digit or more after one pass, and a second pass of
    the orthonormalisation restores full accuracy.
    """
    return 100 * eps(dtype)
