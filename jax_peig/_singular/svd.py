"""partial_svd: the k largest singular triplets, through the Hermitian dilation."""

import dataclasses
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jax_peig._api.eigh import pairs, partial_eigh
from jax_peig._api.keywords import EighOptions, SVDOptions, check_known, passes_on
from jax_peig._api.matrix_function import without_derivative
from jax_peig._core import blocks
from jax_peig._core.checks import check_positive, integer
from jax_peig._core.results import Info, PartialSVD
from jax_peig._core.types import Array, Block, DTypeLike, OperatorLike
from jax_peig._derivatives.rules import PairwiseRule, Rule
from jax_peig._diagnostics import clusters
from jax_peig._operators.given import BlockProduct
from jax_peig._operators.operator import Operator
from jax_peig._problem.convergence import Complement, Ritz
from jax_peig._singular.dilation import Rectangular, halves, rectangular


@passes_on(SVDOptions, like=partial_eigh)
def partial_svd(
    A: OperatorLike,
    k: int,
    *,
    shape: tuple[int, int] | None = None,
    dtype: DTypeLike = None,
    **options: Unpack[SVDOptions],
) -> PartialSVD:
    """Compute the k largest singular values and vectors of a rectangular A, differentiably.

    ``A V = U diag(s)``, ``A^H U = V diag(s)``, U^H U = V^H V = I. Derivatives are those of
    `partial_eigh`, right at repeated singular values, in every parameter that A holds or closes
    over.

    Parameters
    ----------
    A : operator
        An array (m, n), a BCOO, a SciPy sparse matrix, or anything with ``@``; an object with
        ``.mv``; a linear function of one vector (n,) -> (m,), or a `BlockProduct`. The adjoint
        product comes from ``jax.linear_transpose``: A has to be written in operations that JAX can
        transpose.
    k : int
        How many, up to min(m, n).
    shape : (int, int), optional
        (m, n); needed where A does not tell it.
    dtype : optional
        Of the vectors, as in `partial_eigh`.
    **options
        ``method``, ``tol``, ``max_steps``, ``degeneracy_tol``, ``derivative``, ``key``,
        ``history`` and ``progress`` of `partial_eigh`, for the dilation of order m + n.

    Returns
    -------
    PartialSVD
        ``U`` (m, k), ``s`` (k,) real, descending, ``Vh`` (k, n); ``info`` of the dilation.
        The vectors of zero singular values are orthonormal too.

    Raises
    ------
    TypeError, ValueError
        For bad arguments and unknown options, before anything is computed.

    Differentiability
    -----------------
    * In: all that A holds or closes over.
    * Modes: forward and reverse.
    * Orders: any, as in `partial_eigh`.
    * Refused: NaN for a zero singular value and its vectors, for one vector of a repeated singular
      value, for U or Vh without their common phase, for weights that vary inside a cluster whose
      vectors are used, for vectors of a cluster that k cuts, and where the triplets or the linear
      systems did not converge.

    Notes
    -----
    The k largest eigenpairs of [[0, A], [A^H, 0]] are s_i and [u_i; v_i]/sqrt(2). No singular value
    is squared, and all are accurate to the rounding of s_1. The derivatives are
    s' = Re(u^H A' v), and for the vectors those of `partial_eigh` (Kasim, arXiv:2011.04366,
    eqs 2.3-2.12, corrected). The dense method costs O((m + n)^3). The other methods take two
    matvecs, with A and its adjoint, where `partial_eigh` takes one.

    The gradient is NaN where there is none: of a zero singular value and of its vectors, of one
    vector of a repeated singular value, and of U and Vh without their common phase. A singular
    value counts as zero below half of ``degeneracy_tol``, by default sqrt(eps) s_1 / 2. A loss that
    uses the vectors of a cluster and weighs them by their singular values, such as
    ``(U * s) @ Vh``, has a finite gradient only where the weights come out equal. These have no
    such limit: `low_rank` for ``(U * s) @ Vh``, `singular_apply` for U h(S) V^H and its like,
    `singular_sum` for second derivatives of sums of h(s), and `singular_space` for others.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from jax_peig import partial_svd
    >>> A = jnp.array([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]])  # 3 is there twice
    >>> def share(A):  # of e_1 in the space of both left vectors, and both singular values
    ...     U, s, Vh, info = partial_svd(A, k=2)
    ...     return jnp.sum(s) + jnp.sum((Vh @ jnp.ones(3)) ** 2)
    >>> round(float(share(A)), 3)
    8.0
    >>> [[round(float(x), 3) for x in row] for row in jax.grad(share)(A)]
    [[1.0, 0.0, 0.667], [0.0, 1.0, 0.667]]
    """
    s, zero, x, m, info = triplets(rectangular("partial_svd", A, shape, dtype), k, options)
    u, v = halves(x, m)
    # |s| has no derivative at zero.
    moved = jnp.where(zero, s - jax.lax.stop_gradient(s), 0)
    return PartialSVD(u, s + without_derivative(moved, 1), v.conj().T, info)


