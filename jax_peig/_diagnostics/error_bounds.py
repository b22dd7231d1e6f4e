"""How far the computed eigenvalues are from exact ones: bounds, and sharp estimates.

The bound is the residual bound, which is Weyl's inequality, see `bounds`; for M != I see Parlett,
The Symmetric Eigenvalue Problem (1998), chapter 15. The estimate is Kato and Temple's.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.types import Array, Block
from jax_peig._linear_solvers import minres
from jax_peig._operators.operator import Operator
from jax_peig._problem.convergence import Lengths
from jax_peig.bounds import second_order

# MINRES on M y = r: its residual enters the bound squared and times the condition number of M.
MASS_TOLERANCE = 1e-4
MASS_STEPS = 300
# A bound is widened by this factor: the smallest Rayleigh quotient lies above lam_min(M).
MARGIN = 1.01
# A residual is computed with a rounding of so many eps (||A|| + |lam| ||M||) ||x||.
RESIDUAL_ROUNDING = 10


class ErrorBounds(NamedTuple):
    """The result of `error_bounds`."""

    distances: Array  # (b,), an eigenvalue lies within this distance of each value
    matvecs_M: Array
    definite: Array  # M looked positive definite


def error_bounds(
    values: Array, r: Block, lengths: Lengths, m: Operator | None, norms: tuple[Array, Array]
) -> ErrorBounds:
    """Distances within which an eigenvalue of the pencil lies; ``lengths`` of R and X.

    min_i |lam_i - lam| <= ||A x - lam M x||_{M^{-1}} / ||x||_M, plus the residual's rounding.
    """
    noise = RESIDUAL_ROUNDING * rounding(values, norms) * lengths.x
    if m is None:
        return ErrorBounds(lengths.r + noise, jnp.array(0), jnp.array(True))
    dual, lowest, matvecs, definite = _dual_norms(r, lengths.r, m, norms[1])
    return ErrorBounds(dual + noise / jnp.sqrt(lowest), matvecs, definite)


def _dual_norms(
    r: Block, norm: Array, m: Operator, norm_m: Array
) -> tuple[Array, Array, Array, Array]:
    """Bounds of ||r_j||_{M^{-1}} (b,), lam_min(M), the matvecs of M, and if M looks definite.

    The norm is obtained from MINRES on M y = r:

        r^H M^{-1} r = [2 Re y^H r - y^H M y] + s^H M^{-1} s,   s = r - M y.

    The last term is at most ||s||^2 / lam_min(M). The smallest Rayleigh quotient of the y stands
    for lam_min(M), and `MARGIN` for its lying above.
    """
    # The columns are scaled by a matrix product, which is computed once: where r is rounding, each
    # fusion that computes it anew finds other digits.
    unit = r @ jnp.diag(blocks.reciprocal(norm).astype(r.dtype))
    report = minres.solve(
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
    matvecs = (report.steps + 1) * r.shape[1]
    definite = report.positive & jnp.all(energy >= 0) & (lowest > 0)
    return jnp.where(norm > 0, bound, 0), lowest, matvecs, definite


def rounding(values: Array, norms: tuple[Array, Array]) -> Array:
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
    """How far the k eigenvalues most likely are from the computed ones, (k,): sharp, no bounds.

    Rayleigh-Ritz leaves residuals that are orthogonal to the whole block, guard vectors included:
    the wanted pairs do not disturb each other. Kato and Temple's ||r||^2 / gap then holds with the
    gap to the spectrum beyond the block, however near other pairs of the block may be.

    Parameters
    ----------
    places : (b,)
        The places of the block's values in the order wanted, ascending: sign A's, or distances.
    vectors, r : (n, b)
        The block and its residuals.
    lengths : (b,), (b,)
        Norms of the columns of the residuals and of the vectors.
    bounds : (k,)
        Bounds of the errors, in which ||r|| is the M^{-1} norm.
    rounding : (k,)
        The rounding of the residuals, which is added.
    """
    k = bounds.shape[0]
    distance = places[k:, None] - places[None, :k]  # (b - k, k)
    # Residuals along guard vectors that were in no Rayleigh-Ritz with the pairs.
    along = jnp.abs(blocks.gram(vectors[:, k:], r[:, :k]))
    own = jnp.sum(jnp.minimum(second_order(along, distance), along), axis=0)
    # The spectrum without guard vectors begins behind the last one; a part of it may begin at a
    # guard vector that is not resolved from the pair yet.
    resolved = (lengths[0] * lengths[1])[k:, None] <= distance
    gap = jnp.min(jnp.where(resolved, jnp.inf, distance), axis=0, initial=jnp.inf)
    gap = jnp.minimum(gap, places[-1] - places[:k])
    share = jnp.sum((along * blocks.reciprocal(bounds)[None, :]) ** 2, axis=0)
    rest = bounds * jnp.sqrt(jnp.maximum(1 - share, 0))
    return jnp.minimum(own + second_order(rest, gap) + rounding, bounds)
