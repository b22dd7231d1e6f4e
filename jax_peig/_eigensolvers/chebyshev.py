"""Chebyshev-filtered subspace iteration (Zhou, Saad, Tiago and Chelikowsky, 2006).

Every step multiplies a block X of Ritz vectors by a polynomial p in the operator, small on the
unwanted part of the spectrum and fast growing below it, and finds the best vectors in the result:

    Y = p(A) X,  H = Y^H A Y,  G = Y^H M Y,   X <- Y C  with  H C = G C diag(theta),  C^H G C = I

The filter (``chebyshev_filter.py``) is a loop of products and additions alone, without inner
products, which the compiler fuses with the product: hence its speed where a product is cheap. On P1
to P5 it spends 2.5 to 6.1 times the products of "davidson". The block is wider than k by guard
vectors: they decide the growth of p at the k-th pair, show the (k+1)-th eigenvalue and find further
copies of repeated ones.

Eigenvalues nearest to sigma are the smallest of the folded problem (M^{-1} (A - sigma M))^2. Its
filter is applied, but Rayleigh-Ritz stays that of A; its pairs are ordered by
(theta - sigma)^2 + ||r||^2, the folded Rayleigh quotient, which puts spurious Ritz values last.
With a caller's solve the filter takes the inverse instead, in a few steps of low degree.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks
from jax_peig._core.types import Array, Block, BlockFunction
from jax_peig._eigensolvers import chebyshev_filter, warm_start
from jax_peig._eigensolvers.completeness import (
    CompletenessResult,
    check_completeness,
    guards_show_complete,
    separation_ratio,
    settled,
)
from jax_peig._eigensolvers.convergence import (
    Lengths,
    Progress,
    Ritz,
    Spectrum,
    StoppingRule,
    multiply,
    relative_residuals,
)
from jax_peig._eigensolvers.iterative import IterativeMethod, Pencil, Task
from jax_peig._eigensolvers.problem import Structure
from jax_peig._operators.mass_inverse import ApproximateInverse
from jax_peig._operators.operator import Operator
from jax_peig._operators.probe import STEPS

# Steps of the filter that a guess is worth.
GUESS_STEPS = 4
# Steps without progress after which the iteration gives up, see `Progress.stalled`.
PATIENCE = 12
# Condition number of a Gram matrix above which a block is made orthonormal twice: once leaves an
# error of so many eps.
CONDITION = 1000


def block_width(n: int, k: int) -> int:
    """The width of the block: k and the guard vectors, in equal panels of whole fours."""
    wanted = k + min(max(6, k // 2), 16)
    count = -(-wanted // chebyshev_filter.BLOCK.panel)
    return min(n, count * 4 * -(-wanted // (4 * count)))


@dataclasses.dataclass(frozen=True)
class Chebyshev(IterativeMethod):
    """Chebyshev-filtered subspace iteration: many cheap matvecs, hardly an inner product.

    The fastest method where a product with A costs little, and the only iterative one for interior
    eigenvalues. It gains nothing from a preconditioner.

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

    def block_width(self, n: int, k: int) -> int:
        """The width of the block."""
        return block_width(n, k)

    def knows_spectrum(self, structure: Structure) -> bool:
        """Whether the solve leaves the interval that the derivative's semi-iteration needs."""
        return not structure.interior

    def cold(self, task: Task) -> Ritz:
        """Find the pairs from a random block."""
        return self.run(task, task.random, task.rule)

    def warm(self, task: Task, guess: Block) -> Ritz:
        """Find the pairs from a guess.

        Interior values start from the guess beside a whole random block, since no completeness
        check follows; with ``OPinv``, which needs few solves anyway, the guess is not used.
        Without M the guess alone is filtered and then checked. With M the guess is LOBPCG's, see
        `choose.resolve`; where that method does not suit the problem it is not used.
        """
        (n, width), given = task.random.shape, guess.shape[1]
        if task.inputs.sigma is None:
            if task.inputs.m is None:
                return self.checked(task, warm_start.filled_up(guess, task.random, task.rule.k))
            return self.cold(task)
        if task.inputs.op_inv is not None or width + given > n:
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
        ritz = solve(
            task.pencil, bounds, block, rule, task.key, sigma=inputs.sigma, op_inv=inputs.op_inv
        )
        return ritz.having_spent(matvecs, matvecs_M)

    def bounds(self, task: Task) -> tuple["Bounds", Array | int, Array | int]:
        """What the filter has to know, and the matvecs with A and M that it took."""
        if task.inputs.m is None or task.inputs.op_inv is not None:
            return Bounds(None, task.interval), 0, 0
        inverse = task.mass_inverse()
        matvecs_M = inverse.matvecs + (STEPS + 1) * (inverse.degree - 1)
        return Bounds(inverse, task.interval_with(inverse, STEPS)), STEPS, matvecs_M


