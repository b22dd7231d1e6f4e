"""Adapters of the Krylov solvers of ``jax.scipy.sparse.linalg``, column by column under vmap.

Their own report is not used: gmres reports success whatever happens, cg reports nothing.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.sparse import linalg

from jax_peig._core.types import Array, Block, BlockFunction, ColumnsProduct

# Krylov vectors that gmres keeps between restarts.
RESTART = 40


def cg(
    product: ColumnsProduct,
    b: Block,
    atol: Array,
    max_steps: int,
    preconditioner: BlockFunction | None = None,
) -> Block:
    """Conjugate gradients, for positive definite systems; see the package's text."""

    def solve(
        matvec: BlockFunction, column: Array, atol: Array, precondition: BlockFunction | None
    ) -> Array:
        return linalg.cg(matvec, column, tol=0.0, atol=atol, maxiter=max_steps, M=precondition)[0]

    return _by_columns(solve, product, b, atol, preconditioner)


def gmres(
    product: ColumnsProduct,
    b: Block,
    atol: Array,
    max_steps: int,
    preconditioner: BlockFunction | None = None,
) -> Block:
    """Restarted GMRES, for any nonsingular system; see the package's text."""
    restart = min(RESTART, b.shape[0])

    def solve(
        matvec: BlockFunction, column: Array, atol: Array, precondition: BlockFunction | None
    ) -> Array:
        return linalg.gmres(
            matvec,
            column,
            tol=0.0,
            atol=atol,
            restart=restart,
            maxiter=-(-max_steps // restart),
            M=precondition,
        )[0]

    return _by_columns(solve, product, b, atol, preconditioner)


def _by_columns(
    solve: Callable[..., Array],
    product: ColumnsProduct,
    b: Block,
    atol: Array,
    preconditioner: BlockFunction | None,
) -> Block:
    """Apply a solver of vectors to every column."""

    def one(column: Array, index: Array, atol: Array) -> Array:
        def matvec(v: Array) -> Array:
            return product(v[:, None], index[None])[:, 0]

        def precondition(v: Array) -> Array:
            assert preconditioner is not None
            return preconditioner(v[:, None])[:, 0]

        return solve(matvec, column, atol, None if preconditioner is None else precondition)

    index = jnp.arange(b.shape[1])
    return jax.vmap(one, in_axes=(1, 0, 0), out_axes=1)(b, index, atol)
