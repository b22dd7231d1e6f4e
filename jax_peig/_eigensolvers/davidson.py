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
3. *Completeness check.* A single-vector method finds the second copy of an eigenvalue only if
   rounding brings it in: residuals can converge to a wrong set. When the k wanted pairs have
   converged, a random vector is therefore iterated in their complement (and in that of guard
   vectors that have converged too), on the operator projected there, until its lowest Ritz value
   shows whether a pair is missing (`completeness.complement_shows`). If one is, the iteration
   goes on with it, and checks again at the end. The check also finds what the start misses, such
   as a start made of wrong eigenvectors.
4. All products with the wanted vectors are computed afresh before the check, so that no pair is
   judged by products that were carried along.

The phases of an iteration (a queue of vectors goes into the basis first, in any phase):

    SEARCHING   expands by the residual of the first wanted pair that has not converged.
                All converged: CHECKING. Hopeless, or out of steps: FINISHING.
    CHECKING    expands by the residual of the lowest pair in the complement.
                A pair is missing, or one of the wanted has lost its convergence: SEARCHING.
                The set is complete, or the check is hopeless: DONE.
    FINISHING   computes all products afresh for the last time: DONE.

Each step costs one product with A (one with M), some six passes over V, and an eigendecomposition
of the order of the basis. Expansion by several residuals at once takes more products (1.2 times
with two), so blocks are left to the other methods.
"""

import dataclasses
import functools
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.checks import check_positive
from jax_peig._core.types import Array, Block
from jax_peig._eigensolvers import warm_start
from jax_peig._eigensolvers.completeness import (
    ComplementEvidence,
    complement_shows,
    least_component,
)
from jax_peig._eigensolvers.convergence import (
    SAFETY,
    Lengths,
    Progress,
    Ritz,
    StoppingRule,
    block_width,
    multiply,
    relative_residuals,
)
from jax_peig._eigensolvers.davidson_basis import Basis
from jax_peig._eigensolvers.iterative import IterativeMethod, Pencil, Task
from jax_peig._eigensolvers.problem import Structure
from jax_peig._operators.operator import Operator

# The part of a full basis that a restart keeps. A larger part saves few products (2 % at 0.7), and
# every restart costs V times a small matrix.
KEPT = 0.6
# The fewest vectors in the space of a completeness check: two steps find what is missing from a
# narrow spectrum.
CHECK_DIMENSION = 3
# A pair is given up after so many of its own steps without progress, see `Progress.stalled`.
PATIENCE = 100

# Phases.
SEARCHING, CHECKING, FINISHING, DONE = range(4)
# Restarts of the basis.
NO_RESTART, COMPRESS, RENEW = range(3)


def default_basis(n: int, k: int) -> int:
    """Three times the starting block and some, at least 20: a wider one saves few products."""
    return min(n, max(20, 3 * block_width(n, k) + 4))


@dataclasses.dataclass(frozen=True)
class Davidson(IterativeMethod):
    """Generalised Davidson with thick restarts: the fewest matvecs, one vector at a time.

    For products that are expensive (FFTs, networks), and for preconditioners.

    Parameters
    ----------
    max_steps : int, optional
        Bound on the steps, which are single matvecs. Default: 20,000.
    max_basis_size : int, optional
        How many vectors are kept, with as many products with A and, with M, with M. Default: three
        times k and the guard vectors, and at least 20. Fewer cost more matvecs.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig import Davidson, partial_eigh
    >>> method = Davidson(max_basis_size=30)
    >>> result = partial_eigh(jnp.arange(1.0, 61.0), k=2, method=method)
    >>> print(result.eigenvalues.round(4), result.info.method)
    [1. 2.] davidson
    """

    max_basis_size: int | None = None

    name: ClassVar[str] = "davidson"
    default_max_steps: ClassVar[int] = 20_000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("Davidson: max_basis_size", self.max_basis_size, int)

    def unsuited(self, structure: Structure) -> str | None:
        """Why the method cannot solve such a problem, and what to do; None where it can."""
        if structure.interior:
            return "with which='nearest'; expected 'dense' or 'chebyshev'."
        return None

    def block_width(self, n: int, k: int) -> int:
        """The width of the starting block."""
        return block_width(n, k)

    def cold(self, task: Task) -> Ritz:
        """Find the pairs from a random block."""
        return self.run(task, task.random)

    def warm(self, task: Task, guess: Block) -> Ritz:
        """Find the pairs from a guess; the completeness check finds what the guess misses."""
        n, k = guess.shape[0], task.rule.k
        guess = warm_start.filled_up(guess, task.random, k)
        fresh = task.random[:, k : block_width(n, k)]
        return self.run(task, jnp.concatenate([guess, fresh], axis=1))

    def run(self, task: Task, block: Block) -> Ritz:
        """Iterate from a block."""
        n, k = task.inputs.a.n, task.rule.k
        size = default_basis(n, k) if self.max_basis_size is None else min(self.max_basis_size, n)
        return solve(task.pencil, task.inputs.preconditioner, block, task.rule, task.key, size)


class _State(NamedTuple):
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


class _RitzPairs(NamedTuple):
    """The lowest p Ritz pairs."""

    theta: Array  # (p,)
    c: Array  # (m, kept), coefficients of these and further Ritz vectors
    r: Block  # (n, p), residuals
    lengths: Lengths
    relative: Array  # (p,), relative residuals
    converged: Array  # (p,)


class _Verdict(NamedTuple):
    """What the Ritz pairs show; it counts where the queue is empty."""

    settled: Array  # the wanted pairs have converged
    complete: Array
    missed: Array
    ended: Array  # (k,), which wanted pairs are no targets
    give_up: Array
    finite: Array


def solve(
    pencil: Pencil,
    preconditioner: Operator | None,
    start: Block,
    rule: StoppingRule,
    key: Array,
    basis: int,
) -> Ritz:
    """Find the k smallest or largest eigenpairs, starting from ``start`` (n, p), p > k if n > k.

    Parameters
    ----------
    key
        For random directions, and the random vectors of completeness checks.
    basis : int
        The largest number of basis vectors, see `default_basis`; p + 4 at least. A step is one
        product here, and ``rule.max_steps`` bounds the products.
    """
    a, m, norms, worthwhile = pencil
    width = start.shape[1]
    size = max(min(basis, a.n), width + 4)
    kept = max(width, min(int(KEPT * size), size - 3))
    iteration = _Iteration(a, m, preconditioner, norms, rule, key, width, size, kept)
    begin = iteration.begin(start)
    begin = begin._replace(phase=jnp.where(worthwhile, begin.phase, DONE))
    end = jax.lax.while_loop(lambda s: s.phase != DONE, iteration.iterate, begin)
    rule.monitor.finish(end.step)
    # The checked vector comes after the guard vectors, and may belong between them.
    order = jnp.concatenate([jnp.arange(rule.k), rule.k + jnp.argsort(end.theta[rule.k :])])
    x = end.basis.combine(end.c[:, order])
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
            phase=jnp.array(SEARCHING),
            basis=Basis.empty(n, m, dtype, 2 if self.mass is None else 3),
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

    def iterate(self, state: _State) -> _State:
        branches = (lambda s: s, self.compress, self.renew)
        state = jax.lax.switch(state.restart, branches, state)
        return self.judge(self.expand(state))

    # -- the basis ------------------------------------------------------------------------------

    def compress(self, state: _State) -> _State:
        """V <- V [C, P]: the lowest Ritz vectors, and what the step before adds to them."""
        return state._replace(
            basis=state.basis.compress(state.c, state.previous),
            c=jnp.eye(self.size, self.kept, dtype=state.c.dtype),
        )

    def renew(self, state: _State) -> _State:
        """Empty the basis and queue its lowest Ritz vectors, for fresh products.

        For a completeness check a random vector follows those that are deflated.
        """
        x = state.basis.layers[0] @ state.c[:, : self.width]
        q, last = state.deflated, state.phase == FINISHING
        random = (jnp.arange(self.width) == q) & ~last
        return state._replace(
            basis=state.basis.emptied(),
            queue=blocks.where_columns(random, self.random(state), x),
            fed=jnp.zeros_like(state.fed),
            queued=jnp.where(last, self.width, jnp.minimum(q + 1, self.width)),
            c=jnp.zeros_like(state.c),
        )

    def random(self, state: _State) -> Block:
        key = jax.random.fold_in(self.key, state.step)
        n, dtype = state.residual.shape[0], state.residual.dtype
        return blocks.random_block(key, n, 1, dtype)

    def expand(self, state: _State) -> _State:
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
        finite = state.finite & jnp.all(jnp.isfinite(w))
        v, mv, definite = state.basis.orthonormal(w, self.mass)
        av = self.rule.sign * self.operator(v)
        zero = jnp.all(v == 0)
        return state._replace(
            basis=state.basis.append(v, av, mv),
            fed=state.fed + jnp.where(feeding, 1, 0),
            previous=jax.lax.dynamic_slice_in_dim(state.c, state.target, 1, axis=1),
            dropped=jnp.where(zero & ~feeding, state.dropped + 1, 0),
            step=state.step + 1,
            finite=finite & jnp.all(jnp.isfinite(av)),
            definite=state.definite & definite,
        )

    # -- the Ritz pairs and what they show ------------------------------------------------------

    def judge(self, state: _State) -> _State:
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
        full = ~feeding & state.basis.full
        # Guard vectors that have converged are deflated too; one place is left for the check.
        guards = jnp.sum(jnp.cumprod(jnp.where(pairs.converged[k : self.width - 1], 1, 0)))
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

    def next_phase(self, state: _State, verdict: _Verdict) -> Array:
        """The phase that follows, see the module's text. Nothing ends but on fresh products."""
        settled, give_up = verdict.settled, verdict.give_up
        search = jnp.where(give_up, FINISHING, jnp.where(settled, CHECKING, SEARCHING))
        check = jnp.where(verdict.missed | ~settled, SEARCHING, CHECKING)
        check = jnp.where(verdict.complete | give_up, DONE, check)
        phase = jnp.where(
            state.phase == SEARCHING, search, jnp.where(state.phase == CHECKING, check, DONE)
        )
        return jnp.where(verdict.finite, jnp.where(state.feeding, state.phase, phase), DONE)

    def checking(self, state: _State) -> Array:
        """Whether the random vector of a completeness check is in the basis."""
        return (state.phase == CHECKING) & ~state.feeding

    def checked(self, state: _State) -> Array:
        """The index of the lowest Ritz pair in the complement; n = k has none."""
        return jnp.minimum(state.deflated, self.width - 1)

    def ritz_pairs(self, state: _State) -> _RitzPairs:
        """The lowest Ritz pairs with their residuals."""
        theta, c, small = state.basis.rayleigh_ritz(state.deflated, self.width)
        x = state.basis.combine(c[:, : self.width])
        r = x.a - x.m @ small
        lengths = Lengths.of(r, theta, x.v, self.norms)
        relative = relative_residuals(lengths, theta, self.norms)
        return _RitzPairs(
            theta, c[:, : self.kept], r, lengths, relative, relative <= SAFETY * self.rule.tol
        )

    def progress(self, state: _State, pairs: _RitzPairs) -> Progress:
        """Of each wanted pair and of the checked one, counted in steps spent on it."""
        k, relative = self.rule.k, pairs.relative
        checked = jnp.where(self.checking(state), relative[self.checked(state)], jnp.inf)
        # A value that fell is another pair's, whatever residual was in its place before.
        least = tolerances.rank(relative.dtype) * self.norms[0]
        fell = pairs.theta[:k] < state.theta[:k] - least
        spent = jnp.arange(k + 1) == jnp.minimum(state.target, k)
        return state.progress.after(
            jnp.append(relative[:k], checked), jnp.append(fell, False), jnp.where(spent, 1, 0)
        )

    def verdict(self, state: _State, pairs: _RitzPairs, progress: Progress) -> _Verdict:
        """Whether the wanted pairs converged, are complete, or are to be given up."""
        k, checking = self.rule.k, self.checking(state)
        settled = jnp.all(pairs.converged[:k])
        evidence = self.evidence(state, pairs)
        stuck = progress.stalled(PATIENCE, progress.best)
        ended = pairs.converged[:k] | stuck[:k]
        hopeless = (jnp.all(ended) & ~settled) | (checking & stuck[k]) | state.exhausted
        finite = jnp.all(jnp.isfinite(pairs.theta)) & jnp.all(jnp.isfinite(pairs.r))
        return _Verdict(
            settled=settled,
            complete=evidence.complete & checking & settled,
            missed=evidence.missed & checking & settled,
            ended=ended,
            give_up=hopeless | (state.step >= self.rule.max_steps),
            finite=state.finite & finite,
        )

    def evidence(self, state: _State, pairs: _RitzPairs) -> ComplementEvidence:
        """What the lowest Ritz pair in the complement shows about the wanted ones."""
        n, i = state.residual.shape[0], self.checked(state)
        found = complement_shows(
            (pairs.theta - pairs.theta[self.rule.k - 1])[i],
            # theta is right to ||r|| ||x|| or better, up to the spread of M's spectrum.
            (pairs.lengths.r * pairs.lengths.x)[i],
            # The lowest Ritz vector of a random start has more of it.
            least_component(n),
            tolerances.rank(pairs.theta.dtype) * state.basis.scale,
            pairs.converged[i],
        )
        dimension = state.basis.filled - state.deflated
        grown = (dimension >= CHECK_DIMENSION) | (self.width == self.rule.k)
        return found._replace(complete=found.complete & grown)
