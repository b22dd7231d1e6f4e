"""The values that eigensolvers share: stopping rule, Ritz pairs, residuals, stagnation."""

from typing import NamedTuple

import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.monitor import Monitor
from jax_peig._core.types import Array, Block
from jax_peig._operators.mass_inverse import ApproximateInverse
from jax_peig._operators.operator import Operator

# The residuals of an iteration have to be this much below the tolerance, so that those computed
# afresh from the returned pairs are below it as well.
SAFETY = 0.5
# A measure makes progress where it falls below this part of its smallest value so far.
PROGRESS = 0.9
# The relative residual, in eps, below which rounding of the products can stop an iteration.
STAGNATION = 1000
# The error that underflow may have made in a residual norm, in smallest normal numbers. It keeps
# the pairs of a matrix of about that size from counting as converged.
UNDERFLOW = 1000.0


class StoppingRule(NamedTuple):
    """Which pairs are wanted, and how accurate; static and hashable."""

    k: int
    largest: bool
    tol: float  # relative residual, see `relative_residuals`
    max_steps: int
    monitor: Monitor = Monitor()
    guessed: int = 0  # columns of the block that began as a guess, beside a whole random block
    disturbed: bool = False  # the block began as a guess with a little noise in it
    to_eigenvalue: bool = False  # ``tol`` is relative to the eigenvalues, not to the norms

    @property
    def sign(self) -> int:
        """1 for the smallest pairs and -1 for the largest: they are the smallest of sign A."""
        return -1 if self.largest else 1

    def measured(self, relative: Array, values: Array, norms: tuple[Array, Array]) -> Array:
        """`relative_residuals` as ``tol`` counts them, (m,).

        Relative to the eigenvalue it is ||r|| / (|lam| ||M|| ||x||), and inf where lam = 0.
        """
        if not self.to_eigenvalue:
            return relative
        norm_a, norm_m = norms
        own = jnp.abs(values) * norm_m
        return jnp.where(own > 0, relative * ((norm_a + own) / jnp.where(own > 0, own, 1)), jnp.inf)

    def slowest(self, relative: Array, measured: Array) -> Array:
        """The largest relative residual of a wanted pair, by which stagnation is told.

        What is relative to small eigenvalues is reached by others long before.
        """
        wanted = relative[: self.k]
        if self.to_eigenvalue:
            wanted = jnp.where(measured[: self.k] <= SAFETY * self.tol, 0, wanted)
        return jnp.max(wanted)


class Progress(NamedTuple):
    """The stagnation rule: how small each measure of an iteration has been, and how long ago."""

    best: Array  # (m,), or a scalar: the smallest value of each measure
    since: Array  # steps since then: for each measure, or a scalar for all of them

    @classmethod
    def begin(cls, best: Array, since: Array) -> "Progress":
        """Nothing is reached yet; the arguments give shapes and dtypes."""
        return cls(jnp.full_like(best, jnp.inf), jnp.zeros_like(since))

    def after(
        self, measured: Array, better: Array | None = None, spent: Array | int = 1
    ) -> "Progress":
        """The progress after a step.

        A measure makes progress if it falls by a tenth, or where ``better`` says so. Where each
        measure has its own counter, ``spent`` (m,) tells the steps that were spent on it.
        """
        fell = measured < PROGRESS * self.best
        better = fell if better is None else fell | better
        renewed = better if self.since.shape == better.shape else jnp.any(better)
        return Progress(
            jnp.where(better, measured, self.best), jnp.where(renewed, 0, self.since + spent)
        )

    def stalled(self, patience: int, relative: Array) -> Array:
        """Whether the iteration is at rounding: ``patience`` steps brought no progress.

        An iteration whose ``relative`` residual is above `STAGNATION` eps is slow instead.
        """
        level = STAGNATION * tolerances.eps(relative.dtype)
        return (self.since >= patience) & (relative < level)


class Complement(NamedTuple):
    """The eigenpairs beyond the k wanted ones, where a solver has all of them."""

    values: Array  # (n - k,)
    vectors: Block  # (n, n - k)


