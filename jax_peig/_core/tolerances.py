"""Every default tolerance and threshold, a function of dtype, each with its reason."""

import numpy as np

from jax_peig._core.types import DTypeLike


def eps(dtype: DTypeLike) -> float:
    """The spacing of numbers near one, in the real precision of ``dtype``."""
    return float(np.finfo(dtype).eps)


def residual(dtype: DTypeLike) -> float:
    """Relative residual of a converged pair, ||A x - lam M x|| <= tol (||A|| + |lam| ||M||) ||x||.

    eps^(2/3), 3.7e-11 in float64: an eigenvalue is then right to rounding (its error is of second
    order), an eigenvector to tol ||A|| / gap, and rounding (some 10 eps) is out of the way.
    """
    return eps(dtype) ** (2 / 3)


def derivative(dtype: DTypeLike) -> float:
    """Relative residual of a derivative's linear systems: as far as the eigenvectors deserve."""
    return residual(dtype)


def degeneracy(dtype: DTypeLike) -> float:
    """Relative distance below which two eigenvalues are one cluster: sqrt(eps).

    Dividing by a distance d amplifies the rounding of a numerator by 1/d, taking d for zero makes
    an error of relative size d: the two meet at sqrt(eps).
    """
    return eps(dtype) ** 0.5


def hermiticity(dtype: DTypeLike) -> float:
    """Estimate of ||A - A^H|| / ||A|| above which A is not taken for Hermitian: sqrt(eps).

    Rounding in a product and in the probe's inner products stays well below, a wrong sign or a
    missing conjugation well above.
    """
    return eps(dtype) ** 0.5


def gauge(dtype: DTypeLike) -> float:
    """Relative size of a gauge-dependent part of a cotangent that is still taken for rounding.

    10 sqrt(eps), 1.5e-7 in float64. A loss that does not depend on the gauge gives a part that is
    zero but for the rounding of its own evaluation; one that does gives a part of order one.
    """
    return 10 * eps(dtype) ** 0.5


def rank(dtype: DTypeLike) -> float:
    """Relative eigenvalue of a scaled Gram matrix below which a direction is dropped.

    A Gram matrix of unit columns carries rounding of some eps times its order; above 100 eps a
    second pass of the orthonormalisation restores full accuracy.
    """
    return 100 * eps(dtype)
