"""What every eigensolver returns."""

from typing import NamedTuple

import jax.numpy as jnp

from jax_peig import _blocks
from jax_peig._operators import Operator
from jax_peig._types import Array, Block


class Complement(NamedTuple):
    """The eigenpairs beyond the k wanted ones, where a solver has all of them."""

    values: Array  # (n - k,)
    vectors: Block  # (n, n - k)


class Ritz(NamedTuple):
    """Approximate eigenpairs, more than k of them where there are more, in the order wanted."""

    values: Array  # (m,), ascending for the smallest, descending for the largest
    vectors: Block  # (n, m), M-orthonormal
    AX: Block
    MX: Block  # the vectors themselves without M
    steps: Array
    products: Array  # with A, in vectors
    products_M: Array
    stagnated: Array  # the residuals stopped falling before the tolerance
    finite: Array  # every product was
    definite: Array  # no sign of a negative eigenvalue of M was seen
    complement: Complement | None = None


def residuals(ritz: Ritz) -> Block:
    """A X - M X diag(values), (n, m)."""
    return ritz.AX - ritz.MX * ritz.values.astype(ritz.MX.dtype)[None, :]


def relative_residuals(block: Block, values: Array, vectors: Block, norms) -> Array:
    """||r|| / ((||A|| + |lam| ||M||) ||x||) for every column: what is held against ``tol``."""
    norm_a, norm_m = norms
    length = _blocks.column_norms(vectors)
    size = (norm_a + jnp.abs(values) * norm_m) * length
    r = _blocks.column_norms(block)
    relative = jnp.where(r == 0, 0, r / jnp.where(size > 0, size, 1))
    return jnp.where(length == 0, jnp.inf, relative)  # a dropped direction is no eigenvector


def multiply(operator: Operator | None, block: Block) -> Block:
    """A V, V itself where there is no operator."""
    return block if operator is None else operator(block)
