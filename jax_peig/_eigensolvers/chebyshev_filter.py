"""The Chebyshev filter of a block of Ritz vectors: its interval, its degree, its recurrence.

    Y = p(C) X,   p(t) = T_d((t - c) / e) / T_d((t_1 - c) / e),   [a, u] = [c - e, c + e]

``spectral_transformation.py`` says what C is: sign A, where M = I. How p is chosen:

1. The interval. ``a`` is the largest Ritz value of the block. ``u`` is an upper bound from a few
   Lanczos steps, raised when a Ritz value shows it to be too low.
2. The degree. The growth of p at the Ritz values tells which degree lets the worst wanted pair
   converge in this step. Rounding may forbid it: a growth of g along one vector costs the others
   g eps while they are mixed with that vector.
3. Locking. A wide block is filtered in panels that stay in cache. Panels whose pairs have all
   converged are left out, and panels of lower pairs get lower degrees.
4. A guess without guard vectors. Its interval begins a little above it.
5. Mixed precision, on demand. With C X = X diag(t) + W the block is Y = X p(diag(t)) + E, where E
   begins at zero and has a source from W. The recurrence of E runs in single precision: its error
   is a part of W, and dies with it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.types import Array, Block, BlockFunction
from jax_peig._eigensolvers.spectral_transformation import (
    Ends,
    FirstStep,
    Interval,
    Pairs,
    Transformation,
)
from jax_peig._operators.mass_inverse import ApproximateInverse
from jax_peig._operators.single_precision import in_single_precision, single
from jax_peig._problem.convergence import SAFETY, StoppingRule

# Growth of p over the block that rounding allows: while nothing has converged, and at all. Powers
# of 1/eps: 8e3 and 6e9 in float64, 54 and 2e4 in float32.
FIRST_GROWTH = 1 / 4
LAST_GROWTH = 5 / 8
# log p at the spectrum's lower end, at most, in single precision, whose numbers end at e^88.
SINGLE_RANGE = 44.0
# What a step of the highest degree gains at the k-th pair, at least. Where a cluster fills the
# block up to its edge, the interval begins above the cluster.
STEP_GAIN = 30.0
# The least half width of the interval, as a fraction of the spectrum: see `half_width`.
NARROWEST = 1e-3
# How far above a guess the first interval begins, in mean distances of the guess's values. It is
# half as far in every further step.
AHEAD = 3.0


class Effort(NamedTuple):
    """What a step of the filter may take, and what it is to reach."""

    panel: int  # columns filtered together, at most
    degree: int  # at most
    aim: float  # fraction of the tolerance: a step most often reaches less than is predicted


# A panel and its two companions stay in cache for n of some 10,000.
BLOCK = Effort(20, 200, 0.1)
# The fold squares the ratio of the spectrum's width to a distance, and so needs higher degrees:
# with one of 200 a step may reduce the residuals by a fifth only.
FOLDED = BLOCK._replace(degree=1000)
# A guess leaves few steps to go: narrow panels go no further than their own pairs need.
GUESS = Effort(5, 320, 0.3)


def block_width(n: int, k: int) -> int:
    """The width of the block: k and the guard vectors, in equal panels of whole fours."""
    wanted = k + min(max(6, k // 2), 16)
    count = -(-wanted // BLOCK.panel)
    return min(n, count * 4 * -(-wanted // (4 * count)))


class Bounds(NamedTuple):
    """What the filter has to know of the spectrum."""

    inverse: ApproximateInverse | None  # D, of M; None without M
    interval: tuple[Array, Array]  # that encloses the spectrum of sign A, or of sign D A


class _Terms(NamedTuple):
    """Two successive terms of the recurrence."""

    y_before: Block
    y: Block
    p_before: Array  # p at every place
    p: Array
    s: Array


class Filter(NamedTuple):
    """p(C) of a block."""

    transformation: Transformation  # C
    spectrum: tuple[Array, Array]  # of sign A, or of sign D A
    norms: tuple[Array, Array]
    rule: StoppingRule
    effort: Effort = BLOCK
    single_product: BlockFunction | None = None  # C V in single precision, where that is used

    def mixed(self, block: Block) -> "Filter":
        """The same in mixed precision, for blocks like this one."""
        width = block.shape[1] // panel_count(block.shape[1], self.effort.panel)
        product = in_single_precision(self.transformation.product, block[:, :width])
        return self._replace(single_product=product)

    def __call__(self, pairs: Pairs, upper: Array, step: Array) -> tuple[Block, Array, Array]:
        """p(C) X, and the matvecs with A and with M that it took."""
        most = self.allowed_growth(pairs)
        interval = self.interval(pairs, upper, step)
        degrees = self.degrees(pairs, interval, most)
        block = self.panels(pairs, interval, degrees)
        width = pairs.theta.shape[0] // degrees.shape[0]
        products = width * jnp.sum(jnp.maximum(degrees - 1, 0))
        begun = width * jnp.sum(degrees > 0)
        each, first = self.transformation.cost, self.transformation.first_cost
        return block, products * each.a + begun * first.a, products * each.m + begun * first.m

    def interval(self, pairs: Pairs, upper: Array, step: Array) -> Interval:
        """The damped interval, such that p grows below it."""
        k, place = self.rule.k, pairs.place
        room = jnp.log(2 * STEP_GAIN) / self.effort.degree
        least = place[k - 1] + (upper - place[k - 1]) * room**2 / 4
        edge = self.edge(place, step)
        lower = jnp.minimum(jnp.maximum(edge, least), (upper + place[-1]) / 2)
        ends = self.transformation.corrected(Ends(lower, upper, place))
        half = half_width(ends.lower, ends.upper, ends.place[0])
        return Interval(ends.lower + half, half, ends.place, ends.random)

    def edge(self, place: Array, step: Array) -> Array:
        """Where the wanted part of the spectrum ends: at the last guard vector.

        Without guard vectors nothing shows how the spectrum goes on. A beginning above the next
        eigenvalue leaves that one's part nearly as it was; lower ones cost higher degrees.
        """
        edge, k = place[-1], self.rule.k
        if k > 1 and place.shape[0] == k:
            mean = (edge - place[0]) / (k - 1)
            edge = edge + mean * AHEAD * 0.5 ** step.astype(mean.dtype)
        return edge

    def allowed_growth(self, pairs: Pairs) -> Array:
        """The growth of p over the block that rounding allows.

        It depends on how far wanted vectors are mixed with others: on the residuals, relative to
        the width of the spectrum.
        """
        norm_a, norm_m = self.norms
        width = norm_m * (self.spectrum[1] - self.spectrum[0])
        mixed = jnp.max(pairs.relative[: self.rule.k]) * norm_a * blocks.reciprocal(width)
        eps = tolerances.eps(mixed.dtype)
        return eps**-FIRST_GROWTH / jnp.clip(mixed, eps ** (LAST_GROWTH - FIRST_GROWTH), 1)

    def degrees(self, pairs: Pairs, interval: Interval, most: Array) -> Array:
        """The degree for every panel; 0 where all its pairs have converged.

        p grows like cosh(d g) with g = arccosh((c - t) / e): a residual that has to fall by f needs
        d = arccosh(f) / g.
        """
        k, tol = self.rule.k, self.rule.tol
        relative = self.rule.measured(pairs.relative, pairs.theta, self.norms)
        ratio = (interval.centre - interval.place) / interval.half
        growth = jnp.maximum(jnp.arccosh(jnp.maximum(ratio, 1)), tolerances.eps(ratio.dtype))
        wanted = jnp.arange(growth.shape[0]) < k
        gain = jnp.maximum(2 * relative / (self.effort.aim * tol), jnp.e)
        need = jnp.where(wanted & (relative > SAFETY * tol), jnp.log(gain) / growth, 0)
        # The guard vectors follow the worst of the wanted, or come on by themselves.
        need = jnp.where(wanted, need, jnp.maximum(jnp.max(need), 3 / growth[k - 1]))
        need = jnp.minimum(need, jnp.log(2 * most) / jnp.max(growth))
        if self.single_product is not None:
            need = jnp.minimum(need, self.degree_in_range(interval))
        need = jnp.max(need.reshape(panel_count(growth.shape[0], self.effort.panel), -1), axis=1)
        degree = jnp.clip(jnp.ceil(need), 2, self.effort.degree)
        return jnp.where(need > 0, degree, 0).astype(int)

    def degree_in_range(self, interval: Interval) -> Array:
        """The highest degree in single precision.

        All places of a random block may lie far above the lowest eigenvalues, where p is larger.
        """
        lowest = jnp.minimum(self.spectrum[0], jnp.min(interval.place))
        ratio = (interval.centre - lowest) / interval.half
        growth = jnp.arccosh(jnp.maximum(ratio, 1))
        return SINGLE_RANGE / jnp.maximum(growth, tolerances.eps(growth.dtype))

    def panels(self, pairs: Pairs, interval: Interval, degrees: Array) -> Block:
        """The filtered block, panel by panel."""
        if degrees.shape[0] == 1:
            return self.polynomial(pairs, interval, degrees[0])
        width = pairs.theta.shape[0] // degrees.shape[0]
        whole = (pairs, interval.place, interval.random)

        def panel(i: Array, block: Block) -> Block:
            def cut(array: Array) -> Array:
                return jax.lax.dynamic_slice_in_dim(array, i * width, width, array.ndim - 1)

            part, place, random = jax.tree.map(cut, whole)
            own = interval._replace(place=place, random=random)
            new = jax.lax.cond(
                degrees[i] > 0, lambda: self.polynomial(part, own, degrees[i]), lambda: part.x
            )
            return jax.lax.dynamic_update_slice_in_dim(block, new, i * width, 1)

        return jax.lax.fori_loop(0, degrees.shape[0], panel, pairs.x)

    def polynomial(self, pairs: Pairs, interval: Interval, degree: Array) -> Block:
        """p(C) X for a degree >= 1, p = 1 at the lowest place, by the three-term recurrence.

            Y_{j+1} = 2 s_{j+1} (C - c) Y_j / e - s_j s_{j+1} Y_{j-1},  1 / s_{j+1} = 2 / s_1 - s_j

        with s_1 = e / (t_1 - c). With a source W the same recurrence gives E, see `ResidualBased`;
        2 s_{j+1} W p_j(place) / e is added to it.
        """
        x, place = pairs.x, interval.place
        centre, half = interval.centre, interval.half
        first = half / (jnp.min(place) - centre)
        (older, step, source), size = self.first_step(pairs, interval)
        product: BlockFunction = self.single_product or self.transformation.product

        def f(z: Array) -> Array:
            return z.astype(step.dtype)

        def advance(_: Array, terms: _Terms) -> _Terms:
            s = 1 / (2 / first - terms.s)
            image = product(terms.y)
            if source is not None:
                image = image + source * f(terms.p)[None, :]
            y = (image - f(centre) * terms.y) * f(2 * s / half)
            y = y - f(terms.s * s) * terms.y_before
            p = (place - centre) * terms.p * (2 * s / half) - terms.s * s * terms.p_before
            return _Terms(terms.y, y, terms.p, p, s)

        p = (place - centre) * (first / half)
        begin = _Terms(older, step * f(first / half), jnp.ones_like(p), p, first)
        end = jax.lax.fori_loop(1, degree, advance, begin)
        y = end.y if size is None else blocks.scale_columns(end.y.astype(x.dtype), size)
        return y if source is None else y + blocks.scale_columns(x, end.p)

    def first_step(self, pairs: Pairs, interval: Interval) -> tuple[FirstStep, Array | None]:
        """How the recurrence begins; in mixed precision with a source of this size, (b,)."""
        if self.single_product is None:
            return self.transformation.first_step(pairs, interval), None
        w = self.transformation.source(pairs, interval)
        size = blocks.column_norms(w)
        unit = blocks.scale_columns(w, blocks.reciprocal(size)).astype(single(w.dtype))
        return FirstStep(jnp.zeros_like(unit), unit, unit), size


def half_width(lower: Array, upper: Array, lowest: Array) -> Array:
    """Half the width of an interval that begins at ``lower`` and reaches ``upper`` or further.

    Where the unwanted part of the spectrum is narrow beside the whole, a polynomial of degree two
    would grow over it by more than rounding bears.
    """
    half = jnp.maximum((upper - lower) / 2, NARROWEST * (upper - lowest))
    least = tolerances.eps(half.dtype) * jnp.maximum(jnp.abs(upper), jnp.abs(lowest))
    half = jnp.maximum(half, least)
    return jnp.where(half > 0, half, 1)


def panel_count(width: int, widest: int) -> int:
    """How many panels a block is filtered in: the fewest equal ones that fit; else one."""
    count = -(-width // widest)
    return count if width % count == 0 else 1
