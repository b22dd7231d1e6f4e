"""Generalised Davidson with thick and +k restarts: the fewest products with A, one vector a step.

V is an M-orthonormal basis of at most `basis` vectors. Every step takes the Ritz pair of the first
wanted vector that has not converged and makes the basis larger by its preconditioned residual:

    H = V^H A V,  H c = theta c,  r = (A V - M V theta) c,  V <- [V, T r orthonormalised]

A full basis is compressed to the lowest Ritz vectors, together with the target's Ritz vector of the
step before (Morgan and Scott, 1986; Stathopoulos and Saad, 1998; "+k": Stathopoulos, SIAM J. Sci.
Comput. 29, 2007). Without T this is nearly the thick-restart Lanczos method (Wu and Simon, 2000).

Differences from the textbook:

1. One vector a step and no locking: converged vectors stay in the basis, improve with it, and are
   targets again if rounding spoils them.
2. Orthonormalisation by Gram products alone, classical Gram-Schmidt twice. A direction that is
   rounding is dropped, and a random one takes its place in the next step.
3. *Witnesses.* A single-vector method finds the second copy of an eigenvalue by the luck of its
   start: with a twelvefold eigenvalue among k = 14 the residuals converged to a wrong set in 30 of
   30 random starts. So when the k wanted pairs have converged, a random vector is iterated in their
   complement (and that of guard vectors that have converged too), on the operator projected there,
   until its lowest Ritz value stands still. Where that is lower than a wanted one, a pair was
   missed: the iteration goes on with it, and calls another witness at the end. Where it shows
   another eigenvalue beyond, or a converged copy of the k-th, the set is complete. The same test
   finds what a given start is blind to, such as one made of wrong eigenvectors.
4. All products with the wanted vectors are computed afresh before the witness is called, so that
   no pair is judged by what was carried along.

Each step costs one product with A (one with M), some six passes over V, and an eigendecomposition
of the order of the basis. Expanding by the first two or four residuals at once took 1.2 and 1.3 to
1.6 times the products (P1: 1000, 1220 and 1280 to 1660 before the witness), so blocks are left to
the other methods. The witness takes 210 to 280 more on P1, and finds what is missing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.types import Array, Block
from jax_peig._eigensolvers.convergence import (
    SAFETY,
    Images,
    Lengths,
    Progress,
    Ritz,
    StoppingRule,
    block_width,
    multiply,
    relative_residuals,
)
from jax_peig._operators.operator import Operator

__all__ = ["block_width", "default_basis", "solve"]

# What a restart keeps of a full basis. P1 at 40 vectors, before the witness: 1230 products keeping
# 12, 1030 keeping 20, 1000 keeping 24, 980 keeping 28; every restart costs V times a small matrix.
KEPT = 0.6
# A witness's residual against its distance to the wanted values is at least its part in the space
# of missing vectors. A random vector has some n^{-1/2} of each, and its lowest Ritz vector more:
# below CHANCE n^{-1/2} with a probability of 8 % before its first step, which dies out with each.
CHANCE = 0.1
# The fewest vectors in a witness's space: two steps find what is missing from a narrow spectrum.
TESTIMONY = 3
# A pair is given up after so many of its own steps without progress, see `Progress.stalled`.
PATIENCE = 100

NOTHING, COMPRESS, RENEW = 0, 1, 2


def default_basis(n: int, k: int) -> int:
    """Three times the starting block and some, at least 20: a wider one saves few products.

    All products of P1: 1450 with 24 vectors, 1320 with 32, 1250 with 40, 1240 with 64 and 96.
    """
    return min(n, max(20, 3 * block_width(n, k) + 4))


class _State(NamedTuple):
    basis: tuple[Array, ...]  # V, A V and, with M, M V, each (n, m); zero from `filled` on
    h: Array  # V^H A V, (m, m)
    filled: Array
    queue: Block  # (n, p), vectors that go into the basis before the next judgement
    fed: Array
    queued: Array
    deflated: Array  # while a witness is heard: the vectors in whose complement it lives; else 0
    last: Array  # the products are being renewed for the last time
    c: Array  # (m, kept), the lowest Ritz vectors' coefficients
    previous: Array  # (m, 1), those of the target in the step before
    theta: Array  # (p,)
    relative: Array  # (k,), relative residuals as judged last
    residual: Block  # (n, 1), of the target
    target: Array
    dry: Array  # the last direction was in the span of the basis
    exhausted: Array  # so was a random one: the basis is the whole space
    progress: Progress  # (k + 1,), of the relative residuals of the wanted and the witness
    action: Array
    step: Array
    finite: Array
    definite: Array
    complete: Array  # a witness showed that no wanted pair is missing
    done: Array
    history: Array


def solve(
    a: Operator,
    m: Operator | None,
    preconditioner: Operator | None,
    start: Block,
    norms: tuple[Array, Array],
    rule: StoppingRule,
    worthwhile: Array,
    key: Array,
    basis: int,
) -> Ritz:
    """Find the k smallest or largest eigenpairs, starting from ``start`` (n, p), p > k if n > k.

    Parameters
    ----------
    norms : (||A||, ||M||)
        Estimates that the relative residuals refer to.
    worthwhile : bool
        False where the problem is known to be ill-posed: nothing is computed then.
    key
        For witnesses and random directions.
    basis : int
        The largest number of basis vectors, see `default_basis`; p + 4 at least. A step is one
        product here, and ``rule.max_steps`` bounds the products.
    """
    width = start.shape[1]
    size = max(min(basis, a.n), width + 4)
    kept = max(width, min(int(KEPT * size), size - 3))
    iteration = _Iteration(a, m, preconditioner, norms, rule, key, width, size, kept)
    begin = iteration.begin(start)._replace(done=~worthwhile)
    end = jax.lax.while_loop(lambda s: ~s.done, iteration.iterate, begin)
    rule.monitor.finish(end.step)
    # The witness comes after the guard vectors, and may belong between them.
    order = jnp.concatenate([jnp.arange(rule.k), rule.k + jnp.argsort(end.theta[rule.k :])])
    x = Images.of(tuple(block @ end.c[:, order] for block in end.basis))
    return Ritz(
        values=rule.sign * end.theta[order],
        vectors=x.v,
        AX=rule.sign * x.a,
        MX=x.m,
        steps=end.step,
        matvecs=end.step,
        matvecs_M=jnp.array(0) if m is None else end.step,
        stagnated=end.step < rule.max_steps,  # if it did not converge
        finite=end.finite,
        definite=end.definite,
        history=end.history,
        complete=end.complete | end.exhausted,
    )


class _Iteration(NamedTuple):
    """The pencil (sign A, M), whose smallest eigenvalues are wanted, how well, and the sizes."""

    operator: Operator
    mass: Operator | None
    preconditioner: Operator | None
    norms: tuple[Array, Array]
    rule: StoppingRule
    key: Array
    width: int  # p, the Ritz vectors that are looked at
    size: int  # m, the largest basis
    kept: int  # of them by a restart, p at least

    def begin(self, start: Block) -> _State:
        n, width = start.shape
        m, k, dtype = self.size, self.rule.k, start.dtype
        real = jnp.finfo(dtype).dtype
        zero, no = jnp.array(0), jnp.array(False)
        return _State(
            basis=(jnp.zeros((n, m), dtype),) * (2 if self.mass is None else 3),
            h=jnp.zeros((m, m), dtype),
            filled=zero,
            queue=start,
            fed=zero,
            queued=jnp.array(width),
            deflated=zero,
            last=no,
            c=jnp.zeros((m, self.kept), dtype),
            previous=jnp.zeros((m, 1), dtype),
            theta=jnp.zeros(width, real),
            relative=jnp.full(k, jnp.inf, real),
            residual=jnp.zeros((n, 1), dtype),
            target=zero,
            dry=no,
            exhausted=no,
            progress=Progress.begin(jnp.zeros(k + 1, real), jnp.zeros(k + 1, int)),
            action=jnp.array(NOTHING),
            step=zero,
            finite=~no,
            definite=~no,
            complete=no,
            done=no,
            history=self.rule.monitor.begin(k, dtype),
        )

    def iterate(self, state: _State) -> _State:
        branches = (lambda s: s, self.compress, self.renew)
        state = jax.lax.switch(state.action, branches, state)
        return self.judge(self.expand(state))

    def compress(self, state: _State) -> _State:
        """V <- V [C, P]: the lowest Ritz vectors, and what the step before adds to them."""
        c, p = state.c, state.previous  # (m, kept), (m, 1)
        for _ in range(2):
            p = self.remainder(p, c, c)
        both = jnp.concatenate([c, p], axis=1)
        rest = self.size - both.shape[1]
        h = jnp.pad(both.conj().T @ state.h @ both, ((0, rest), (0, rest)))
        new = jnp.any(p != 0).astype(state.filled.dtype)
        return state._replace(
            basis=tuple(jnp.pad(v @ both, ((0, 0), (0, rest))) for v in state.basis),
            h=h,
            filled=self.kept + new,
            c=jnp.eye(self.size, self.kept, dtype=c.dtype),
        )

    def renew(self, state: _State) -> _State:
        """Empty the basis and queue its lowest Ritz vectors, for fresh products; then a witness."""
        x = state.basis[0] @ state.c[:, : self.width]
        q = state.deflated
        witness = (jnp.arange(self.width) == q) & ~state.last
        queue = jnp.where(witness[None, :], self.random(state), x)
        return state._replace(
            basis=tuple(jnp.zeros_like(v) for v in state.basis),
            h=jnp.zeros_like(state.h),
            filled=jnp.zeros_like(state.filled),
            queue=queue,
            fed=jnp.zeros_like(state.fed),
            queued=jnp.where(state.last, self.width, jnp.minimum(q + 1, self.width)),
            c=jnp.zeros_like(state.c),
        )

    def random(self, state: _State) -> Block:
        key = jax.random.fold_in(self.key, state.step)
        n, dtype = state.residual.shape[0], state.residual.dtype
        return blocks.random_block(key, n, 1, dtype)

    def expand(self, state: _State) -> _State:
        """One more vector, and the only product with A: queued, random, or the residual."""
        feeding = state.fed < state.queued
        w = jax.lax.switch(
            jnp.where(feeding, 0, jnp.where(state.dry, 1, 2)),
            (
                lambda s: jax.lax.dynamic_slice_in_dim(s.queue, s.fed, 1, axis=1),
                self.random,
                lambda s: multiply(self.preconditioner, s.residual),
            ),
            state,
        )
        finite = state.finite & jnp.all(jnp.isfinite(w))
        v, mv, definite = self.orthonormal(w, Images.of(state.basis))
        av = self.rule.sign * self.operator(v)
        i = state.filled
        basis = tuple(
            jax.lax.dynamic_update_slice_in_dim(old, new, i, axis=1)
            for old, new in zip(state.basis, (v, av, mv), strict=False)
        )
        column = blocks.gram(basis[0], av)  # (m, 1)
        here = jnp.arange(self.size) == i
        h = jnp.where(here[None, :], column, state.h)
        h = jnp.where(here[:, None], column.conj().T, h)
        dead = jnp.all(v == 0)
        return state._replace(
            basis=basis,
            h=h,
            filled=i + jnp.where(dead, 0, 1),
            fed=state.fed + jnp.where(feeding, 1, 0),
            previous=jax.lax.dynamic_slice_in_dim(state.c, state.target, 1, axis=1),
            dry=dead & ~feeding,
            exhausted=dead & ~feeding & state.dry,
            step=state.step + 1,
            finite=finite & jnp.all(jnp.isfinite(av)),
            definite=state.definite & definite,
        )

    def orthonormal(self, w: Block, basis: Images) -> tuple[Block, Block, Array]:
        """Make w (n, 1) orthonormal to the basis, or zero; M w; and whether M looked definite.

        Twice is enough: what loses more than half the digits in the first pass is rounding, and is
        dropped.
        """
        w = blocks.unit_columns(w)
        for _ in range(2):
            w = self.remainder(w, basis.v, basis.m)
        mw = multiply(self.mass, w)
        square = blocks.gram(w, mw).real  # (1, 1)
        inverse = jnp.sqrt(blocks.reciprocal(square)).astype(w.dtype)
        return w * inverse, mw * inverse, jnp.all(square >= 0)

    @staticmethod
    def remainder(w: Block, basis: Block, dual: Block) -> Block:
        """A unit vector w (n, 1) after projection, normalised; zero where rounding is left."""
        return blocks.unit_columns(blocks.project_out(w, basis, dual), tolerances.rank(w.dtype))

    def ritz(self, state: _State) -> tuple[Array, Array, Array]:
        """Rayleigh-Ritz: theta (p,), C (m, kept), and the coefficients K (p, p) of the residual.

        The residuals are A X - M X K, K = diag(theta). While a witness is heard the couplings
        between the deflated vectors, the first of the basis, and all others are left out; K takes
        the part along the deflated ones out of the others' residuals.
        """
        h, q = state.h, state.deflated
        first = jnp.arange(self.size) < q
        spread = jnp.max(jnp.sum(jnp.abs(h), axis=1))
        apart = jnp.where(first[:, None] == first[None, :], h, 0)
        # Moved below all others, they come first, and mix with none.
        shift = jnp.diag(jnp.where(first, 4 * spread, 0).astype(h.dtype))
        alive = jnp.arange(self.size) < state.filled
        theta, c = blocks.rayleigh_ritz(blocks.herm(apart - shift), alive=alive)
        lead = c[:, : self.width]
        rayleigh = lead.conj().T @ h @ lead
        found = jnp.arange(self.width) < state.filled
        theta = jnp.where(found, jnp.diagonal(rayleigh).real, theta[: self.width])
        first = first[: self.width]
        coupling = jnp.where(first[:, None] & ~first[None, :], rayleigh, 0)
        return theta, c[:, : self.kept], coupling + jnp.diag(theta.astype(h.dtype))

    def judge(self, state: _State) -> _State:
        """What is converged, what is missing, and what to do next."""
        rule, k, q = self.rule, self.rule.k, state.deflated
        theta, c, small = self.ritz(state)
        x = Images.of(tuple(block @ c[:, : self.width] for block in state.basis))
        r = x.a - x.m @ small
        lengths = Lengths.of(r, theta, x.v, self.norms)
        relative = relative_residuals(lengths, theta, self.norms)
        finite = state.finite & jnp.all(jnp.isfinite(theta)) & jnp.all(jnp.isfinite(r))
        converged = relative <= SAFETY * rule.tol
        settled = jnp.all(converged[:k])
        feeding = state.fed < state.queued
        witness = ~feeding & (q > 0)
        lowest = jnp.minimum(q, self.width - 1)  # the witness's Ritz pair; p = k has none
        missed, complete = self.verdict(state, theta, lengths, converged)
        missed, complete = missed & witness & settled, complete & witness & settled

        # Progress of each wanted pair, and of the witness, counted in steps spent on it.
        measured = jnp.append(relative[:k], jnp.where(witness, relative[lowest], jnp.inf))
        # A value that fell is another pair's, whatever residual was in its place before.
        fell = theta[:k] < state.theta[:k] - tolerances.rank(r.dtype) * self.norms[0]
        spent = jnp.arange(k + 1) == jnp.minimum(state.target, k)
        progress = state.progress.after(measured, jnp.append(fell, False), jnp.where(spent, 1, 0))
        stuck = progress.stalled(PATIENCE, progress.best)
        ended = converged[:k] | stuck[:k]
        hopeless = (jnp.all(ended) & ~settled) | (witness & stuck[k]) | state.exhausted
        give_up = hopeless | (state.step >= rule.max_steps)

        # Nothing ends but on products computed afresh.
        renew = ~feeding & ~witness & (settled | give_up)
        last = renew & give_up
        full = ~feeding & (state.filled >= self.size)
        done = ~finite | (~feeding & state.last) | complete | (witness & give_up)
        # Guard vectors that have converged are deflated too; one place is left for the witness.
        guards = jnp.sum(jnp.cumprod(jnp.where(converged[k : self.width - 1], 1, 0)))
        resume = missed | (witness & ~settled)
        target = jnp.where(witness & settled, lowest, jnp.argmax(~ended))
        shown = jnp.where(feeding, state.relative, relative[:k])
        history = rule.monitor.record(state.history, state.step, shown, state.step, rule.tol)
        return state._replace(
            deflated=jnp.where(resume, 0, jnp.where(renew & ~last, k + guards, q)),
            last=state.last | last,
            c=c,
            theta=theta,
            relative=shown,
            residual=jax.lax.dynamic_slice_in_dim(r, target, 1, axis=1),
            target=target,
            progress=jax.tree.map(
                lambda old, fresh, new: jnp.where(feeding, old, jnp.where(missed, fresh, new)),
                state.progress,
                Progress.begin(*progress),
                progress,
            ),
            action=jnp.where(renew, RENEW, jnp.where(full, COMPRESS, NOTHING)),
            finite=finite,
            complete=complete,
            done=done,
            history=history,
        )

    def verdict(
        self, state: _State, theta: Array, lengths: Lengths, converged: Array
    ) -> tuple[Array, Array]:
        """Whether the witness shows that a wanted pair was missed, or that none was.

        With u a missing vector, lam <= theta_k, and x the witness's Ritz vector, |u^H x| is at most
        ||r|| / (theta - theta_k): see `CHANCE`. A converged copy of the k-th does as well.
        """
        n, lowest = state.basis[0].shape[0], jnp.minimum(state.deflated, self.width - 1)
        distance = (theta - theta[self.rule.k - 1])[lowest]
        # theta is right to ||r|| ||x|| or better, up to the spread of M's spectrum.
        bound = (lengths.r * lengths.x)[lowest]
        rounding = tolerances.rank(theta.dtype) * jnp.max(jnp.sum(jnp.abs(state.h), axis=1))
        missed = distance < -rounding
        heard = (state.filled >= state.deflated + TESTIMONY) | (self.width == self.rule.k)
        apart = (bound > 0) & (bound <= CHANCE / n**0.5 * distance)
        return missed, ~missed & heard & (apart | converged[lowest])
