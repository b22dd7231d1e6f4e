"""One step of inverse iteration for all pairs: an error of first order becomes one of second.

The eigenvectors' error is known from their residuals R = A X - M X diag(lam): to first order the
exact vectors are X + dX, with the complement solve of the derivative rules,

    dX = -S(R),   P^H (A dX - M dX diag(lam)) = -P^H R   (see `_derivatives.solve`),

and within span(X + dX) Rayleigh-Ritz finds the rest.
"""

import jax.numpy as jnp

from jax_peig._core import blocks
from jax_peig._core.types import Array
from jax_peig._derivatives import solve as systems_solve
from jax_peig._derivatives.systems import Systems
from jax_peig._eigensolvers.convergence import (
    Images,
    Lengths,
    Ritz,
    multiply,
    relative_residuals,
    residuals,
)


def refine(ritz: Ritz, systems: Systems, solvers: tuple, max_steps: int, order) -> Ritz:
    """Improve the first k pairs of ``ritz``, those of ``systems``, where that helps.

    ``order`` sorts k values as they were wanted: (k,) -> indices.
    """
    k = systems.lam.shape[0]
    r = residuals(ritz)[:, :k]
    solution = systems_solve.solve(
        systems, systems.dual(r), blocks.column_norms(r), solvers, max_steps
    )
    dx = -systems.within(solution.z)
    old = Images(ritz.vectors[:, :k], ritz.AX[:, :k], ritz.MX[:, :k])
    new = Images(old.v + dx, old.a + systems.a(dx), old.m + multiply(systems.m, dx))
    small, _ = blocks.orthonormalizer(blocks.gram(new.v, new.m))
    theta, c = blocks.rayleigh_ritz(blocks.gram(new.v, new.a), whitener=small)
    ranks = order(theta)
    theta, new = theta[ranks], Images(*blocks.combine(new, c[:, ranks]))

    def worst(layers: Images, values: Array) -> Array:
        r = blocks.residuals(layers.a, layers.m, values)
        lengths = Lengths.of(r, values, layers.v, systems.data.norms)
        return jnp.max(relative_residuals(lengths, values, systems.data.norms))

    better = worst(new, theta) < worst(old, ritz.values[:k])  # not so where it is NaN
    kept = Images(*(jnp.where(better, n, o) for n, o in zip(new, old, strict=True)))
    # The guard vectors stay orthogonal to what moved.
    guards = Images(ritz.vectors[:, k:], ritz.AX[:, k:], ritz.MX[:, k:])
    inside = blocks.gram(kept.m, guards.v)
    both = Images(
        *(jnp.concatenate([x, g - x @ inside], axis=1) for x, g in zip(kept, guards, strict=True))
    )
    return ritz._replace(
        values=jnp.concatenate([jnp.where(better, theta, ritz.values[:k]), ritz.values[k:]]),
        vectors=both.v,
        AX=both.a,
        MX=both.m,
        matvecs=ritz.matvecs + solution.matvecs + k,
        matvecs_M=ritz.matvecs_M + (0 if systems.m is None else solution.matvecs + k),
    )
