"""Algebra of (n, b) blocks of vectors.

Every function reduces over n by Gram matrices alone and multiplies blocks by small matrices, so
that a block whose rows are spread over devices stays there: no tall QR, SVD or triangular solve.
Zero columns stand for directions that have been dropped; they are carried along and ignored.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jax_peig._core import tolerances
from jax_peig._core.types import Array, Block

# See `one_by_one`.
WAITING = jax.__version_info__ < (0, 11, 2)


def gram(left: Block, right: Block) -> Array:
    """left^H right, (b, c)."""
    return left.conj().T @ right


def herm(matrix: Array) -> Array:
    """The Hermitian part (B + B^H)/2."""
    return (matrix + matrix.conj().T) / 2


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


def reciprocal(x: Array) -> Array:
    """1 / x where x > 0, else 0: the factor that leaves a dropped direction zero."""
    return jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1), 0)


def unit_columns(block: Block) -> Block:
    """The columns divided by their norms; zero where they are zero."""
    return block * reciprocal(column_norms(block)).astype(block.dtype)[None, :]


def present(block: Block) -> Array:
    """Which columns are not zero, (b,)."""
    return jnp.any(block != 0, axis=0)


def one_by_one(function: Callable[[Array], tuple[Array, ...]]) -> Callable[..., tuple[Array, ...]]:
    """A function of one array that calls LAPACK, for which no call waits for another.

    Before 0.11.2 JAX splits a batch for LAPACK over the threads of the CPU that also call it, and
    waits: as many calls at a time as there are threads wait for each other for ever. There, under
    vmap, a batch is taken one by one, which waits for nobody.
    """
    if not WAITING:
        return function
    single = jax.custom_batching.custom_vmap(function)

    @single.def_vmap
    def rule(size: int, batched: list[bool], batch: Array) -> tuple[Any, Any]:
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


def orthonormalizer(g: Array) -> tuple[Array, Array]:
    """A small matrix Q such that V Q is orthonormal, from the Gram matrix ``g = V^H M V``.

    Columns are scaled to unit norm, then g = U diag(d) U^H gives Q = U d^{-1/2}; directions with
    d below rounding become zero columns (Stathopoulos and Wu, SIAM J. Sci. Comput. 23, 2002,
    "SVQB"). The largest directions come first. Returns also whether g has a negative eigenvalue
    beyond rounding, which shows that M is not positive definite.
    """
    dtype = g.dtype
    diagonal = jnp.diagonal(g).real
    scale = jnp.sqrt(reciprocal(diagonal))
    unit = herm(g * (scale[:, None] * scale[None, :]).astype(dtype))
    d, u = eigh(unit)
    d, u = d[::-1], u[:, ::-1]
    keep = d > tolerances.rank(dtype) * jnp.maximum(d[0], 1)
    inverse = jnp.sqrt(reciprocal(jnp.where(keep, d, 0)))
    negative = (d[-1] < -tolerances.rank(dtype) * d.shape[0]) | jnp.any(diagonal < 0)
    return scale.astype(dtype)[:, None] * u * inverse.astype(dtype)[None, :], negative


def rayleigh_ritz(h: Array, g: Array) -> tuple[Array, Array]:
    """Eigenpairs of the small pencil (h, g), g = I up to rounding and up to dropped directions.

    A dropped direction is a zero row and column of ``g``; it is given an eigenvalue above all
    others. Returns the eigenvalues, ascending, and coefficients C with C^H g C = I.
    """
    dtype = h.dtype
    alive = jnp.diagonal(g).real > 0.5
    both = (alive[:, None] & alive[None, :]).astype(dtype)
    # One Newton step of g^{-1/2} = (3 - g)/2 removes what is left of non-orthonormality.
    eye = jnp.eye(h.shape[0], dtype=dtype)
    root = (3 * eye - herm(g)) * both / 2
    projected = herm(root @ (h * both) @ root)
    largest = jnp.max(jnp.sum(jnp.abs(projected), axis=1))
    ceiling = jnp.where(largest > 0, 2 * largest, 1)
    projected = projected + jnp.diag(jnp.where(alive, 0, ceiling).astype(dtype))
    theta, c = eigh(projected)
    return theta, root @ c


def project_out(block: Block, basis: Block, dual: Block) -> Block:
    """(I - basis dual^H) block, with dual = M basis and basis^H M basis = I."""
    return block - basis @ gram(dual, block)


def random_block(key: Array, n: int, width: int, dtype) -> Block:
    """A block of standard normal entries, complex where ``dtype`` is."""
    return jax.random.normal(key, (n, width), dtype)
