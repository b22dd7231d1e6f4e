"""Is a set of eigenpairs complete? Random vectors, filtered in its complement, bear witness.

X holds the k smallest pairs that are known, as accurate as wanted; nothing shows whether a smaller
one, u, is missing. A random unit vector in the complement of X has a component along u of some
n^{-1/2}. The Chebyshev polynomial p with p(theta_k) = 1, small above, leaves it at least what it
was, as u's eigenvalue is at most theta_k, and takes away from the rest. So of a filtered and
normalised vector y, with Ritz value theta and residual r, two things are known:

    |u^H y| >= a,               a the component that was drawn, over the norm that is left,
    |u^H y| <= ||r|| / (theta - theta_k),     from u^H (A - theta) y = (lam_u - theta) u^H y.

Where they contradict each other, nothing is missing. A Ritz value below theta_k shows that
something is. A converged copy of theta_k means that k cuts a cluster, and is no less an answer.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.types import Array, Block
from jax_peig._eigensolvers.chebyshev_filter import Filter, Interval, Pairs, half_width
from jax_peig._eigensolvers.convergence import SAFETY, Lengths, Ritz, relative_residuals

WIDTH = 4
ROUNDS = 40
# A drawn component is taken for this part of n^{-1/2}: a smaller one has a chance of 8 % for each
# of the vectors.
CHANCE = 0.1
# The growth of p from the interval to theta_k in a round: at most, at least, and beside the factor
# that is missing still; and what rounding allows at theta_1, as a power of 1/eps.
GAIN = 100.0
LEAST_GAIN = 10.0
REACH = 3.0
GROWTH_LIMIT = 1 / 2


class Testimony(NamedTuple):
    """What the witnesses say."""

    complete: Array  # no pair is missing
    missed: Array  # one is
    theta: Array  # (w,), Ritz values in the complement, ascending
    y: Block  # (n, w)
    ay: Block
    matvecs: Array


class _State(NamedTuple):
    y: Block
    ay: Block
    theta: Array
    amplitude: Array  # (w,), the least component along a missing vector
    upper: Array
    shortfall: Array  # the factor by which they do not contradict each other yet
    said: Testimony
    step: Array


def testify(filter_: Filter, pairs: Ritz, upper: Array, key: Array, asked: Array) -> Testimony:
    """Hear random vectors about the k smallest pairs of sign A, all of them converged; M = I.

    Nobody has ``asked`` for a member of a batch whose pairs are not.
    """
    x = pairs.vectors
    n, k = x.shape
    rule, dtype = filter_.rule, x.dtype
    known = rule.sign * pairs.values
    scale = filter_.norms[0]
    rounding = tolerances.rank(dtype) * scale
    most = tolerances.eps(dtype) ** -GROWTH_LIMIT

    def a(block):
        return rule.sign * filter_.operator(block)

    def apart(block):
        return blocks.project_out(block, x, x, passes=2)

    def ritz(block, amplitude):
        """Rayleigh-Ritz in the complement, and the components in the new basis."""
        small, _ = blocks.orthonormalizer(blocks.gram(block, block))
        block = apart(block @ small)
        ay = a(block)
        root, alive = blocks.inverse_root(blocks.gram(block, block))
        theta, c = blocks.rayleigh_ritz(blocks.gram(block, ay), whitener=root, alive=alive)
        turned = jnp.abs(small @ c) ** 2
        return block @ c, ay @ c, theta, jnp.sqrt(turned.T @ amplitude**2)

    def judge(state: _State) -> _State:
        r = blocks.residuals(state.ay, state.y, state.theta)
        distance = state.theta - known[k - 1]
        lengths = Lengths.of(r, state.theta, state.y, filter_.norms)
        length, relative = lengths.r, relative_residuals(lengths, state.theta, filter_.norms)
        missed = distance[0] < -rounding
        strict = min(rule.tol, tolerances.eps(dtype) ** 0.5)
        distinct = distance[0] > rounding
        needed = state.amplitude[0] * jnp.where(distinct, distance[0], 1)
        shortfall = jnp.where(distinct, length[0] / needed, jnp.inf)
        complete = ~missed & ((shortfall < 1) | (relative[0] <= SAFETY * strict))
        matvecs = state.said.matvecs + state.y.shape[1]
        said = Testimony(complete, missed, state.theta, state.y, state.ay, matvecs)
        reach = jnp.max(state.theta + length)
        upper = jnp.maximum(state.upper, reach)
        return state._replace(said=said, upper=upper, shortfall=shortfall)

    def advance(state: _State) -> _State:
        lower = jnp.minimum(state.theta[-1], (state.upper + state.theta[-1]) / 2)
        half = half_width(lower, state.upper, known[0])
        interval = Interval(
            lower + half,
            half,
            jnp.broadcast_to(known[k - 1], state.theta.shape),
            jnp.zeros(state.theta.shape, bool),
        )

        def growth(t):
            rate = jnp.arccosh(jnp.maximum((interval.centre - t) / half, 1))
            return jnp.maximum(rate, tolerances.eps(dtype))

        gain = jnp.clip(REACH * state.shortfall, LEAST_GAIN, GAIN)
        degree = jnp.minimum(
            jnp.log(2 * gain) / growth(known[k - 1]), jnp.log(2 * most) / growth(known[0])
        )
        degree = jnp.clip(jnp.ceil(degree), 2, filter_.effort.degree).astype(int)
        pairs = Pairs(state.y, state.ay, None, state.theta, interval.place, state.theta)
        block = apart(filter_.polynomial(pairs, interval, degree))
        y, ay, theta, amplitude = ritz(block, state.amplitude)
        spent = state.said.matvecs + (degree - 1) * y.shape[1]
        state = state._replace(
            y=y, ay=ay, theta=theta, amplitude=amplitude, step=state.step + 1,
            said=state.said._replace(matvecs=spent),
        )  # fmt: skip
        return judge(state)

    width = min(WIDTH, n - k)
    start = blocks.unit_columns(apart(blocks.random_block(key, n, width, dtype)))
    amplitude = jnp.full(width, CHANCE / n**0.5, known.dtype)
    y, ay, theta, amplitude = ritz(start, amplitude)
    no = jnp.array(False)
    said = Testimony(no, no, theta, y, ay, jnp.array(0))
    first = judge(_State(y, ay, theta, amplitude, upper, upper, said, jnp.array(0)))
    end = jax.lax.while_loop(
        lambda s: asked & ~(s.said.complete | s.said.missed) & (s.step < ROUNDS), advance, first
    )
    return end.said
