"""Adapters of the Krylov solvers of ``jax.scipy.sparse.linalg``, column by column under vmap.

Their own report is not used: gmres reports success whatever happens, cg reports nothing.
"""

import jax
import jax.numpy as jnp
from jax.scipy.sparse import linalg

from jax_peig._core.types import Array, Block

RESTART = 40  # Krylov vectors that gmres keeps


def cg(product, b: Block, atol: Array, max_steps: int, preconditioner=None) -> Block:
    """Conjugate gradients, for positive definite systems; see the package's text."""

    def solve(matvec, column, atol, precondition):
        return linalg.cg(matvec, column, tol=0.0, atol=atol, maxiter=max_steps, M=precondition)[0]

    return _by_columns(solve, product, b, atol, preconditioner)


def gmres(product, b: Block, atol: Array, max_steps: int, preconditioner=None) -> Block:
    """Restarted GMRES, for any nonsingular system; see the package's text."""
    restart = min(RESTART, b.shape[0])

    def solve(matvec, column, atol, precondition):
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


def _by_columns(solve, product, b: Block, atol: Array, preconditioner) -> Block:
    def one(column, index, atol):
        def matvec(v):
            return product(v[:, None], index[None])[:, 0]

        def precondition(v):
            return preconditioner(v[:, None])[:, 0]

        return solve(matvec, column, atol, None if preconditioner is None else precondition)

    index = jnp.arange(b.shape[1])
    return jax.vmap(one, in_axes=(1, 0, 0), out_axes=1)(b, index, atol)
