"""The iteration of the Davidson method: its phases, and the step that they share.

In every phase a queue of vectors goes into the basis first; then

    SEARCHING   expands by the residual of the first wanted pair that has not converged.
                All converged: CHECKING. Hopeless, or out of steps: FINISHING.
    CHECKING    expands by the residual of the lowest pair in the complement.
                A pair is missing, or one of the wanted has lost its convergence: SEARCHING.
                The set is complete, or the check is hopeless: DONE.
    FINISHING   computes all products afresh for the last time: DONE.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.types import Array, Block, DTypeLike
from jax_peig._eigensolvers.completeness import complement_shows, least_component
from jax_peig._operators.operator import Operator
from jax_peig._problem.convergence import (
    SAFETY,
    Images,
    Lengths,
    Progress,
    StoppingRule,
    multiply,
    relative_residuals,
)
from jax_peig._problem.iterative import Pencil

# The fewest vectors in the space of a completeness check: two steps find what is missing from a
# narrow spectrum.
CHECK_DIMENSION = 3
# A pair is given up after so many of its own steps without progress, see `Progress.stalled`.
PATIENCE = 100

SEARCHING, CHECKING, FINISHING, DONE = range(4)  # phases
NO_RESTART, COMPRESS, RENEW = range(3)  # restarts of the basis


class Basis(NamedTuple):
    """V, M-orthonormal, with room for m columns, of which the first ``filled`` are in use."""

    layers: tuple[Block, ...]  # V, A V and, with M, M V, each (n, m); zero from `filled` on
    h: Array  # V^H A V, (m, m)
    filled: Array

    @classmethod
    def empty(cls, n: int, size: int, dtype: DTypeLike, layers: int) -> "Basis":
        """No vector yet; ``layers`` is 2 without M and 3 with M."""
        block, h = jnp.zeros((n, size), dtype), jnp.zeros((size, size), dtype)
        return cls((block,) * layers, h, jnp.array(0))

    @property
    def size(self) -> int:
        """The room, m."""
        return self.h.shape[0]

    @property
    def scale(self) -> Array:
        """An upper bound of the largest |Ritz value|."""
        return jnp.max(jnp.sum(jnp.abs(self.h), axis=1))

    def combine(self, c: Array) -> Images:
        """V C, A V C and M V C for coefficients (m, b)."""
        return Images.of(blocks.combine(self.layers, c))

    def orthonormal(self, w: Block, mass: Operator | None) -> tuple[Block, Block, Array]:
        """Make w (n, 1) orthonormal to the basis, or zero; M w; and whether M looked definite.

        Two projections are enough: a vector that loses more than half its digits in the first one
        is rounding, and is dropped.
        """
        v = Images.of(self.layers)
        w = blocks.unit_columns(w)
        for _ in range(2):
            w = _remainder(w, v.v, v.m)
        mw = multiply(mass, w)
        square = blocks.gram(w, mw).real  # (1, 1)
        inverse = jnp.sqrt(blocks.reciprocal(square)).astype(w.dtype)
        return w * inverse, mw * inverse, jnp.all(square >= 0)

    def append(self, v: Block, av: Block, mv: Block) -> "Basis":
        """One more vector (n, 1), orthonormal to the basis; a zero one takes no room."""
        i = self.filled
        layers = tuple(
            jax.lax.dynamic_update_slice_in_dim(old, new, i, axis=1)
            for old, new in zip(self.layers, (v, av, mv), strict=False)
        )
        column = blocks.gram(layers[0], av)  # (m, 1)
        here = jnp.arange(self.size) == i
        h = jnp.where(here[None, :], column, self.h)
        h = jnp.where(here[:, None], column.conj().T, h)
        return Basis(layers, h, i + jnp.where(jnp.all(v == 0), 0, 1))

    def compress(self, c: Array, p: Array) -> "Basis":
        """V [C, P] for orthonormal C (m, b) and what P (m, 1) adds to it."""
        for _ in range(2):
            p = _remainder(p, c, c)
        both = jnp.concatenate([c, p], axis=1)
        rest = self.size - both.shape[1]
        h = jnp.pad(both.conj().T @ self.h @ both, ((0, rest), (0, rest)))
        new = jnp.any(p != 0).astype(self.filled.dtype)
        combined = blocks.combine(self.layers, both)
        layers = tuple(jnp.pad(block, ((0, 0), (0, rest))) for block in combined)
        return Basis(layers, h, c.shape[1] + new)

    def rayleigh_ritz(self, deflated: Array, width: int) -> tuple[Array, Array, Array]:
        """The lowest Ritz pairs on the complement of the first ``deflated`` vectors.

        Couplings between the deflated vectors and all others are left out: the Ritz vectors of the
        deflated ones come first, then those of the operator projected to the complement. Returned
        are theta (width,), C (m, m) of all Ritz vectors, and K (width, width) such that the
        residuals are A X - M X K. K is diag(theta), and takes the part along the deflated vectors
        out of the others' residuals.
        """
        first = jnp.arange(self.size) < deflated
        uncoupled = jnp.where(first[:, None] == first[None, :], self.h, 0)
        # Moved below all others, they come first, and mix with none.
        shift = jnp.diag(jnp.where(first, 4 * self.scale, 0).astype(self.h.dtype))
        alive = jnp.arange(self.size) < self.filled
        theta, c = blocks.rayleigh_ritz(blocks.herm(uncoupled - shift), alive=alive)
        lead = c[:, :width]
        quotient = lead.conj().T @ self.h @ lead
        theta = jnp.where(alive[:width], blocks.diagonal(quotient), theta[:width])
        first = first[:width]
        coupling = jnp.where(first[:, None] & ~first[None, :], quotient, 0)
        return theta, c, coupling + jnp.diag(theta.astype(self.h.dtype))


def _remainder(w: Block, basis: Block, dual: Block) -> Block:
    """A unit vector w (n, 1) after projection, normalised; zero where rounding is left."""
    return blocks.unit_columns(blocks.project_out(w, basis, dual), tolerances.rank(w.dtype))


class State(NamedTuple):
    """What a step changes."""

    phase: Array
    basis: Basis
    queue: Block  # (n, p), vectors that go into the basis next
    fed: Array  # how many of them did
    queued: Array  # how many of them have to
    deflated: Array  # CHECKING: the first vectors of the basis, whose complement is searched; or 0
    restart: Array  # of the basis, before it is expanded
    c: Array  # (m, kept), the lowest Ritz vectors' coefficients
    previous: Array  # (m, 1), those of the target in the step before
    theta: Array  # (p,)
    relative: Array  # (k,), relative residuals when the queue was last empty
    residual: Block  # (n, 1), of the target
    target: Array
    dropped: Array  # directions in a row that were in the span of the basis
    progress: Progress  # (k + 1,), of the relative residuals of the wanted and the checked pair
    step: Array
    finite: Array
    definite: Array
    complete: Array  # a check showed that no wanted pair is missing
    history: Array

    @property
    def feeding(self) -> Array:
        """Whether the queue holds vectors that go into the basis first."""
        return self.fed < self.queued

    @property
    def exhausted(self) -> Array:
        """Whether a random direction was in the span of the basis: it is the whole space."""
        return self.dropped >= 2


class RitzPairs(NamedTuple):
    """The lowest p Ritz pairs."""

    theta: Array  # (p,)
    c: Array  # (m, kept), coefficients of these and further Ritz vectors
    r: Block  # (n, p), residuals
    lengths: Lengths
    relative: Array  # (p,), relative residuals
    converged: Array  # (p,)


class Verdict(NamedTuple):
    """What the Ritz pairs show; it counts where the queue is empty."""

    settled: Array  # the wanted pairs have converged
    complete: Array
    missed: Array
    ended: Array  # (k,), which wanted pairs are no targets
    give_up: Array
    finite: Array


class Iteration(NamedTuple):
    """The smallest eigenvalues of the pencil (sign A, M), the stopping rule, and the sizes."""

    pencil: Pencil
    preconditioner: Operator | None
    rule: StoppingRule
    key: Array
    width: int  # p, the Ritz vectors that are looked at
    size: int  # m, the largest basis
    kept: int  # of them by a restart, p at least

    def begin(self, start: Block) -> State:
        n, width = start.shape
        m, k, dtype = self.size, self.rule.k, start.dtype
        real = jnp.finfo(dtype).dtype
        zero, no = jnp.array(0), jnp.array(False)
        return State(
            phase=jnp.where(self.pencil.worthwhile, SEARCHING, DONE),
            basis=Basis.empty(n, m, dtype, 2 if self.pencil.m is None else 3),
            queue=start,
            fed=zero,
            queued=jnp.array(width),
            deflated=zero,
            restart=jnp.array(NO_RESTART),
            c=jnp.zeros((m, self.kept), dtype),
            previous=jnp.zeros((m, 1), dtype),
            theta=jnp.zeros(width, real),
            relative=jnp.full(k, jnp.inf, real),
            residual=jnp.zeros((n, 1), dtype),
            target=zero,
            dropped=zero,
            progress=Progress.begin(jnp.zeros(k + 1, real), jnp.zeros(k + 1, int)),
            step=zero,
            finite=~no,
            definite=~no,
            complete=no,
            history=self.rule.monitor.begin(k, dtype),
        )

    def iterate(self, state: State) -> State:
        """One step: a restart if it is due, one vector more, and a judgement."""
        branches = (lambda s: s, self.compress, self.renew)
        state = jax.lax.switch(state.restart, branches, state)
        return self.judge(self.expand(state))

    # -- the basis ------------------------------------------------------------------------------

    def compress(self, state: State) -> State:
        """V <- V [C, P]: the lowest Ritz vectors, and what the step before adds to them."""
        return state._replace(
            basis=state.basis.compress(state.c, state.previous),
            c=jnp.eye(self.size, self.kept, dtype=state.c.dtype),
        )

    def renew(self, state: State) -> State:
        """Empty the basis and queue its lowest Ritz vectors, for fresh products.

        For a completeness check a random vector follows those that are deflated.
        """
        x = state.basis.layers[0] @ state.c[:, : self.width]
        q, last = state.deflated, state.phase == FINISHING
        random = (jnp.arange(self.width) == q) & ~last
        return state._replace(
            basis=jax.tree.map(jnp.zeros_like, state.basis),
            queue=blocks.where_columns(random, self.random(state), x),
            fed=jnp.zeros_like(state.fed),
            queued=jnp.where(last, self.width, jnp.minimum(q + 1, self.width)),
            c=jnp.zeros_like(state.c),
        )

    def random(self, state: State) -> Block:
        n, dtype = state.residual.shape[0], state.residual.dtype
        return blocks.random_block(self.key, n, 1, dtype, draw=1 + state.step)

    def expand(self, state: State) -> State:
        """One more vector, and the only product with A: queued, random, or the residual."""
        feeding = state.feeding
        w = jax.lax.switch(
            jnp.where(feeding, 0, jnp.where(state.dropped > 0, 1, 2)),
            (
                lambda s: jax.lax.dynamic_slice_in_dim(s.queue, s.fed, 1, axis=1),
                self.random,
                lambda s: multiply(self.preconditioner, s.residual),
            ),
            state,
        )
        v, mv, definite = state.basis.orthonormal(w, self.pencil.m)
        av = self.rule.sign * self.pencil.a(v)
        return state._replace(
            basis=state.basis.append(v, av, mv),
            fed=state.fed + jnp.where(feeding, 1, 0),
            previous=jax.lax.dynamic_slice_in_dim(state.c, state.target, 1, axis=1),
            dropped=jnp.where(jnp.all(v == 0) & ~feeding, state.dropped + 1, 0),
            step=state.step + 1,
            finite=state.finite & jnp.all(jnp.isfinite(w)) & jnp.all(jnp.isfinite(av)),
            definite=state.definite & definite,
        )

    # -- the Ritz pairs and what they show ------------------------------------------------------

    def judge(self, state: State) -> State:
        """Ritz pairs, what they show, and from it the phase, the target and the restart."""
        rule, k, feeding = self.rule, self.rule.k, state.feeding
        pairs = self.ritz_pairs(state)
        progress = self.progress(state, pairs)
        verdict = self.verdict(state, pairs, progress)
        # After a missed pair every pair has another place.
        progress = jax.tree.map(
            functools.partial(jnp.where, verdict.missed), Progress.begin(*progress), progress
        )
        phase = self.next_phase(state, verdict)
        renew = (state.phase == SEARCHING) & ((phase == CHECKING) | (phase == FINISHING))
        full = ~feeding & (state.basis.filled >= self.size)
        # Guard vectors that have converged are deflated too; one place is left for the check.
        guards = jnp.sum(blocks.leading(pairs.converged[k : self.width - 1]))
        deflated = jnp.where(renew, k + guards, state.deflated)
        check = self.checking(state) & verdict.settled
        target = jnp.where(check, self.checked(state), jnp.argmax(~verdict.ended))
        shown = jnp.where(feeding, state.relative, pairs.relative[:k])
        history = rule.monitor.record(state.history, state.step, shown, state.step, rule.tol)
        return state._replace(
            phase=phase,
            deflated=jnp.where(phase == CHECKING, deflated, 0),
            restart=jnp.where(renew, RENEW, jnp.where(full, COMPRESS, NO_RESTART)),
            c=pairs.c,
            theta=pairs.theta,
            relative=shown,
            residual=jax.lax.dynamic_slice_in_dim(pairs.r, target, 1, axis=1),
            target=target,
            progress=jax.tree.map(functools.partial(jnp.where, feeding), state.progress, progress),
            finite=verdict.finite,
            complete=verdict.complete,
            history=history,
        )

    def next_phase(self, state: State, verdict: Verdict) -> Array:
        """The phase that follows, see the module's text. Nothing ends but on fresh products."""
        settled, give_up = verdict.settled, verdict.give_up
        search = jnp.where(give_up, FINISHING, jnp.where(settled, CHECKING, SEARCHING))
        check = jnp.where(verdict.missed | ~settled, SEARCHING, CHECKING)
        check = jnp.where(verdict.complete | give_up, DONE, check)
        phase = jnp.where(
            state.phase == SEARCHING, search, jnp.where(state.phase == CHECKING, check, DONE)
        )
        return jnp.where(verdict.finite, jnp.where(state.feeding, state.phase, phase), DONE)

    def checking(self, state: State) -> Array:
        """Whether the random vector of a completeness check is in the basis."""
        return (state.phase == CHECKING) & ~state.feeding

    def checked(self, state: State) -> Array:
        """The index of the lowest Ritz pair in the complement; n = k has none."""
        return jnp.minimum(state.deflated, self.width - 1)

    def ritz_pairs(self, state: State) -> RitzPairs:
        """The lowest Ritz pairs with their residuals."""
        theta, c, small = state.basis.rayleigh_ritz(state.deflated, self.width)
        x = state.basis.combine(c[:, : self.width])
        r = x.a - x.m @ small
        lengths = Lengths.of(r, theta, x.v, self.pencil.norms)
        relative = relative_residuals(lengths, theta, self.pencil.norms)
        measured = self.rule.measured(relative, theta, self.pencil.norms)
        converged = measured <= SAFETY * self.rule.tol
        return RitzPairs(theta, c[:, : self.kept], r, lengths, relative, converged)

    def progress(self, state: State, pairs: RitzPairs) -> Progress:
        """Of each wanted pair and of the checked one, counted in steps spent on it."""
        k, relative = self.rule.k, pairs.relative
        checked = jnp.where(self.checking(state), relative[self.checked(state)], jnp.inf)
        # A value that fell is another pair's, whatever residual was in its place before.
        least = tolerances.rank(relative.dtype) * self.pencil.norms[0]
        fell = pairs.theta[:k] < state.theta[:k] - least
        spent = jnp.arange(k + 1) == jnp.minimum(state.target, k)
        return state.progress.after(
            jnp.append(relative[:k], checked), jnp.append(fell, False), jnp.where(spent, 1, 0)
        )

    def verdict(self, state: State, pairs: RitzPairs, progress: Progress) -> Verdict:
        """Whether the wanted pairs converged, are complete, or are to be given up."""
        k, checking = self.rule.k, self.checking(state)
        settled = jnp.all(pairs.converged[:k])
        n, i = state.residual.shape[0], self.checked(state)
        evidence = complement_shows(
            distance=(pairs.theta - pairs.theta[k - 1])[i],
            # theta is right to ||r|| ||x|| or better, up to the spread of M's spectrum.
            bound=(pairs.lengths.r * pairs.lengths.x)[i],
            component=least_component(n),
            rounding=tolerances.rank(pairs.theta.dtype) * state.basis.scale,
            converged=pairs.converged[i],
        )
        dimension = state.basis.filled - state.deflated
        grown = (dimension >= CHECK_DIMENSION) | (self.width == k)
        stuck = progress.stalled(PATIENCE, progress.best)
        ended = pairs.converged[:k] | stuck[:k]
        hopeless = (jnp.all(ended) & ~settled) | (checking & stuck[k]) | state.exhausted
        finite = jnp.all(jnp.isfinite(pairs.theta)) & jnp.all(jnp.isfinite(pairs.r))
        return Verdict(
            settled=settled,
            complete=evidence.complete & grown & checking & settled,
            missed=evidence.missed & checking & settled,
            ended=ended,
            give_up=hopeless | (state.step >= self.rule.max_steps),
            finite=state.finite & finite,
        )
