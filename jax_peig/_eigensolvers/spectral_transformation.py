"""What the Chebyshev filter multiplies by: C, whose smallest eigenvalues are the wanted ones.

C has the eigenvectors of the pencil (sign A, M). Each class below is one C, with its product, what
that costs, and what it asks of the filter's interval:

    `Standard`             sign A                       M = I
    `ResidualBased`        sign D A                     D an approximate inverse of M
    `Folded`               (A - sigma)^2                nearest to sigma, M = I
    `FoldedResidualBased`  (D (A - sigma M))^2          nearest to sigma

The two folded ones are for operators that are known by their products alone; matrices are better
factorised. They stand apart at the end of the file.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax.numpy as jnp

from jax_peig._core import blocks
from jax_peig._core.types import Array, Block, BlockFunction
from jax_peig._operators.mass_inverse import ApproximateInverse
from jax_peig._operators.operator import Operator

# Where the interval begins, as a fraction of the spectrum, while the block is random and has M.
RANDOM_LOWER = 0.3
# How far the upper end is raised, as a fraction of the interval, when a Ritz value of D A rises.
RAISE = 0.1


class Pairs(NamedTuple):
    """Ritz pairs, b of them, in the order of their place."""

    x: Block
    ax: Block
    mx: Block | None
    theta: Array
    place: Array  # Rayleigh quotients of C, ascending
    relative: Array  # residuals


class Ends(NamedTuple):
    """The ends of the damped interval, and where p is evaluated."""

    lower: Array
    upper: Array
    place: Array  # (b,)
    random: Array | None = None  # (b,), see `ResidualBased`


class Interval(NamedTuple):
    """The damped interval [centre - half, centre + half], and where p is evaluated."""

    centre: Array
    half: Array
    place: Array  # (b,)
    random: Array | None = None


class FirstStep(NamedTuple):
    """How the filter's recurrence begins."""

    before: Block  # Y_0
    step: Block  # Y_1 / p_1's factor
    source: Block | None = None  # W; None where Y is p(C) X itself


class Progression(NamedTuple):
    """What the new Ritz values tell about the upper end of C's spectrum."""

    place: Array  # (b,)
    before: Array  # (b,), the places a step earlier
    lengths: Array  # (b,), of the residuals, in the M^{-1} norm
    step: Array


class Cost(NamedTuple):
    """Matvecs that one vector takes."""

    a: int
    m: Array | int = 0


@dataclasses.dataclass(frozen=True)
class Transformation:
    """C. The defaults fit a C whose eigenvalues are sign times the pencil's."""

    in_order: ClassVar[bool] = True  # places ascend as Ritz values do

    # -- products --

    @property
    def cost(self) -> Cost:
        """That of `product`."""
        raise NotImplementedError

    @property
    def first_cost(self) -> Cost:
        """That of `first_step`."""
        raise NotImplementedError

    def product(self, block: Block) -> Block:
        """C V."""
        raise NotImplementedError

    def image(self, pairs: Pairs) -> Block:
        """C X for Ritz vectors."""
        return self.product(pairs.x)

    def first_step(self, pairs: Pairs, interval: Interval) -> FirstStep:
        """From X to (C - c) X."""
        centre = interval.centre.astype(pairs.x.dtype)
        return FirstStep(pairs.x, self.image(pairs) - centre * pairs.x)

    def source(self, pairs: Pairs, interval: Interval) -> Block:
        """W = C X - X diag(place)."""
        return blocks.residuals(self.image(pairs), pairs.x, interval.place)

    # -- values and intervals --

    def places(self, theta: Array, lengths: Array) -> Array:
        """Rayleigh quotients of C, from Ritz values and the lengths of their residuals."""
        del lengths
        return theta

    def distances(self, place: Array) -> Array:
        """|lam - sigma| for the eigenvalues of C; sign lam where there is no sigma."""
        return place

    def first_upper(self, spectrum: tuple[Array, Array]) -> Array:
        """The upper end of C's spectrum, from the ends of that of sign A or sign D A."""
        return spectrum[1]

    def raised(self, upper: Array, now: Progression) -> Array:
        """The upper end after a step: an eigenvalue lies within ||r|| of every Ritz value."""
        return jnp.maximum(upper, now.place[-1] + now.lengths[-1])

    def corrected(self, ends: Ends) -> Ends:
        """The interval as C needs it."""
        return ends


