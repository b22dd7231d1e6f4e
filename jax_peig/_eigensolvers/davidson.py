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

Each step costs one product with A (one with M), some six passes over V, and an eigendecomposition
of the order of the basis. Expansion by several residuals at once takes more products (1.2 times
with two), so blocks are left to the other methods.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jax_peig._core.checks import check_positive
from jax_peig._core.types import Array, Block, DTypeLike
from jax_peig._eigensolvers.davidson_iteration import DONE, Iteration
from jax_peig._operators.operator import Operator
from jax_peig._problem import warm_start
from jax_peig._problem.convergence import Ritz, StoppingRule, block_width
from jax_peig._problem.iterative import IterativeMethod, Pencil, Task
from jax_peig._problem.problem import Structure

# The part of a full basis that a restart keeps. A larger part saves few products (2 % at 0.7), and
# every restart costs V times a small matrix.
KEPT = 0.6


# The largest order of an eigenproblem that OpenBLAS solves by one thread. Above it a step took 1.6
# to 2.6 times as long alone, and some fifty times beside busy processes, for 12 % fewer matvecs.
ONE_THREAD = {"real": 64, "complex": 56}


def default_basis(n: int, k: int, dtype: DTypeLike) -> int:
    """Three times the starting block and some, at least 20: a wider one saves few products.

    It stays within `ONE_THREAD` where that leaves room for twice the block.
    """
    width = block_width(n, k)
    size = max(20, 3 * width + 4)
    most = ONE_THREAD["complex" if jnp.issubdtype(dtype, jnp.complexfloating) else "real"]
    return min(n, most if 2 * width <= most < size else size)


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
        times k and the guard vectors, and at least 20; for k from 14 to 24 no more than 64 (for
        complex numbers 56, from 12 to 20), the largest that LAPACK treats by one thread. Fewer cost
        more matvecs.

    Raises
    ------
    TypeError, ValueError
        For an option that is no positive integer.

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
        size = self.max_basis_size or default_basis(n, k, block.dtype)
        return solve(task.pencil, task.inputs.preconditioner, block, task.rule, task.key, size)


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
    width = start.shape[1]
    size = max(min(basis, pencil.a.n), width + 4)
    kept = max(width, min(int(KEPT * size), size - 3))
    iteration = Iteration(pencil, preconditioner, rule, key, width, size, kept)
    begin = iteration.begin(start)
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
        matvecs_M=jnp.array(0) if pencil.m is None else end.step,
        stagnated=end.step < rule.max_steps,  # if it did not converge
        finite=end.finite,
        definite=end.definite,
        history=end.history,
        complete=end.complete | end.exhausted,
    )