class Spectrum(NamedTuple):
    """The spectrum of sign D A, as far as an eigensolver has found it."""

    upper: Array  # an upper bound, safe in practice
    inverse: ApproximateInverse | None  # D; None is the identity
    worthwhile: Array | bool = True  # D approximates M^{-1} well


class Inverted(NamedTuple):
    """What solves with A - pole M told of the pairs; (m,) each."""

    pole: Array
    reached: Array  # ||(A - pole M)^{-1} r||_M / ||x||_M is within the tolerance, or rounding
    distances: Array | None  # an eigenvalue lies within these; None where the solver is a caller's
    solves: Array  # with one vector each
    counted: Array  # eigenvalues up to the k-th, by inertia; -1 where that is not known


class Ritz(NamedTuple):
    """The k wanted pairs as an eigensolver leaves them, and further ones behind them."""

    values: Array  # (m,), in the order wanted: ascending for the smallest pairs
    vectors: Block  # (n, m), M-orthonormal
    AX: Block
    MX: Block  # without M the vectors themselves
    steps: Array
    matvecs: Array  # products of A with one vector
    matvecs_M: Array
    stagnated: Array  # if not converged: the residuals stopped falling before max_steps
    finite: Array  # every product was finite
    definite: Array  # no product showed a negative eigenvalue of M
    complement: Complement | None = None
    complete: Array | bool = True  # there is evidence that no wanted pair was missed
    history: Array | None = None  # (rows, k), see `Monitor`
    spectrum: Spectrum | None = None
    inverted: Inverted | None = None

    def having_spent(self, matvecs: Array | int, matvecs_M: Array | int) -> "Ritz":
        """The same pairs, with so many matvecs more in the account."""
        return self._replace(matvecs=self.matvecs + matvecs, matvecs_M=self.matvecs_M + matvecs_M)


class Images(NamedTuple):
    """A block V with A V and M V; ``m`` is V itself where there is no M."""

    v: Block
    a: Block
    m: Block

    @classmethod
    def of(cls, arrays: tuple[Array, ...]) -> "Images":
        """From (V, A V) or (V, A V, M V)."""
        return cls(arrays[0], arrays[1], arrays[2 if len(arrays) > 2 else 0])


def block_width(n: int, k: int) -> int:
    """The width of a Krylov method's block: k vectors and k/2 guard vectors, from 2 to 8."""
    return min(n, k + min(max(2, k // 2), 8))


def residuals(ritz: Ritz) -> Block:
    """A X - M X diag(values), (n, m)."""
    return blocks.residuals(ritz.AX, ritz.MX, ritz.values)


class Lengths(NamedTuple):
    """Euclidean norms of residuals and of their vectors, (m,) each."""

    r: Array
    x: Array

    @classmethod
    def of(cls, r: Block, values: Array, vectors: Block, norms: tuple[Array, Array]) -> "Lengths":
        """The norms for M-orthonormal ``vectors``, in one pass over each block.

        The columns are divided by their natural sizes first, so that no square overflows.
        """
        norm_a, norm_m = norms
        natural = jnp.sqrt(blocks.reciprocal(norm_m))  # of M-orthonormal vectors
        size = (norm_a + jnp.max(jnp.abs(values)) * norm_m) * natural
        return cls(blocks.scaled_norms(r, size), blocks.scaled_norms(vectors, natural))


def relative_residuals(lengths: Lengths, values: Array, norms: tuple[Array, Array]) -> Array:
    """||r|| / ((||A|| + |lam| ||M||) ||x||) for every column, to be compared with ``tol``."""
    norm_a, norm_m = norms
    r, length = lengths
    size = (norm_a + jnp.abs(values) * norm_m) * length
    underflow = UNDERFLOW * jnp.finfo(r.dtype).tiny
    relative = (r + underflow) / jnp.where(size > 0, size, 1)
    return jnp.where(length == 0, jnp.inf, relative)  # a dropped direction is no eigenvector


def multiply(operator: Operator | None, block: Block) -> Block:
    """A V; V itself where there is no operator."""
    return block if operator is None else operator(block)
