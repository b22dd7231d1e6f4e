"""Locally optimal block preconditioned conjugate gradients, Knyazev (2001), made robust and fast.

Every step finds the best block in the span of the iterates X, the previous directions P and the
preconditioned residuals W:

    R = A X - M X diag(theta),  W = T R,  [X, P] <- Rayleigh-Ritz on span [X, P, W]

Differences from the textbook and from ``jax.experimental.sparse.linalg.lobpcg_standard``:

1. The generalised problem, a preconditioner, complex Hermitian, smallest and largest.
2. One product of A with one block a step: A [X, P] and M [X, P] are carried along, combined by the
   same coefficients, and computed afresh every `REFRESH` steps and at the end.
3. [X, P] is kept orthonormal by small coefficients alone (Hetmaniuk and Lehoucq, 2006), and
   [X, P]^H A [X, P] comes from the small problem before. Of the Gram matrices of S = [X, P, W] only
   those with W are computed: S^H M W and S^H A W, the two passes over n.
4. W is made orthonormal in the small problem too, while it is far enough from dependent for the
   tolerance; else it is projected over n first (Duersch et al., 2018), once or twice. Directions
   that are dependent to rounding become zero columns, and Rayleigh-Ritz passes over them. So
   rank-deficient guesses, converged columns (zero residuals) and 3 m > n need no special case.
5. Guard vectors: the block is wider than k. They speed up convergence, find the further copies of a
   repeated eigenvalue, and tell the gap. The iteration goes on until the first of them shows that
   the (k+1)-th eigenvalue is another one, or is converged itself.
6. Where no preconditioner is given T is a polynomial in A (``lobpcg_directions.py``): as many
   matvecs, and far fewer steps with their inner products.
7. From a random block W has s columns, fewer than the block: those that are not `settled` yet, the
   largest residuals first. Guard vectors do not wait for the wanted pairs: where they did, a few
   starts ended with a wrong set. From a guess every column takes every step, however small its
   residual: a vector that the guess misses comes in by the noise in it.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.types import Array, Block
from jax_peig._eigensolvers.completeness import guards_show_complete, settled
from jax_peig._eigensolvers.lobpcg_directions import Polynomial, orthonormal_directions
from jax_peig._operators.operator import Operator
from jax_peig._operators.probe import SAFE_STEPS, STEPS
from jax_peig._problem import warm_start
from jax_peig._problem.convergence import (
    Images,
    Lengths,
    Progress,
    Ritz,
    Spectrum,
    StoppingRule,
    block_width,
    multiply,
    relative_residuals,
)
from jax_peig._problem.iterative import IterativeMethod, Pencil, Task
from jax_peig._problem.problem import Structure

REFRESH = 20  # steps after which all products with X are computed afresh
# Steps without progress after which the iteration gives up, see `Progress.stalled`.
PATIENCE = 100


@dataclasses.dataclass(frozen=True)
class LOBPCG(IterativeMethod):
    """Locally optimal block preconditioned conjugate gradients: few block steps.

    For preconditioners, and for an M that is not diagonal. Where no preconditioner is given the
    method makes one itself, a polynomial in A. It needs 3 k <= n.

    Parameters
    ----------
    max_steps : int, optional
        Bound on the block steps. Default: 2000.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig import LOBPCG, partial_eigh
    >>> result = partial_eigh(jnp.arange(1.0, 61.0), k=2, method=LOBPCG(max_steps=500))
    >>> print(result.eigenvalues.round(4), result.info.method)
    [1. 2.] lobpcg
    """

    name: ClassVar[str] = "lobpcg"
    default_max_steps: ClassVar[int] = 2000

    def unsuited(self, structure: Structure) -> str | None:
        """Why the method cannot solve such a problem, and what to do; None where it can."""
        n, k = structure.n, structure.k
        if 3 * k > n:
            return f"with k = {k}, n = {n}; expected 3 k <= n. Use method='dense'."
        if structure.interior:
            return "with which='nearest'; expected 'dense' or 'chebyshev'."
        return None

    def block_width(self, n: int, k: int) -> int:
        """The width of the block."""
        return block_width(n, k)

    def probe_steps(self, structure: Structure) -> int:
        """How many Lanczos steps the probe takes: the polynomial's interval has to be safe."""
        polynomial = not structure.preconditioner and structure.mass == "identity"
        return SAFE_STEPS if polynomial else STEPS

    def knows_spectrum(self, structure: Structure) -> bool:
        """Whether the solve leaves the interval that the derivative's semi-iteration needs."""
        return structure.mass == "identity" or not structure.preconditioner

    def cold(self, task: Task) -> Ritz:
        """Find the pairs from a random block."""
        return self.run(task, task.random, task.rule)

    def warm(self, task: Task, guess: Block) -> Ritz:
        """Find the pairs from a guess with a little noise in it."""
        m, count = task.inputs.m, guess.shape[1]
        block = warm_start.perturbed(m, guess, task.random, task.random.shape[1])
        ritz = self.run(task, block, task.rule._replace(disturbed=True))
        return ritz.having_spent(0, 0 if m is None else count)

    def run(self, task: Task, block: Block, rule: StoppingRule) -> Ritz:
        """Iterate from a block, with the caller's preconditioner or the polynomial."""
        if task.inputs.preconditioner is not None:
            return solve(task.pencil, task.inputs.preconditioner, block, rule)
        polynomial, matvecs, matvecs_M = self.polynomial(task)
        return solve(task.pencil, polynomial, block, rule).having_spent(matvecs, matvecs_M)

    def polynomial(self, task: Task) -> tuple[Polynomial, Array | int, Array | int]:
        """The method's own preconditioner, and the matvecs with A and M that it took to make."""
        a, sign = task.inputs.a, task.rule.sign
        if task.inputs.m is None:
            return Polynomial.within(a, sign, None, task.interval, jnp.array(True)), 0, 0
        inverse = task.mass_inverse()
        worthwhile, matvecs_M = inverse.degree == 1, inverse.matvecs
        inverse = inverse.one_step()
        interval = task.interval_with(inverse, SAFE_STEPS)
        return Polynomial.within(a, sign, inverse, interval, worthwhile), SAFE_STEPS, matvecs_M


