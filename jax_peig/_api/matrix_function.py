"""hermitian_function: h(R) of a small Hermitian matrix, differentiable where eigenvalues repeat.

With R = U diag(lam) U^H and N = U^H dR U (Daleckii and Krein 1965; Higham, Functions of Matrices,
2008, theorem 3.11 and section 3.2)

    h(R + dR) = U [diag(h(lam)) + D1 o N + sum_m D2_imj N_im N_mj + O(N^3)] U^H,
    D1_ij = h[lam_i, lam_j],     D2_imj = h[lam_i, lam_m, lam_j],

with divided differences, whose limits at equal arguments are h' and h''/2. JAX is given this
expansion itself: U and lam are constants, N has the value zero and the derivative of R. So all
mixed derivatives, up to the second in R and of any order in the values that h closes over, are
those of the formula. The separate derivatives lam', X' of Kasim (arXiv:2011.04366) miss the term h'
between two equal eigenvalues.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jax_peig._core import blocks, tolerances
from jax_peig._core.checks import TRACING_ERRORS, failure, is_array, kind_of
from jax_peig._core.linear_map import Arrays, LinearMap, MaybeArrays, bind
from jax_peig._core.sharding import replicated
from jax_peig._core.types import FLOATING, Array, ArrayLike, DTypeLike

# Nodes and weights of Gauss and Legendre on [0, 1].
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2
# Bounds the rounding of a difference h(x) - h(y), in units of eps max |h|.
DIFFERENCE_ROUNDING = 32

Scalar = Callable[[Array], Array]


def hermitian_function(h: Scalar, R: ArrayLike) -> Array:
    """Compute h(R) = U diag(h(lam)) U^H of a small Hermitian R = U diag(lam) U^H, differentiably.

    First and second derivatives in R are exact whatever eigenvalues repeat or nearly do, where
    those of ``jnp.linalg.eigh`` are NaN or lose all digits.

    Parameters
    ----------
    h : callable
        A JAX function from a real scalar to a real scalar, twice differentiable at the eigenvalues
        and between those that nearly meet. It may close over traced values; h(R) has derivatives
        of every order in these.
    R : (k, k)
        float32, float64, complex64 or complex128. The Hermitian part is taken. Batches go through
        ``jax.vmap``.

    Returns
    -------
    (k, k)
        Hermitian, of the dtype of R.

    Raises
    ------
    TypeError
        Where h is not callable or does not return a real scalar, or R has another dtype.
    ValueError
        Where R is not square.

    Differentiability
    -----------------
    * In: R, and what h closes over.
    * Modes: forward and reverse.
    * Orders: in R the first and the second; in what h closes over any.
    * Refused: NaN from the third in R on, and where h itself has no derivative.

    Notes
    -----
    The derivatives are those of the Daleckii-Krein formula with its limits. A divided difference
    h[x, y] is the integral of h' from x to y, by 12 points of Gauss and Legendre, where this agrees
    with the definition (h(x) - h(y))/(x - y) to the rounding of the latter's numerator, and where
    |x - y| is below sqrt(eps) max |lam|. Elsewhere it is the definition. The integral has no small
    denominator, and is exact to rounding where h is smooth over the distance. Second differences
    are convex combinations of two that have a double argument,

        h[x, y, z] = (y - x)/(z - x) h[x, y, y] + (z - y)/(z - x) h[y, y, z],    x <= y <= z,

    each computed in the same way. Third and higher derivatives in R are NaN, and so is a derivative
    that h does not have, such as that of the square root at zero. The cost is O(k^3) operations and
    memory, and about 12 k^2 evaluations of h' and h''.

    Examples
    --------
    The exponential of a matrix with a double eigenvalue, and its second derivative:

    >>> import jax, jax.numpy as jnp
    >>> from jax_peig import hermitian_function
    >>> R, E = jnp.diag(jnp.array([1.0, 1.0, 2.0])), jnp.ones((3, 3))
    >>> curvature = lambda exp: jax.hessian(lambda t: jnp.sum(exp(R + t * E)))(0.0)
    >>> ours = curvature(lambda R: hermitian_function(jnp.exp, R))
    >>> bool(jnp.allclose(ours, curvature(jax.scipy.linalg.expm), rtol=1e-5))
    True
    """
    return function_of("hermitian_function", h, R)


def function_of(caller: str, h: Scalar, R: ArrayLike) -> Array:
    """`hermitian_function`, with errors that carry the name of the public function called.

    Raises
    ------
    TypeError, ValueError
        As `hermitian_function`.
    """
    R = replicated(blocks.herm, _checked(caller, h, R))
    lam, u = blocks.eigh(jax.lax.stop_gradient(R))
    n = blocks.gram(u, R @ u)
    n = n - jax.lax.stop_gradient(n)
    values = jax.vmap(h)(lam)
    first = divided_differences(h, lam)
    second = second_divided_differences(h, lam, first)
    inside, unknown = _finite(first, n.dtype)
    image = jnp.diag(values).astype(n.dtype) + inside * n
    image = image + without_derivative(jnp.where(unknown, n, 0), 1)
    inside, unknown = _finite(second, n.dtype)
    image = image + jnp.einsum("imj,im,mj->ij", inside, n, n)
    # Differences are symmetric in their arguments: N_im and N_mj meet the same unknown differences.
    image = image + without_derivative(jnp.where(jnp.any(unknown, axis=2), n, 0), 2)
    image = image + without_derivative(n, 3)
    return u @ image @ u.conj().T


def divided_differences(h: Scalar, lam: Array) -> Array:
    """h[lam_i, lam_j], (k, k)."""
    values = jax.vmap(h)(lam)
    integral = _integral(jax.grad(h), lam, _WEIGHTS)
    tolerance = jnp.max(jnp.abs(values))
    found = _judged(lam, integral, values[None, :] - values[:, None], tolerance)
    return (found + found.T) / 2


def second_divided_differences(h: Scalar, lam: Array, first: Array) -> Array:
    """h[lam_i, lam_m, lam_j] for lam ascending, (k, k, k)."""
    slopes = jnp.diagonal(first)
    integral = _integral(jax.grad(jax.grad(h)), lam, _WEIGHTS * _NODES)
    distance = jnp.abs(lam[None, :] - lam[:, None])
    size = jnp.max(jnp.abs(jax.vmap(h)(lam)))
    tolerance = jnp.max(jnp.abs(first)) + size * blocks.reciprocal(distance)
    # At [x, y]: h[x, y, y].
    double = _judged(lam, integral, slopes[None, :] - first, tolerance)
    i, m, j = jnp.indices((lam.size,) * 3)
    low, high = jnp.minimum(jnp.minimum(i, m), j), jnp.maximum(jnp.maximum(i, m), j)
    middle = i + m + j - low - high
    reach = lam[high] - lam[low]
    share = jnp.where(reach > 0, (lam[middle] - lam[low]) / jnp.where(reach > 0, reach, 1), 0.5)
    return share * double[low, middle] + (1 - share) * double[high, middle]


def _integral(derivative: Scalar, lam: Array, weights: np.ndarray) -> Array:
    """The integral of weight(s) derivative(x + s (y - x)) over s in [0, 1], for all pairs."""
    x, y = lam[:, None], lam[None, :]
    nodes = jnp.asarray(_NODES, lam.dtype)[:, None, None]
    points = x[None] + nodes * (y - x)[None]
    found = jax.vmap(derivative)(points.reshape(-1)).reshape(points.shape)
    return jnp.tensordot(jnp.asarray(weights, lam.dtype), found, 1)


def mean_slope(h: Scalar, x: Array, y: Array) -> Array:
    """The divided difference h[x, y] of two scalars, as the mean of h' between them."""
    points = x + jnp.asarray(_NODES, x.dtype) * (y - x)
    return jnp.dot(jnp.asarray(_WEIGHTS, x.dtype), jax.vmap(jax.grad(h))(points))


