"""Bounds on eigenvalues: Weyl's, Kato and Temple's, and interlacing.

They bound the eigenvalues of a Hermitian matrix that is known only through another matrix, or
through computed pairs. They are JAX functions of eigenvalues and work under ``jit`` and ``vmap``.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jax_peig._core.checks import integer, is_array, kind_of
from jax_peig._core.types import Array, ArrayLike


class Interval(NamedTuple):
    """Lower and upper bounds, entry by entry.

    Attributes
    ----------
    lower, upper : (k,) real
        An eigenvalue is at least ``lower`` and at most ``upper``. They are -inf and inf where
        nothing is known.
    """

    lower: Array
    upper: Array


def weyl_bounds(w: ArrayLike, error: ArrayLike | float) -> Interval:
    """Enclose the eigenvalues of A + E, given those of A: |lam_i(A + E) - lam_i(A)| <= ||E||_2.

    This is Weyl's inequality lam_{i+j-1}(A + E) <= lam_i(A) + lam_j(E), in descending order, with
    j = 1, and the same for -E. It holds for singular values too. The eigenvalues may be all or
    some, in any order that is the same for A and A + E.

    Parameters
    ----------
    w : (..., k) real
        Eigenvalues of A.
    error : real, (), or (..., k) or such that it broadcasts
        The norm of E, or a bound of it. For the pairs of an eigensolver give
        ``info.error_bounds``: w and x are an exact pair of A + E with
        ||E|| = ||A x - w x|| / ||x||, so that an eigenvalue of A lies within this distance of w.

    Returns
    -------
    Interval
        ``lower`` = w - error, ``upper`` = w + error.

    Raises
    ------
    TypeError
        Where w or error is not real and floating.
    ValueError
        Where their shapes do not match.

    Differentiability
    -----------------
    * In: w and ``error``.
    * Modes: forward and reverse.
    * Orders: any; it is linear.
    * Refused: never.

    References
    ----------
    H. Weyl, Math. Ann. 71 (1912); Strang, lecture 16 of 18.065; Horn and Johnson, Matrix Analysis
    (2013), theorem 4.3.1.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig import bounds, partial_eigh
    >>> w = partial_eigh(jnp.diag(jnp.array([1.0, 2.0, 4.0])), k=2).eigenvalues
    >>> [round(float(x), 2) for x in bounds.weyl_bounds(w, 0.5).upper]
    [1.5, 2.5]
    """
    w = _real("weyl_bounds", "w", w)
    error = _real("weyl_bounds", "error", error).astype(w.dtype)
    _matching("weyl_bounds", w, "error", error)
    error = jnp.broadcast_to(error, w.shape)
    return Interval(w - error, w + error)


def interlacing(w: ArrayLike, rank: int = 1, *, positive: bool = True) -> Interval:
    """Enclose the eigenvalues of A + E, E positive (or negative) semidefinite of a given rank.

    With lam ascending, lam_i(A) <= lam_i(A + E) <= lam_{i+rank}(A); for rank one the eigenvalues of
    A + E and A interlace: none passes the next.

    Parameters
    ----------
    w : (..., k) real
        Eigenvalues of A: the k smallest, ascending (all of them, too), or the k largest,
        descending, as `partial_eigh` returns them.
    rank : int
        The rank of E, or a bound of it.
    positive : bool
        Whether E is positive semidefinite. With False it is negative semidefinite.

    Returns
    -------
    Interval
        Bounds of the same eigenvalues of A + E, (..., k). A bound that would be an eigenvalue
        beyond the k is infinite.

    Raises
    ------
    TypeError
        Where w is not real and floating, or ``rank`` or ``positive`` of another type.
    ValueError
        Where ``rank`` is negative.

    Differentiability
    -----------------
    * In: w.
    * Modes: forward and reverse.
    * Orders: any; it is linear. The derivative of an infinite bound is zero.
    * Refused: never.

    Notes
    -----
    The order of w is seen from its first and last entries. Sort the eigenvalues of the updated
    matrix again: A + theta x_2 x_2^H moves the eigenvalue of x_2 by theta, which for a large theta
    is past its neighbour, and then they are bounded in their new order (Strang, lecture 16).

    References
    ----------
    Golub and Van Loan, Matrix Computations (2013), theorem 8.1.8; from Weyl's inequality with
    lam_{rank+1}(E) = 0.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig import bounds
    >>> found = bounds.interlacing(jnp.array([1.0, 2.0, 4.0]))
    >>> [float(x) for x in found.upper]
    [2.0, 4.0, inf]
    """
    w = _real("interlacing", "w", w)
    rank = integer(rank, "interlacing: rank")
    if rank < 0:
        raise ValueError(f"interlacing: rank is {rank}; expected zero or more.")
    if not isinstance(positive, bool):
        raise TypeError(f"interlacing: positive is {positive!r}; expected True or False.")
    if w.ndim == 0:
        raise ValueError("interlacing: w is a scalar; expected (..., k).")
    descending = w[..., :1] > w[..., -1:]

    def moved(fill: float, towards_end: bool) -> Array:
        """Return w moved by ``rank`` places, with ``fill`` beyond the k."""
        count = min(rank, w.shape[-1])
        outside = jnp.full((*w.shape[:-1], count), fill, w.dtype)
        if towards_end:
            return jnp.concatenate([w[..., count:], outside], axis=-1)
        return jnp.concatenate([outside, w[..., : w.shape[-1] - count]], axis=-1)

    # In descending order the next larger eigenvalue stands before.
    if positive:
        upper = jnp.where(descending, moved(jnp.inf, False), moved(jnp.inf, True))
        return Interval(w, upper)
    lower = jnp.where(descending, moved(-jnp.inf, True), moved(-jnp.inf, False))
    return Interval(lower, w)


def kato_temple(w: ArrayLike, residual: ArrayLike, gap: ArrayLike) -> Array:
    """Bound the error of a Rayleigh quotient: |lam - w| <= residual^2 / gap.

    The bound is of second order in the residual, and needs a gap. Weyl's is of first order.

    Parameters
    ----------
    w : (..., k) real
        Rayleigh quotients x^H A x / x^H M x, as `partial_eigh` returns them.
    residual : (..., k) real
        Norms ||A x - w M x|| of unit vectors, in the norm of M^{-1} with M; or
        ``info.error_bounds``.
    gap : (..., k) real or scalar
        Lower bounds of the distances from w to all eigenvalues but the approximated one.

    Returns
    -------
    (..., k)
        Bounds of the error, the smaller of residual^2 / gap and Weyl's bound ``residual``; the
        latter where the gap is not positive.

    Raises
    ------
    TypeError
        Where an argument is not real and floating.
    ValueError
        Where their shapes do not match.

    Differentiability
    -----------------
    * In: ``residual`` and ``gap``. The derivative in w is zero.
    * Modes: forward and reverse.
    * Orders: any, but for the kink at residual = gap, where ``jnp.minimum`` decides.
    * Refused: never.

    Notes
    -----
    ``info.error_estimates`` uses the gap to the eigenvalues beyond the block that was iterated. The
    values of the block show that gap only roughly, so that the result is an estimate.

    References
    ----------
    Kato (1949) and Temple (1928); Parlett, The Symmetric Eigenvalue Problem (1998), theorem 11.7.1.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig import bounds
    >>> found = bounds.kato_temple(jnp.array([1.0]), jnp.array([1e-3]), jnp.array([0.5]))
    >>> round(float(found[0]), 9)
    2e-06
    """
    w = _real("kato_temple", "w", w)
    residual = _real("kato_temple", "residual", residual).astype(w.dtype)
    gap = _real("kato_temple", "gap", gap).astype(w.dtype)
    _matching("kato_temple", w, "residual", residual)
    _matching("kato_temple", w, "gap", gap)
    return jnp.minimum(second_order(residual, gap), residual) + jnp.zeros_like(w)


def second_order(residual: Array, gap: Array) -> Array:
    """residual^2 / gap, or inf where the gap is zero or unknown."""
    known = (gap > 0) & jnp.isfinite(gap)
    return jnp.where(known, residual * (residual / jnp.where(known, gap, 1)), jnp.inf)


def _real(name: str, what: str, x: Any) -> Array:
    if isinstance(x, (int, float)) and not isinstance(x, bool):
        return jnp.asarray(x, float)
    if not is_array(x) or not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{name}: {what} is of {kind_of(x)}; expected real floating numbers. Convert it, for "
            f"example with jnp.asarray({what}, float)."
        )
    return jnp.asarray(x)


def _matching(name: str, w: Array, what: str, other: Array) -> None:
    if other.shape not in ((), w.shape):
        raise ValueError(
            f"{name}: w has shape {w.shape} and {what} {other.shape}; expected equal ones, or a "
            f"scalar {what}."
        )
