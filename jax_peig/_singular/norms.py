"""Ky Fan and nuclear norms, and the proximal map of the latter: singular value thresholding."""

import dataclasses
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from jax_peig._api.eigh import partial_eigh
from jax_peig._api.keywords import SVDOptions, passes_on
from jax_peig._api.matrix_function import hermitian_function, without_derivative
from jax_peig._core import blocks, display
from jax_peig._core.checks import is_array
from jax_peig._core.results import Info
from jax_peig._core.status import Status
from jax_peig._core.types import Array, ArrayLike, DTypeLike, OperatorLike
from jax_peig._derivatives.rules import SpaceRule
from jax_peig._eigensolvers.choose import METHODS
from jax_peig._singular.dilation import Rectangular, halves, rectangular
from jax_peig._singular.svd import Triplets, or_nan, triplets

# The part of the gap to the next singular value that an iteration vouches for: that value did not
# have to converge.
KNOWN_GAP = 0.9


class NuclearNorm(NamedTuple):
    """The sum of the largest singular values, as `nuclear_norm` returns it.

    Attributes
    ----------
    norm : scalar, real
        The sum of the computed singular values; NaN where they did not converge.
    left_out : scalar, real
        A bound on the sum of the others, zero where all were computed. It has no derivative.
    info : Info
        How good the singular values are, see `PartialSVD`.
    """

    norm: Array
    left_out: Array
    info: Info

    def __repr__(self) -> str:
        return display.scalars(self, norm=self.norm, left_out=self.left_out)


class Thresholded(NamedTuple):
    """A matrix with its singular values shrunk, as `singular_value_threshold` returns it.

    Attributes
    ----------
    X : (m, n)
        U max(S - t, 0) V^H; NaN where ``covered`` is False, where t is negative, and where the
        singular values did not converge.
    covered : bool
        Whether k covers all singular values above t: the next one is not above t.
    info : Info
        How good the singular values are, see `PartialSVD`; ``status`` is K_TOO_SMALL where they
        converged and ``covered`` is False.
    """

    X: Array
    covered: Array
    info: Info

    def __repr__(self) -> str:
        return display.scalars(self, covered=self.covered)