class Bounds(NamedTuple):
    """What the filter has to know of the spectrum."""

    inverse: ApproximateInverse | None  # D, of M; None without M
    interval: tuple[Array, Array]  # that encloses the spectrum of sign A, or of sign D A


class _State(NamedTuple):
    x: Block
    ax: Block
    mx: Block | None
    theta: Array
    place: Array  # what is filtered by, ascending: theta, or the folded Rayleigh quotients
    relative: Array  # residuals
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


def solve(
    pencil: Pencil,
    bounds: Bounds,
    start: Block,
    rule: StoppingRule,
    key: Array,
    *,
    sigma: Array | None = None,
    op_inv: Operator | None = None,
) -> Ritz:
    """Find k eigenpairs, starting from ``start`` (n, b), with b - k guard vectors.

    Parameters
    ----------
    key
        For random columns in place of dependent ones.
    sigma : real, optional
        Look for the eigenvalues nearest to it.
    op_inv : Operator, optional
        (A - sigma M)^{-1}.
    """
    a, m, norms, worthwhile = pencil
    inverse, interval = bounds
    if sigma is None:
        filter_ = chebyshev_filter.Filter(a, m, inverse, interval, norms, rule, None, None)
        return _iterate(_Iteration(a, m, filter_, norms, rule, key, None), start, worthwhile)
    # Squares of eigenvalues neither overflow nor vanish for A / unit.
    unit = _power_of_two(norms[0] * blocks.reciprocal(norms[1]))
    low, high = (end / unit for end in interval)
    filter_ = chebyshev_filter.Filter(
        _times(a, 1 / unit), m, inverse, (low, high), (norms[0] / unit, norms[1]), rule,
        sigma / unit, None if op_inv is None else _times(op_inv, unit),
    )  # fmt: skip
    iteration = _Iteration(filter_.operator, m, filter_, filter_.norms, rule, key, filter_.sigma)
    ritz = _iterate(iteration, start, worthwhile)
    return ritz._replace(values=ritz.values * unit, AX=ritz.AX * unit.astype(ritz.AX.dtype))


def _times(operator: BlockFunction, factor: Array) -> BlockFunction:
    """V -> factor A V."""

    def product(block: Block, /) -> Block:
        return operator(block) * factor.astype(block.dtype)

    return product


def _power_of_two(x: Array) -> Array:
    """The one at or above x > 0, which rounds nothing; 1 for what has none."""
    usable = (x > 0) & jnp.isfinite(x)
    return jnp.ldexp(jnp.ones_like(x), jnp.frexp(jnp.where(usable, x, 1))[1])


def improve(
    pencil: Pencil,
    guess: Block,
    interval: tuple[Array, Array],
    rule: StoppingRule,
    key: Array,
) -> tuple[Ritz, Array]:
    """Improve a guess (n, k) of a problem without M, and say whether that was all it took.

    The filter improves the guess alone, for a few steps. Random vectors in the complement show
    whether it is complete, and are returned behind it as guard vectors. For a guess that is poor or
    misses a wanted vector the answer is no.
    """
    a, _, norms, worthwhile = pencil
    key, key_of_check = jax.random.split(key)
    few = rule._replace(max_steps=min(GUESS_STEPS, rule.max_steps))
    filter_ = chebyshev_filter.Filter(
        a, None, None, interval, norms, few, None, None, chebyshev_filter.GUESS
    )
    ritz = _iterate(_Iteration(a, None, filter_, norms, few, key, None), guess, worthwhile)
    if rule.k == guess.shape[0]:
        return ritz, jnp.asarray(ritz.complete)  # there is nothing else

    asked = ritz.complete & worthwhile

    def check() -> CompletenessResult:
        return check_completeness(filter_, ritz, interval[1], key_of_check, asked)

    unchecked = jax.tree.map(lambda t: jnp.zeros(t.shape, t.dtype), jax.eval_shape(check))
    found = jax.lax.cond(asked, check, lambda: unchecked)
    both = ritz._replace(
        values=jnp.concatenate([ritz.values, rule.sign * found.theta]),
        vectors=jnp.concatenate([ritz.vectors, found.y], axis=1),
        AX=jnp.concatenate([ritz.AX, rule.sign * found.ay], axis=1),
        MX=jnp.concatenate([ritz.MX, found.y], axis=1),
        matvecs=ritz.matvecs + found.matvecs,
        complete=found.complete,
    )
    return both, found.complete


