"""The iteration of "chebyshev": a filtered block, Rayleigh-Ritz in its span, and when to stop.

    Y = p(C) X,  H = Y^H A Y,  G = Y^H M Y,   X <- Y Z  with  H Z = G Z diag(theta),  Z^H G Z = I

``chebyshev_filter.py`` chooses p. `solve` iterates from any block; `improve` takes a few steps from
a guess and checks what came out.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks
from jax_peig._core.types import Array, Block, BlockFunction
from jax_peig._eigensolvers import chebyshev_filter
from jax_peig._eigensolvers.chebyshev_filter import Bounds, Filter
from jax_peig._eigensolvers.completeness import (
    CompletenessResult,
    check_completeness,
    guards_show_complete,
    separation_ratio,
    settled,
)
from jax_peig._eigensolvers.spectral_transformation import (
    Pairs,
    Progression,
    ResidualBased,
    Standard,
    interior,
    power_of_two,
    scaled,
    signed,
)
from jax_peig._operators.mass_inverse import ApproximateInverse
from jax_peig._operators.operator import Operator
from jax_peig._problem.convergence import (
    Lengths,
    Progress,
    Ritz,
    Spectrum,
    StoppingRule,
    multiply,
    relative_residuals,
)
from jax_peig._problem.iterative import Pencil

# Steps of the filter that a guess is worth.
GUESS_STEPS = 4
# Steps without progress after which the iteration gives up, see `Progress.stalled`.
PATIENCE = 12
# Condition number of a Gram matrix above which a block is made orthonormal twice: once leaves an
# error of so many eps.
CONDITION = 1000


def solve(
    pencil: Pencil,
    bounds: Bounds,
    start: Block,
    rule: StoppingRule,
    key: Array,
    *,
    sigma: Array | None = None,
    mixed: bool = False,
) -> Ritz:
    """Find k eigenpairs, starting from ``start`` (n, b), with b - k guard vectors.

    Parameters
    ----------
    key
        For random columns in place of dependent ones.
    sigma : real, optional
        Look for the eigenvalues nearest to it.
    mixed : bool
        Whether the filter is in mixed precision; not with sigma.
    """
    (_, m, norms, worthwhile), (inverse, interval) = pencil, bounds
    if sigma is None:
        a = signed(pencil.a, rule.sign)
        c = Standard(a) if inverse is None else ResidualBased(a, inverse, interval[0])
        filter_ = Filter(c, interval, norms, rule)
        filter_ = filter_.mixed(start) if mixed else filter_
        return _iterate(_Iteration(a, m, filter_, key), start, worthwhile, inverse)
    # Squares of eigenvalues neither overflow nor vanish for A / unit.
    unit = power_of_two(norms[0] * blocks.reciprocal(norms[1]))
    low, high = (end / unit for end in interval)
    a = scaled(pencil.a, 1 / unit)
    transformed = interior(a, m, inverse, sigma / unit)
    norms = (norms[0] / unit, norms[1])
    filter_ = Filter(transformed, (low, high), norms, rule, chebyshev_filter.FOLDED)
    ritz = _iterate(_Iteration(a, m, filter_, key), start, worthwhile)
    return ritz._replace(
        values=ritz.values * unit, AX=ritz.AX * unit.astype(ritz.AX.dtype), spectrum=None
    )


def improve(
    pencil: Pencil,
    guess: Block,
    interval: tuple[Array, Array],
    rule: StoppingRule,
    key: Array,
    *,
    mixed: bool = False,
) -> tuple[Ritz, Array]:
    """Improve a guess (n, k) of a problem without M, and say whether that was all it took.

    The filter improves the guess alone, for a few steps. A completeness check follows, whose
    vectors are returned behind the pairs as guard vectors. For a poor guess, or one that misses an
    eigenvector, the answer is no.
    """
    norms, worthwhile = pencil.norms, pencil.worthwhile
    short = rule._replace(max_steps=min(GUESS_STEPS, rule.max_steps))
    a = signed(pencil.a, rule.sign)
    filter_ = Filter(Standard(a), interval, norms, short, chebyshev_filter.GUESS)
    improving = filter_.mixed(guess) if mixed else filter_
    ritz = _iterate(_Iteration(a, None, improving, key), guess, worthwhile)
    if rule.k == guess.shape[0]:
        return ritz, jnp.asarray(ritz.complete)  # there is nothing else

    converged = ritz.complete & worthwhile

    def check() -> CompletenessResult:
        return check_completeness(filter_, ritz, interval[1], key, converged)

    unchecked = jax.tree.map(lambda t: jnp.zeros(t.shape, t.dtype), jax.eval_shape(check))
    found = jax.lax.cond(converged, check, lambda: unchecked)
    both = ritz._replace(
        values=jnp.concatenate([ritz.values, rule.sign * found.theta]),
        vectors=jnp.concatenate([ritz.vectors, found.y], axis=1),
        AX=jnp.concatenate([ritz.AX, rule.sign * found.ay], axis=1),
        MX=jnp.concatenate([ritz.MX, found.y], axis=1),
        matvecs=ritz.matvecs + found.matvecs,
        complete=found.complete,
    )
    return both, found.complete


# -- the iteration ---------------------------------------------------------------------------------


class _State(NamedTuple):
    pairs: Pairs
    upper: Array  # end of the damped interval
    # Of the largest relative residual of the wanted pairs, and of the `separation_ratio`.
    progress: Progress
    step: Array
    matvecs: Array
    matvecs_M: Array
    finite: Array
    definite: Array
    found: Array  # the set is complete
    done: Array
    history: Array


def _iterate(
    iteration: "_Iteration",
    start: Block,
    worthwhile: Array,
    inverse: ApproximateInverse | None = None,
) -> Ritz:
    rule, begin = iteration.filter.rule, iteration.begin(start, worthwhile)
    end = jax.lax.while_loop(lambda s: ~s.done, iteration.iterate, begin)
    rule.monitor.finish(end.step)
    pairs = end.pairs
    return Ritz(
        values=rule.sign * pairs.theta,
        vectors=pairs.x,
        AX=rule.sign * pairs.ax,
        MX=pairs.x if pairs.mx is None else pairs.mx,
        steps=jnp.maximum(end.step, 0),
        matvecs=end.matvecs,
        matvecs_M=end.matvecs_M,
        stagnated=end.step < rule.max_steps,  # if it did not converge
        finite=end.finite,
        definite=end.definite,
        history=end.history,
        complete=end.found,
        spectrum=Spectrum(end.upper, inverse),
    )


class _Iteration(NamedTuple):
    """The pencil (sign A, M), and how it is filtered."""

    operator: BlockFunction  # sign A
    mass: Operator | None
    filter: Filter
    key: Array

    def begin(self, start: Block, worthwhile: Array) -> _State:
        """Nothing is known but a block."""
        real, rule = jnp.finfo(start.dtype).dtype, self.filter.rule
        zero, width = jnp.zeros_like(start), start.shape[1]
        count = jnp.array(0)
        unknown = jnp.full(width, jnp.inf, real)
        mx = None if self.mass is None else zero
        return _State(
            pairs=Pairs(start, zero, mx, jnp.zeros(width, real), unknown, unknown),
            upper=self.filter.transformation.first_upper(self.filter.spectrum),
            progress=Progress.begin(jnp.zeros(2, real), count),
            step=count - 1,  # the first is Rayleigh-Ritz in the span of the start alone
            matvecs=count,
            matvecs_M=count,
            finite=jnp.array(True),
            definite=jnp.array(True),
            found=jnp.array(False),
            done=~worthwhile,
            history=rule.monitor.begin(rule.k, start.dtype),
        )

    def iterate(self, state: _State) -> _State:
        """One step."""
        none = jnp.zeros_like(state.matvecs)
        block, matvecs, matvecs_M = jax.lax.cond(
            state.step < 0,
            lambda: (state.pairs.x, none, none),
            lambda: self.filter(state.pairs, state.upper, state.step),
        )
        after = state._replace(
            step=state.step + 1,
            matvecs=state.matvecs + matvecs,
            matvecs_M=state.matvecs_M + matvecs_M,
        )
        return self.judge(*self.sort(self.rayleigh_ritz(after, block)))

    def rayleigh_ritz(self, state: _State, block: Block) -> _State:
        """The best pairs in the span of ``block``, every product computed afresh."""
        block = blocks.unit_columns(block)
        dual = multiply(self.mass, block)
        g = blocks.gram(block, dual)
        q, negative = blocks.orthonormalizer(g)
        ill = blocks.scaled_condition(q, g) > CONDITION
        block, dual, q = jax.lax.cond(
            ill, self.whiten_again, lambda *given: given[:3], block, dual, q, state.step
        )
        image = self.operator(block)
        theta, c = blocks.rayleigh_ritz(blocks.gram(block, image), whitener=q)
        width = block.shape[1]
        matvecs_M = 0 if self.mass is None else width * (1 + ill.astype(int))
        mx = None if self.mass is None else dual @ c
        return state._replace(
            pairs=state.pairs._replace(x=block @ c, ax=image @ c, mx=mx, theta=theta),
            matvecs=state.matvecs + width,
            matvecs_M=state.matvecs_M + matvecs_M,
            definite=state.definite & ~negative,
        )

    def whiten_again(
        self, block: Block, dual: Block, q: Array, step: Array
    ) -> tuple[Block, Block, Array]:
        """V, M V and Q anew, V Q orthonormal to rounding; random columns replace dependent ones."""
        n, width = block.shape
        fresh = blocks.random_block(self.key, n, width, block.dtype, draw=1 + step)
        ortho = block @ q
        fresh = blocks.unit_columns(blocks.project_out(fresh, ortho, dual @ q))
        block = blocks.where_columns(blocks.nonzero_columns(q), ortho, fresh)
        dual = multiply(self.mass, block)
        return block, dual, blocks.orthonormalizer(blocks.gram(block, dual))[0]

    def sort(self, state: _State) -> tuple[_State, Lengths]:
        """The pairs in the order of their place, their lengths; the interval made safe."""
        x, ax, mx, theta = state.pairs[:4]
        c = self.filter.transformation
        r = blocks.residuals(ax, x if mx is None else mx, theta)
        # ||r|| in the M^{-1} norm, about: ||x|| is some ||M||^{-1/2}, one without M.
        lengths = Lengths.of(r, theta, x, self.filter.norms)
        length = lengths.r * lengths.x
        pairs = state.pairs._replace(place=c.places(theta, length))
        if not c.in_order:
            order = jnp.argsort(pairs.place)
            pairs, lengths, length = jax.tree.map(lambda t: t[..., order], (pairs, lengths, length))
        now = Progression(pairs.place, state.pairs.place, length, state.step)
        upper = c.raised(state.upper, now)
        return state._replace(pairs=pairs, upper=upper), lengths

    def judge(self, state: _State, lengths: Lengths) -> _State:
        """Whether to stop."""
        rule, theta = self.filter.rule, state.pairs.theta
        relative = relative_residuals(lengths, theta, self.filter.norms)
        measured = rule.measured(relative, theta, self.filter.norms)
        distances = self.filter.transformation.distances(state.pairs.place)
        found = guards_show_complete(settled(distances, lengths, measured, rule), rule)
        finite = state.finite & jnp.all(jnp.isfinite(theta) & jnp.isfinite(lengths.r))
        separation = separation_ratio(distances, lengths, rule)
        progress = state.progress.after(jnp.stack([jnp.max(measured[: rule.k]), separation]))
        stuck = progress.stalled(PATIENCE, rule.slowest(relative, measured))
        return state._replace(
            pairs=state.pairs._replace(relative=relative),
            progress=progress,
            finite=finite,
            found=found,
            done=state.done | found | ~finite | stuck | (state.step >= rule.max_steps),
            history=rule.monitor.record(
                state.history, state.step, relative[: rule.k], state.matvecs, rule.tol
            ),
        )
