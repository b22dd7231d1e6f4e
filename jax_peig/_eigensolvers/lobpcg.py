"""Locally optimal block preconditioned conjugate gradients, Knyazev (2001), made robust.

Every step finds the best block in the span of the iterates X, the preconditioned residuals W and
the previous directions P:

    R = A X - M X diag(theta),  W = T R,  [X, P] <- Rayleigh-Ritz on span [X, W, P]

Differences from the textbook and from ``jax.experimental.sparse.linalg.lobpcg_standard``:

1. The generalised problem, a preconditioner, complex Hermitian, smallest and largest.
2. One product with A of one block a step: A X, A P (M X, M P) are carried along and combined with
   the same small coefficients; they are computed afresh every `REFRESH` steps and at the end.
3. Orthonormalisation by Gram matrices alone. Directions that are dependent to rounding become zero
   columns, and the Rayleigh-Ritz step passes over them: rank-deficient guesses, converged columns
   (zero residuals) and 3 m > n need no special case.
4. P is made orthonormal to X in the small space of coefficients (Hetmaniuk and Lehoucq, 2006;
   Duersch et al., 2018), so that the whole basis stays orthonormal to rounding.
5. Guard vectors: the block is wider than k. They speed up convergence, find the further copies of a
   repeated eigenvalue, and tell the gap. The iteration goes on until the first of them shows that
   the (k+1)-th eigenvalue is another one, or is converged itself.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig import _blocks, _tolerances
from jax_peig._eigensolvers.ritz import Goal, Ritz, enough, multiply, relative_residuals
from jax_peig._operators import Operator
from jax_peig._types import Array, Block

REFRESH = 20  # steps between fresh products with X
# Steps without progress after which the iteration gives up, and the relative residual, in eps,
# above which it does not: there it is slow, not at the rounding of the products.
PATIENCE = 100
ROUNDING = 1000


def block_width(n: int, k: int) -> int:
    """The width of the block, k and the guard vectors: half as many again, between 2 and 8."""
    return min(n, k + min(max(2, k // 2), 8))


class _Layers(NamedTuple):
    """A block with its products; ``m`` is the block itself where there is no M."""

    v: Block
    a: Block
    m: Block


class _State(NamedTuple):
    x: tuple[Array, ...]  # X, A X and, with M, M X
    p: tuple[Array, ...]
    theta: Array
    best: Array  # the largest relative residual of the wanted pairs, at its smallest so far
    since: Array  # steps since then
    step: Array
    products: Array
    products_M: Array
    finite: Array
    definite: Array
    refresh: Array  # compute all products afresh next, instead of a step
    done: Array
    history: Array


def solve(
    a: Operator,
    m: Operator | None,
    preconditioner: Operator | None,
    start: Block,
    norms: tuple[Array, Array],
    goal: Goal,
    worthwhile: Array,
) -> Ritz:
    """Find the k smallest or largest eigenpairs, starting from ``start`` (n, m), m > k if n > k.

    Parameters
    ----------
    norms : (||A||, ||M||)
        Estimates that the relative residuals refer to.
    worthwhile : bool
        False where the problem is known to be ill-posed: nothing is computed then.
    """
    problem = _Problem(a, m, preconditioner, norms, goal)
    begin = problem.begin(start)._replace(done=~worthwhile)
    end = jax.lax.while_loop(lambda s: ~s.done, problem.iterate, begin)
    goal.monitor.finish(end.step)
    x = problem.unpack(end.x)
    return Ritz(
        values=goal.sign * end.theta,
        vectors=x.v,
        AX=goal.sign * x.a,
        MX=x.m,
        steps=end.step,
        products=end.products,
        products_M=end.products_M,
        stagnated=end.step < goal.max_steps,  # if it did not converge
        finite=end.finite,
        definite=end.definite,
        history=end.history,
    )


class _Problem(NamedTuple):
    """The pencil (sign A, M), whose smallest eigenvalues are wanted, and how well."""

    operator: Operator
    mass: Operator | None
    preconditioner: Operator | None
    norms: tuple[Array, Array]
    goal: Goal

    def a(self, block: Block) -> Block:
        return self.goal.sign * self.operator(block)

    def pack(self, layers: _Layers) -> tuple[Array, ...]:
        return (layers.v, layers.a) if self.mass is None else (layers.v, layers.a, layers.m)

    def unpack(self, arrays: tuple[Array, ...]) -> _Layers:
        return _Layers(arrays[0], arrays[1], arrays[-1] if self.mass is not None else arrays[0])

    def orthonormal(self, block: Block, basis: list[_Layers]) -> tuple[Block, Block, Array]:
        """V, M V orthonormal and orthogonal to ``basis``, and whether M looked definite.

        Twice is enough: a column that loses more than half the digits in the first pass is
        rounding, and is dropped by the norm test or by the rank test of the Gram matrix.
        """
        definite = jnp.array(True)
        dtype = block.dtype
        for _ in range(2):
            norms = _blocks.column_norms(block)
            block = block * _reciprocal(norms).astype(dtype)[None, :]
            for layers in basis:
                block = _blocks.project_out(block, layers.v, layers.m)
            left = _blocks.column_norms(block)
            keep = left > _tolerances.rank(dtype)
            block = jnp.where(keep[None, :], block, 0)
            product = multiply(self.mass, block)
            small, negative = _blocks.orthonormalizer(_blocks.gram(block, product))
            definite = definite & ~negative
            block = block @ small
            product = block if self.mass is None else product @ small
        return block, product, definite

    def begin(self, start: Block) -> _State:
        zero = jnp.zeros_like(start)
        layers = (zero,) * (2 if self.mass is None else 3)
        real = jnp.finfo(start.dtype).dtype
        count = jnp.array(0)
        return _State(
            x=(start, *layers[1:]),
            p=layers,
            theta=jnp.zeros(start.shape[1], real),
            best=jnp.array(jnp.inf, real),
            since=count,
            step=count,
            products=count,
            products_M=count,
            finite=jnp.array(True),
            definite=jnp.array(True),
            refresh=jnp.array(True),
            done=jnp.array(False),
            history=self.goal.monitor.begin(self.goal.k, start.dtype),
        )

    def iterate(self, state: _State) -> _State:
        return self.judge(jax.lax.cond(state.refresh, self.renew, self.advance, state))

    def preference(self, h: Array, width: int) -> Array:
        """A diagonal that puts W and P behind X where Ritz values tie to rounding.

        A further copy of a converged eigenvalue may sit in W or P with an error of sqrt(eps), its
        Ritz value exact: Rayleigh-Ritz would mix it freely with the copies in X, and undo their
        convergence at every step. eps^{3/4} of the spectrum is above rounding, and far below any
        distance over which a residual couples X to W.
        """
        spread = jnp.max(jnp.sum(jnp.abs(h), axis=1)) * _tolerances.eps(h.dtype) ** 0.75
        behind = jnp.arange(h.shape[0]) >= width
        return jnp.diag(jnp.where(behind, spread, 0).astype(h.dtype))

    def renew(self, state: _State) -> _State:
        """Rayleigh-Ritz in the span of X, every product computed afresh."""
        v, mv, definite = self.orthonormal(state.x[0], [])
        av = self.a(v)
        theta, c = _blocks.rayleigh_ritz(_blocks.gram(v, av), _blocks.gram(v, mv))
        width = v.shape[1]
        return state._replace(
            x=tuple(block @ c for block in self.pack(_Layers(v, av, mv))),
            theta=theta,
            products=state.products + width,
            products_M=state.products_M + (0 if self.mass is None else 2 * width),
            definite=state.definite & definite,
        )

    def residual(self, x: _Layers, theta: Array) -> Block:
        return x.a - x.m * theta.astype(x.m.dtype)[None, :]

    def judge(self, state: _State) -> _State:
        """Whether to stop: the wanted pairs converged and the first guard vector told enough.

        Nothing ends but on products computed afresh.
        """
        goal, x = self.goal, self.unpack(state.x)
        r = self.residual(x, state.theta)
        relative = relative_residuals(r, state.theta, x.v, self.norms)
        worst = jnp.max(relative[: goal.k])
        found = enough(state.theta, r, relative, x.v, goal)
        finite = state.finite & jnp.all(jnp.isfinite(state.theta)) & jnp.all(jnp.isfinite(r))
        better = worst < 0.9 * state.best
        since = jnp.where(better, 0, state.since + 1)
        best = jnp.minimum(worst, state.best)
        stuck = (since >= PATIENCE) & (best < ROUNDING * _tolerances.eps(r.dtype))
        stop = found | ~finite | (state.step >= goal.max_steps) | stuck
        due = stop | (state.step % REFRESH == 0)
        history = goal.monitor.record(
            state.history, state.step, relative[: goal.k], state.products, goal.tol
        )
        return state._replace(
            history=history,
            best=jnp.where(better, worst, state.best),
            since=since,
            finite=finite,
            refresh=~state.refresh & due,
            done=stop & (state.refresh | ~finite),
        )

    def advance(self, state: _State) -> _State:
        x, p = self.unpack(state.x), self.unpack(state.p)
        width = state.theta.shape[0]
        r = self.residual(x, state.theta)
        w = multiply(self.preconditioner, r)
        finite = state.finite & jnp.all(jnp.isfinite(w))
        w, mw, definite = self.orthonormal(w, [x, p])
        wl = _Layers(w, self.a(w), w if self.mass is None else mw)
        # Rayleigh-Ritz on S = [X, W, P]: theta, C from (S^H A S, S^H M S).
        blocks = [jnp.concatenate(parts, axis=1) for parts in zip(x, wl, p, strict=True)]
        s = _Layers(blocks[0], blocks[1], blocks[2])
        g = _blocks.gram(s.v, s.m)
        h = _blocks.gram(s.v, s.a)
        theta, c = _blocks.rayleigh_ritz(h + self.preference(h, width), g)
        cx = c[:, :width]
        # P: what is new in X, C with the rows of X left out, made orthonormal to C.
        cp = _orthonormal_to(cx, jnp.concatenate([jnp.zeros_like(cx[:width]), cx[width:]]), g)
        return state._replace(
            x=tuple(v @ cx for v in self.pack(s)),
            p=tuple(v @ cp for v in self.pack(s)),
            theta=theta[:width],
            step=state.step + 1,
            products=state.products + width,
            products_M=state.products_M + (0 if self.mass is None else 2 * width),
            finite=finite,
            definite=state.definite & definite,
        )


def _orthonormal_to(cx: Array, cp: Array, g: Array) -> Array:
    """Make columns ``cp`` orthonormal and orthogonal to ``cx`` in the inner product of g.

    As for blocks, a column that is rounding after the projection is dropped.
    """
    for _ in range(2):
        cp = cp * _reciprocal(_blocks.column_norms(cp)).astype(cp.dtype)[None, :]
        cp = cp - cx @ (cx.conj().T @ (g @ cp))
        keep = _blocks.column_norms(cp) > _tolerances.rank(cp.dtype)
        cp = jnp.where(keep[None, :], cp, 0)
        small, _ = _blocks.orthonormalizer(cp.conj().T @ (g @ cp))
        cp = cp @ small
    return cp


def _reciprocal(x: Array) -> Array:
    return jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1), 0)