def _iterate(iteration: "_Iteration", start: Block, worthwhile: Array) -> Ritz:
    rule, begin = iteration.rule, iteration.begin(start, worthwhile)
    end = jax.lax.while_loop(lambda s: ~s.done, iteration.iterate, begin)
    rule.monitor.finish(end.step)
    return Ritz(
        values=rule.sign * end.theta,
        vectors=end.x,
        AX=rule.sign * end.ax,
        MX=end.x if end.mx is None else end.mx,
        steps=jnp.maximum(end.step, 0),
        matvecs=end.matvecs,
        matvecs_M=end.matvecs_M,
        stagnated=end.step < rule.max_steps,  # if it did not converge
        finite=end.finite,
        definite=end.definite,
        history=end.history,
        complete=end.found,
        spectrum=None
        if iteration.sigma is not None
        else Spectrum(end.upper, iteration.filter.inverse),
    )


class _Iteration(NamedTuple):
    """The pencil (sign A, M), and what is wanted of it."""

    operator: BlockFunction
    mass: Operator | None
    filter: chebyshev_filter.Filter
    norms: tuple[Array, Array]
    rule: StoppingRule
    key: Array
    sigma: Array | None

    def a(self, block: Block) -> Block:
        return self.rule.sign * self.operator(block)

    def begin(self, start: Block, worthwhile: Array) -> _State:
        real = jnp.finfo(start.dtype).dtype
        zero, width = jnp.zeros_like(start), start.shape[1]
        count = jnp.array(0)
        return _State(
            x=start,
            ax=zero,
            mx=None if self.mass is None else zero,
            theta=jnp.zeros(width, real),
            place=jnp.full(width, jnp.inf, real),
            relative=jnp.full(width, jnp.inf, real),
            upper=self.filter.upper(),
            progress=Progress.begin(jnp.zeros(2, real), count),
            step=count - 1,  # the first is Rayleigh-Ritz in the span of the start alone
            matvecs=count,
            matvecs_M=count,
            finite=jnp.array(True),
            definite=jnp.array(True),
            found=jnp.array(False),
            done=~worthwhile,
            history=self.rule.monitor.begin(self.rule.k, start.dtype),
        )

    def iterate(self, state: _State) -> _State:
        pairs = chebyshev_filter.Pairs(
            state.x, state.ax, state.mx, state.theta, state.place, state.relative
        )
        none = jnp.zeros_like(state.matvecs)
        block, matvecs, matvecs_M = jax.lax.cond(
            state.step < 0,
            lambda: (state.x, none, none),
            lambda: self.filter(pairs, state.upper, state.step),
        )
        after = state._replace(
            step=state.step + 1,
            matvecs=state.matvecs + matvecs,
            matvecs_M=state.matvecs_M + matvecs_M,
        )
        return self.judge(self.rayleigh_ritz(after, block))

    def rayleigh_ritz(self, state: _State, block: Block) -> _State:
        """The best pairs in the span of ``block``, every product computed afresh."""
        dtype, width = block.dtype, block.shape[1]
        block = blocks.unit_columns(block)
        product = multiply(self.mass, block)
        g = blocks.gram(block, product)
        small, negative = blocks.orthonormalizer(g)

        def again(block):
            """Orthonormal first; random columns for those that were dependent to rounding."""
            key = jax.random.fold_in(self.key, state.step)
            fresh = blocks.random_block(key, block.shape[0], width, dtype)
            ortho = block @ small
            fresh = blocks.project_out(fresh, ortho, product @ small)
            fresh = blocks.unit_columns(fresh)
            block = blocks.where_columns(blocks.nonzero_columns(small), ortho, fresh)
            dual = multiply(self.mass, block)
            g = blocks.gram(block, dual)
            return block, dual, g, blocks.orthonormalizer(g)[0]

        ill = _condition(small, g) > CONDITION
        block, product, g, small = jax.lax.cond(
            ill, again, lambda block: (block, product, g, small), block
        )
        image = self.a(block)
        theta, c = blocks.rayleigh_ritz(blocks.gram(block, image), whitener=small)
        mass_products = 0 if self.mass is None else width * (1 + ill.astype(int))
        return state._replace(
            x=block @ c,
            ax=image @ c,
            mx=None if self.mass is None else product @ c,
            theta=theta,
            matvecs=state.matvecs + width,
            matvecs_M=state.matvecs_M + mass_products,
            definite=state.definite & ~negative,
        )

    def judge(self, state: _State) -> _State:
        """Residuals, the order of the pairs, and whether to stop."""
        rule = self.rule
        state, lengths = self.ordered(state)
        relative = relative_residuals(lengths, state.theta, self.norms)
        worst = jnp.max(relative[: rule.k])
        line = state.theta
        if self.sigma is not None:
            line = jnp.sqrt(jnp.abs(state.place))
            line = line if self.filter.op_inv is None else 1 / line
        found = guards_show_complete(settled(line, lengths, relative, rule), rule)
        finite = state.finite & jnp.all(jnp.isfinite(state.theta) & jnp.isfinite(lengths.r))
        reached = jnp.stack([worst, separation_ratio(line, lengths, rule)])
        progress = state.progress.after(reached)
        stuck = progress.stalled(PATIENCE, worst)
        return state._replace(
            relative=relative,
            progress=progress,
            finite=finite,
            found=found,
            done=state.done | found | ~finite | stuck | (state.step >= rule.max_steps),
            history=rule.monitor.record(
                state.history, state.step, relative[: rule.k], state.matvecs, rule.tol
            ),
        )

    def ordered(self, state: _State) -> tuple[_State, Lengths]:
        """The pairs in the order of their place, their lengths; the interval made safe."""
        dual = state.x if state.mx is None else state.mx
        r = blocks.residuals(state.ax, dual, state.theta)
        # ||r|| in the M^{-1} norm, about: ||x|| is some ||M||^{-1/2}, one without M.
        lengths = Lengths.of(r, state.theta, state.x, self.norms)
        length = lengths.r * lengths.x
        if self.sigma is None:
            place, reach = state.theta, state.theta[-1] + length[-1]
        else:
            place = (state.theta - self.sigma) ** 2 + length**2
            if self.filter.op_inv is not None:
                place = -1 / jnp.where(place > 0, place, jnp.finfo(place.dtype).tiny)
            order = jnp.argsort(place)
            place, reach = place[order], jnp.max(place)
            mx = None if state.mx is None else state.mx[:, order]
            state = state._replace(
                x=state.x[:, order], ax=state.ax[:, order], mx=mx, theta=state.theta[order]
            )
            lengths = Lengths(lengths.r[order], lengths.x[order])
        if self.filter.op_inv is not None:
            upper = state.upper
        elif self.mass is None:
            upper = jnp.maximum(state.upper, reach)  # an eigenvalue lies within ||r|| of theta
        else:
            # The largest Ritz value falls, unless the interval ends below the spectrum of D A.
            rose = (state.step > 1) & (place[-1] > state.place[-1])
            upper = state.upper + jnp.where(rose, 0.1 * (state.upper - place[0]), 0)
        return state._replace(place=place, upper=upper), lengths


def _condition(small: Array, g: Array) -> Array:
    """Condition number of the scaled Gram matrix ``g``, from its orthonormalizer."""
    scaled = small * jnp.sqrt(jnp.abs(jnp.diagonal(g)))[:, None].astype(small.dtype)
    inverse = blocks.column_norms(scaled) ** 2
    return jnp.where(jnp.all(inverse > 0), jnp.max(inverse), jnp.inf)