def signed(operator: BlockFunction, sign: int) -> BlockFunction:
    """V -> sign A V."""
    return lambda block, /: sign * operator(block)


def scaled(operator: BlockFunction, factor: Array) -> BlockFunction:
    """V -> factor A V."""
    return lambda block, /: operator(block) * factor.astype(block.dtype)


def power_of_two(x: Array) -> Array:
    """The power at or above x > 0, by which dividing rounds nothing; 1 where x has none."""
    usable = (x > 0) & jnp.isfinite(x)
    return jnp.ldexp(jnp.ones_like(x), jnp.frexp(jnp.where(usable, x, 1))[1])


# -- smallest and largest --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Standard(Transformation):
    """C = sign A, for M = I."""

    operator: BlockFunction  # sign A

    cost = Cost(1)
    first_cost = Cost(0)  # Rayleigh-Ritz leaves sign A X

    def product(self, block: Block) -> Block:
        """Sign A V."""
        return self.operator(block)

    def image(self, pairs: Pairs) -> Block:
        """Sign A X."""
        return pairs.ax


@dataclasses.dataclass(frozen=True)
class ResidualBased(Transformation):
    """C = sign D A, used such that the error of the approximate inverse D leaves no trace.

    With C X = X diag(theta) + W,  W = D R,  R = sign A X - M X diag(theta), the filtered block is
    X p(diag(theta)) + E. Here E obeys the recurrence of p(C) with a source from W, and begins at
    zero. Only E is computed. The error of D is multiplied by the residual and dies with it, so that
    the limit is exact ("residual-based", R-ChFSI, 2025).

    Ritz values of random vectors may lie anywhere in the spectrum of D A, and above it. For such
    columns p(C) x itself, which is as good as anything, comes out with theta = 0 in W.
    """

    operator: BlockFunction  # sign A
    inverse: ApproximateInverse  # D
    lowest: Array  # lower end of C's spectrum

    @property
    def cost(self) -> Cost:
        """One matvec with A, and those of D."""
        return Cost(1, self.inverse.degree - 1)

    @property
    def first_cost(self) -> Cost:
        """That of D."""
        return Cost(0, self.inverse.degree - 1)

    def product(self, block: Block) -> Block:
        """Sign D A V."""
        return self.inverse(self.operator(block))

    def first_step(self, pairs: Pairs, interval: Interval) -> FirstStep:
        """From E_0 = 0 to W."""
        source = self.source(pairs, interval)
        return FirstStep(jnp.zeros_like(pairs.x), source, source)

    def source(self, pairs: Pairs, interval: Interval) -> Block:
        """W = C X - X diag(place)."""
        assert pairs.mx is not None
        assert interval.random is not None
        theta = jnp.where(interval.random, 0, pairs.theta)
        w = self.inverse(blocks.residuals(pairs.ax, pairs.mx, theta))
        return w - blocks.scale_columns(pairs.x, interval.place - theta)

    def raised(self, upper: Array, now: Progression) -> Array:
        """The largest Ritz value falls, unless the interval ends below the spectrum of C."""
        rose = (now.step > 1) & (now.place[-1] > now.before[-1])
        return upper + jnp.where(rose, RAISE * (upper - now.place[0]), 0)

    def corrected(self, ends: Ends) -> Ends:
        """Columns in the upper half of the spectrum count as random, and p(C) x is computed."""
        lowest = jnp.minimum(self.lowest, ends.place[0])
        extent = ends.upper - lowest
        middle = lowest + extent / 2
        lower = jnp.where(ends.lower > middle, lowest + RANDOM_LOWER * extent, ends.lower)
        random = ends.place > jnp.maximum(lower, middle)
        return Ends(lower, ends.upper, jnp.where(random, lowest, ends.place), random)


