"""One step of inverse iteration for all pairs: an error of first order becomes one of second.

The eigenvectors' error is known from their residuals R = A X - M X diag(lam): to first order the
exact vectors are X + dX, with the complement solve of the derivative rules,

    dX = -S(R),   P^H (A dX - M dX diag(lam)) = -P^H R   (see `_derivatives.solve`),

and Rayleigh-Ritz within span(X + dX) finds the pairs.
"""

from collections.abc import Callable

import jax.numpy as jnp

from jax_peig._core import blocks
from jax_peig._core.types import Array
from jax_peig._derivatives import solve as systems_solve
from jax_peig._derivatives.sylvester import Settings
from jax_peig._derivatives.systems import SystemData, Systems, default_tolerance
from jax_peig._operators.operator import Operator
from jax_peig._problem.convergence import (
    Images,
    Lengths,
    Ritz,
    multiply,
    relative_residuals,
    residuals,
)


def systems_of(
    pencil: tuple[Operator, Operator | None], ritz: Ritz, k: int, data: SystemData, sign: int
) -> Systems:
    """The systems of the first k pairs, with the tolerance that their residuals justify."""
    values = ritz.values
    r = residuals(ritz)[:, :k]
    bounds = blocks.column_norms(r) * blocks.column_norms(ritz.vectors[:, :k])
    gap = jnp.min(jnp.abs(values[None, :k] - values[k:, None]), initial=jnp.inf)
    data = data._replace(tol=default_tolerance(bounds, gap, jnp.array(False)))
    a, m = pencil
    return Systems(a, m, ritz.vectors[:, :k], ritz.MX[:, :k], values[:k], data, sign)


def refine(
    ritz: Ritz, systems: Systems, settings: Settings, order: Callable[[Array], Array]
) -> Ritz:
    """Take the step for the first k pairs of ``ritz``, those of ``systems``, where it helps.

    ``order`` sorts k values as they were wanted: (k,) -> indices.
    """
    k = systems.lam.shape[0]
    r = residuals(ritz)[:, :k]
    solution = systems_solve.solve(
        systems, systems.dual(r), blocks.column_norms(r), settings.solvers, settings.max_steps
    )
    dx = -systems.within(solution.z)
    old = Images(ritz.vectors[:, :k], ritz.AX[:, :k], ritz.MX[:, :k])
    moved = Images(old.v + dx, old.a + systems.a(dx), old.m + multiply(systems.m, dx))
    theta, new = _rayleigh_ritz(moved, order)
    better = _worst(new, theta, systems) < _worst(old, ritz.values[:k], systems)  # False for NaN
    kept = Images(*(jnp.where(better, n, o) for n, o in zip(new, old, strict=True)))
    both = _with_guards(kept, ritz, k)
    return ritz._replace(
        values=jnp.concatenate([jnp.where(better, theta, ritz.values[:k]), ritz.values[k:]]),
        vectors=both.v,
        AX=both.a,
        MX=both.m,
        matvecs=ritz.matvecs + solution.matvecs + k,
        matvecs_M=ritz.matvecs_M + (0 if systems.m is None else solution.matvecs + k),
    )


def _rayleigh_ritz(block: Images, order: Callable[[Array], Array]) -> tuple[Array, Images]:
    """Ritz values and vectors within the span of a block, in the order wanted."""
    small, _ = blocks.orthonormalizer(blocks.gram(block.v, block.m))
    theta, c = blocks.rayleigh_ritz(blocks.gram(block.v, block.a), whitener=small)
    ranks = order(theta)
    return theta[ranks], Images(*blocks.combine(block, c[:, ranks]))


def _worst(block: Images, values: Array, systems: Systems) -> Array:
    """The largest relative residual of approximate pairs."""
    norms = systems.data.norms
    r = blocks.residuals(block.a, block.m, values)
    lengths = Lengths.of(r, values, block.v, norms)
    return jnp.max(relative_residuals(lengths, values, norms))


def _with_guards(pairs: Images, ritz: Ritz, k: int) -> Images:
    """The pairs and the guard vectors, which stay orthogonal to the pairs that moved."""
    guards = Images(ritz.vectors[:, k:], ritz.AX[:, k:], ritz.MX[:, k:])
    inside = blocks.gram(pairs.m, guards.v)
    return Images(
        *(jnp.concatenate([x, g - x @ inside], axis=1) for x, g in zip(pairs, guards, strict=True))
    )