def _step_width(width: int, rule: StoppingRule) -> int:
    """How many columns of the block take a step, s: near k, or all after a guess.

    2, 4 or a multiple of 8, as XLA's loops on a CPU take 16 columns of a stencil faster than 12.
    """
    if rule.disturbed:
        return width
    if rule.k < 6:
        return min(width, 2 if rule.k < 3 else 4)
    return min(width, (rule.k + 3) // 8 * 8)


class _State(NamedTuple):
    """[X, P] is orthonormal but for zero columns; X^H A X = diag(theta)."""

    basis: tuple[Array, ...]  # [X, P] (n, 2 m), its product with A and, with M, that with M
    h: Array  # [X, P]^H A [X, P], (2 m, 2 m)
    alive: Array  # which columns of [X, P] are not zero, (2 m,)
    theta: Array  # (m,)
    r: Block  # the residuals, (n, m)
    lengths: Array  # their norms, (m,)
    order: Array  # of the columns, (m,): first those that need a step most
    end: Array  # of the spectrum, as far as T has shown it
    progress: Progress  # of the largest relative residual of the wanted pairs
    step: Array
    matvecs: Array
    matvecs_M: Array
    finite: Array
    definite: Array
    refresh: Array  # all products are computed afresh next, instead of a step
    found: Array  # the set is complete
    done: Array
    history: Array


def solve(pencil: Pencil, t: Operator | Polynomial, start: Block, rule: StoppingRule) -> Ritz:
    """Find the k smallest or largest eigenpairs, starting from ``start`` (n, m), m > k if n > k.

    Parameters
    ----------
    t : Operator or Polynomial
        The preconditioner.
    """
    a, m, norms, worthwhile = pencil
    iteration = _Iteration(a, m, t, norms, rule)
    begin = iteration.begin(start)._replace(done=~worthwhile)
    end = jax.lax.while_loop(lambda s: ~s.done, iteration.iterate, begin)
    rule.monitor.finish(end.step)
    width = start.shape[1]
    x = Images.of(tuple(block[:, :width] for block in end.basis))
    return Ritz(
        values=rule.sign * end.theta,
        vectors=x.v,
        AX=rule.sign * x.a,
        MX=x.m,
        steps=end.step,
        matvecs=end.matvecs,
        matvecs_M=end.matvecs_M,
        stagnated=end.step < rule.max_steps,  # if it did not converge
        finite=end.finite,
        definite=end.definite,
        history=end.history,
        complete=end.found,
        spectrum=Spectrum(end.end, t.inverse, t.worthwhile) if isinstance(t, Polynomial) else None,
    )


class _Iteration(NamedTuple):
    """The pencil (sign A, M), whose smallest eigenvalues are wanted, and how well."""

    operator: Operator
    mass: Operator | None
    preconditioner: Operator | Polynomial
    norms: tuple[Array, Array]
    rule: StoppingRule

    def a(self, block: Block) -> Block:
        """Sign A V."""
        return self.rule.sign * self.operator(block)

    def distinct(self, images: Images) -> tuple[Array, ...]:
        """(V, A V), and M V where there is M."""
        return images[:2] if self.mass is None else images

    def begin(self, start: Block) -> _State:
        """[X, P] = [start, 0], with no product computed yet."""
        width = start.shape[1]
        block = jnp.concatenate([start, jnp.zeros_like(start)], axis=1)
        layers = (jnp.zeros_like(block),) * (1 if self.mass is None else 2)
        real = jnp.finfo(start.dtype).dtype
        count, t = jnp.array(0), self.preconditioner
        return _State(
            basis=(block, *layers),
            h=jnp.zeros((2 * width, 2 * width), start.dtype),
            alive=jnp.zeros(2 * width, bool),
            theta=jnp.zeros(width, real),
            r=jnp.zeros_like(start),
            lengths=jnp.zeros(width, real),
            order=jnp.arange(width),
            end=t.end if isinstance(t, Polynomial) else jnp.zeros((), real),
            progress=Progress.begin(jnp.zeros((), real), count),
            step=count,
            matvecs=count,
            matvecs_M=count,
            finite=jnp.array(True),
            definite=jnp.array(True),
            refresh=jnp.array(True),
            found=jnp.array(False),
            done=jnp.array(False),
            history=self.rule.monitor.begin(self.rule.k, start.dtype),
        )

    def iterate(self, state: _State) -> _State:
        """Steps after products computed afresh; a choice at every step would copy the blocks."""
        return jax.lax.while_loop(
            lambda s: ~s.refresh & ~s.done,
            lambda s: self.check(self.step(s)),
            self.check(self.recompute(state)),
        )

    def recompute(self, state: _State) -> _State:
        """Compute all products with X afresh; Rayleigh-Ritz in its span; P orthonormal to it."""
        width = state.theta.shape[0]
        v = state.basis[0][:, :width]
        v = blocks.unit_columns(v)
        v, _, negative = blocks.orthonormalize(v, multiply(self.mass, v))
        v, mv, still_negative = blocks.orthonormalize(v, multiply(self.mass, v))
        av = self.a(v)
        root, kept = blocks.inverse_root(blocks.gram(v, mv))
        theta, c = blocks.rayleigh_ritz(blocks.gram(v, av), whitener=root, alive=kept)
        x = blocks.combine(self.distinct(Images(v, av, mv)), c)
        p = tuple(block[:, width:] for block in state.basis)
        inner = blocks.gram(Images.of(x).m, p[0])
        p = tuple(block - old @ inner for block, old in zip(p, x, strict=True))
        q, _ = blocks.orthonormalizer(blocks.gram(p[0], Images.of(p).m))
        basis = tuple(jnp.concatenate([x, p @ q], axis=1) for x, p in zip(x, p, strict=True))
        return state._replace(
            basis=basis,
            h=blocks.herm(blocks.gram(basis[0], basis[1])),
            alive=jnp.concatenate([_kept(c), blocks.nonzero_columns(q)]),
            theta=theta,
            matvecs=state.matvecs + width,
            matvecs_M=state.matvecs_M + (0 if self.mass is None else 2 * width),
            definite=state.definite & ~negative & ~still_negative,
        )

    def check(self, state: _State) -> _State:
        """Residuals, and whether to stop, which needs products that were computed afresh."""
        rule, theta, width = self.rule, state.theta, state.theta.shape[0]
        x = Images.of(tuple(block[:, :width] for block in state.basis))
        r = blocks.residuals(x.a, x.m, theta)
        lengths = Lengths.of(r, theta, x.v, self.norms)
        if self.mass is None:
            lengths = lengths._replace(x=state.alive[:width].astype(theta.dtype))
        relative = relative_residuals(lengths, theta, self.norms)
        measured = rule.measured(relative, theta, self.norms)
        worst = rule.slowest(relative, measured)
        done = settled(theta, lengths, measured, rule)
        found = guards_show_complete(done, rule)
        idle = done | (lengths.x == 0)
        finite = state.finite & jnp.all(jnp.isfinite(theta) & jnp.isfinite(lengths.r))
        progress = state.progress.after(jnp.max(measured[: rule.k]))
        stuck = progress.stalled(PATIENCE, jnp.minimum(worst, progress.best))
        stop = found | ~finite | (state.step >= rule.max_steps) | stuck
        due = stop | (state.step % REFRESH == 0)
        history = rule.monitor.record(
            state.history, state.step, relative[: rule.k], state.matvecs, rule.tol
        )
        return state._replace(
            r=r,
            lengths=lengths.r,
            order=jnp.lexsort((-measured, idle)),
            history=history,
            progress=progress,
            finite=finite,
            refresh=~state.refresh & due,
            found=found,
            done=stop & (state.refresh | ~finite),
        )

    def precondition(self, state: _State) -> tuple[Block, Array]:
        """W = T R, with unit columns, for the residuals first in order; the matvecs that T took."""
        turn = state.order[: _step_width(state.theta.shape[0], self.rule)]
        factor = blocks.reciprocal(state.lengths[turn]).astype(state.r.dtype)
        w = state.r[:, turn] * factor[None, :]
        spent = jnp.array(0)
        if isinstance(self.preconditioner, Polynomial):
            plan = self.preconditioner.plan(state.theta, state.end)
            w, spent = self.preconditioner(w, plan), w.shape[1] * plan.degree
        else:
            w = self.preconditioner(w)
        return blocks.unit_columns(w), spent

    def step(self, state: _State) -> _State:
        """Rayleigh-Ritz on span [X, P, W], with one product of A with W."""
        width, basis = state.theta.shape[0], Images.of(state.basis)
        w, spent = self.precondition(state)
        taken = w.shape[1]
        new = orthonormal_directions(w, self.mass, basis, self.rule.tol)
        aw = self.a(new.w)
        c_old, c_new = new.coefficients()
        h = _enlarged(state.h, (c_old, c_new), blocks.gram(basis.v, aw), blocks.gram(new.w, aw))
        alive = jnp.concatenate([state.alive, blocks.nonzero_columns(c_new)])
        theta, c = _rayleigh_ritz(h, alive, width)
        fresh = Images(new.w, aw, new.mw)
        end, t = state.end, self.preconditioner
        if isinstance(t, Polynomial):
            end = t.further(end, theta[0], fresh)
        c = _with_directions(c[:, :width])  # (2 m + s, 2 m)
        # The same in terms of [X, P, W].
        of_old, of_new = c[: 2 * width] + c_old @ c[2 * width :], c_new @ c[2 * width :]
        pairs = zip(state.basis, self.distinct(fresh), strict=True)
        return state._replace(
            basis=tuple(v @ of_old + w @ of_new for v, w in pairs),
            h=blocks.herm(c.conj().T @ h @ c),
            alive=_kept(c),
            theta=theta[:width],
            end=end,
            step=state.step + 1,
            matvecs=state.matvecs + taken + spent,
            matvecs_M=state.matvecs_M + (0 if self.mass is None else taken * (1 + new.passes)),
            # If [X, P]^H M W is finite, so is W.
            finite=state.finite & jnp.all(jnp.isfinite(new.c)),
            definite=state.definite & new.definite,
        )


def _enlarged(h: Array, c: tuple[Array, Array], cross: Array, inside: Array) -> Array:
    """B^H A B for the orthonormal B = [X, P, N], N = [X, P] C_1 + W C_2.

    ``h`` is [X, P]^H A [X, P], ``cross`` is [X, P]^H A W, ``inside`` is W^H A W.
    """
    c_old, c_new = c
    upper = h @ c_old + cross @ c_new  # (2 m, s)
    lower = cross.conj().T @ c_old + inside @ c_new
    corner = blocks.herm(c_old.conj().T @ upper + c_new.conj().T @ lower)  # (s, s)
    return jnp.block([[h, upper], [upper.conj().T, corner]])


def _with_directions(cx: Array) -> Array:
    """Coefficients of X and of P, which is what is new in X: C without the rows of the old X."""
    width = cx.shape[1]
    cp = jnp.concatenate([jnp.zeros_like(cx[:width]), cx[width:]])
    return jnp.concatenate([cx, blocks.orthonormalize_against(cp, cx)], axis=1)


def _rayleigh_ritz(h: Array, alive: Array, width: int) -> tuple[Array, Array]:
    """Eigenpairs of h, (2 m + s, 2 m + s), ascending; a dropped direction comes above all others.

    W and P are put behind X where Ritz values tie to rounding. A further copy of a converged
    eigenvalue may sit in W or P with an error of sqrt(eps) while its Ritz value is exact.
    Rayleigh-Ritz would mix it freely with the copies in X, and undo their convergence at every
    step. eps^{3/4} of the spectrum is above rounding, and far below any distance over which a
    residual couples X to W.
    """
    behind = jnp.where(jnp.arange(h.shape[0]) >= width, tolerances.eps(h.dtype) ** 0.75, 0)
    return blocks.rayleigh_ritz(h, alive=alive, behind=behind)


def _kept(c: Array) -> Array:
    """Which columns have norm one; the others, dropped directions, are zero."""
    return jnp.sum(jnp.abs(c) ** 2, axis=0) > 0.25
