"""Algebraic multigrid: a symmetric V-cycle over levels that PyAMG, or the caller, makes."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from jax_peig._core.types import Array, Block
from jax_peig._operators.sparse import SparseOperator, from_scipy
from jax_peig.preconditioners import multigrid_setup as setup
from jax_peig.preconditioners._base import Preconditioner, positive_integer

# The smoother: two steps of Chebyshev's iteration for eigenvalues of A / d in rho times this.
LOWER, UPPER = 1 / 4, 1.1


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["A", "prolongation", "restriction", "smoother"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Level:
    """A level but the coarsest."""

    A: SparseOperator  # (n, n)
    prolongation: SparseOperator  # (n, m)
    restriction: SparseOperator  # (m, n), its conjugate transpose
    smoother: Array  # (n,): 1 / (rho d)


def multigrid(S: Any, *, near_nullspace: Any = None, max_coarse: int = 500) -> Preconditioner:
    """TODO."""
    positive_integer(max_coarse, "multigrid: max_coarse")
    if scipy.sparse.issparse(S):
        pairs = setup.by_pyamg(S, near_nullspace, max_coarse)
    else:
        pairs = setup.pairs_of(S)
    grids, inverse, dtype = setup.grids(pairs)
    levels = tuple(_level(grid, dtype) for grid in grids)
    return Preconditioner((levels, jnp.asarray(inverse.astype(dtype))), _product, pairs[0][0].shape[0])


def _level(grid: setup.Grid, dtype: np.dtype) -> Level:
    A, P = grid.A.astype(dtype), grid.P.astype(dtype)
    smoother = jnp.asarray(grid.smoother.astype(np.finfo(dtype).dtype))
    return Level(from_scipy(A), from_scipy(P), from_scipy(P.conj().T), smoother)


def _product(leaves: tuple[tuple[Level, ...], Array], block: Block) -> Block:
    levels, inverse = leaves
    if not jnp.iscomplexobj(block):
        if jnp.iscomplexobj(inverse):
            raise TypeError(
                f"multigrid of {inverse.dtype} applied to {block.dtype}; expected complex "
                "vectors: give a complex dtype, or the real part of S."
            )
        return _cycle(levels, inverse, block.astype(inverse.dtype)).astype(block.dtype)
    if jnp.iscomplexobj(inverse):
        return _cycle(levels, inverse, block.astype(inverse.dtype)).astype(block.dtype)
    parts = jnp.concatenate([block.real, block.imag], axis=1)  # a real T acts on each
    real, imaginary = jnp.split(_product(leaves, parts), 2, axis=1)
    return jax.lax.complex(real, imaginary)


def _cycle(levels: tuple[Level, ...], inverse: Array, b: Block) -> Block:
    """One V-cycle for A x = b from x = 0."""
    if not levels:
        return inverse @ b
    level = levels[0]
    start = FIRST * _times(level.smoother, b)
    x, r, _ = _smooth(level, jnp.zeros_like(b), b, start, (FACTOR, FACTOR))
    d = level.prolongation @ _cycle(levels[1:], inverse, level.restriction @ r)
    x, _, d = _smooth(level, x, r, d, (0.0, FACTOR))
    return x + d


def _smooth(level, x, r, d, factors):
    real = level.smoother.dtype
    alpha = jnp.array([factors[0], ALPHA], real).astype(x.dtype)
    beta = jnp.array([FIRST if factors[0]==0 else BETA, BETA], real).astype(x.dtype)
    def step(i, state):
        x, r, d = state
        x = x + d
        r = r - level.A @ d
        return x, r, alpha[i] * d + beta[i] * _times(level.smoother, r)
    if UNROLL:
        s=(x,r,d)
        for i in range(2): s=step(i,s)
        return s
    return jax.lax.fori_loop(0, 2, step, (x, r, d))


def _times(v: Array, block: Block) -> Block:
    return v.astype(block.dtype)[:, None] * block


import os
UNROLL = os.environ.get("UNROLL")
CENTRE, HALF = (UPPER + LOWER) / 2, (UPPER - LOWER) / 2
FIRST = 1 / CENTRE
_R0 = HALF / CENTRE
_R1 = 1 / (2 * CENTRE / HALF - _R0)
FACTOR = ALPHA = _R1 * _R0
BETA = 2 * _R1 / HALF
