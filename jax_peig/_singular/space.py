"""singular_space: the k largest singular triplets as one object, whatever repeats among them.

With X = [U; V]/sqrt(2), X^H X = I, the k largest eigenpairs of H = [[0, A], [A^H, 0]] have

    S = X^H H X = herm(U^H A V),   U S V^H = 2 [X S X^H]_12,   U h(S) V^H = 2 [X h(S) X^H]_12,

which X -> X Q, S -> Q^H S Q leaves as they are. The rule of the whole space gives their
derivatives, and divides by s_k - s_{k+1} alone.
"""

from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp

from jax_peig._api.eigh import partial_eigh
from jax_peig._api.keywords import SVDOptions, passes_on
from jax_peig._api.matrix_function import (
    Scalar,
    check_function,
    function_of,
    without_derivative,
)
from jax_peig._core import display
from jax_peig._core.results import Info, SingularSpace
from jax_peig._core.status import Status
from jax_peig._core.types import Array, DTypeLike, OperatorLike
from jax_peig._derivatives.rules import SingularSpaceRule, with_value
from jax_peig._singular.dilation import Rectangular, halves, rectangular
from jax_peig._singular.odd_function import odd_function
from jax_peig._singular.svd import or_nan, triplets


class LowRank(NamedTuple):
    """A matrix of rank k at most, as `low_rank` returns it.

    Attributes
    ----------
    X : (m, n)
        U h(S) V^H; NaN where the singular values did not converge.
    info : Info
        As in `SingularSpace`.
    """

    X: Array
    info: Info

    def __repr__(self) -> str:
        return display.scalars(self)


@passes_on(SVDOptions, like=partial_eigh)
def singular_space(
    A: OperatorLike,
    k: int,
    *,
    shape: tuple[int, int] | None = None,
    dtype: DTypeLike = None,
    **options: Unpack[SVDOptions],
) -> SingularSpace:
    """Compute the space of the k largest singular triplets, differentiably as a whole.

    ``U S V^H`` is the best approximation of A of rank k. All k triplets are one cluster: a loss
    that U -> U Q, S -> Q^H S Q, V -> V Q leaves unchanged for every unitary Q has exact first and
    second derivatives, whatever singular values repeat among the k. Such are `low_rank`,
    `singular_apply` and `singular_sum`, and ``left @ hermitian_function(h, core) @ right^H``.

    Parameters
    ----------
    A : operator
        As in `partial_svd`.
    k : int
        The dimension of the space, up to min(m, n).
    shape : (int, int), optional
        (m, n); needed where A does not tell it.
    dtype : optional
        As in `partial_svd`.
    **options
        As in `partial_svd`.

    Returns
    -------
    SingularSpace
        ``left`` U (m, k), ``core`` S (k, k), ``right`` V (n, k), ``info``. Computed, S is diagonal,
        in descending order; its derivative is full.

    Raises
    ------
    TypeError, ValueError
        As `partial_svd`.

    Differentiability
    -----------------
    * In: all that A holds or closes over.
    * Modes: forward and reverse.
    * Orders: the first and the second, whatever repeats among the k.
    * Refused: NaN for a loss that a rotation of the space changes, for one that uses U or V where
      ``info.cut``, for a second derivative there, and where the triplets or the linear systems did
      not converge.

    Notes
    -----
    With H the dilation, X = [U; V]/sqrt(2) and G = herm(X^H H' X) (eqs 2.3-2.6 of Kasim,
    arXiv:2011.04366, corrected, with every pair in one cluster)

        S' = G,    X' = Z,    P (H Z - Z S) = -P H' X,    P = I - X X^H.

    X^H X' = 0 couples the halves, U^H U' = -V^H V': neither is in a gauge of its own. A gradient
    costs one solve of k linear systems with products of A and A^H.

    *How small the gap may be.* The derivative has the relative error bound / (s_k - s_{k+1}), with
    the bounds in ``info.error_bounds``. ``info.cut`` is True where the gap is below 100 times the
    sum of both bounds, so that a derivative that is returned is right to 1 %; with the dense method
    it was ten times better wherever it was measured. There the least gap is about 1e-12 s_1, far
    below the width of a cluster, sqrt(eps) s_1: the spectrum 1, 0.1, 1e-9, 1e-10 has a derivative
    at k = 3. "lobpcg" and "davidson" come as far with a smaller ``tol``. `derivative_report` names
    the largest smaller k that has a derivative.

    *Zeros.* Where s_k = 0, U and V have no derivative. Of the truncation `low_rank` tells more.

    Examples
    --------
    The truncated pseudo-inverse solves a least-squares problem, here with a repeated value:

    >>> import jax, jax.numpy as jnp
    >>> from jax_peig import singular_apply, singular_space
    >>> A, b = jnp.diag(jnp.array([2.0, 2.0, 1.0, 0.1])), jnp.ones(4)
    >>> def fit(A):
    ...     return jnp.sum(singular_apply(lambda s: 1 / s, singular_space(A, 3), b, sides="VU"))
    >>> round(float(fit(A)), 3)
    2.0
    >>> [round(float(x), 3) for x in jnp.diagonal(jax.grad(fit)(A))[:3]]
    [-0.25, -0.25, -1.0]
    """
    return space_of(rectangular("singular_space", A, shape, dtype), k, options)


