"""Tensor renormalisation of the Ising model on a square lattice (Levin and Nave 2007), and Onsager.

A site is a tensor T[u, l, d, r] of its four bonds. A step splits the sites of one sublattice
between (u, l) and (d, r), those of the other between (l, d) and (u, r), each by a truncated
singular value decomposition, and joins four halves around a plaquette: half as many sites, on a
lattice that is turned by 45 degrees.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jax_peig import hermitian_function, singular_space

# (matrix, k) -> (S, S') of k columns each, S S'^T the matrix truncated to rank k.
Split: TypeAlias = Callable[[Any, int], tuple[Any, Any]]


def log_partition_function(beta: Any, ranks: tuple[int, ...], split: Split, more: int = 0) -> Any:
    """ln Z for a site, at the inverse temperature ``beta`` with J = 1.

    There is a step for each of the ``ranks``, and ``more`` of the last one, which leaves the shape.
    """
    c, s = jnp.sqrt(jnp.cosh(beta)), jnp.sqrt(jnp.sinh(beta))
    w = jnp.array([[1.0, 1.0], [1.0, -1.0]]) * jnp.stack([c, s])[None, :]
    t = jnp.einsum("su,sl,sd,sr->uldr", w, w, w, w)
    total, share = jnp.zeros(()), 1.0

    def step(state: Any, k: int) -> Any:
        t, total, share = state
        size = jnp.linalg.norm(t)
        return coarser(t / size, k, split), total + share * jnp.log(size), share / 2

    state = (t, total, share)
    for k in ranks:
        state = step(state, k)
    state, _ = jax.lax.scan(lambda state, _: (step(state, ranks[-1]), None), state, length=more)
    t, total, share = state
    return total + share * jnp.log(jnp.einsum("ulul->", t))


def coarser(t: Any, k: int, split: Split) -> Any:
    """One step of renormalisation."""
    d = t.shape[0]
    both = jnp.stack([t, t.transpose(1, 2, 0, 3)])  # [u, l, d, r] and [l, d, u, r]
    halves = jax.vmap(lambda matrix: split(matrix, k))(both.reshape(2, d * d, d * d))
    (upper, left), (lower, right) = (half.reshape(2, d, d, k) for half in halves)
    return jnp.einsum("abu,bcr,ced,ael->uldr", lower, left, upper, right)


def by_space(matrix: Any, k: int) -> tuple[Any, Any]:
    """By `singular_space`, with the root of its core."""
    space = singular_space(matrix, k)
    root = hermitian_function(jnp.sqrt, space.core)
    return space.left @ root, space.right @ root.T


def by_jnp(matrix: Any, k: int) -> tuple[Any, Any]:
    """By ``jnp.linalg.svd``."""
    u, s, vh = jnp.linalg.svd(matrix, full_matrices=False)
    root = jnp.sqrt(s[:k])[None, :]
    return u[:, :k] * root, vh[:k].T * root


def by_broadened(matrix: Any, k: int, width: float = 1e-12) -> tuple[Any, Any]:
    """By an SVD whose rule has x/(x^2 + width) in the place of 1/x."""
    u, s, v = broadened_svd(matrix, width)
    root = jnp.sqrt(s[:k])[None, :]
    return u[:, :k] * root, v[:, :k] * root


@jax.custom_jvp
def broadened_svd(matrix: Any, width: float) -> tuple[Any, Any, Any]:
    """U, s, V of a square matrix."""
    u, s, vh = jnp.linalg.svd(matrix)
    return u, s, vh.T


@broadened_svd.defjvp
def _broadened_svd_jvp(primals: Any, tangents: Any) -> Any:
    matrix, width = primals
    u, s, v = broadened_svd(matrix, width)
    n = u.T @ tangents[0] @ v
    difference = s[None, :] ** 2 - s[:, None] ** 2
    f = difference / (difference**2 + width)
    turn_u = f * (n * s[None, :] + s[:, None] * n.T)
    turn_v = f * (s[:, None] * n + n.T * s[None, :])
    return (u, s, v), (u @ turn_u, jnp.diagonal(n), v @ turn_v)


def onsager(beta: Any) -> Any:
    """The exact ln Z for a site (Onsager 1944), away from the critical point."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    theta = np.pi * (nodes + 1) / 2
    sinh2 = jnp.sinh(2 * beta) ** 2
    root = jnp.sqrt(sinh2**2 + 1 - 2 * sinh2 * np.cos(2 * theta))
    return jnp.log(2) / 2 + jnp.sum(weights * jnp.log(jnp.cosh(2 * beta) ** 2 + root)) / 4
