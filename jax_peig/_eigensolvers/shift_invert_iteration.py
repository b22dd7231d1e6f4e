"""Block Lanczos with thick restarts for S M, S = (A - pole M)^{-1}, and its completeness check.

V is an M-orthonormal basis, and S M X = X diag(nu) gives lam = pole + 1 / nu. A step multiplies a
block F of two vectors, and what is left of the product beside V is the next block:

    V <- [V, F],   S M V = V H + F' E,   H = V^H M S M V = C diag(nu) C^H

The residual of a Ritz pair needs no product: ||S M x - nu x||_M = ||E c||. It is measured by

    delta = ||S (A x - lam M x)||_M / ||x||_M = ||E c|| / |nu|,

which bounds the error of lam by |lam - pole| delta / (1 - delta). S M V is kept beside V. The
vectors that are returned are S M x / nu, up to the span of V: one more step, which costs no solve,
improves them, and takes out what a semidefinite M does not see.

*Rounding.* A solve is off by some eps ||A - pole M|| ||S|| of its length. For a pair with a small
nu beside large ones, delta may end there: pairs that made no progress for `PATIENCE` steps count as
converged if delta is no more than that.

*Completeness.* Converged pairs may be a wrong set. When k pairs have converged, the accurate ones
are kept, and one random vector q_1 is iterated in their complement, as alpha_j and beta_j tell.
Let u be the eigenvector of a missing pair, with eigenvalue nu of S M. Its components u^H M q_j are
p_j(nu) times the first, by the recurrence

    beta_{j+1} p_{j+1}(nu) = (nu - alpha_j) p_j(nu) - beta_j p_{j-1}(nu),

and the sum of their squares is at most one. Outside the Ritz values |p_j| grows with the distance.
Where the sum exceeds one at the limits of the wanted eigenvalues, for the component that a random
vector has most likely, no pair beyond the limits is missing. One that is missing is a Ritz value
before long: then it is among the first k, and the search goes on with this basis.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.types import Array, Block, BlockFunction
from jax_peig._eigensolvers.shift_invert_basis import WIDTH, Basis, Beside
from jax_peig._operators.operator import Operator
from jax_peig._problem.convergence import Progress, StoppingRule

# delta of the Ritz vectors that a completeness check deflates.
ACCURATE = 1e-6
# Completeness checks that are begun at most.
CHECKS = 40
# The component of a random unit vector along a given one is taken for this part of n^{-1/2}. It is
# smaller with a probability of 8e-5, which is then that of a missed pair. A step makes |p_j| some
# three times larger.
COMPONENT = 1e-4
# The least room in the basis for a completeness check.
CHECK_ROOM = 18
# |nu| below this many eps of the largest is rounding: an infinite eigenvalue.
INFINITE = 1000
# The limits of the wanted eigenvalues are exceeded by this part in a check: a further copy of the
# k-th is no missing pair. In single precision it is 10 eps.
COPY = 1e-8

# Steps without progress after which a pair is at the rounding of the solves.
PATIENCE = 8

SEARCHING, CHECKING, COMPLETE, ENDED = range(4)  # phases
NOTHING, BEGIN_CHECK, RESTART, FILL = range(4)  # events


class Leftover(NamedTuple):
    """F', M-orthonormal to the basis, with S M V = V H + F' E."""

    f: Block  # (n, 2)
    mf: Block
    e: Array  # (2, size)


class RitzPairs(NamedTuple):
    """Ritz pairs in the order wanted."""

    nu: Array  # (size,)
    c: Array  # (size, size)
    places: Array  # (size,), ascending
    delta: Array  # (size,)


class Chain(NamedTuple):
    """p_j at the two limits, see above."""

    limits: Array  # (2,); NaN is a limit that nothing can show
    places: Array  # (k,), those of the pairs when the check began
    before: Array  # (2,), p_{j-1}
    here: Array  # (2,), p_j
    beta: Array
    total: Array  # (2,), the sum of squares so far


class State(NamedTuple):
    """What a step changes."""

    basis: Basis
    left: Leftover
    ritz: RitzPairs
    chain: Chain
    progress: Progress  # of the first k
    settled: Array  # (k,), converged or at the rounding of the solves
    phase: Array
    checks: Array  # that have begun
    event: Array  # what is due before the next step
    solves: Array
    products: Array  # of M with one vector each
    definite: Array  # no v^H M v < 0 was seen
    steps: Array
    history: Array


class Order(NamedTuple):
    """Which eigenvalues are wanted: the nearest to sigma, or the smallest where it is None."""

    pole: Array
    sigma: Array | None
    below: Array  # nothing lies below the pole, by the factor's inertia
    to_eigenvalue: bool = False  # the tolerance is relative to eigenvalues, too

    def measured(self, delta: Array, nu: Array) -> Array:
        """``delta`` as the tolerance counts it: relative to |lam - pole|, or |lam| if smaller."""
        if not self.to_eigenvalue:
            return delta
        own = jnp.abs(1 + self.pole * nu)  # |lam| / |lam - pole|
        return delta / jnp.where(own > 0, jnp.minimum(own, 1), jnp.finfo(own.dtype).tiny)

    def places(self, nu: Array) -> Array:
        """Ascending where lam = pole + 1 / nu is wanted first; inf where nu is rounding."""
        size = jnp.max(jnp.abs(nu))
        finite = jnp.abs(nu) > INFINITE * tolerances.eps(nu.dtype) * size
        lam = self.pole + 1 / jnp.where(finite, nu, 1)
        return jnp.where(finite, lam if self.sigma is None else jnp.abs(lam - self.sigma), jnp.inf)

    def limits(self, last: Array) -> Array:
        """The nu above and below which no pair may be missing, (2,), for the k-th place."""
        if self.sigma is None:
            above = last - self.pole
            return jnp.stack([1 / above, jnp.where(self.below, -jnp.inf, jnp.nan)])
        above, below = self.sigma + last - self.pole, self.pole - self.sigma + last
        inside = (above > 0) & (below > 0)
        return jnp.where(inside, jnp.stack([1 / above, -1 / below]), jnp.nan)


@dataclasses.dataclass(frozen=True)
class Iteration:
    """The parts of the loop."""

    solve: BlockFunction  # S
    mass: Operator | None
    rule: StoppingRule
    order: Order
    key: Array
    tol: Array  # of delta
    floor: Array  # eps ||A - pole M||: the rounding of a solve, over the length of S
    size: int
    n: int

    @property
    def kept(self) -> int:
        """How many Ritz vectors a restart keeps."""
        k = self.rule.k
        return min(max(k + 2, (k + self.size) // 2), self.size - 2 * WIDTH)

    def run(self, random: Block, worthwhile: Array) -> State:
        """Iterate from a random block until k pairs have converged and none is missing.

        Nothing is solved where the problem is known to be ill-posed: not ``worthwhile``.
        """
        begin = self.begin(random, worthwhile)
        # The inner loop never branches over the basis, which would copy it.
        end = jax.lax.while_loop(lambda s: s.phase < COMPLETE, self.round, begin)
        self.rule.monitor.finish(end.steps)
        return end

    def begin(self, random: Block, worthwhile: Array) -> State:
        """An empty basis, and the random block as what is left beside it."""
        size, dtype = self.size, random.dtype
        basis = Basis.empty(self.n, size, dtype, self.mass is not None)
        real = jnp.zeros(size, jnp.finfo(dtype).dtype)
        first = basis.beside(random[:, :WIDTH], self.mass)
        nothing = Chain(real[:2], real[: self.rule.k], real[:2], real[:2], real[0], real[:2])
        zero = jnp.array(0)
        return State(
            basis=basis,
            left=Leftover(first.f, first.mf, jnp.zeros((first.f.shape[1], size), dtype)),
            ritz=RitzPairs(real, jnp.eye(size, dtype=dtype), real + jnp.inf, real + jnp.inf),
            chain=nothing,
            progress=Progress.begin(real[: self.rule.k], jnp.zeros(self.rule.k, int)),
            settled=jnp.zeros(self.rule.k, bool),
            phase=jnp.where(worthwhile, SEARCHING, ENDED),
            checks=zero,
            event=jnp.array(NOTHING),
            solves=zero,
            products=first.products,
            definite=~first.negative,
            steps=zero,
            history=self.rule.monitor.begin(self.rule.k, dtype),
        )

    # -- a step --

    def step(self, state: State) -> State:
        """Take the leftover into the basis, judge the Ritz pairs, and prepare the next step."""
        basis, left, solves, rest = self.expand(state)
        ritz = self.rayleigh_ritz(basis, left.e)
        k = self.rule.k
        history = self.rule.monitor.record(
            state.history, state.steps, ritz.delta[:k], solves, self.rule.tol
        )
        chain = self.extended(state.chain, basis, left, state.basis.filled)
        progress = state.progress.after(ritz.delta[:k])
        stalled = progress.since >= PATIENCE
        rounding = ritz.delta[:k] <= self.floor * jnp.max(jnp.abs(ritz.nu))
        measured = self.order.measured(ritz.delta, ritz.nu)[:k]
        settled = (measured <= self.tol) | (stalled & rounding)
        state = state._replace(
            basis=basis, left=left, ritz=ritz, chain=chain, progress=progress, settled=settled,
            solves=solves, products=state.products + rest.products,
            definite=state.definite & ~rest.negative, steps=state.steps + 1, history=history,
        )  # fmt: skip
        converged = jnp.all(settled)
        checking = state.phase == CHECKING
        moved = checking & converged & self.moved(chain, ritz)
        shown = checking & converged & jnp.all(chain.total * (COMPONENT**2 / self.n) > 1)
        shown &= ~moved
        exhausted = (basis.filled >= self.n) & converged
        over = (
            ~jnp.all(jnp.isfinite(ritz.nu)) | ~state.definite | (state.steps >= self.rule.max_steps)
        )
        full = basis.filled + WIDTH > self.size
        # A check without room goes on with what it found: the next one deflates that.
        over |= full & (state.checks >= CHECKS)
        phase = jnp.where(converged & ~(checking & full), CHECKING, SEARCHING)
        phase = jnp.where(over, ENDED, phase)
        phase = jnp.where(shown | exhausted, COMPLETE, phase)
        hole = jnp.any(jnp.all(left.f == 0, axis=0))
        begins = (phase == CHECKING) & (~checking | moved)
        event = jnp.where(begins, BEGIN_CHECK, NOTHING)
        event = jnp.where((phase == SEARCHING) & hole, FILL, event)
        event = jnp.where((phase == SEARCHING) & full, RESTART, event)
        return state._replace(phase=phase, event=event)

    def round(self, state: State) -> State:
        """Steps until something else than a step is due, and that."""

        def going(state: State) -> Array:
            return (state.event == NOTHING) & (state.phase < COMPLETE)

        state = jax.lax.while_loop(going, self.step, state)
        event = jnp.where(state.phase < COMPLETE, state.event, NOTHING)
        turns = [lambda s: s, self.begin_check, self.restart, self.fill]
        state = jax.lax.switch(event, turns, state)
        # A restart keeps the hole that there was.
        hole = jnp.any(jnp.all(state.left.f == 0, axis=0))
        again = (event == RESTART) & hole
        return state._replace(event=jnp.where(again, FILL, NOTHING))

    def expand(self, state: State) -> tuple[Basis, Leftover, Array, Beside]:
        """V <- [V, F], what is left of S M F beside it, the solves so far, and the account of M."""
        f, mf, _ = state.left
        new = self.solve(mf)
        basis = state.basis.put(f, mf, new)
        largest = jnp.max(jnp.abs(new))
        unit = new * blocks.reciprocal(largest).astype(new.dtype)
        rest = basis.rest_of_last(unit, self.mass)
        inside, root = (x * largest.astype(new.dtype) for x in (rest.inside, rest.root))
        at, count = state.basis.filled, jnp.sum(blocks.nonzero_columns(f))
        basis = basis.coupled(inside, count)
        e = jax.lax.dynamic_update_slice_in_dim(jnp.zeros_like(state.left.e), root, at, axis=1)
        left = Leftover(rest.f, rest.mf, e)
        return basis, left, state.solves + count, rest

    def rayleigh_ritz(self, basis: Basis, e: Array) -> RitzPairs:
        """The eigenpairs of H in the order wanted."""
        nu, c = blocks.eigh(basis.h)
        order = jnp.argsort(self.order.places(nu))
        nu, c = nu[order], c[:, order]
        places = self.order.places(nu)
        finite = jnp.isfinite(places)
        delta = blocks.column_norms(e @ c) / jnp.where(finite, jnp.abs(nu), 1)
        return RitzPairs(nu, c, places, jnp.where(finite, delta, jnp.inf))

    # -- restarts --

    def compressed(self, state: State, count: Array) -> Basis:
        """The first ``count`` Ritz vectors as the basis."""
        keep = jnp.arange(self.size) < count
        return state.basis.rotated(blocks.where_columns(keep, state.ritz.c), state.ritz.nu, count)

    def restart(self, state: State) -> State:
        """Thick restart: the best Ritz vectors and the leftover."""
        count = jnp.minimum(self.kept, state.basis.filled)
        keep = jnp.arange(self.size) < count
        e = blocks.where_columns(keep, state.left.e @ state.ritz.c)
        return state._replace(basis=self.compressed(state, count), left=state.left._replace(e=e))

    def fill(self, state: State) -> State:
        """Random columns in place of those that are zero."""
        f, mf, e = state.left
        draw = 1 + 2 * state.steps
        random = blocks.random_block(self.key, self.n, f.shape[1], f.dtype, draw)
        alive = blocks.nonzero_columns(f)
        found = state.basis.with_columns(f, mf).beside(
            blocks.where_columns(~alive, random), self.mass
        )
        new, dual = found.f, found.mf
        # The new columns come first: as many as the old ones leave room for.
        shift = jnp.sum(alive)
        order = (jnp.arange(f.shape[1]) - shift) % f.shape[1]
        new, dual = new[:, order], dual[:, order]
        f, mf = (blocks.where_columns(alive, *both) for both in ((f, new), (mf, dual)))
        products = state.products + found.products
        return state._replace(left=Leftover(f, mf, e), products=products)

    # -- the completeness check --

    def begin_check(self, state: State) -> State:
        """Keep the accurate Ritz vectors, and start a chain from a random one beside them."""
        k = self.rule.k
        accurate = blocks.leading(state.ritz.delta <= jnp.maximum(ACCURATE, self.tol))
        most = max(self.size - CHECK_ROOM, k)
        count = jnp.clip(jnp.sum(accurate), k, most)
        basis = self.compressed(state, count)
        dtype = state.left.f.dtype
        random = blocks.random_block(self.key, self.n, 1, dtype, draw=2 + 2 * state.steps)
        q, mq, _, _, products, _ = basis.beside(random, self.mass)
        width = state.left.f.shape[1]
        pad = ((0, 0), (0, width - 1))
        left = Leftover(jnp.pad(q, pad), jnp.pad(mq, pad), jnp.zeros_like(state.left.e))
        limits = self.limits(state.ritz)
        one = jnp.ones_like(limits)
        places = state.ritz.places[:k]
        chain = Chain(limits, places, 0 * one, one, jnp.zeros_like(limits[0]), one)
        exhausted = jnp.all(q == 0)
        phase = jnp.where(exhausted, COMPLETE, CHECKING)
        checks = state.checks + 1
        return state._replace(
            basis=basis, left=left, chain=chain, phase=phase, checks=checks,
            products=state.products + products,
        )  # fmt: skip

    @property
    def copy(self) -> float:
        """The part by which the limits exceed the k-th pair."""
        return max(COPY, 10 * tolerances.eps(self.tol.dtype))

    def limits(self, ritz: RitzPairs) -> Array:
        """Nu above and below which no pair may be missing, (2,)."""
        return self.order.limits(ritz.places[self.rule.k - 1]) * (1 + self.copy)

    def moved(self, chain: Chain, ritz: RitzPairs) -> Array:
        """Whether the pairs are others than when the check began: the chain found one.

        A pair that is found moves those behind it: a place changes, unless all of them are equal.
        """
        k = self.rule.k
        scale = jnp.max(blocks.reciprocal(jnp.abs(ritz.nu[:k])))
        return jnp.any(jnp.abs(ritz.places[:k] - chain.places) > 4 * self.copy * scale)

    def extended(self, chain: Chain, basis: Basis, left: Leftover, at: Array) -> Chain:
        """One more term of the sums; ``at`` is the column of the chain's last vector."""
        limits, places, before, here, beta, total = chain
        alpha = basis.h[at, at].real
        after = blocks.column_norms(left.e[:, at][:, None])[0]
        finite = jnp.isfinite(limits)
        value = jnp.where(finite, limits, 0)
        further = ((value - alpha) * here - beta * before) * blocks.reciprocal(after)
        total = jnp.where(finite, total + further**2, jnp.where(jnp.isinf(limits), jnp.inf, 0))
        total = jnp.where(after > 0, total, jnp.where(jnp.isnan(limits), 0, jnp.inf))
        largest = jnp.finfo(total.dtype).max ** 0.25
        return Chain(limits, places, here, jnp.clip(further, -largest, largest), after, total)
