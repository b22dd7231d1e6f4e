"""Preconditioners that divide by a diagonal, or by diagonal blocks."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import scipy.sparse
from jax.experimental.sparse import BCOO

from jax_peig._core import blocks as _blocks
from jax_peig._core.checks import is_array
from jax_peig._core.types import Array, ArrayLike, Block
from jax_peig._operators.given import order_and_dtype
from jax_peig.preconditioners._base import (
    Preconditioner,
    floating_array,
    inverse_size,
    positive_integer,
    real_number,
)


def jacobi(diagonal: ArrayLike, shift: Any = 0.0) -> Preconditioner:
    """Divide by a diagonal: T = diag(1 / |d - sigma|).

    Parameters
    ----------
    diagonal : (n,)
        The diagonal of A, ``jnp.diagonal(A)`` or ``A.diagonal()``. Its real part is taken.
    shift : float or (n,), optional
        sigma, near the wanted eigenvalues. With M, give the array sigma diag(M). Default: 0.

    Returns
    -------
    Preconditioner
        It costs n multiplications a vector.

    Differentiability
    -----------------
    * In: ``diagonal`` and ``shift``, by ``T @ v``. `partial_eigh` takes T as a constant.
    * Modes: forward and reverse.
    * Orders: any.
    * Refused: never.

    Notes
    -----
    It is positive definite for every diagonal. |d - sigma| is at least 100 eps of its largest
    entry, so that an entry equal to sigma does not drown all others. A constant diagonal changes
    nothing. Saad, section 10.2.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig.preconditioners import jacobi
    >>> T = jacobi(jnp.array([4.0, -2.0, 1.0]), shift=0.5)
    >>> print((T @ jnp.ones(3)).round(3))
    [0.286 0.4   2.   ]
    """
    d = floating_array(diagonal, "jacobi: diagonal", "(n,), as jnp.diagonal(A)", (1,)).real
    if is_array(shift) and shift.ndim == 1:
        sigma = floating_array(shift, "jacobi: shift", "(n,)", (1,)).real
        if sigma.shape != d.shape:
            raise ValueError(f"jacobi: shift has shape {sigma.shape}; expected {d.shape} or ().")
    else:
        sigma = jnp.broadcast_to(real_number(shift, "jacobi: shift"), d.shape)
    return Preconditioner((inverse_size(d - sigma.astype(d.dtype)),), _multiply, d.shape[0])


def _multiply(leaves: tuple[Array], block: Block) -> Block:
    return leaves[0].astype(block.dtype)[:, None] * block


def block_jacobi(blocks: Any, size: int | None = None) -> Preconditioner:
    """Invert the diagonal blocks: T = diag(|B_1|^-1, ..., |B_m|^-1).

    Parameters
    ----------
    blocks : (m, s, s), or with ``size`` an array (n, n), a BCOO or a SciPy sparse matrix
        The diagonal blocks B of A - sigma M, n = m s, or that matrix, from which they are cut.
        Their Hermitian parts are taken.
    size : int, optional
        s, the number of consecutive unknowns in a block. The last block is smaller where s does not
        divide n.

    Returns
    -------
    Preconditioner
        It costs 2 n s operations a vector and n s numbers, and is made in O(n s^2) operations.
        Complex blocks serve complex vectors only.

    Differentiability
    -----------------
    * In: nothing: T is a constant, and ``T @ v`` is linear in v.
    * Modes: forward and reverse.
    * Orders: any, in v.
    * Refused: never.

    Notes
    -----
    With B = U diag(l) U^H, |B|^-1 = U diag(1 / |l|) U^H, where |l| is at least 100 eps of the
    largest of all blocks. This is the inverse of a positive definite B, and positive definite for
    every other B, such as one with sigma inside its spectrum. Saad, section 12.2.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig.preconditioners import block_jacobi
    >>> A = jnp.array([[2.0, 2.0, 9.0], [2.0, 2.0, 0.0], [9.0, 0.0, 4.0]]) + jnp.eye(3)
    >>> print((block_jacobi(A, size=2) @ A[:, :2]).round(2) + 0.0)
    [[1.  0. ]
     [0.  1. ]
     [1.8 0. ]]
    """
    sparse = scipy.sparse.issparse(blocks) or isinstance(blocks, BCOO)
    name = "block_jacobi: blocks"
    if size is None:
        if sparse or (is_array(blocks) and blocks.ndim == 2):
            raise TypeError(f"{name} is a matrix, size is None; expected a block's size, size=...")
        cut = floating_array(blocks, name, "(m, s, s)", (3,))
        if cut.shape[1] != cut.shape[2]:
            raise ValueError(f"{name} has shape {cut.shape}; expected (m, s, s), square blocks.")
        n = cut.shape[0] * cut.shape[1]
    else:
        size = positive_integer(size, "block_jacobi: size")
        matrix = BCOO.from_scipy_sparse(blocks) if scipy.sparse.issparse(blocks) else blocks
        if not sparse:
            matrix = floating_array(blocks, name, "(n, n) with a size", (2,))
        order_and_dtype(matrix, name)
        n = matrix.shape[0]
        cut = floating_array(_cut(matrix, min(size, n)), name, "(n, n)", (3,))
    return Preconditioner((_invert(cut),), _BlockDiagonal(n), n)


@jax.jit
def _invert(blocks: Array) -> Array:
    """|B|^-1 for blocks (m, s, s)."""
    # The derivative of eigh is NaN where a block's eigenvalues repeat, even multiplied by zero.
    hermitian = jax.vmap(_blocks.herm)(jax.lax.stop_gradient(blocks))
    lam, u = jax.vmap(_blocks.eigh)(hermitian)
    inverse = u * inverse_size(lam).astype(u.dtype)[:, None, :] @ u.conj().transpose(0, 2, 1)
    return jax.vmap(_blocks.herm)(inverse)


@functools.partial(jax.jit, static_argnums=1)
def _cut(matrix: Any, size: int) -> Array:
    """The diagonal blocks (m, size, size), the last one filled up by the identity."""
    n = matrix.shape[0]
    m = -(-n // size)
    if is_array(matrix):
        padded = jnp.pad(matrix, ((0, m * size - n),) * 2).reshape(m, size, m, size)
        blocks = padded[jnp.arange(m), :, jnp.arange(m), :]
    else:
        matrix = matrix.update_layout(n_batch=0, n_dense=0)
        row, column = matrix.indices[:, 0], matrix.indices[:, 1]
        inside = (row // size == column // size) & (row < n)  # BCOO pads with the index n
        place = (row // size, row % size, column % size)
        zero = jnp.zeros((m, size, size), matrix.dtype)
        blocks = zero.at[place].add(jnp.where(inside, matrix.data, 0), mode="drop")
    beyond = (jnp.arange(m * size) >= n).astype(blocks.dtype).reshape(m, size)
    return blocks + beyond[:, :, None] * jnp.eye(size, dtype=blocks.dtype)[None]


@dataclasses.dataclass(frozen=True)
class _BlockDiagonal:
    n: int

    def __call__(self, leaves: tuple[Array], block: Block) -> Block:
        (inverse,) = leaves  # (m, s, s)
        if jnp.iscomplexobj(inverse) and not jnp.iscomplexobj(block):
            raise TypeError(
                f"block_jacobi of {inverse.dtype} applied to {block.dtype}; expected complex "
                "vectors: give a complex dtype, or the blocks' real parts."
            )
        m, size, _ = inverse.shape
        padded = jnp.pad(block, ((0, m * size - self.n), (0, 0))).reshape(m, size, -1)
        return (inverse.astype(block.dtype) @ padded).reshape(m * size, -1)[: self.n]