# -- nearest to sigma -----------------------------------------------------------------------------


def folded_quotients(theta: Array, sigma: Array, lengths: Array) -> Array:
    """(theta - sigma)^2 + ||r||^2, which puts spurious Ritz values last."""
    return (theta - sigma) ** 2 + lengths**2


class _Fold(Transformation):
    """C = B^2 (the folded spectrum method, Wang and Zunger, 1994).

    A product with C takes two with B, whose condition number is squared.
    """

    in_order = False
    sigma: Array

    def shifted(self, block: Block) -> Block:
        """B V."""
        raise NotImplementedError

    def product(self, block: Block) -> Block:
        """B^2 V."""
        return self.shifted(self.shifted(block))

    def places(self, theta: Array, lengths: Array) -> Array:
        """The folded Rayleigh quotients."""
        return folded_quotients(theta, self.sigma, lengths)

    def distances(self, place: Array) -> Array:
        """|lam - sigma|."""
        return jnp.sqrt(jnp.abs(place))

    def first_upper(self, spectrum: tuple[Array, Array]) -> Array:
        """The square of the larger distance."""
        low, high = spectrum
        return jnp.maximum(jnp.abs(low - self.sigma), jnp.abs(high - self.sigma)) ** 2


@dataclasses.dataclass(frozen=True)
class Folded(_Fold):
    """B = A - sigma, for M = I."""

    operator: BlockFunction
    sigma: Array

    cost = Cost(2)
    first_cost = Cost(1)  # Rayleigh-Ritz leaves A X

    def shifted(self, block: Block) -> Block:
        """(A - sigma) V."""
        return self.operator(block) - self.sigma.astype(block.dtype) * block

    def image(self, pairs: Pairs) -> Block:
        """(A - sigma) (A X - sigma X)."""
        return self.shifted(pairs.ax - self.sigma.astype(pairs.x.dtype) * pairs.x)

    def raised(self, upper: Array, now: Progression) -> Array:
        """The folded quotients have the residuals in them."""
        return jnp.maximum(upper, jnp.max(now.place))


@dataclasses.dataclass(frozen=True)
class FoldedResidualBased(_Fold, ResidualBased):
    """B = D (A - sigma M), used as in `ResidualBased`."""

    mass: Operator
    sigma: Array

    @property
    def cost(self) -> Cost:
        """Two matvecs with A, two with M, and those of D, twice."""
        return Cost(2, 2 * (self.inverse.degree - 1) + 2)

    @property
    def first_cost(self) -> Cost:
        """One with each, and those of D, twice."""
        return Cost(1, 2 * (self.inverse.degree - 1) + 1)

    def shifted(self, block: Block) -> Block:
        """D (A - sigma M) V."""
        shift = self.sigma.astype(block.dtype)
        return self.inverse(self.operator(block) - shift * self.mass(block))

    def source(self, pairs: Pairs, interval: Interval) -> Block:
        """W, with s = theta - sigma, from C X = X s^2 + D R s + D (A - sigma M) D R."""
        assert pairs.mx is not None
        assert interval.random is not None
        s = jnp.where(interval.random, 0, pairs.theta - self.sigma)
        r = self.inverse(blocks.residuals(pairs.ax, pairs.mx, s + self.sigma))
        w = blocks.scale_columns(r, s) + self.shifted(r)
        return w - blocks.scale_columns(pairs.x, interval.place - s**2)


def interior(
    a: BlockFunction,
    m: Operator | None,
    inverse: ApproximateInverse | None,
    sigma: Array,
) -> Transformation:
    """C for the eigenvalues nearest to sigma; ``inverse`` is D."""
    if m is None or inverse is None:
        return Folded(a, sigma)
    return FoldedResidualBased(a, inverse, jnp.zeros_like(sigma), m, sigma)