def _judged(lam: Array, integral: Array, difference: Array, size: Array) -> Array:
    """The integral, or the difference over the distance, whichever is more accurate, (k, k)."""
    distance = lam[None, :] - lam[:, None]
    eps, scale = tolerances.eps(lam.dtype), jnp.max(jnp.abs(lam))
    close = jnp.abs(distance) <= tolerances.degeneracy(lam.dtype) * scale
    agree = jnp.abs(integral * distance - difference) <= DIFFERENCE_ROUNDING * eps * size
    quotient = difference / jnp.where(distance == 0, 1, distance)
    return jnp.where(close | agree, integral, quotient)


def _finite(differences: Array, dtype: DTypeLike) -> tuple[Array, Array]:
    """The differences with zero in place of those that are not finite, and a mask of the latter."""
    known = jnp.isfinite(differences)
    return jnp.where(known, differences, 0).astype(dtype), ~known


def without_derivative(n: Array, order: int) -> Array:
    """Zero, for n = 0, with derivatives in n that are zero below ``order`` and NaN at it."""
    (zero,) = bind(_Without(order + 1), [n], [n])
    return zero


@dataclasses.dataclass(frozen=True)
class _Without(LinearMap):
    """Zero; after ``level - 1`` derivatives along the residual, NaN where the input is not zero."""

    level: int

    def __call__(self, residuals: Arrays, inputs: MaybeArrays) -> Arrays:
        del residuals  # they count derivatives alone
        (n,) = inputs
        assert n is not None
        if self.level > 1:
            return [jnp.zeros_like(n)]
        return [jnp.where(n == 0, 0, jnp.nan).astype(n.dtype)]

    def transposed(self) -> "_Without":
        return self

    def residual_jvp(
        self, residuals: Arrays, tangents: MaybeArrays, inputs: MaybeArrays
    ) -> tuple[Arrays, Arrays]:
        slope = _Without(max(self.level - 1, 1))
        return bind(self, residuals, inputs), bind(slope, residuals, tangents)


def check_function(caller: str, h: Scalar) -> None:
    """Raise TypeError where h is no function."""
    if not callable(h):
        raise TypeError(f"{caller}: h is {h!r}; expected a function of one real scalar, then R.")


def _checked(caller: str, h: Scalar, R: ArrayLike) -> Array:
    check_function(caller, h)
    if not is_array(R) or str(R.dtype) not in FLOATING:
        raise TypeError(
            f"{caller}: R is of {kind_of(R)}; expected an array of {', '.join(FLOATING)}. "
            "Convert it, for example with jnp.asarray(R, float)."
        )
    if R.ndim != 2 or R.shape[0] != R.shape[1] or R.shape[0] == 0:
        raise ValueError(
            f"{caller}: R has shape {R.shape}; expected (k, k). Use jax.vmap for batches."
        )
    real = jnp.finfo(R.dtype).dtype
    try:  # a function of its own: JAX cannot take np.exp and the like, and may crash
        out = jax.eval_shape(lambda x: h(x), jax.ShapeDtypeStruct((), real))
    except TRACING_ERRORS as error:
        advice = "Expected a function of one real scalar; check h."
        raise TypeError(
            f"{caller}: h of a scalar {real} failed: {failure(error, advice)}"
        ) from error
    if getattr(out, "shape", None) != () or out.dtype != real:
        raise TypeError(
            f"{caller}: h of a scalar {real} returned {out}; expected a real scalar of "
            "the same dtype."
        )
    return jnp.asarray(R)
