"""Dense factorisations in JAX: LU with row pivoting, and the reciprocals of a diagonal matrix."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.types import Array, Block
from jax_peig._factorizations.store import FIRST_STEP, MOVES, UNKNOWN


class _Trial(NamedTuple):
    """A factorisation in JAX, and whether it will do."""

    parts: tuple[Array, ...]
    pole: Array
    negative: Array
    good: Array


def _search(factor: Callable[[Array], _Trial], shift: Array, step: Array) -> _Trial:
    """The first trial that will do, at the shift or below it."""

    def at(tried: Array) -> _Trial:
        return factor(shift - jnp.where(tried > 0, step * 10.0 ** (tried - 1), 0))

    def unfinished(state: tuple[Array, _Trial]) -> Array:
        return ~state[1].good & (state[0] < MOVES)

    def move(state: tuple[Array, _Trial]) -> tuple[Array, _Trial]:
        return state[0] + 1, at(state[0] + 1)

    start = jnp.zeros_like(shift)
    _, found = jax.lax.while_loop(unfinished, move, (start, at(start)))
    return found._replace(pole=jnp.where(found.good, found.pole, jnp.nan))


@functools.partial(jax.jit, static_argnames=("definite", "inertia"))
def factor_dense(
    a: Array, m: Array | None, shift: Array, definite: bool, inertia: bool
) -> tuple[Array, Array, tuple[Array, ...]]:
    """The pole, the count of eigenvalues below it, and LU with the permutation of the rows."""
    n, dtype, eps = a.shape[0], a.dtype, tolerances.eps(a.dtype)
    a, mass = (jnp.eye(n, dtype=dtype) if x is None else x for x in (a, m))
    a, mass = (blocks.herm(jnp.diag(x) if x.ndim == 1 else x) for x in (a, mass))

    def factor(pole: Array) -> _Trial:
        matrix = a - pole.astype(dtype) * mass
        lu, permutation = _lu(matrix)
        diagonal = jnp.abs(jnp.diagonal(lu))
        good = jnp.min(diagonal) > n * eps * jnp.max(diagonal)
        negative = jnp.sum(blocks.eigh(matrix)[0] < 0) if inertia else jnp.array(UNKNOWN)
        if definite:
            inverse = blocks.inverse_factor(matrix)[0]
            good &= jnp.all(jnp.isfinite(inverse))
            negative = jnp.zeros_like(negative)
        return _Trial((lu, permutation), pole, negative, good)

    found = _search(factor, shift, _step(a, mass))
    lu, permutation = found.parts
    return found.pole, found.negative, (jnp.where(found.good, lu, jnp.nan), permutation)


@functools.partial(jax.jit, static_argnames=("definite", "inertia"))
def factor_diagonal(
    a: Array, m: Array | None, shift: Array, definite: bool, inertia: bool
) -> tuple[Array, Array, tuple[Array, ...]]:
    """The pole, the count of eigenvalues below it, and the reciprocals."""
    del inertia
    dtype, eps = a.dtype, tolerances.eps(a.dtype)
    a, mass = a.real, jnp.ones_like(a.real) if m is None else m.real

    def factor(pole: Array) -> _Trial:
        d = a - pole * mass
        good = jnp.min(jnp.abs(d)) > eps * jnp.max(jnp.abs(d))
        good &= jnp.all(d > 0) if definite else True
        return _Trial((1 / d,), pole, jnp.sum(d < 0), good)

    found = _search(factor, shift, _step(a, mass))
    inverse = jnp.where(found.good, found.parts[0], jnp.nan)
    return found.pole, found.negative, (inverse.astype(dtype),)


def count_dense(a: Array, m: Array | None, shift: Array) -> Array:
    """How many eigenvalues lie below the shift; `UNKNOWN` where one is there, to rounding."""
    n, eps = a.shape[0], tolerances.eps(a.dtype)
    if a.ndim == 1 and (m is None or m.ndim == 1):
        values = a.real - shift * (jnp.ones_like(a.real) if m is None else m.real)
    else:
        mass = jnp.eye(n, dtype=a.dtype) if m is None else m
        a, mass = (blocks.herm(jnp.diag(x) if x.ndim == 1 else x) for x in (a, mass))
        values, _ = blocks.eigh(a - shift.astype(a.dtype) * mass)
    size = jnp.abs(values)
    told = jnp.min(size) > n * eps * jnp.max(size)
    return jnp.where(told, jnp.sum(values < 0), UNKNOWN)


def _step(a: Array, mass: Array) -> Array:
    """How far the pole moves at first."""
    rounding = max(FIRST_STEP, 10 * tolerances.eps(a.dtype))
    return rounding * _size(a) / _size(mass)


def _size(matrix: Array) -> Array:
    norm = jnp.max(jnp.sum(jnp.abs(matrix), axis=0) if matrix.ndim == 2 else jnp.abs(matrix))
    return jnp.where(norm > 0, norm, 1)


@blocks.one_by_one
def _lu(matrix: Array) -> tuple[Array, ...]:
    lu, pivots, permutation = jax.lax.linalg.lu(matrix)
    del pivots
    return lu, permutation


def solve_dense(parts: tuple[Array, ...], block: Block) -> Block:
    """The solution by LU with the permutation of the rows, or by reciprocals."""
    if len(parts) == 1:
        return parts[0][:, None] * block
    lu, permutation = parts
    solve = jax.lax.linalg.triangular_solve
    y = solve(lu, block[permutation], left_side=True, lower=True, unit_diagonal=True)
    return solve(lu, y, left_side=True, lower=False)
