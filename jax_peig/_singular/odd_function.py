"""U h(S) V^H for an odd h at zero singular values, to second order, without squares of them.

U (m, k) and V stand still, and C = A V moves; its value is U diag(s). With N = U^H C, with
R = (I - U U^H) C, whose value is zero, and with q(x) = h(x)/x, which is even,

    U h(S) V^H V = U h(K)_12 + R q(K)_22 + U [kappa o (R^H R)],   K = [[0, N], [N^H, 0]],

up to terms of third order in the change of C. In the dilation of C the columns of R belong to the
eigenvalue 0, and kappa is the second divided difference h[s_i, 0, +-s_j], which is one of q:
kappa_ij = (q[s_i, s_j] + q[s_i, -s_j])/2 (Higham, Functions of Matrices, 2008, theorem 3.11).
"""

import jax
import jax.numpy as jnp

from jax_peig._api.matrix_function import (
    DIFFERENCE_ROUNDING,
    Scalar,
    divided_differences,
    function_of,
    mean_slope,
)
from jax_peig._core import blocks, tolerances
from jax_peig._core.sharding import replicated
from jax_peig._core.types import Array, Block


def odd_function(h: Scalar, s: Array, c: Block, u: Block) -> tuple[Block, Array]:
    """C g(C^H C) with g(x^2) = h(x)/x, and whether h is odd at the singular values.

    Parameters
    ----------
    h : callable
        As in `hermitian_function`.
    s : (k,)
        The singular values, without derivative.
    c : (m, k)
        U diag(s), with its derivative.
    u : (m, k)
        U, without derivative.
    """
    values, mirrored = jax.vmap(h)(s), jax.vmap(h)(-s)
    size = jnp.max(jnp.abs(values))
    rounding = DIFFERENCE_ROUNDING * tolerances.eps(s.dtype)
    odd = jnp.all(jnp.abs(values + mirrored) <= rounding * size)

    def quotient(x: Array) -> Array:
        return _quotient(h, x, rounding * size)

    k = s.shape[0]
    inside = replicated(blocks.gram, u, c)
    zero = jnp.zeros_like(inside)
    dilation = jnp.block([[zero, inside], [inside.conj().T, zero]])
    image = u @ function_of("low_rank", h, dilation)[:k, k:]
    rest = c - u @ inside
    if c.shape[0] == k:
        return image, odd
    image = image + rest @ function_of("low_rank", quotient, dilation)[k:, k:]
    differences = divided_differences(quotient, jnp.concatenate([s, -s]))
    kappa = (differences[:k, :k] + differences[:k, k:]) / 2
    return image + u @ (kappa.astype(c.dtype) * replicated(blocks.gram, rest, rest)), odd


def _quotient(h: Scalar, x: Array, rounding: Array) -> Array:
    """h(x)/x, by the mean of h' from 0 to x where the two agree, and at zero."""
    mean = mean_slope(h, jnp.zeros_like(x), x)
    agree = jnp.abs(mean * x - h(x)) <= rounding
    return jnp.where(agree, mean, h(x) / jnp.where(x == 0, 1, x))
