"""Chebyshev-filtered subspace iteration (Zhou, Saad, Tiago and Chelikowsky, 2006).

Every step multiplies a block X of Ritz vectors by a polynomial p in the operator, which is small on
the unwanted part of the spectrum and grows fast below it. Rayleigh-Ritz finds the best vectors in
the result:

    Y = p(C) X,  H = Y^H A Y,  G = Y^H M Y,   X <- Y Z  with  H Z = G Z diag(theta),  Z^H G Z = I

The filter (``chebyshev_filter.py``) is a loop of products and additions alone. It has no inner
products, and the compiler fuses it with the product: hence its speed where a product is cheap. The
block is wider than k by guard vectors. They decide the growth of p at the k-th pair, show the
(k+1)-th eigenvalue, and find further copies of repeated ones.

C is A itself where M = I (``spectral_transformation.py``). Eigenvalues nearest to sigma are the
smallest of a transformed C, while Rayleigh-Ritz stays that of (A, M).
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks
from jax_peig._core.types import Array, Block, BlockFunction
from jax_peig._eigensolvers import chebyshev_filter, warm_start
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
from jax_peig._operators.probe import STEPS
from jax_peig._problem.convergence import (
    Lengths,
    Progress,
    Ritz,
    Spectrum,
    StoppingRule,
    multiply,
    relative_residuals,
)
from jax_peig._problem.iterative import IterativeMethod, Pencil, Task
from jax_peig._problem.problem import Structure

# Steps of the filter that a guess is worth.
GUESS_STEPS = 4
# Steps without progress after which the iteration gives up, see `Progress.stalled`.
PATIENCE = 12
# Condition number of a Gram matrix above which a block is made orthonormal twice: once leaves an
# error of so many eps.
CONDITION = 1000


@dataclasses.dataclass(frozen=True)
class Chebyshev(IterativeMethod):
    """Chebyshev-filtered subspace iteration: many cheap matvecs, hardly an inner product.

    The fastest method where a product with A costs little, and the only one without a solve for
    interior eigenvalues. It gains nothing from a preconditioner.

    Parameters
    ----------
    max_steps : int, optional
        Bound on the steps, each of up to 200 matvecs a column. Default: 200.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig import Chebyshev, partial_eigh
    >>> result = partial_eigh(jnp.arange(1.0, 61.0), k=2, method=Chebyshev())
    >>> print(result.eigenvalues.round(4), result.info.method)
    [1. 2.] chebyshev
    """

    name: ClassVar[str] = "chebyshev"
    default_max_steps: ClassVar[int] = 200

    def unsuited(self, structure: Structure) -> str | None:
        """Why the method cannot solve such a problem, and what to do; None where it can."""
        if structure.op_inv:
            return "with OPinv; expected 'shift_invert', which solves with it."
        return None

    def block_width(self, n: int, k: int) -> int:
        """The width of the block."""
        return chebyshev_filter.block_width(n, k)

    def knows_spectrum(self, structure: Structure) -> bool:
        """Whether the solve leaves the interval that the derivative's semi-iteration needs."""
        return not structure.interior

    def cold(self, task: Task) -> Ritz:
        """Find the pairs from a random block."""
        return self.run(task, task.random, task.rule)

    def warm(self, task: Task, guess: Block) -> Ritz:
        """Find the pairs from a guess.

        Interior values start from the guess beside a whole random block, since no completeness
        check follows.
        Without M the guess alone is filtered and then checked. With M the guess is LOBPCG's, see
        `choose.resolve`; where that method does not suit the problem it is not used.
        """
        (n, width), given = task.random.shape, guess.shape[1]
        if task.inputs.sigma is None:
            if task.inputs.m is None:
                return self.checked(task, warm_start.filled_up(guess, task.random, task.rule.k))
            return self.cold(task)
        if width + given > n:
            return self.cold(task)
        block = jnp.concatenate([guess, task.random], axis=1)
        return self.run(task, block, task.rule._replace(guessed=given))

    def checked(self, task: Task, guess: Block) -> Ritz:
        """The filtered guess where the completeness check passes; else a cold start."""
        ritz, good = improve(task.pencil, guess, task.interval, task.rule, task.key)
        left = task.rule.max_steps - GUESS_STEPS
        if left <= 0:
            return ritz._replace(stagnated=jnp.array(False))

        def again() -> Ritz:
            # Under vmap both branches run: this one does nothing for a member that is good.
            worthwhile = task.pencil.worthwhile & ~good
            rest = task._replace(
                pencil=task.pencil._replace(worthwhile=worthwhile),
                rule=task.rule._replace(max_steps=left),
            )
            cold = warm_start.first_columns(self.cold(rest), ritz.values.shape[0])
            return warm_start.after(ritz, cold)

        return jax.lax.cond(good | ~task.pencil.worthwhile, lambda: ritz, again)

    def run(self, task: Task, block: Block, rule: StoppingRule) -> Ritz:
        """Iterate from a block."""
        inputs = task.inputs
        bounds, matvecs, matvecs_M = self.bounds(task)
        ritz = solve(task.pencil, bounds, block, rule, task.key, sigma=inputs.sigma)
        return ritz.having_spent(matvecs, matvecs_M)

    def bounds(self, task: Task) -> tuple[Bounds, Array | int, Array | int]:
        """What the filter has to know, and the matvecs with A and M that it took."""
        if task.inputs.m is None:
            return Bounds(None, task.interval), 0, 0
        inverse = task.mass_inverse()
        matvecs_M = inverse.matvecs + (STEPS + 1) * (inverse.degree - 1)
        return Bounds(inverse, task.interval_with(inverse, STEPS)), STEPS, matvecs_M