def space_of(given: Rectangular, k: int, options: SVDOptions) -> SingularSpace:
    """`singular_space` of a matrix that is checked already."""
    found = triplets(given, k, options, SingularSpaceRule)
    left, right = halves(found.x, found.m)
    return SingularSpace(left, found.s, right, found.info)


@passes_on(SVDOptions, like=partial_eigh)
def low_rank(
    A: OperatorLike,
    k: int,
    h: Scalar | None = None,
    *,
    odd: bool = False,
    shape: tuple[int, int] | None = None,
    dtype: DTypeLike = None,
    **options: Unpack[SVDOptions],
) -> LowRank:
    """Compute the best approximation of rank k, U S V^H, or U h(S) V^H, as a matrix.

    It is what ``(U * s) @ Vh`` of `partial_svd` is in value, and has derivatives where singular
    values repeat.

    Parameters
    ----------
    A : operator
        As in `partial_svd`.
    k : int
        The rank, up to min(m, n).
    h : callable, optional
        A function of a singular value, as in `hermitian_function`. Default: the identity.
    odd : bool
        Whether h is odd, h(-s) = -h(s), and smooth around zero: then X has a derivative at zeros
        too where k = min(m, n). X is NaN where it is seen that h is not.
    shape : (int, int), optional
        (m, n); needed where A does not tell it.
    dtype : optional
        As in `partial_svd`.
    **options
        As in `partial_svd`.

    Returns
    -------
    LowRank
        ``X`` (m, n), ``info``. To multiply by X without forming it, take `singular_apply`.

    Raises
    ------
    TypeError, ValueError
        As `partial_svd` and `hermitian_function`.

    Differentiability
    -----------------
    * In: all that A holds or closes over; what h closes over.
    * Modes: forward and reverse.
    * Orders: the first and the second; any for k = min(m, n) without h, and in what h closes over.
    * Refused: NaN where s_k and s_{k+1} are too near to each other (``info.cut``), for zeros below
      k = min(m, n), for zeros with an h that is not ``odd``, where h has no derivative, and where
      the triplets or the linear systems did not converge.

    Notes
    -----
    A -> U S V^H divides by s_k - s_{k+1} alone, see `singular_space`. Below k = min(m, n) it has no
    derivative where s_k = 0: what rank is left is chosen by the perturbation. At k = min(m, n) it
    is the identity, zeros or not. There U h(S) V^H with an odd h is smooth too: it is A g(A^H A)
    with g(s^2) = h(s)/s. Whether h is odd is tested at the singular values. The cost is that of
    `singular_space` and O(m n k); with ``odd`` that of `hermitian_function` for 2 k.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from jax_peig import low_rank
    >>> A = jnp.diag(jnp.array([3.0, 3.0, 1.0]))
    >>> cubes = lambda A: jnp.sum(low_rank(A, 2).X ** 3)
    >>> [[round(float(x), 4) for x in row] for row in jax.grad(cubes)(A)]
    [[27.0, 0.0, 0.0], [0.0, 27.0, 0.0], [0.0, 0.0, 0.0]]
    """
    if h is not None:
        check_function("low_rank", h)
    given = rectangular("low_rank", A, shape, dtype)
    space = space_of(given, k, options)
    valid = space.info.status == Status.CONVERGED
    inner = space.core if h is None else function_of("low_rank", h, space.core)
    image = space.left @ inner.astype(space.left.dtype) @ space.right.conj().T
    image = refused_at_cut(space, image)
    if (h is None or odd) and space.core.shape[0] == min(given.dilation.shape):
        smooth, shown = _at_full_rank(given, jax.lax.stop_gradient(space), h)
        image, valid = with_value(image, smooth), valid & shown
    return LowRank(or_nan(valid, image), space.info)


def refused_at_cut(space: SingularSpace, image: Array) -> Array:
    """``image``, a function of the space, with no derivative where k cuts a cluster."""
    moved = jnp.where(space.info.cut, image - jax.lax.stop_gradient(image), 0)
    return image + without_derivative(moved, 1)


def _at_full_rank(
    given: Rectangular, space: SingularSpace, h: Scalar | None
) -> tuple[Array, Array]:
    """U h(S) V^H for an odd h at k = min(m, n), zeros or not, and whether h is odd.

    One of the halves of the ``space``, which stands still, is a basis of everything.
    """
    m, n = given.dilation.shape
    left, core, right, _ = space
    if m < n:
        product, other, still = given.dilation.adjoint(left), right, left
    else:
        product, other, still = given.dilation.forward(right), left, right
    odd = jnp.array(True)
    if h is not None:
        product, odd = odd_function(h, jnp.diagonal(core).real, product, other)
    image = product @ still.conj().T
    return (image.conj().T if m < n else image), odd
