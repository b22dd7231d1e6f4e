"""The Chebyshev filter of a block of Ritz vectors: its interval, its degree, its recurrence.

    Y = p(C) X,   p(t) = T_d((t - c) / e) / T_d((t_1 - c) / e),   [a, u] = [c - e, c + e],

with C = A, or with M a stand-in for M^{-1} A. What is chosen here, and how:

1. The interval. ``a`` is the largest Ritz value of the block, never below the eigenvalue it stands
   for; ``u`` an upper bound from a few Lanczos steps, raised when a Ritz value shows it too low.
2. The degree. From the growth of p at the Ritz values: enough for the worst wanted pair to
   converge in this step, unless rounding forbids it: a growth of g along one vector costs the
   others g eps while they are mixed with it.
3. Locking. A wide block is filtered in panels that stay in cache; panels whose pairs have all
   converged are left out, and those of lower pairs get lower degrees.
4. A guess without guard vectors: the interval begins a little above it.
5. Interior values. C is folded, (A - sigma)^2; with a caller's solve it is -(A - sigma)^{-2}.
6. M. With C X = X diag(theta) + W,  W = M^{-1} (A X - M X diag(theta)), the filtered block is
   X p(diag(theta)) + E, where E obeys the recurrence of p(C) with a source from W. Only E is
   computed, with a rough inverse D for M^{-1}: the error of D is multiplied by the residual and
   dies with it, so that the limit is exact ("residual-based", R-ChFSI, 2025).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.types import Array, Block, BlockFunction
from jax_peig._eigensolvers.convergence import SAFETY, StoppingRule, multiply
from jax_peig._operators.mass_inverse import ApproximateInverse
from jax_peig._operators.operator import Operator

# With a solve the wanted values stand far out, and the first Ritz values say nothing of how far.
INVERSE_DEGREE = 4
# Growth of p over the block that rounding allows while nothing has converged, and at all, as powers
# of 1/eps: 8e3 and 6e9 in float64, 54 and 2e4 in float32.
GROWTH = 1 / 4
GROWTH_LIMIT = 5 / 8
# The least gain of a step of the highest degree at the k-th pair. Where a cluster fills the block
# up to its edge, the interval begins above it.
LEAST_GAIN = 30.0
# Where the interval begins, as a fraction of the spectrum, while the block is random and has M.
FIRST = 0.3
# The least half width of the interval, as a fraction of the spectrum.
NARROW = 1e-3
# How far above a guess its first interval begins, in mean distances of its values; then half that,
# and so on.
AHEAD = 3.0


class Effort(NamedTuple):
    """What a step of the filter may take, and what it is to reach."""

    panel: int  # columns filtered together, at most
    degree: int  # at most
    aim: float  # fraction of the tolerance: not quite all that is predicted is had


# A panel and its two companions stay in cache for n of some 10,000.
BLOCK = Effort(20, 200, 0.1)
# Narrow panels go no further than their own pairs need, where a guess leaves few steps to go.
GUESS = Effort(5, 320, 0.3)


class Pairs(NamedTuple):
    """Ritz pairs, b of them, in the order of their place."""

    x: Block
    ax: Block
    mx: Block | None
    theta: Array
    place: Array  # what is filtered by: theta, or the folded Rayleigh quotients
    relative: Array  # residuals


class Interval(NamedTuple):
    """The damped interval [centre - half, centre + half], and where p is evaluated, (b,)."""

    centre: Array
    half: Array
    place: Array
    raw: Array  # which vectors are random: their Ritz values mean nothing for D A


class Filter(NamedTuple):
    """The pencil (sign A, M) as the filter sees it."""

    operator: BlockFunction
    mass: Operator | None
    inverse: ApproximateInverse | None
    spectrum: tuple[Array, Array]  # of sign A, or sign D A
    norms: tuple[Array, Array]
    rule: StoppingRule
    sigma: Array | None
    op_inv: BlockFunction | None
    effort: Effort = BLOCK

    def __call__(self, pairs: Pairs, upper: Array, step: Array) -> tuple[Block, Array, Array]:
        """p(C) X, and the products with A and with M that it took."""
        interval = self.interval(pairs, upper, step)
        degrees = self.degrees(pairs, interval)
        block = self.panels(pairs, interval, degrees)
        width = pairs.theta.shape[0] // degrees.shape[0]
        applied = width * jnp.sum(jnp.maximum(degrees - 1, 0))  # vectors through `stand_in`
        begun = width * jnp.sum(degrees > 0)  # and through the beginning of `polynomial`
        folds = 1 if self.sigma is None else 2
        matvecs = folds * applied + (folds - 1) * begun
        if self.op_inv is not None:
            none = jnp.zeros_like(matvecs)
            return block, none, none if self.mass is None else 2 * (applied + begun)
        if self.inverse is None:
            return block, matvecs, jnp.zeros_like(matvecs)
        shifts = matvecs if folds > 1 else 0
        return block, matvecs, folds * (applied + begun) * (self.inverse.degree - 1) + shifts

    # -- products -------------------------------------------------------------------------------

    def shifted(self, block: Block) -> Block:
        """D (A - sigma M) V, without the shift where there is no sigma, without D with no M.

        Its inverse, with the caller's solve.
        """
        if self.op_inv is not None:
            return self.op_inv(multiply(self.mass, block))
        image = self.rule.sign * self.operator(block)
        if self.sigma is not None:
            image = image - self.sigma.astype(block.dtype) * multiply(self.mass, block)
        return image if self.inverse is None else self.inverse(image)

    def stand_in(self, block: Block) -> Block:
        """C V: D A V, or folded; with the inverse, whose largest squares are wanted, -C."""
        image = self.shifted(block)
        if self.sigma is None:
            return image
        return self.shifted(image) if self.op_inv is None else -self.shifted(image)

    # -- where and how far ----------------------------------------------------------------------

    def upper(self) -> Array:
        """The first upper end of the interval."""
        low, high = self.spectrum
        if self.sigma is None:
            return high
        if self.op_inv is not None:
            return jnp.zeros_like(high)
        return jnp.maximum(jnp.abs(low - self.sigma), jnp.abs(high - self.sigma)) ** 2

    def interval(self, pairs: Pairs, upper: Array, step: Array) -> Interval:
        """The damped interval, with whatever it takes for p to grow below it."""
        k, place = self.rule.k, pairs.place
        room = jnp.log(2 * LEAST_GAIN) / self.effort.degree
        least = place[k - 1] + (upper - place[k - 1]) * room**2 / 4
        edge = place[-1]
        if place.shape[0] == k > 1:
            # No guard vector shows how the spectrum goes on. A beginning above the next eigenvalue
            # leaves that one's part nearly as it was; lower ones cost higher degrees.
            mean = (edge - place[0]) / (k - 1)
            edge = edge + mean * AHEAD * 0.5 ** step.astype(mean.dtype)
        lower = jnp.minimum(jnp.maximum(edge, least), (upper + place[-1]) / 2)
        raw = jnp.zeros(place.shape, bool)
        if self.inverse is not None:
            # The Ritz values of random vectors may lie anywhere in and above the spectrum of D A:
            # then p(D A) x itself is as good as anything.
            low = self.spectrum[0] if self.sigma is None else jnp.zeros_like(upper)
            low = jnp.minimum(low, place[0])
            extent = upper - low
            lower = jnp.where(lower > low + extent / 2, low + FIRST * extent, lower)
            raw = place > jnp.maximum(lower, low + extent / 2)
            place = jnp.where(raw, low, place)
        # A solve of degree one can bear more growth than products of degree two and more.
        narrow = NARROW if self.op_inv is None else 1 / self.bearable(pairs)
        half = half_width(lower, upper, place[0], narrow)
        return Interval(lower + half, half, place, raw)

    def bearable(self, pairs: Pairs) -> Array:
        """The growth of p over the block that rounding allows.

        By how far wanted vectors are mixed with others: residuals beside the spectrum's width.
        """
        norm_a, norm_m = self.norms
        width = norm_m * (self.spectrum[1] - self.spectrum[0])
        mixed = jnp.max(pairs.relative[: self.rule.k]) * norm_a * blocks.reciprocal(width)
        eps = tolerances.eps(mixed.dtype)
        return eps**-GROWTH / jnp.clip(mixed, eps ** (GROWTH_LIMIT - GROWTH), 1)

    def degrees(self, pairs: Pairs, interval: Interval) -> Array:
        """The degree for every panel; 0 where all its pairs have converged.

        p grows like cosh(d g) with g = arccosh((c - t) / e): a residual that has to fall by f needs
        d = arccosh(f) / g.
        """
        k, tol, relative = self.rule.k, self.rule.tol, pairs.relative
        ratio = (interval.centre - interval.place) / interval.half
        growth = jnp.maximum(jnp.arccosh(jnp.maximum(ratio, 1)), tolerances.eps(ratio.dtype))
        wanted = jnp.arange(growth.shape[0]) < k
        gain = jnp.maximum(2 * relative / (self.effort.aim * tol), jnp.e)
        need = jnp.where(wanted & (relative > SAFETY * tol), jnp.log(gain) / growth, 0)
        # The guard vectors follow the worst of the wanted, or come on by themselves.
        need = jnp.where(wanted, need, jnp.maximum(jnp.max(need), 3 / growth[k - 1]))
        need = jnp.minimum(need, jnp.log(2 * self.bearable(pairs)) / jnp.max(growth))
        need = jnp.max(need.reshape(panel_count(growth.shape[0], self.effort.panel), -1), axis=1)
        least, most = (2, self.effort.degree) if self.op_inv is None else (1, INVERSE_DEGREE)
        return jnp.where(need > 0, jnp.clip(jnp.ceil(need), least, most), 0).astype(int)

    # -- the recurrence -------------------------------------------------------------------------

    def panels(self, pairs: Pairs, interval: Interval, degrees: Array) -> Block:
        """The filtered block, panel by panel."""
        if degrees.shape[0] == 1:
            return self.polynomial(pairs, interval, degrees[0])
        width = pairs.theta.shape[0] // degrees.shape[0]
        whole = (pairs, interval.place, interval.raw)

        def panel(i, block):
            def cut(array):
                return jax.lax.dynamic_slice_in_dim(array, i * width, width, array.ndim - 1)

            part, place, raw = jax.tree.map(cut, whole)
            own = interval._replace(place=place, raw=raw)
            new = jax.lax.cond(
                degrees[i] > 0, lambda: self.polynomial(part, own, degrees[i]), lambda: part.x
            )
            return jax.lax.dynamic_update_slice_in_dim(block, new, i * width, 1)

        return jax.lax.fori_loop(0, degrees.shape[0], panel, pairs.x)

    def polynomial(self, pairs: Pairs, interval: Interval, degree: Array) -> Block:
        """p(C) X for a degree >= 1, p = 1 at the lowest place, by the three-term recurrence.

            Y_{j+1} = 2 s_{j+1} (C - c) Y_j / e - s_j s_{j+1} Y_{j-1},  1 / s_{j+1} = 2 / s_1 - s_j

        with s_1 = e / (t_1 - c). With M the same for E of the module's text, from E_0 = 0, with
        2 s_{j+1} W p_j(place) / e added.
        """
        x, place = pairs.x, interval.place
        centre, half = interval.centre, interval.half
        first = half / (jnp.min(place) - centre)

        def f(z):
            return z.astype(x.dtype)

        if self.inverse is None:
            source, older = None, x
            image = pairs.ax
            if self.op_inv is not None:
                image = self.stand_in(x)
            elif self.sigma is not None:
                image = self.shifted(image - f(self.sigma) * x)
            newer = (image - f(centre) * x) * f(first / half)
        else:
            source = self.source(pairs, interval)
            older, newer = jnp.zeros_like(x), source * f(first / half)

        def body(_, carry):
            older, newer, p_older, p, s = carry
            following = 1 / (2 / first - s)
            image = self.stand_in(newer)
            if source is not None:
                image = image + source * f(p)[None, :]
            newest = (image - f(centre) * newer) * f(2 * following / half)
            newest = newest - f(s * following) * older
            p_newest = (place - centre) * p * (2 * following / half) - s * following * p_older
            return newer, newest, p, p_newest, following

        p = (place - centre) * (first / half)
        begin = (older, newer, jnp.ones_like(p), p, first)
        _, newest, _, p, _ = jax.lax.fori_loop(1, degree, body, begin)
        return newest if source is None else x * f(p)[None, :] + newest

    def source(self, pairs: Pairs, interval: Interval) -> Block:
        """W = C X - X diag(place), from the residual R; of D A X itself where x is random.

        Folded, with s = theta - sigma:  C X = X s^2 + D R s + D (A - sigma M) D R.
        """

        def f(z):
            return z.astype(pairs.x.dtype)[None, :]

        assert self.inverse is not None
        x, ax, mx, theta = pairs[:4]
        if self.sigma is None:
            inside = jnp.where(interval.raw, 0, theta)
            return self.inverse(ax - mx * f(inside)) - x * f(interval.place - inside)
        inside = jnp.where(interval.raw, 0, theta - self.sigma)
        r = self.inverse(ax - mx * f(inside + self.sigma))
        return r * f(inside) + self.shifted(r) - x * f(interval.place - inside**2)


def half_width(lower: Array, upper: Array, lowest: Array, narrow: Array | float = NARROW) -> Array:
    """Half the width of an interval that begins at ``lower`` and reaches ``upper`` or further.

    Where the unwanted part of the spectrum is narrow beside the whole, a polynomial of degree two
    would grow over it by more than rounding bears.
    """
    half = jnp.maximum((upper - lower) / 2, narrow * (upper - lowest))
    least = tolerances.eps(half.dtype) * jnp.maximum(jnp.abs(upper), jnp.abs(lowest))
    half = jnp.maximum(half, least)
    return jnp.where(half > 0, half, 1)


def panel_count(width: int, widest: int) -> int:
    """How many panels a block is filtered in: the fewest equal ones that fit; else one."""
    count = -(-width // widest)
    return count if width % count == 0 else 1
