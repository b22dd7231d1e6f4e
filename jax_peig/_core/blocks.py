"""Algebra of blocks of vectors, (n, b), and of the small matrices that belong to them.

Every function reduces over n by Gram matrices and norms alone and multiplies blocks by small
matrices. A block whose rows are spread over devices therefore stays there: no function takes a QR
factorisation, an SVD or a triangular solve of a block. A zero column stands for a direction that
has been dropped. It is carried along and ignored.

In what follows V^H M V = I is called orthonormal, and ``dual`` is M V: the block itself where
there is no M.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jax_peig._core import tolerances
from jax_peig._core.types import Array, Block, DTypeLike

# Whether batched LAPACK calls may deadlock, see `one_by_one`.
WAITING = jax.__version_info__ < (0, 11, 2)


# -- columns ---------------------------------------------------------------------------------------


def scale_columns(block: Block, factors: Array) -> Block:
    """V diag(factors), for ``factors`` (b,)."""
    return block * factors.astype(block.dtype)[None, :]


def where_columns(mask: Array, block: Block, other: Block | int = 0) -> Block:
    """The columns of ``block`` where ``mask`` (b,) holds, those of ``other`` elsewhere."""
    return jnp.where(mask[None, :], block, other)


def nonzero_columns(block: Block) -> Array:
    """Which columns are not zero, (b,)."""
    return jnp.any(block != 0, axis=0)


def combine(layers: tuple[Block, ...], c: Array) -> tuple[Block, ...]:
    """Each block times the small matrix C: (V C, A V C, M V C) of (V, A V, M V)."""
    return tuple(block @ c for block in layers)


# -- random blocks ---------------------------------------------------------------------------------


def random_block(key: Array, n: int, width: int, dtype: DTypeLike, draw: int | Array = 0) -> Block:
    """Independent entries of mean 0 and variance 1, from a uniform distribution (in a square of C).

    ``draw`` tells the blocks apart that are drawn by one key. An entry is a hash of its row, its
    column, the draw and the key, so that each device makes its own rows, and XLA one short loop:
    `jax.random.normal` would be a fifth of what a whole solve has to compile. The component along
    a unit vector is at most 2.4 per cent more likely to be small than that of a normal vector: no
    slice of a unit cube through its centre is larger than sqrt(2) (Ball, 1986).
    """
    real = jnp.finfo(dtype).dtype
    first, second = jnp.sum(jax.random.key_data(key).reshape(-1, 2), axis=0, dtype=jnp.uint32)
    row, column = (jax.lax.broadcasted_iota(jnp.uint32, (n, width), axis) for axis in (0, 1))
    column += jnp.asarray(draw).astype(jnp.uint32) << 16
    words = _hash(row, column, first, second)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        parts = (_uniform(*pair, real) for pair in (words[:2], words[2:]))
        return jax.lax.complex(*parts) * 0.5**0.5
    return _uniform(*words[:2], real)


def _hash(x: Array, y: Array, z: Array, w: Array) -> tuple[Array, Array, Array, Array]:
    """Four words of 32 bits from four: "pcg4d" of Jarzynski and Olano (2020), a round longer.

    After two rounds inputs that differ in their highest bit alone give correlated words.
    """
    x, y, z, w = (word * jnp.uint32(1664525) + jnp.uint32(1013904223) for word in (x, y, z, w))
    for rounds in range(3):
        if rounds > 0:
            x, y, z, w = (word ^ (word >> 16) for word in (x, y, z, w))
        x = x + y * w
        y = y + z * x
        z = z + x * y
        w = w + y * z
    return x, y, z, w


def _uniform(high: Array, low: Array, dtype: DTypeLike) -> Array:
    """A number between -sqrt(3) and sqrt(3), of variance one, from two words."""
    wide = dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32
    unit = high.astype(wide) * 2.0**-31 + (low.astype(wide) * 2.0**-63 - 1)
    return (unit * 3.0**0.5).astype(dtype)


# -- norms -----------------------------------------------------------------------------------------


def reciprocal(x: Array) -> Array:
    """1 / x where x > 0, else 0: the factor that leaves a dropped direction zero."""
    return jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1), 0)


def column_norms(block: Block) -> Array:
    """Euclidean norm of every column, (b,), real, without overflow of the squares."""
    scale = jnp.max(jnp.abs(block), axis=0, initial=0.0)
    safe = jnp.where((scale > 0) & jnp.isfinite(scale), scale, 1)
    scaled = block / safe.astype(block.dtype)[None, :]
    return jnp.sqrt(jnp.sum(jnp.abs(scaled) ** 2, axis=0)) * safe


def scaled_norms(block: Block, size: Array) -> Array:
    """`column_norms` of columns whose norms are about the scalar ``size``, in one pass."""
    scaled = block * reciprocal(size).astype(block.dtype)
    return jnp.sqrt(jnp.sum(jnp.abs(scaled) ** 2, axis=0)) * size


def unit_columns(block: Block, least: float = 0.0) -> Block:
    """The columns divided by their norms; zero where the norm is no more than ``least``."""
    norms = column_norms(block)
    return scale_columns(block, reciprocal(jnp.where(norms > least, norms, 0) if least else norms))


# -- inner products and projections ----------------------------------------------------------------


def gram(left: Block, right: Block) -> Array:
    """left^H right, (b, c)."""
    return left.conj().T @ right


def diagonal(matrix: Array) -> Array:
    """The real diagonal of a small matrix, (b,): a sum compiles faster than a gather."""
    here = jnp.eye(matrix.shape[0], dtype=bool)
    return jnp.sum(jnp.where(here, matrix.real, 0), axis=1)


def leading(mask: Array) -> Array:
    """Which entries stand before the first False, (b,)."""
    index = jnp.arange(mask.shape[0])
    return jnp.all(mask[None, :] | (index[None, :] > index[:, None]), axis=1)


def herm(matrix: Array) -> Array:
    """The Hermitian part (B + B^H)/2."""
    return (matrix + matrix.conj().T) / 2


def project_out(block: Block, basis: Block, dual: Block, passes: int = 1) -> Block:
    """(I - basis dual^H) block, with dual = M basis and basis^H M basis = I.

    A second pass removes the part along the basis that rounding leaves in a column which the first
    pass made much shorter.
    """
    for _ in range(passes):
        block = block - basis @ gram(dual, block)
    return block


def residuals(av: Block, mv: Block, theta: Array) -> Block:
    """A V - M V diag(theta), (n, b)."""
    return av - scale_columns(mv, theta)


# -- LAPACK on small matrices ----------------------------------------------------------------------


def one_by_one(function: Callable[[Array], tuple[Array, ...]]) -> Callable[..., tuple[Array, ...]]:
    """Make a function of one array that calls LAPACK safe under vmap.

    Before 0.11.2 JAX splits a batched LAPACK call over the same CPU threads that call it, and each
    call waits for its parts. As many calls at a time as there are threads wait for each other for
    ever. On a CPU a batch is therefore taken one by one under those versions.
    """
    if not WAITING:
        return function
    single = jax.custom_batching.custom_vmap(function)

    @single.def_vmap
    def rule(size: int, batched: list[bool], batch: Array) -> tuple[Any, Any]:
        del size, batched  # there is one argument
        found = jax.lax.platform_dependent(
            batch, cpu=lambda batch: jax.lax.map(single, batch), default=jax.vmap(function)
        )
        return found, jax.tree.map(lambda _: True, found)

    return single


@one_by_one
def eigh(matrix: Array) -> tuple[Array, ...]:
    """Eigenpairs of a small Hermitian matrix, ascending."""
    values, vectors = jnp.linalg.eigh(matrix, symmetrize_input=False)
    return values, vectors


@one_by_one
def svd(matrix: Array) -> tuple[Array, ...]:
    """U, s and V^H of a small matrix."""
    u, s, vh = jnp.linalg.svd(matrix)
    return u, s, vh


@one_by_one
def inverse_factor(g: Array) -> tuple[Array, ...]:
    """L^{-1} with L L^H = g; NaN where g is not positive definite."""
    lower = jnp.linalg.cholesky(g)
    eye = jnp.eye(g.shape[0], dtype=g.dtype)
    return (jax.lax.linalg.triangular_solve(lower, eye, left_side=True, lower=True),)


# -- orthonormal blocks ----------------------------------------------------------------------------


def orthonormalizer(g: Array) -> tuple[Array, Array]:
    """A small matrix Q such that V Q is orthonormal, from the Gram matrix ``g = V^H M V``.

    Columns are scaled to unit norm, then g = U diag(d) U^H gives Q = U d^{-1/2}; directions with
    d below rounding become zero columns (Stathopoulos and Wu, SIAM J. Sci. Comput. 23, 2002,
    "SVQB"). The largest directions come first.

    Returns
    -------
    Q : (b, b)
        V Q is orthonormal to eps / d, for the smallest d that was kept.
    negative : bool
        g has a negative eigenvalue beyond rounding: M is not positive definite.
    """
    dtype = g.dtype
    squares = diagonal(g)
    scale = jnp.sqrt(reciprocal(squares))
    unit = herm(g * (scale[:, None] * scale[None, :]).astype(dtype))
    d, u = eigh(unit)
    d, u = d[::-1], u[:, ::-1]
    keep = d > tolerances.rank(dtype) * jnp.maximum(d[0], 1)
    inverse = jnp.sqrt(reciprocal(jnp.where(keep, d, 0)))
    negative = (d[-1] < -tolerances.rank(dtype) * d.shape[0]) | jnp.any(squares < 0)
    return scale.astype(dtype)[:, None] * u * inverse.astype(dtype)[None, :], negative


def scaled_condition(q: Array, g: Array) -> Array:
    """Condition number of the Gram matrix ``g`` of unit columns, from its `orthonormalizer`."""
    scaled = q * jnp.sqrt(jnp.abs(diagonal(g)))[:, None].astype(q.dtype)
    inverse = column_norms(scaled) ** 2
    return jnp.where(jnp.all(inverse > 0), jnp.max(inverse), jnp.inf)


def orthonormalize(block: Block, dual: Block, least: float = 0.0) -> tuple[Block, Block, Array]:
    """V Q and M V Q, orthonormal to some digits, and to rounding if it is done twice.

    Parameters
    ----------
    block : (n, b)
        V, with columns of moderate norm.
    dual : (n, b)
        M V; ``block`` itself where there is no M.
    least : float
        Columns that are no longer become zero, as do directions that are dependent to rounding.

    Returns
    -------
    block, dual : (n, b)
    negative : bool
        As `orthonormalizer`.
    """
    g = gram(block, dual)
    if least:
        keep = jnp.abs(diagonal(g)) > least**2
        g = jnp.where(keep[:, None] & keep[None, :], g, 0)
    q, negative = orthonormalizer(g)
    new = block @ q
    return new, new if dual is block else dual @ q, negative


def orthonormalize_against(block: Block, basis: Block) -> Block:
    """An orthonormal basis of the columns, orthogonal to the orthonormal ``basis``; M = I.

    Projection and orthonormalisation take turns, twice. A column that is no more than rounding
    after a projection is dropped. Zero columns come last.
    """
    one = jnp.ones((), jnp.finfo(block.dtype).dtype)

    def once(_: int, block: Block) -> Block:
        block = project_out(unit_columns(block), basis, basis)
        keep = scaled_norms(block, one) > tolerances.rank(block.dtype)
        block = where_columns(keep, block)
        return orthonormalize(block, block)[0]

    return jax.lax.fori_loop(0, 2, once, block)


def inverse_root(g: Array) -> tuple[Array, Array]:
    """g^{-1/2} for a Gram matrix that is the identity up to rounding and dropped directions.

    One Newton step, (3 - g)/2, squares the error.

    Returns
    -------
    root : (b, b)
        Zero in the rows and columns of dropped directions.
    alive : (b,)
        Which directions are not dropped.
    """
    alive = diagonal(g) > 0.5
    both = (alive[:, None] & alive[None, :]).astype(g.dtype)
    return (3 * jnp.eye(g.shape[0], dtype=g.dtype) - herm(g)) * both / 2, alive


# -- Rayleigh-Ritz ---------------------------------------------------------------------------------


def rayleigh_ritz(
    h: Array,
    *,
    whitener: Array | None = None,
    alive: Array | None = None,
    behind: Array | None = None,
) -> tuple[Array, Array]:
    """Ritz values and the coefficients of the Ritz vectors, from ``h = V^H A V``.

    Parameters
    ----------
    h : (m, m)
        Hermitian where there is no whitener.
    whitener : (m, m), optional
        Q with Q^H V^H M V Q = I, from `orthonormalizer` or `inverse_root`. By default V is
        orthonormal.
    alive : (m,), optional
        Which columns of V Q are not zero. The others get Ritz values above all.
    behind : (m,), optional
        Raises columns of V Q by these parts of the spectrum's extent, so that they come after the
        others where Ritz values tie. Needs ``alive``.

    Returns
    -------
    theta : (m,)
        Ritz values, ascending.
    c : (m, m)
        The Ritz vectors are V C, with C^H V^H M V C = I but for dropped directions.
    """
    if whitener is not None:
        h = herm(whitener.conj().T @ h @ whitener)
    if alive is not None:
        spread = jnp.max(jnp.sum(jnp.abs(h), axis=1))
        above = jnp.where(spread > 0, 2 * spread, 1)
        among = 0 if behind is None else spread * behind.astype(spread.dtype)
        h = h + jnp.diag(jnp.where(alive, among, above).astype(h.dtype))
    theta, c = eigh(h)
    if whitener is not None:
        return theta, whitener @ c
    return theta, c if alive is None else jnp.where(alive[:, None], c, 0)