class Triplets(NamedTuple):
    """The k largest eigenpairs of the dilation."""

    s: Array  # (k,), or the matrix R (k, k)
    zero: Array  # (k,), whether s is zero
    x: Block  # (m + n, k), [u; v]/sqrt(2)
    m: int
    info: Info


def triplets(
    given: Rectangular,
    k: int | None,
    options: SVDOptions,
    rule: type[Rule] = PairwiseRule,
    what: str = "k",
) -> Triplets:
    """Compute the k largest triplets; ``rule`` is that of `pairs`, and errors call k ``what``.

    Raises
    ------
    TypeError, ValueError
        As `partial_svd`.
    """
    name, made, dtype = given.caller, given.dilation, given.dtype
    k = _count(k, made.shape, name, what)
    two_sided = _TwoSided(made.shape, _absolute(options, name))
    all_options = EighOptions(**options, n=sum(made.shape), dtype=dtype, which="largest")
    s, x, info = pairs(
        name, BlockProduct(made), None, k, all_options, rule=rule, postprocess=two_sided
    )
    zero = two_sided.zero(rule.eigenvalues(s))
    return Triplets(s, zero, x, made.shape[0], info)


@dataclasses.dataclass(frozen=True)
class _TwoSided:
    """Orthonormal U and V, and the k singular values of U^H A V, from k pairs of the dilation.

    The halves of [u; v]/sqrt(2) are orthogonal as far as s and -s can be told apart. Those of a
    zero singular value may not be orthogonal at all, and are completed by random vectors.
    """

    shape: tuple[int, int]
    absolute: float | None  # degeneracy_tol

    def zero(self, s: Array) -> Array:
        """Say which singular values cannot be told from their negatives, (k,)."""
        return 2 * s <= clusters.degeneracy_tolerance(s, self.absolute)

    def __call__(self, a: Operator, ritz: Ritz, k: int) -> Ritz:
        m = self.shape[0]
        old = ritz.vectors[:, :k]
        zero = self.zero(ritz.values[:k])
        left, right = (_complete(half, zero, draw) for draw, half in enumerate(halves(old, m)))
        image = a(jnp.concatenate([left, right]))  # [A V; A^H U]
        p, s, qh = blocks.svd(blocks.gram(left, image[:m]))
        root = jnp.asarray(np.sqrt(0.5), image.dtype)
        q = qh.conj().T
        x = jnp.concatenate([left @ p, right @ q]) * root
        ax = jnp.concatenate([image[:m] @ q, image[m:] @ p]) * root
        complement = ritz.complement
        if complement is not None:  # it takes the vectors that were replaced
            complement = Complement(
                jnp.concatenate([complement.values, jnp.zeros_like(s)]),
                jnp.concatenate([complement.vectors, blocks.where_columns(zero, old)], axis=1),
            )
        return ritz._replace(
            values=jnp.concatenate([s, ritz.values[k:]]),
            vectors=jnp.concatenate([x, ritz.vectors[:, k:]], axis=1),
            AX=jnp.concatenate([ax, ritz.AX[:, k:]], axis=1),
            MX=jnp.concatenate([x, ritz.MX[:, k:]], axis=1),
            matvecs=ritz.matvecs + k,
            complement=complement,
        )


def _complete(half: Block, zero: Array, draw: int) -> Block:
    """Return k orthonormal columns, the first of which span the columns that are not ``zero``.

    The columns that are ``zero`` follow, as far as they are independent, and then random ones.
    """
    m, k = half.shape
    given = [blocks.where_columns(~zero, half), blocks.where_columns(zero, half)]
    found = jnp.zeros_like(half)
    count = jnp.array(0)
    for block in (*given, blocks.random_block(jax.random.key(0), m, k, half.dtype, draw)):
        block = blocks.orthonormalize_against(block, found)
        place = jnp.arange(k) - count
        taken = jnp.take(block, jnp.clip(place, 0), axis=1)
        found = jnp.where((place >= 0)[None, :], taken, found)
        count = jnp.sum(blocks.nonzero_columns(found))
    return found


def or_nan(valid: Array, x: Array) -> Array:
    """x, or NaN with derivatives that are NaN, where those of ``jnp.where`` would be zero."""
    return x * jnp.where(valid, 1, jnp.nan).astype(x.dtype)


def _absolute(options: SVDOptions, name: str) -> float | None:
    """The caller's degeneracy_tol, once the options are known to be allowed ones."""
    if "which" in options:
        raise TypeError(
            f"{name}: unknown option 'which'; expected none: the k largest singular values are "
            "computed. Leave which away."
        )
    check_known(name, options, SVDOptions, "partial_svd")
    tol = options.get("degeneracy_tol")
    check_positive(f"{name}: degeneracy_tol", tol, float, zero=True)
    return None if tol is None else float(tol)


def _count(k: Any, shape: tuple[int, int], name: str, what: str) -> int:
    """The number of singular values, checked; a ``rank`` of None means all of them."""
    if k is None and what == "rank":
        return min(shape)
    count = integer(k, f"{name}: {what}")
    if not 1 <= count <= min(shape):
        raise ValueError(
            f"{name}: {what} = {k}, A is {shape}; expected 1 <= {what} <= {min(shape)}."
        )
    return count