def solve(
    pencil: Pencil,
    bounds: Bounds,
    start: Block,
    rule: StoppingRule,
    key: Array,
    *,
    sigma: Array | None = None,
) -> Ritz:
    """Find k eigenpairs, starting from ``start`` (n, b), with b - k guard vectors.

    Parameters
    ----------
    key
        For random columns in place of dependent ones.
    sigma : real, optional
        Look for the eigenvalues nearest to it.
    """
    (_, m, norms, worthwhile), (inverse, interval) = pencil, bounds
    if sigma is None:
        a = signed(pencil.a, rule.sign)
        c = Standard(a) if inverse is None else ResidualBased(a, inverse, interval[0])
        iteration = _Iteration(a, m, Filter(c, interval, norms, rule), key)
        return _iterate(iteration, start, worthwhile, inverse)
    # Squares of eigenvalues neither overflow nor vanish for A / unit.
    unit = power_of_two(norms[0] * blocks.reciprocal(norms[1]))
    low, high = (end / unit for end in interval)
    a = scaled(pencil.a, 1 / unit)
    transformed = interior(a, m, inverse, sigma / unit)
    filter_ = Filter(transformed, (low, high), (norms[0] / unit, norms[1]), rule)
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
) -> tuple[Ritz, Array]:
    """Improve a guess (n, k) of a problem without M, and say whether that was all it took.

    The filter improves the guess alone, for a few steps. A completeness check follows, whose
    vectors are returned behind the pairs as guard vectors. For a poor guess, or one that misses an
    eigenvector, the answer is no.
    """
    norms, worthwhile = pencil.norms, pencil.worthwhile
    key, check_key = jax.random.split(key)
    short = rule._replace(max_steps=min(GUESS_STEPS, rule.max_steps))
    a = signed(pencil.a, rule.sign)
    filter_ = Filter(Standard(a), interval, norms, short, chebyshev_filter.GUESS)
    ritz = _iterate(_Iteration(a, None, filter_, key), guess, worthwhile)
    if rule.k == guess.shape[0]:
        return ritz, jnp.asarray(ritz.complete)  # there is nothing else

    converged = ritz.complete & worthwhile

    def check() -> CompletenessResult:
        return check_completeness(filter_, ritz, interval[1], check_key, converged)

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
        (n, width), key = block.shape, jax.random.fold_in(self.key, step)
        fresh = blocks.random_block(key, n, width, block.dtype)
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
