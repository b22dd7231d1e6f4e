"""Completeness: no wanted eigenpair is missing from a set of converged ones.

Small residuals show that the pairs are eigenpairs, not that they are the wanted ones. Two kinds of
vectors show that, in a problem whose k smallest eigenvalues are wanted:

1. *Guard vectors*, columns k + 1, k + 2, ... of a block that began at random. They were iterated
   as long as the wanted pairs, so that a missing pair would have come into the block. The first of
   them has to show another eigenvalue than the k-th, or to have converged (`settled`,
   `guards_show_complete`).
2. *Random vectors in the complement* of the pairs, for a block that began as a guess. A guess may
   miss an eigenvector entirely, and then its guard vectors do as well.

The second kind rests on two bounds. Let u be the eigenvector of a missing pair, with an eigenvalue
of at most theta_k. A random unit vector in the complement has a component along u of some n^{-1/2},
and an iteration that favours the small eigenvalues does not make it smaller. Of the unit vector x
that results, with Ritz value theta and residual r, two things are known:

    |u^H x| >= a,               a the component of the random vector, over the norm that is left,
    |u^H x| <= ||r|| / (theta - theta_k),     from u^H (A - theta) x = (lam_u - theta) u^H x.

Where they contradict each other, nothing is missing. A Ritz value below theta_k shows that
something is. A converged copy of theta_k shows that k cuts a cluster, and no wanted pair is missing
then either (`complement_shows`).

The method "davidson" iterates a random vector by its own steps. The filter does it here: the
Chebyshev polynomial p with p(theta_k) = 1, small above, leaves the component along u at least what
it was and takes away from the rest (`check_completeness`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.types import Array, Block, DTypeLike
from jax_peig._eigensolvers.chebyshev_filter import Filter, half_width
from jax_peig._eigensolvers.spectral_transformation import Interval, Pairs
from jax_peig._problem.convergence import (
    SAFETY,
    Lengths,
    Ritz,
    StoppingRule,
    relative_residuals,
)

# A guard vector shows another eigenvalue if its error bound is no more than this part of its
# distance to the k-th value.
SEPARATION = 0.1
# The component of a random vector along a given one is taken for this part of n^{-1/2}. It is
# smaller with a probability of 8 %.
COMPONENT = 0.1

# Random vectors in the complement, and how often they are filtered at most.
RANDOM_VECTORS = 4
FILTER_ROUNDS = 40
# Their draw by the key of the solve; that of the start is 0, and that of a step one more than its
# number.
CHECK_DRAW = 2**15
# The growth of p from the interval to theta_k in a round: the factor that the two bounds still lack
# times `GAIN_BEYOND`, within these ends.
GAIN_BEYOND = 3.0
GAIN_RANGE = (10.0, 100.0)
# The growth of p at theta_1 that rounding allows, as a power of 1/eps: the vectors are projected
# onto the complement after every round.
GROWTH_AT_FIRST = 1 / 2


# -- guard vectors ---------------------------------------------------------------------------------


def guard_tolerance(rule: StoppingRule, dtype: DTypeLike) -> float:
    """The relative residual of a converged vector beyond the k-th, however loose ``rule.tol`` is.

    A loosely converged one may still turn into a further copy of the k-th.
    """
    return min(rule.tol, tolerances.eps(dtype) ** 0.5)


def settled(theta: Array, lengths: Lengths, measured: Array, rule: StoppingRule) -> Array:
    """Which columns have nothing left to do, (m,).

    A wanted pair has to converge. A guard vector has to show another eigenvalue than the k-th, or
    to converge itself. The values ``theta`` are those of sign A, ascending, or distances;
    ``measured`` is `StoppingRule.measured`.
    """
    guard = jnp.arange(theta.shape[0]) >= rule.k
    # An eigenvalue lies within ||r|| ||x|| of theta, up to the spread of M's spectrum.
    separate = lengths.r * lengths.x <= SEPARATION * (theta - theta[rule.k - 1])
    tol = jnp.where(guard, guard_tolerance(rule, theta.dtype), rule.tol)
    return (measured <= SAFETY * tol) | (guard & separate)


def guards_show_complete(settled: Array, rule: StoppingRule) -> Array:
    """Whether the wanted pairs converged and the first guard vector shows that they are all.

    The guard vector has to have begun at random. ``rule.guessed`` columns of the block may have
    begun as a guess; of as many further columns at least one did not.
    """
    return jnp.all(settled[: rule.k + rule.guessed + 1])


def separation_ratio(theta: Array, lengths: Lengths, rule: StoppingRule) -> Array:
    """The largest ratio of error bound and distance to the k-th value, see `settled`.

    The maximum is over the guard vectors that `guards_show_complete` asks for.
    """
    guards = slice(rule.k, rule.k + rule.guessed + 1)
    distance = theta[guards] - theta[rule.k - 1]
    bound = lengths.r[guards] * lengths.x[guards]
    above = distance > 0
    return jnp.max(jnp.where(above, bound / jnp.where(above, distance, 1), jnp.inf), initial=0.0)


# -- random vectors in the complement --------------------------------------------------------------


def least_component(n: int) -> float:
    """The component of a random unit vector along a missing one, most likely a lower bound."""
    return COMPONENT / n**0.5


class ComplementEvidence(NamedTuple):
    """What a vector from the complement of the k pairs shows about them."""

    complete: Array  # no wanted pair is missing
    missed: Array  # one is
    shortfall: Array  # the upper bound of |u^H x| over the lower one; below one where complete


def complement_shows(
    distance: Array, bound: Array, component: Array | float, rounding: Array, converged: Array
) -> ComplementEvidence:
    """Compare the two bounds of |u^H x|, see above.

    Parameters
    ----------
    distance : real
        theta - theta_k.
    bound : real
        ||r||, or ||r|| ||x|| with M; zero is a dropped direction's and shows nothing.
    component : real
        a, the lower bound of |u^H x|.
    rounding : real
        The error of ``distance``.
    converged : bool
        x is an eigenvector, as accurate as wanted.
    """
    missed = distance < -rounding
    distinct = (distance > rounding) & (bound > 0)
    needed = component * jnp.where(distinct, distance, 1)
    shortfall = jnp.where(distinct, bound / needed, jnp.inf)
    return ComplementEvidence(~missed & ((shortfall < 1) | converged), missed, shortfall)


# -- random vectors, filtered ----------------------------------------------------------------------


class CompletenessResult(NamedTuple):
    """The evidence of filtered random vectors, and the vectors."""

    complete: Array  # no wanted pair is missing
    theta: Array  # (w,), Ritz values in the complement, ascending
    y: Block  # (n, w), Ritz vectors
    ay: Block
    matvecs: Array


class _State(NamedTuple):
    y: Block
    ay: Block
    theta: Array
    components: Array  # (w,), along a missing vector, at least
    upper: Array  # end of the damped interval
    evidence: ComplementEvidence
    matvecs: Array
    step: Array


def check_completeness(
    filter_: Filter, pairs: Ritz, upper: Array, key: Array, asked: Array
) -> CompletenessResult:
    """Look for a missing pair with random vectors in the complement of k pairs; M = I.

    Parameters
    ----------
    filter_ : Filter
        Of sign A.
    pairs : Ritz
        The k smallest pairs of sign A as they are known, all of them converged.
    upper : real
        The spectrum's upper end.
    key
        For the random vectors.
    asked : bool
        False for the members of a batch whose pairs have not converged: nothing is filtered then.
    """
    check = _Check(filter_, pairs.vectors, filter_.rule.sign * pairs.values)

    def undecided(state: _State) -> Array:
        found = state.evidence
        return asked & ~(found.complete | found.missed) & (state.step < FILTER_ROUNDS)

    end = jax.lax.while_loop(undecided, check.advance, check.begin(key, upper))
    return CompletenessResult(end.evidence.complete, end.theta, end.y, end.ay, end.matvecs)


class _Check(NamedTuple):
    filter: Filter
    x: Block  # (n, k)
    values: Array  # (k,), of sign A, ascending

    def begin(self, key: Array, upper: Array) -> _State:
        """Random vectors in the complement, and what they show before they are filtered."""
        n, k = self.x.shape
        width = min(RANDOM_VECTORS, n - k)
        random = self.project(blocks.random_block(key, n, width, self.x.dtype, CHECK_DRAW))
        components = jnp.full(width, least_component(n), self.values.dtype)
        none, no = jnp.array(0), jnp.array(False)
        state = _State(
            y=random,
            ay=random,
            theta=components,
            components=components,
            upper=upper,
            evidence=ComplementEvidence(no, no, upper),
            matvecs=none,
            step=none,
        )
        return self.judge(self.rayleigh_ritz(state, blocks.unit_columns(random)))

    def project(self, block: Block) -> Block:
        return blocks.project_out(block, self.x, self.x, passes=2)

    def rayleigh_ritz(self, state: _State, block: Block) -> _State:
        """Rayleigh-Ritz in the complement, and the components of the new vectors."""
        q, _ = blocks.orthonormalizer(blocks.gram(block, block))
        block = self.project(block @ q)
        ay = self.filter.transformation.product(block)
        root, alive = blocks.inverse_root(blocks.gram(block, block))
        theta, c = blocks.rayleigh_ritz(blocks.gram(block, ay), whitener=root, alive=alive)
        turned = jnp.abs(q @ c) ** 2
        return state._replace(
            y=block @ c,
            ay=ay @ c,
            theta=theta,
            components=jnp.sqrt(turned.T @ state.components**2),
            matvecs=state.matvecs + block.shape[1],
        )

    def judge(self, state: _State) -> _State:
        """What the lowest Ritz pair shows; the interval's end, above every Ritz value."""
        theta, norms, dtype = state.theta, self.filter.norms, self.x.dtype
        r = blocks.residuals(state.ay, state.y, theta)
        lengths = Lengths.of(r, theta, state.y, norms)
        relative = relative_residuals(lengths, theta, norms)
        measured = self.filter.rule.measured(relative, theta, norms)
        evidence = complement_shows(
            theta[0] - self.values[-1],
            lengths.r[0],
            state.components[0],
            tolerances.rank(dtype) * norms[0],
            measured[0] <= SAFETY * guard_tolerance(self.filter.rule, dtype),
        )
        reach = jnp.max(theta + lengths.r)
        return state._replace(evidence=evidence, upper=jnp.maximum(state.upper, reach))

    def advance(self, state: _State) -> _State:
        """Filter the vectors, and judge them again."""
        theta = state.theta
        lower = jnp.minimum(theta[-1], (state.upper + theta[-1]) / 2)
        half = half_width(lower, state.upper, self.values[0])
        place = jnp.broadcast_to(self.values[-1], theta.shape)
        interval = Interval(lower + half, half, place)
        degree = self.degree(interval, state.evidence.shortfall)
        pairs = Pairs(state.y, state.ay, None, theta, place, theta)
        block = self.project(self.filter.polynomial(pairs, interval, degree))
        spent = state.matvecs + (degree - 1) * block.shape[1]
        state = state._replace(matvecs=spent, step=state.step + 1)
        return self.judge(self.rayleigh_ritz(state, block))

    def degree(self, interval: Interval, shortfall: Array) -> Array:
        """The degree of p: enough growth at theta_k, and no more at theta_1 than rounding bears."""
        eps = tolerances.eps(self.x.dtype)

        def degree_for(growth: Array | float, at: Array) -> Array:
            ratio = (interval.centre - at) / interval.half
            return jnp.log(2 * growth) / jnp.maximum(jnp.arccosh(jnp.maximum(ratio, 1)), eps)

        gain = jnp.clip(GAIN_BEYOND * shortfall, *GAIN_RANGE)
        enough = degree_for(gain, self.values[-1])
        most = degree_for(eps**-GROWTH_AT_FIRST, self.values[0])
        degree = jnp.clip(jnp.ceil(jnp.minimum(enough, most)), 2, self.filter.effort.degree)
        return degree.astype(int)
