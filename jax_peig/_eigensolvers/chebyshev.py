"""Chebyshev-filtered subspace iteration (Zhou, Saad, Tiago and Chelikowsky, 2006).

Every step multiplies a block X of Ritz vectors by a polynomial in the operator that is small on the
unwanted part of the spectrum and grows fast below it, and finds the best vectors in the result:

    Y = p(A) X,   p(t) = T_d((t - c) / e) / T_d((theta_1 - c) / e),   [a, u] = [c - e, c + e],
    H = Y^H A Y,  G = Y^H M Y,   X <- Y C  with  H C = G C diag(theta),  C^H G C = I

The filter is a loop of products and additions alone, without inner products, which the compiler
fuses with the product: hence its speed where a product is cheap. It spends two to four times the
products of a Krylov method. What is chosen here, and how:

1. The interval. ``a`` is the largest Ritz value of the block, never below the eigenvalue it stands
   for; ``u`` an upper bound from a few Lanczos steps, raised when a Ritz value shows it too low.
2. The degree. From the growth of p at the Ritz values: enough for the worst wanted pair to
   converge in this step, unless rounding forbids it: a growth of g along one vector costs the
   others g eps while they are mixed with it.
3. The block. Wider than k by guard vectors, which decide the growth at the k-th pair, show the
   (k+1)-th eigenvalue and find further copies of repeated ones.
4. Locking. A wide block is filtered in panels that stay in cache; panels whose pairs have all
   converged are left out, and those of lower pairs get lower degrees.
5. M. With C = M^{-1} A, C X = X diag(theta) + W, W = M^{-1} (A X - M X diag(theta)), the filtered
   block is X p(diag(theta)) + E, where E obeys the recurrence of p(C) with a source from W. Only E
   is computed, with a rough inverse D for M^{-1}: the error of D is multiplied by the
   residual and dies with it, so that the limit is exact ("residual-based", R-ChFSI, 2025).
6. Eigenvalues nearest to sigma are the smallest of the folded problem C = (M^{-1} (A - sigma M))^2.
   Rayleigh-Ritz stays that of A; its pairs are ordered by (theta - sigma)^2 + ||r||^2, the Rayleigh
   quotient of the folded operator, which puts spurious Ritz values last.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig import _blocks, _tolerances
from jax_peig._eigensolvers.ritz import SAFETY, Goal, Ritz, enough, multiply, relative_residuals
from jax_peig._mass import RoughInverse
from jax_peig._operators import Operator
from jax_peig._types import Array, Block

# Columns filtered together: a panel and its two companions stay in cache for n of some 10,000.
PANEL = 20
MAX_DEGREE = 200
# Growth of p over the block that rounding allows while nothing has converged, and at all.
GROWTH = 1e4
GROWTH_LIMIT = 1e10
# A step aims at this fraction of the tolerance: not quite all that is predicted is had.
AIM = 0.1
# The least gain of a step of `MAX_DEGREE` at the k-th pair. Where a cluster fills the block up to
# its edge, the interval begins above it.
LEAST_GAIN = 30.0
# Where the interval begins, as a fraction of the spectrum, while the block is random and has M.
FIRST = 0.3
# Steps without progress after which the iteration gives up, and the relative residual, in eps,
# above which it does not.
PATIENCE = 12
ROUNDING = 1000


def block_width(n: int, k: int) -> int:
    """The width of the block: k and the guard vectors, in equal panels of whole fours."""
    wanted = k + min(max(6, k // 2), 16)
    count = -(-wanted // PANEL)
    return min(n, count * 4 * -(-wanted // (4 * count)))


def panels(width: int) -> int:
    """How many panels a block is filtered in: the fewest equal ones."""
    count = -(-width // PANEL)
    return count if width % count == 0 else 1


class _State(NamedTuple):
    x: Block
    ax: Block
    mx: Block | None
    theta: Array
    place: Array  # what is filtered by, ascending: theta, or the folded Rayleigh quotients
    relative: Array  # residuals
    upper: Array  # end of the damped interval
    best: Array  # the largest relative residual of the wanted pairs, at its smallest so far
    since: Array  # steps since then
    step: Array
    products: Array
    products_M: Array
    finite: Array
    definite: Array
    done: Array
    history: Array


class _Pairs(NamedTuple):
    """A panel of the block."""

    x: Block
    ax: Block
    mx: Block | None
    theta: Array
    place: Array


class _Interval(NamedTuple):
    """The damped interval [centre - half, centre + half], and where p is evaluated."""

    centre: Array
    half: Array
    place: Array
    raw: Array  # the block is random: its Ritz values mean nothing for D A


def solve(
    a: Operator,
    m: Operator | None,
    inverse: RoughInverse | None,
    start: Block,
    interval: tuple[Array, Array],
    norms: tuple[Array, Array],
    goal: Goal,
    worthwhile: Array,
    key: Array,
    *,
    warm: bool = False,
    sigma: Array | None = None,
) -> Ritz:
    """Find k eigenpairs, starting from ``start`` (n, b), b > k if n > k.

    Parameters
    ----------
    inverse : RoughInverse
        D, a rough inverse of M; None without M.
    interval : (real, real)
        That encloses the spectrum of sign A, or of sign D A.
    norms : (||A||, ||M||)
        Estimates that the relative residuals refer to.
    worthwhile : bool
        False where the problem is known to be ill-posed: nothing is computed then.
    key
        For random columns in place of dependent ones.
    warm : bool
        The first k columns of ``start`` are a guess, the others random.
    sigma : real, optional
        Look for the eigenvalues nearest to it.
    """
    problem = _Problem(a, m, inverse, interval, norms, goal, key, warm, sigma)
    begin = problem.begin(start, worthwhile)
    end = jax.lax.while_loop(lambda s: ~s.done, problem.iterate, begin)
    goal.monitor.finish(end.step)
    return Ritz(
        values=goal.sign * end.theta,
        vectors=end.x,
        AX=goal.sign * end.ax,
        MX=end.x if end.mx is None else end.mx,
        steps=end.step,
        products=end.products,
        products_M=end.products_M,
        stagnated=end.step < goal.max_steps,  # if it did not converge
        finite=end.finite,
        definite=end.definite,
        history=end.history,
    )


class _Problem(NamedTuple):
    """The pencil (sign A, M) and what is wanted of it."""

    operator: Operator
    mass: Operator | None
    inverse: RoughInverse | None
    spectrum: tuple[Array, Array]
    norms: tuple[Array, Array]
    goal: Goal
    key: Array
    warm: bool
    sigma: Array | None

    # -- products -------------------------------------------------------------------------------

    def a(self, block: Block) -> Block:
        return self.goal.sign * self.operator(block)

    def shifted(self, block: Block) -> Block:
        """D (A - sigma M) V, without the shift where there is no sigma, without D with no M."""
        image = self.a(block)
        if self.sigma is not None:
            image = image - self.sigma.astype(block.dtype) * multiply(self.mass, block)
        return image if self.inverse is None else self.inverse(image)

    def filtering(self, block: Block) -> Block:
        """The operator of the filter, (D A) V or folded."""
        image = self.shifted(block)
        return image if self.sigma is None else self.shifted(image)

    # -- the iteration --------------------------------------------------------------------------

    def begin(self, start: Block, worthwhile: Array) -> _State:
        real = jnp.finfo(start.dtype).dtype
        zero, width = jnp.zeros_like(start), start.shape[1]
        low, high = self.spectrum
        upper = high
        if self.sigma is not None:
            upper = jnp.maximum(jnp.abs(low - self.sigma), jnp.abs(high - self.sigma)) ** 2
        count = jnp.array(0)
        state = _State(
            x=zero,
            ax=zero,
            mx=None if self.mass is None else zero,
            theta=jnp.zeros(width, real),
            place=jnp.full(width, jnp.inf, real),
            relative=jnp.full(width, jnp.inf, real),
            upper=upper,
            best=jnp.array(jnp.inf, real),
            since=count,
            step=count,
            products=count,
            products_M=count,
            finite=jnp.array(True),
            definite=jnp.array(True),
            done=~worthwhile,
            history=self.goal.monitor.begin(self.goal.k, start.dtype),
        )
        return jax.lax.cond(
            worthwhile, lambda: self.judge(self.rayleigh_ritz(state, start)), lambda: state
        )

    def iterate(self, state: _State) -> _State:
        block, products, products_M = self.filter(state)
        after = state._replace(
            step=state.step + 1,
            products=state.products + products,
            products_M=state.products_M + products_M,
        )
        return self.judge(self.rayleigh_ritz(after, block))

    def rayleigh_ritz(self, state: _State, block: Block) -> _State:
        """The best pairs in the span of ``block``, every product computed afresh."""
        dtype, width = block.dtype, block.shape[1]
        norms = _blocks.column_norms(block)
        scale = jnp.where(norms > 0, 1 / jnp.where(norms > 0, norms, 1), 0)
        block = block * scale.astype(dtype)[None, :]
        product = multiply(self.mass, block)
        g = _blocks.gram(block, product)
        small, negative = _blocks.orthonormalizer(g)

        def again(block):
            """Orthonormal first; random columns for those that were dependent to rounding."""
            key = jax.random.fold_in(self.key, state.step)
            fresh = _blocks.random_block(key, block.shape[0], width, dtype)
            alive = _blocks.column_norms(small) > 0
            ortho = block @ small
            fresh = _blocks.project_out(fresh, ortho, product @ small)
            fresh = fresh / _blocks.column_norms(fresh).astype(dtype)[None, :]
            block = jnp.where(alive[None, :], ortho, fresh)
            dual = multiply(self.mass, block)
            g = _blocks.gram(block, dual)
            return block, dual, g, _blocks.orthonormalizer(g)[0]

        ill = _condition(small, g) > _tolerances.eps(dtype) ** -0.5
        block, product, g, small = jax.lax.cond(
            ill, again, lambda block: (block, product, g, small), block
        )
        image = self.a(block)
        h = small.conj().T @ _blocks.gram(block, image) @ small
        theta, c = jnp.linalg.eigh(_blocks.herm(h), symmetrize_input=False)
        c = small @ c
        mass_products = 0 if self.mass is None else width * (1 + ill.astype(int))
        return state._replace(
            x=block @ c,
            ax=image @ c,
            mx=None if self.mass is None else product @ c,
            theta=theta,
            products=state.products + width,
            products_M=state.products_M + mass_products,
            definite=state.definite & ~negative,
        )

    def judge(self, state: _State) -> _State:
        """Residuals, the order of the pairs, and whether to stop."""
        goal = self.goal
        state, r = self.ordered(state)
        relative = relative_residuals(r, state.theta, state.x, self.norms)
        worst = jnp.max(relative[: goal.k])
        line = state.theta if self.sigma is None else jnp.sqrt(state.place)
        found = enough(line, r, relative, state.x, goal)
        finite = state.finite & jnp.all(jnp.isfinite(state.theta)) & jnp.all(jnp.isfinite(r))
        better = worst < 0.9 * state.best
        since = jnp.where(better, 0, state.since + 1)
        stuck = (since >= PATIENCE) & (worst < ROUNDING * _tolerances.eps(r.dtype))
        return state._replace(
            relative=relative,
            best=jnp.where(better, worst, state.best),
            since=since,
            finite=finite,
            done=state.done | found | ~finite | stuck | (state.step >= goal.max_steps),
            history=goal.monitor.record(
                state.history, state.step, relative[: goal.k], state.products, goal.tol
            ),
        )

    def ordered(self, state: _State) -> tuple[_State, Block]:
        """The pairs in the order of their place, with residuals; the interval made safe."""

        def residual(s):
            mx = s.x if s.mx is None else s.mx
            return s.ax - mx * s.theta.astype(mx.dtype)[None, :]

        r = residual(state)
        length = _blocks.column_norms(r) / _blocks.column_norms(state.x)
        if self.mass is not None:
            length = length * _blocks.column_norms(state.x) ** 2  # ||r|| in the M^{-1} norm, about
        if self.sigma is None:
            place, reach = state.theta, state.theta[-1] + length[-1]
        else:
            place = (state.theta - self.sigma) ** 2 + length**2
            order = jnp.argsort(place)
            place, reach = place[order], jnp.max(place)
            mx = None if state.mx is None else state.mx[:, order]
            state = state._replace(
                x=state.x[:, order], ax=state.ax[:, order], mx=mx, theta=state.theta[order]
            )
            r = r[:, order]
        if self.mass is None:
            upper = jnp.maximum(state.upper, reach)  # an eigenvalue lies within ||r|| of theta
        else:
            # The largest Ritz value falls, unless the interval ends below the spectrum of D A.
            rose = (state.step > 1) & (place[-1] > state.place[-1])
            upper = jnp.where(rose, 1.1 * state.upper, state.upper)
        return state._replace(place=place, upper=upper), r

    # -- the filter -----------------------------------------------------------------------------

    def interval(self, s: _State) -> _Interval:
        k, place, upper = self.goal.k, s.place, s.upper
        width = place.shape[0]
        room = jnp.log(2 * LEAST_GAIN) / MAX_DEGREE
        least = place[k - 1] + (upper - place[k - 1]) * room**2 / 4
        edge = place[-1]
        if self.warm and k > 1:
            # Random guards say nothing yet: their eigenvalues as if the spectrum went on evenly.
            ahead = place[k - 1] + (place[k - 1] - place[0]) * (width - k) / (k - 1)
            edge = jnp.where(s.step == 0, jnp.minimum(edge, ahead), edge)
        lower = jnp.minimum(jnp.maximum(edge, least), (upper + place[-1]) / 2)
        raw = jnp.array(False)
        if self.inverse is not None:
            # The Ritz values of a random block may lie anywhere in and above the spectrum of D A:
            # then p(D A) X itself is as good as anything.
            low = self.spectrum[0] if self.sigma is None else 0
            extent = upper - jnp.minimum(low, place[0])
            raw = lower > upper - extent / 2
            lower = jnp.where(raw, upper - (1 - FIRST) * extent, lower)
            place = jnp.where(raw, upper - extent, place)
        size = jnp.maximum(jnp.abs(upper), jnp.abs(place[0]))
        half = jnp.maximum((upper - lower) / 2, _tolerances.eps(place.dtype) * size)
        half = jnp.where(half > 0, half, 1)
        return _Interval(lower + half, half, place, raw)

    def degrees(self, s: _State, interval: _Interval) -> Array:
        """The degree for every panel, 0 where all its pairs have converged, (panels,).

        p grows like cosh(d g) with g = arccosh((c - theta) / e): a residual that has to fall by f
        needs d = arccosh(f) / g.
        """
        k, tol = self.goal.k, self.goal.tol
        ratio = (interval.centre - interval.place) / interval.half
        growth = jnp.arccosh(jnp.maximum(ratio, 1))
        growth = jnp.maximum(growth, _tolerances.eps(growth.dtype))
        wanted = jnp.arange(growth.shape[0]) < k
        gain = jnp.maximum(2 * s.relative / (AIM * tol), jnp.e)
        need = jnp.where(wanted & (s.relative > SAFETY * tol), jnp.log(gain) / growth, 0)
        # The guard vectors follow the worst of the wanted, or come on by themselves.
        need = jnp.where(wanted, need, jnp.maximum(jnp.max(need), 3 / growth[k - 1]))
        mixed = jnp.max(s.relative[:k]) * self.norms[0] / (2 * interval.half)
        limit = GROWTH / jnp.clip(mixed, GROWTH / GROWTH_LIMIT, 1)
        need = jnp.minimum(need, jnp.log(2 * limit) / growth[0])
        need = jnp.max(need.reshape(panels(growth.shape[0]), -1), axis=1)
        return jnp.where(need > 0, jnp.clip(jnp.ceil(need), 2, MAX_DEGREE), 0).astype(int)

    def filter(self, s: _State) -> tuple[Block, Array, Array]:
        """p(A) X, panel by panel, and the products with A and with M that it took."""
        interval = self.interval(s)
        degrees = self.degrees(s, interval)
        count = degrees.shape[0]
        width = s.x.shape[1] // count
        pairs = _Pairs(s.x, s.ax, s.mx, s.theta, interval.place)

        def panel(i, block):
            def cut(array):
                return jax.lax.dynamic_slice_in_dim(array, i * width, width, array.ndim - 1)

            part = jax.tree.map(cut, pairs)
            new = jax.lax.cond(
                degrees[i] > 0,
                lambda: self.polynomial(part, interval, degrees[i]),
                lambda: part.x,
            )
            return jax.lax.dynamic_update_slice_in_dim(block, new, i * width, 1)

        if count == 1:
            block = self.polynomial(pairs, interval, degrees[0])
        else:
            block = jax.lax.fori_loop(0, count, panel, s.x)
        applied = width * jnp.sum(jnp.maximum(degrees - 1, 0))  # vectors through `filtering`
        begun = width * jnp.sum(degrees > 0)  # and through the beginning of `polynomial`
        folds = 1 if self.sigma is None else 2
        products = folds * applied + (folds - 1) * begun
        if self.inverse is None:
            return block, products, jnp.zeros_like(products)
        shifts = products if folds > 1 else 0
        products_M = folds * (applied + begun) * (self.inverse.degree - 1) + shifts
        return block, products, products_M

    def polynomial(self, pairs: _Pairs, interval: _Interval, degree: Array) -> Block:
        """p(C) X for a degree >= 1, p = 1 at the first place, by the three-term recurrence.

            Y_{j+1} = 2 s_{j+1} (C - c) Y_j / e - s_j s_{j+1} Y_{j-1},  1 / s_{j+1} = 2 / s_1 - s_j

        with s_1 = e / (place_1 - c); with M the same for E of the module's text, from Y_0 = 0,
        with C W-terms added: 2 s_{j+1} W p_j(place) / e.
        """
        x, ax, place = pairs.x, pairs.ax, pairs.place
        dtype = x.dtype
        centre, half = interval.centre, interval.half
        first = half / (place[0] - centre)

        def f(z):
            return z.astype(dtype)

        if self.inverse is None:
            source, older = None, x
            image = ax if self.sigma is None else self.shifted(ax - f(self.sigma) * x)
            newer = (image - f(centre) * x) * f(first / half)
        else:
            source = self.source(pairs, interval.raw)
            older, newer = jnp.zeros_like(x), source * f(first / half)

        def body(_, carry):
            older, newer, p_older, p, s = carry
            following = 1 / (2 / first - s)
            image = self.filtering(newer)
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

    def source(self, pairs: _Pairs, raw: Array) -> Block:
        """W = C X - X diag(place), from the residual R; of D A X itself while the block is random.

        Folded, with s = theta - sigma:  C X = X s^2 + D R s + D (A - sigma M) D R.
        """

        def f(z):
            return z.astype(pairs.x.dtype)[None, :]

        x, ax, mx, theta, place = pairs
        assert self.inverse is not None
        if self.sigma is None:
            inside = jnp.where(raw, 0, theta)
            return self.inverse(ax - mx * f(inside)) - x * f(place - inside)
        inside = jnp.where(raw, 0, theta - self.sigma)
        r = self.inverse(ax - mx * f(inside + self.sigma))
        return r * f(inside) + self.shifted(r) - x * f(place - inside**2)


def _condition(small: Array, g: Array) -> Array:
    """Condition number of the scaled Gram matrix ``g``, from its orthonormalizer."""
    scaled = small * jnp.sqrt(jnp.abs(jnp.diagonal(g)))[:, None].astype(small.dtype)
    inverse = _blocks.column_norms(scaled) ** 2
    return jnp.where(jnp.all(inverse > 0), jnp.max(inverse), jnp.inf)
