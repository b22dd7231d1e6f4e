"""Error bounds of eigenvalues, and the clusters of those that cannot be told apart.

The residual bound is Weyl's inequality, see `bounds`; for M != I see Parlett, The Symmetric
Eigenvalue Problem (1998), chapter 15.
"""

import jax
import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.types import Array, Block
from jax_peig._linear_solvers import minres
from jax_peig._operators.operator import Operator
from jax_peig.bounds import second_order

# MINRES on M for the error bounds: its residual enters squared and times the condition number of M.
MASS_TOLERANCE = 1e-4
MASS_STEPS = 300
MARGIN = 1.01
# A residual is computed with rounding of some eps (||A|| + |lam| ||M||) ||x||.
ROUNDING = 10


def error_bounds(
    values: Array, r: Block, lengths: tuple[Array, Array], m: Operator | None, norms
) -> tuple[Array, Array, Array]:
    """Distances within which an eigenvalue of the pencil lies, (b,); ``lengths`` of R and X.

    Returned with the number of products with M, and whether M looked positive definite.

    min_i |lam_i - lam| <= ||A x - lam M x||_{M^{-1}} / ||x||_M. The norm is obtained from MINRES on
    M y = r:  r^H M^{-1} r = [2 Re y^H r - y^H M y] + s^H M^{-1} s  with s = r - M y; the last term
    is at most ||s||^2 / lam_min(M), for which the smallest Rayleigh quotient of the y stands, with
    `MARGIN` for its being an upper bound of lam_min(M).
    """
    norm, size = lengths
    noise = ROUNDING * rounding(values, norms) * size
    norm_m = norms[1]
    if m is None:
        return norm + noise, jnp.array(0), jnp.array(True)
    # By a matrix product, which is computed once: where r is rounding, each fusion that computes it
    # anew finds other digits.
    unit = r @ jnp.diag(blocks.reciprocal(norm).astype(r.dtype))
    report = minres.solve_and_report(
        lambda block, _: m(block), unit, jnp.full_like(norm, MASS_TOLERANCE), MASS_STEPS
    )
    y = report.x
    my = m(y)
    energy = jnp.sum(y.conj() * my, axis=0).real
    quadratic = 2 * jnp.sum(y.conj() * unit, axis=0).real - energy
    size = jnp.sum(jnp.abs(y) ** 2, axis=0)
    quotients = jnp.where(size > 0, energy / jnp.where(size > 0, size, 1), jnp.inf)
    lowest = jnp.min(quotients, initial=norm_m)
    rest = jnp.sum(jnp.abs(unit - my) ** 2, axis=0) / lowest
    bound = MARGIN * norm * jnp.sqrt(jnp.maximum(quadratic, 0) + rest)
    bound = jnp.where(norm > 0, bound, 0) + noise / jnp.sqrt(lowest)
    matvecs = (report.steps + 1) * r.shape[1]
    return bound, matvecs, report.positive & jnp.all(energy >= 0) & (lowest > 0)


def rounding(values: Array, norms) -> Array:
    """The rounding of a residual of a unit vector: eps (||A|| + |lam| ||M||), (b,)."""
    return tolerances.eps(values.dtype) * (norms[0] + jnp.abs(values) * norms[1])


def error_estimates(
    places: Array,
    vectors: Block,
    r: Block,
    lengths: tuple[Array, Array],
    bounds: Array,
    rounding: Array,
) -> Array:
    """How far the k eigenvalues are from the computed ones, most likely, (k,): sharp, no bounds.

    Rayleigh-Ritz leaves residuals that are orthogonal to the whole block, guard vectors included:
    the wanted pairs do not disturb each other, and Kato and Temple's ||r||^2 / gap holds with the
    gap to what lies beyond the block, however near other pairs of it may be.

    Parameters
    ----------
    places : (b,)
        Where the block's values stand in the order wanted, ascending: sign A's, or distances.
    vectors, r : (n, b)
        The block and its residuals.
    lengths
        Of the columns of both.
    bounds : (k,)
        Of the errors, for norms ||r|| in that of M^{-1}.
    rounding : (k,)
        Of the residuals, which is added.
    """
    k = bounds.shape[0]
    distance = places[k:, None] - places[None, :k]  # (b - k, k)
    # Guard vectors that were not in one Rayleigh-Ritz with the pairs.
    along = jnp.abs(blocks.gram(vectors[:, k:], r[:, :k]))
    own = jnp.sum(jnp.minimum(second_order(along, distance), along), axis=0)
    # What has no guard vector begins behind the last; or, a part of it, at one that is not resolved
    # from the pair yet.
    resolved = (lengths[0] * lengths[1])[k:, None] <= distance
    gap = jnp.min(jnp.where(resolved, jnp.inf, distance), axis=0, initial=jnp.inf)
    gap = jnp.minimum(gap, places[-1] - places[:k])
    share = jnp.sum((along * blocks.reciprocal(bounds)[None, :]) ** 2, axis=0)
    rest = bounds * jnp.sqrt(jnp.maximum(1 - share, 0))
    return jnp.minimum(own + second_order(rest, gap) + rounding, bounds)


def cluster_labels(values: Array, radii: Array) -> Array:
    """Equal labels, 0, 1, ... as they first appear, for values that cannot be told apart, (b,).

    With radii max(error bound, tolerance / 2), two eigenvalues are linked when they differ by no
    more than the sum of their radii; clusters are the transitive closure, that is, the connected
    unions of the intervals.
    """
    order = jnp.argsort(values)
    line, reach = values[order], radii[order]
    upper = jax.lax.cummax(line + reach)
    lower = jax.lax.cummin(line - reach, reverse=True)
    group = jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(upper[:-1] < lower[1:])])
    group = jnp.zeros_like(group).at[order].set(group)
    first = jnp.argmax(mask(group), axis=1)  # where each group appears first
    rank = jnp.cumsum(first == jnp.arange(first.shape[0])) - 1
    return rank[first]


def degeneracy_tolerance(values: Array, absolute: float | None) -> Array:
    """Distance below which eigenvalues are one cluster: the caller's, or sqrt(eps) max |lam|."""
    if absolute is not None:
        return jnp.array(absolute, values.dtype)
    return tolerances.degeneracy(values.dtype) * jnp.max(jnp.abs(values))


def mask(labels: Array) -> Array:
    """D of eq. 2.7: True where i and j are in one cluster, (k, k)."""
    return labels[:, None] == labels[None, :]
