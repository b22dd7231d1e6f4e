"""Chebyshev's semi-iteration for definite systems whose spectrum's interval is known.

It needs no inner products, and applies a fixed polynomial of the operator. From z_0 = 0,

    z_1 = d_1 = r / c,    d_{j+1} = s_{j+1} s_j d_j + (2 s_{j+1} / e) (r - A z_j),
    z_{j+1} = z_j + d_{j+1},    s_1 = e / c,   1 / s_{j+1} = 2 c / e - s_j,

with [lower, upper] = [c - e, c + e] (Saad, Iterative Methods for Sparse Linear Systems, 2nd ed.,
2003, algorithm 12.1).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core.types import Array, Block, BlockFunction


class _State(NamedTuple):
    z: Block
    d: Block
    s: Array


def semi_iteration(
    product: BlockFunction,
    r: Block,
    lower: Array,
    upper: Array,
    steps: Array | int,
    project: BlockFunction | None = None,
    period: Array | int = 1,
) -> Block:
    """z_steps for A z = r, after ``steps`` - 1 products; steps >= 1.

    Parameters
    ----------
    product : callable
        Z -> A Z.
    r : (n, b)
        Right-hand sides.
    lower, upper : numbers, or (b,)
        The ends of the spectrum, 0 < lower <= upper, for all columns or for each.
    steps : int
        The degree of the polynomial, plus one.
    project : callable, optional
        Applied to the iterate and its direction after every ``period`` products.
    """
    dtype, real = r.dtype, jnp.finfo(r.dtype).dtype
    c, e = ((upper + lower) / 2).astype(real), ((upper - lower) / 2).astype(real)
    e = jnp.where(e > 0, e, c * jnp.finfo(real).eps)

    def step(_: Array, state: _State) -> _State:
        z, d, before = state
        s = 1 / (2 * c / e - before)
        d = (s * before).astype(dtype) * d + (2 * s / e).astype(dtype) * (r - product(z))
        return _State(z + d, d, s)

    first = r / c.astype(dtype)
    begin = _State(first, first, e / c)
    if project is None:
        return jax.lax.fori_loop(1, steps, step, begin).z

    def stretch(i: Array, state: _State) -> _State:
        count = jnp.minimum(period, steps - 1 - i * period)
        z, d, s = jax.lax.fori_loop(0, count, step, state)
        return _State(project(z), project(d), s)

    return jax.lax.fori_loop(0, -(-(steps - 1) // period), stretch, begin).z
