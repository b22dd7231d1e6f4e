"""Functions of a singular space: products with h(S) between its halves, and sums of h(s)."""

from typing import Unpack

import jax.numpy as jnp
import numpy as np

from jax_peig._api.eigh import partial_eigh
from jax_peig._api.keywords import SVDOptions, passes_on
from jax_peig._api.matrix_function import Scalar, check_function, function_of
from jax_peig._core import blocks
from jax_peig._core.checks import is_array, kind_of
from jax_peig._core.results import SingularSpace
from jax_peig._core.sharding import replicated
from jax_peig._core.types import Array, ArrayLike, DTypeLike, OperatorLike
from jax_peig._singular.dilation import rectangular
from jax_peig._singular.space import refused_at_cut, space_of

SIDES = ("UV", "VU", "UU", "VV")


def singular_apply(
    h: Scalar | None, space: SingularSpace, b: ArrayLike, *, sides: str = "UV"
) -> Array:
    """Compute U h(S) V^H b, or U h(S) U^H b and their like, without forming a matrix (m, n).

    Parameters
    ----------
    h : callable or None
        A function of a singular value, as in `hermitian_function`; None stands for 1.
    space : SingularSpace
        The result of `singular_space`.
    b : (n,) or (n, c), or (m,) or (m, c)
        One vector, or several columns; n rows where ``sides`` ends with V, else m.
    sides : {"UV", "VU", "UU", "VV"}
        The two halves around h(S).

    Returns
    -------
    (m,) or (m, c), or (n,) or (n, c)
        m rows where ``sides`` begins with U, else n.

    Raises
    ------
    TypeError, ValueError
        Where ``space`` is no `SingularSpace`, h no function, ``sides`` another, or b no floating
        array of the right length.

    Differentiability
    -----------------
    * In: ``space``, and so in A; b; what h closes over.
    * Modes: forward and reverse.
    * Orders: in ``space`` the first and the second; in b and in what h closes over any.
    * Refused: NaN where ``space.info.cut``, which is so for a zero s_k; from the third in ``space``
      on for an h that is not None; where h has no derivative; and where the triplets or the linear
      systems did not converge.

    Notes
    -----
    What it gives, with h and ``sides``:

    * None, "UU" and "VV": the projections onto both spaces. None, "UV": the polar factor.
    * s, "UV": the truncation of A. 1/s, "VU": its pseudo-inverse, and least squares.
    * s^2, "UU": the reduced density A A^H; "VV" the other. 1/s, "VV": whitening, A^H A to -1/2.

    The cost is that of `hermitian_function` and 2 (m + n) k operations a column. A gradient solves
    k linear systems, those of eq. 2.11 of Kasim, arXiv:2011.04366.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig import singular_apply, singular_space
    >>> space = singular_space(jnp.diag(jnp.array([4.0, 2.0, 2.0, 1.0])), 3)
    >>> x = singular_apply(lambda s: 1 / s, space, jnp.ones(4), sides="VU")
    >>> [round(float(x), 3) + 0.0 for x in x]
    [0.25, 0.5, 0.5, 0.0]
    """
    left, right = _halves(space, sides)
    left, right, b = _together(left, right, b, sides)
    image = replicated(blocks.gram, right, b)
    if h is not None:
        inner = function_of("singular_apply", h, space.core)
        image = inner.astype(image.dtype) @ image
    return refused_at_cut(space, left @ image)


@passes_on(SVDOptions, like=partial_eigh)
def singular_sum(
    h: Scalar,
    A: OperatorLike,
    k: int,
    *,
    shape: tuple[int, int] | None = None,
    dtype: DTypeLike = None,
    **options: Unpack[SVDOptions],
) -> Array:
    """Compute sum_j h(s_j) over the k largest singular values: tr h(S).

    Parameters
    ----------
    h : callable
        As in `hermitian_function`.
    A : operator
        As in `partial_svd`.
    k : int
        How many singular values.
    shape : (int, int), optional
        (m, n); needed where A does not tell it.
    dtype : optional
        As in `partial_svd`.
    **options
        As in `partial_svd`.

    Returns
    -------
    scalar, real
        Its first and second derivatives are exact at repeated singular values. Where k cuts a
        cluster, the first derivative is one generalised gradient and the second is NaN.

    Raises
    ------
    TypeError, ValueError
        As `partial_svd` and `hermitian_function`.

    Differentiability
    -----------------
    * In: all that A and h hold or close over.
    * Modes: forward and reverse.
    * Orders: in A the first and the second; in what h closes over any.
    * Refused: NaN for the second derivative where ``info.cut`` of `singular_space` is True, which
      is so for a zero s_k (the first is one generalised gradient there); from the third in A on;
      where h has no derivative; and where the triplets did not converge.

    Notes
    -----
    The gradient is U h'(S) V^H and solves no linear system. A Hessian solves k linear systems for
    each direction. Sums of h(s) over the separate values of `partial_svd` have the same first
    derivative, and no second one where values repeat.

    Examples
    --------
    The entropy of a state with a repeated Schmidt coefficient, along a direction that splits it:

    >>> import jax, jax.numpy as jnp
    >>> from jax_peig import singular_sum
    >>> A, E = jnp.diag(jnp.array([0.7, 0.7, 0.1])), jnp.ones((3, 3))
    >>> entropy = lambda t: singular_sum(lambda s: -(s**2) * jnp.log(s**2), A + t * E, 3)
    >>> [round(float(f(0.0)), 3) for f in (entropy, jax.grad(jax.grad(entropy)))]
    [0.745, -22.565]
    """
    check_function("singular_sum", h)
    core = space_of(rectangular("singular_sum", A, shape, dtype), k, options).core
    return jnp.trace(function_of("singular_sum", h, core)).real


def _halves(space: SingularSpace, sides: str) -> tuple[Array, Array]:
    """The two halves that ``sides`` names, checked."""
    if not isinstance(space, SingularSpace):
        raise TypeError(
            f"singular_apply: space is of type {type(space).__name__}; expected the SingularSpace "
            "that singular_space(...) returns."
        )
    if jnp.ndim(space.left) != 2:
        raise ValueError(
            f"singular_apply: space has left vectors of shape {jnp.shape(space.left)}; expected "
            "(m, k). Batches go through jax.vmap."
        )
    if sides not in SIDES:
        raise ValueError(f"singular_apply: sides is {sides!r}; expected one of {', '.join(SIDES)}.")
    named = {"U": space.left, "V": space.right}
    return named[sides[0]], named[sides[1]]


def _together(left: Array, right: Array, b: ArrayLike, sides: str) -> tuple[Array, Array, Array]:
    """Both halves and the checked b, in the dtype to which they promote."""
    if not is_array(b) or not jnp.issubdtype(b.dtype, jnp.inexact):
        raise TypeError(
            f"singular_apply: b is of {kind_of(b)}; expected a floating array of one or two "
            "dimensions. Convert it, for example with jnp.asarray(b, float)."
        )
    if b.ndim not in (1, 2) or b.shape[0] != right.shape[0]:
        raise ValueError(
            f"singular_apply: b has shape {b.shape}; expected {right.shape[0]} rows, as "
            f"{sides[1]} has with sides={sides!r}."
        )
    dtype = np.promote_types(left.dtype, b.dtype)
    return left.astype(dtype), right.astype(dtype), jnp.asarray(b).astype(dtype)