@passes_on(SVDOptions, like=partial_eigh)
def ky_fan_norm(
    A: OperatorLike,
    k: int,
    *,
    shape: tuple[int, int] | None = None,
    dtype: DTypeLike = None,
    **options: Unpack[SVDOptions],
) -> Array:
    """Compute the sum of the k largest singular values.

    Parameters
    ----------
    A : operator
        As in `partial_svd`.
    k : int
        The number of singular values; 1 gives the spectral norm, whose subgradient is u v^H of one
        computed pair where the largest value repeats.
    shape : (int, int), optional
        (m, n); needed where A does not tell it.
    dtype : optional
        As in `partial_svd`.
    **options
        As in `partial_svd`.

    Returns
    -------
    scalar, real
        NaN where the singular values did not converge.

    Raises
    ------
    TypeError, ValueError
        As `partial_svd`.

    Differentiability
    -----------------
    * In: all that A holds or closes over.
    * Modes: forward and reverse.
    * Orders: any, as in `partial_eigh`; at a kink the first, which is one subgradient.
    * Refused: NaN for the second derivative at a kink, and where the singular values did not
      converge.

    Notes
    -----
    The gradient is U V^H of the k triplets, from s' = Re(u^H A' v), and solves no linear system.
    The norm has a kink where k cuts a repeated singular value, or where one of the k is zero. There
    U V^H, without the vectors of zero singular values, is a subgradient, and the second derivative
    is NaN.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from jax_peig import ky_fan_norm
    >>> A = jnp.array([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 1.0]])
    >>> round(float(ky_fan_norm(A, 2)), 4)
    6.0
    >>> [[round(abs(float(x)), 4) for x in row] for row in jax.grad(ky_fan_norm)(A, 2)]
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    return _sum(triplets(rectangular("ky_fan_norm", A, shape, dtype), k, options))


@passes_on(SVDOptions, like=partial_eigh)
def nuclear_norm(
    A: OperatorLike,
    rank: int | None = None,
    *,
    shape: tuple[int, int] | None = None,
    dtype: DTypeLike = None,
    **options: Unpack[SVDOptions],
) -> NuclearNorm:
    """Compute the sum of all singular values, or of as many as a low-rank A has.

    Parameters
    ----------
    A : operator
        As in `partial_svd`.
    rank : int, optional
        The number of singular values to compute. Default: all, min(m, n).
    shape : (int, int), optional
        (m, n); needed where A does not tell it.
    dtype : optional
        As in `partial_svd`.
    **options
        As in `partial_svd`.

    Returns
    -------
    NuclearNorm
        ``norm``, differentiable as `ky_fan_norm` is, with gradient U V^H; ``left_out``, a bound on
        what the other singular values add; ``info``.

    Raises
    ------
    TypeError, ValueError
        As `partial_svd`.

    Differentiability
    -----------------
    * In: ``norm`` in all that A holds or closes over. The derivative of ``left_out`` is zero.
    * Modes: forward and reverse.
    * Orders: any, as in `partial_eigh`; at a kink the first, which is one subgradient.
    * Refused: NaN for the second derivative at a kink, and where the singular values did not
      converge.

    Notes
    -----
    With p = min(m, n) and r = ``rank``, each singular value that is left out is at most s_r and its
    error bound (Weyl), so that left_out = (p - r) (s_r + bound). Of an array the Frobenius norm is
    known too: left_out = sqrt((p - r) (||A||_F^2 - sum s_i^2)), with the rounding of that
    difference. The smaller of the two is returned. The cost is that of a `partial_svd` of rank r;
    a gradient adds one reverse pass through A V.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from jax_peig import nuclear_norm
    >>> A = jnp.outer(jnp.array([3.0, 4.0]), jnp.array([0.0, 1.0, 0.0]))  # of rank one
    >>> round(float(nuclear_norm(A).norm), 4)
    5.0
    >>> g = jax.grad(lambda A: nuclear_norm(A).norm)(A)
    >>> [[round(abs(float(x)), 4) for x in row] for row in g]
    [[0.0, 0.6, 0.0], [0.0, 0.8, 0.0]]
    """
    given = rectangular("nuclear_norm", A, shape, dtype)
    found = triplets(given, rank, options, what="rank")
    s, norm = jax.lax.stop_gradient(found.s), _sum(found)
    count = min(found.m, found.x.shape[0] - found.m) - s.shape[0]
    if count == 0:
        return NuclearNorm(norm, jnp.zeros_like(norm), found.info)
    left_out = count * (s[-1] + found.info.error_bounds[-1])
    if given.dilation.kind == "array":
        entries = jax.lax.stop_gradient(given.dilation.a)
        total, own = jnp.sum(jnp.abs(entries) ** 2), jnp.sum(s**2)
        rounding = entries.size * jnp.finfo(s.dtype).eps * total
        left_out = jnp.minimum(
            left_out, jnp.sqrt(count * (jnp.maximum(total - own, 0) + rounding)).astype(s.dtype)
        )
    return NuclearNorm(norm, left_out, found.info)


@passes_on(SVDOptions, like=partial_eigh)
def singular_value_threshold(
    A: OperatorLike,
    t: ArrayLike | float,
    k: int,
    *,
    shape: tuple[int, int] | None = None,
    dtype: DTypeLike = None,
    **options: Unpack[SVDOptions],
) -> Thresholded:
    """Compute U max(S - t, 0) V^H, the proximal map of t times the nuclear norm.

    It is the X that minimises ||X - A||_F^2 / 2 + t ||X||_*.

    Parameters
    ----------
    A : operator
        As in `partial_svd`.
    t : real scalar
        The threshold, not negative; may be traced and differentiated.
    k : int
        The number of singular values to compute; they have to cover all that are above t.
    shape : (int, int), optional
        (m, n); needed where A does not tell it.
    dtype : optional
        As in `partial_svd`.
    **options
        As in `partial_svd`.

    Returns
    -------
    Thresholded
        ``X`` (m, n); ``covered``, whether the k singular values cover all above t; ``info``. Where
        they do not, X is NaN and ``info.status`` is K_TOO_SMALL, which ``info.raise_if_failed()``
        raises.

    Raises
    ------
    TypeError, ValueError
        As `partial_svd`; for a t that is no real scalar, or a negative number. A traced negative t
        makes X NaN.

    Differentiability
    -----------------
    * In: all that A holds or closes over, and t.
    * Modes: forward and reverse.
    * Orders: the first and the second.
    * Refused: NaN where k is too small or t negative, where the triplets or the linear systems did
      not converge, for second derivatives where k cuts a cluster below t, and from the third in A
      on. At t = 0 see the notes.

    Notes
    -----
    X is an odd spectral function of the dilation: 2 P h(R) Q^H with h(s) = max(s - t, 0) and [P; Q]
    a basis of its k largest pairs, see `eigenspace` and `hermitian_function` (Daleckii-Krein).
    First and second derivatives, in A and t, are exact at repeated singular values. At s = t > 0
    the map has a kink, where ``jnp.maximum`` decides. k may cut a cluster of singular values below
    t; second derivatives are then NaN. Beyond the cost of `partial_svd`, X takes 2 m n k
    operations, and a gradient solves k linear systems with the dilation.

    At t = 0 the map is the identity, and so is its derivative in A, at singular values that are
    zero too. For an A that is a function this takes n matvecs where k = min(m, n). For a smaller k
    the triplets of a function do not determine that derivative, and it is NaN. The derivative in t
    at 0 is the one-sided one, -U_r V_r^H of the positive singular values. It has itself a
    derivative in A where all min(m, n) singular values are computed and positive, else NaN. The
    second derivative in A is zero; for a traced t it may be NaN where singular values are zero.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from jax_peig import singular_value_threshold
    >>> A = jnp.array([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 1.0]])
    >>> X, covered, info = singular_value_threshold(A, 2.0, k=2)
    >>> [[round(abs(float(x)), 4) for x in row] for row in X]
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    >>> g = jax.grad(lambda t: jnp.sum(singular_value_threshold(A, t, k=3).X))(2.0)
    >>> round(float(g), 4)
    -2.0
    """
    _check_threshold(t)
    given = rectangular("singular_value_threshold", A, shape, dtype)
    found = triplets(given, k, options, SpaceRule)
    s = jax.lax.stop_gradient(jnp.diagonal(found.s).real)
    m, n = given.dilation.shape
    converged = found.info.status == Status.CONVERGED
    known = 1.0 if METHODS[found.info.method].finds_all else KNOWN_GAP
    level = jnp.asarray(t).astype(s.dtype)
    covered = jnp.array(True) if k == min(m, n) else s[-1] - known * found.info.gap <= level
    image = _thresholded(found, level)
    if isinstance(t, jax.core.Tracer):
        image = jnp.where(level == 0, _at_zero(given, found, image, level), image)
    elif t == 0:
        image = _at_zero(given, found, image, level)
    status = jnp.where(converged & ~covered, int(Status.K_TOO_SMALL), found.info.status)
    info = dataclasses.replace(found.info, status=status.astype(found.info.status.dtype))
    return Thresholded(or_nan(covered & (level >= 0) & converged, image), covered, info)


def _check_threshold(t: Any) -> None:
    number = isinstance(t, (int, float, np.floating))
    if not (number or is_array(t)) or jnp.shape(t) != () or jnp.iscomplexobj(t):
        raise TypeError(f"singular_value_threshold: t is {t!r}; expected a real scalar.")
    if number and t < 0:
        raise ValueError(f"singular_value_threshold: t is {t}; expected zero or more.")


def _thresholded(found: Triplets, t: Array) -> Array:
    """U max(S - t, 0) V^H, with its derivatives for t > 0."""
    x, info = found.x, found.info
    s = jax.lax.stop_gradient(jnp.diagonal(found.s).real)
    # A cluster below t that k cuts has no weight, and no derivative of first order.
    idle = info.cut & (info.clusters == info.clusters[-1]) & (s <= t)
    still = jax.lax.stop_gradient(x)
    moved = without_derivative(jnp.where(idle[None, :], x - still, 0), 2)
    u, v = halves(jnp.where(idle[None, :], still + moved, x), found.m)
    return u @ hermitian_function(lambda w: jnp.maximum(w - t, 0), found.s) @ v.conj().T


def _at_zero(given: Rectangular, found: Triplets, image: Array, t: Array) -> Array:
    """``image``, the value at t = 0, with its derivatives there.

    The map is the identity in A, whatever the triplets know, and its slope in t >= 0 is
    -U_r V_r^H, r the positive singular values. The triplets know the derivative of the slope where
    they are all and positive; elsewhere it has none, as the rank may rise.
    """
    (m, n), dtype = given.dilation.shape, found.x.dtype
    u, v = halves(found.x, found.m)
    slope = -(u * jnp.where(found.zero, 0, 1).astype(dtype)[None, :]) @ v.conj().T
    whole = found.zero.shape[0] == min(m, n)
    if given.dilation.kind == "array":
        matrix = given.dilation.a
    elif whole or given.explicit:
        matrix = given.dilation.forward(jnp.eye(n, dtype=dtype))
    else:  # a product alone does not tell what lies outside of the k triplets
        column = given.dilation.forward(blocks.random_block(jax.random.key(0), n, 1, dtype))
        matrix = jnp.broadcast_to(_unknown(column), (m, n))
    smooth = jnp.all(~found.zero) if whole else jnp.array(False)
    slope = jnp.where(smooth, slope, jax.lax.stop_gradient(slope) + _unknown(matrix))
    return _with_slopes(jax.lax.stop_gradient(image), matrix, t, slope)


def _unknown(x: Array) -> Array:
    """A scalar zero, whose derivative is NaN wherever any entry of x moves."""
    return jnp.sum(without_derivative(x - jax.lax.stop_gradient(x), 1))


@jax.custom_jvp
def _with_slopes(image: Array, matrix: Array, t: Array, slope: Array) -> Array:
    """``image``, with the derivative of ``matrix`` and ``slope`` as that in t."""
    del matrix, t, slope
    return image


def _with_slopes_jvp(primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    image, _, _, slope = primals
    _, matrix_dot, t_dot, _ = tangents
    moved = jnp.zeros_like(image)
    if type(matrix_dot) is not SymbolicZero:
        moved = moved + matrix_dot
    if type(t_dot) is not SymbolicZero:
        moved = moved + t_dot.astype(slope.dtype) * slope
    return image, moved


_with_slopes.defjvp(_with_slopes_jvp, symbolic_zeros=True)


def _sum(found: Triplets) -> Array:
    """The sum of s; of a zero one the first derivative is zero, and the second NaN."""
    s, still = found.s, jax.lax.stop_gradient(found.s)
    moved = without_derivative(jnp.where(found.zero, s - still, 0), 2)
    total = jnp.sum(jnp.where(found.zero, still + moved, s))
    return or_nan(found.info.status == Status.CONVERGED, total)
