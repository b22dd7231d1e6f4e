"""From operators to approximate eigenpairs: probe, start, and the eigensolver that was chosen."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.types import Array, Block
from jax_peig._eigensolvers import chebyshev, davidson, dense, lobpcg
from jax_peig._eigensolvers.convergence import Ritz, Spectrum, StoppingRule, multiply
from jax_peig._eigensolvers.lobpcg_polynomial import Polynomial
from jax_peig._eigensolvers.problem import Inputs, Problem
from jax_peig._operators.mass_inverse import (
    ApproximateInverse,
    approximate_inverse,
    diagonal_inverse,
    given_inverse,
)
from jax_peig._operators.operator import diagonal_of
from jax_peig._operators.probe import SAFE_STEPS, STEPS, Probe, probe, spectral_interval

# Of everything in every column of a guess, so that none is blind.
NOISE = 1e-4

_SOLVERS = {"chebyshev": chebyshev, "lobpcg": lobpcg, "davidson": davidson}


def block_width(method: str, n: int, k: int) -> int:
    """The width of the block that a method works with."""
    return n if method == "dense" else _SOLVERS[method].block_width(n, k)


def basis_width(n: int, k: int, basis: int | None) -> int:
    """The number of basis vectors that "davidson" keeps."""
    return davidson.default_basis(n, k) if basis is None else min(basis, n)


def solve(problem: Problem, inputs: Inputs) -> tuple[Ritz, Probe, Probe, Array]:
    """Approximate pairs, what the probes of A and M found, and whether all helpers are definite.

    The helpers are the preconditioner and the caller's M_solve.
    """
    k, dtype, n = problem.k, problem.dtype, inputs.a.n
    rule = StoppingRule(
        k, problem.which == "largest", problem.tol, problem.max_steps, problem.monitor
    )
    if problem.method == "dense":
        ritz, probe_a, probe_m = dense.solve(inputs.a, inputs.m, rule, dtype, inputs.sigma)
        return ritz, probe_a, probe_m, jnp.array(True)
    keys = jax.random.split(inputs.key)
    drawn = blocks.random_block(keys[0], n, 2 + problem.width, dtype)
    pair, random = drawn[:, :2], drawn[:, 2:]
    # LOBPCG's polynomial without M takes the interval that the probe finds.
    polynomial = problem.method == "lobpcg" and inputs.preconditioner is None
    steps = SAFE_STEPS if polynomial and inputs.m is None else STEPS
    probe_a, probe_m = probe(inputs.a, pair, steps), probe(inputs.m, pair)
    worthwhile = healthy(probe_a, probe_m)
    helpers = [probe(h, pair) for h in (inputs.preconditioner, inputs.m_solve)]
    helpful = jnp.all(jnp.array([healthy(h, h) for h in helpers]))
    task = _Task(problem, inputs, rule, probe_a, probe_m, worthwhile, random, pair[:, 1:], keys[1])
    if inputs.start is None:
        ritz = task.run(problem.method, task.random)
    else:
        guess = inputs.start[:, :k]
        guess = jnp.where(jnp.all(jnp.isfinite(guess), axis=0)[None, :], guess, 0)
        ritz = task.from_guess(guess)
    if ritz.spectrum is None and inputs.m is None and inputs.sigma is None:
        low, high = probe_a.interval
        ritz = ritz._replace(spectrum=Spectrum(-low if rule.largest else high, None))
    ritz = _spent(ritz, steps + 1, 0 if inputs.m is None else STEPS + 1)
    ritz = ritz._replace(definite=ritz.definite & (probe_m.lowest > 0))
    return ritz, probe_a, probe_m, helpful


class _Task(NamedTuple):
    """What all eigensolvers are told."""

    problem: Problem
    inputs: Inputs
    rule: StoppingRule
    probe_a: Probe
    probe_m: Probe
    worthwhile: Array
    random: Block  # (n, width)
    start: Block  # (n, 1), random, for Lanczos steps
    key: Array

    @property
    def norms(self) -> tuple[Array, Array]:
        """||A|| and ||M||, roughly."""
        return self.probe_a.norm, self.probe_m.norm

    def run(self, method: str, block: Block, rule: StoppingRule | None = None) -> Ritz:
        """Iterate from a block."""
        inputs, rule = self.inputs, self.rule if rule is None else rule
        a, m, t = inputs.a, inputs.m, inputs.preconditioner
        if method == "lobpcg":
            if t is not None:
                return lobpcg.solve(a, m, t, block, self.norms, rule, self.worthwhile)
            own, spent_a, spent_m = self.polynomial()
            ritz = lobpcg.solve(a, m, own, block, self.norms, rule, self.worthwhile)
            return _spent(ritz, spent_a, spent_m)
        if method == "davidson":
            basis = self.problem.basis
            return davidson.solve(
                a, m, t, block, self.norms, rule, self.worthwhile, self.key, basis
            )
        inverse, interval, spent_a, spent_m = self.filter_bounds()
        ritz = chebyshev.solve(
            a, m, inverse, block, interval, self.norms, rule, self.worthwhile, self.key,
            sigma=inputs.sigma, op_inv=inputs.op_inv,
        )  # fmt: skip
        return _spent(ritz, spent_a, spent_m)

    def from_guess(self, guess: Block) -> Ritz:
        """Start from a guess of k columns at most, which may be blind to a wanted pair.

        No residual shows it, and guard vectors only do that began at random, as many as a cold
        start has, and were iterated as long. LOBPCG's columns all are: its W begins as unit
        vectors, of the noise in the guess. Davidson's method calls a witness, and so does the
        filter without M; with M it leaves the guess to LOBPCG.
        """
        method, m, k = self.problem.method, self.inputs.m, self.rule.k
        if method == "lobpcg":
            return self.disturbed(guess)
        if self.inputs.sigma is not None:
            return self.beside(guess)
        if method == "chebyshev" and m is not None:
            return self.handed_over(guess)
        guess = jnp.concatenate([guess, self.random[:, guess.shape[1] : k]], axis=1)
        if method == "chebyshev":
            return self.improved(guess)
        fresh = self.random[:, k : davidson.block_width(*guess.shape)]
        return self.run("davidson", jnp.concatenate([guess, fresh], axis=1))

    def improved(self, guess: Block) -> Ritz:
        """The filtered guess where witnesses say that it is complete; else a cold start."""
        ritz, good = chebyshev.improve(
            self.inputs.a, guess, self.interval, self.norms, self.rule, self.worthwhile, self.key
        )
        width = ritz.values.shape[0]
        left = self.rule.max_steps - chebyshev.GUESS_STEPS
        if left <= 0:
            return ritz._replace(stagnated=jnp.array(False))
        rest = self.rule._replace(max_steps=left)

        def again():
            # Under vmap both branches run: this one for no member of a batch that is good.
            task = self._replace(worthwhile=self.worthwhile & ~good)
            cold = task.run("chebyshev", self.random, rest)
            return self.after(ritz, cold)._replace(
                values=cold.values[:width],
                vectors=cold.vectors[:, :width],
                AX=cold.AX[:, :width],
                MX=cold.MX[:, :width],
            )

        return jax.lax.cond(good | ~self.worthwhile, lambda: ritz, again)

    def after(self, before: Ritz, ritz: Ritz) -> Ritz:
        """``ritz``, with the account of what it took ``before``."""
        history = ritz.history
        if self.problem.monitor.rows and history is not None and before.history is not None:
            # One after the other; the last rows are lost where there is no room.
            at = jnp.arange(history.shape[0])
            later = history[jnp.clip(at - before.steps, 0)]
            history = jnp.where((at < before.steps)[:, None], before.history, later)
        return ritz._replace(
            steps=ritz.steps + before.steps,
            matvecs=ritz.matvecs + before.matvecs,
            matvecs_M=ritz.matvecs_M + before.matvecs_M,
            definite=ritz.definite & before.definite,
            history=history,
        )

    def beside(self, guess: Block) -> Ritz:
        """Start from a guess and a whole random block, with a filter that no witness follows.

        With a solve a guess is worth nothing: at n = 400 and k = 6, copies, all that is counted was
        33 from a random block alone, and 81 with the answer beside it.
        """
        (n, width), inputs = self.random.shape, guess.shape[1]
        if self.inputs.op_inv is not None or width + inputs > n:
            return self.run("chebyshev", self.random)
        block = jnp.concatenate([guess, self.random], axis=1)
        return self.run("chebyshev", block, self.rule._replace(guessed=inputs))

    def handed_over(self, guess: Block) -> Ritz:
        """LOBPCG from a guess, with its own polynomial, in place of the filter with M.

        On P3 after a change of 1 % it takes a third of the products of a cold start.
        """
        task = self._replace(inputs=self.inputs._replace(preconditioner=None))
        small = 3 * self.rule.k > self.inputs.a.n
        return self.run("chebyshev", self.random) if small else task.disturbed(guess)

    def disturbed(self, guess: Block) -> Ritz:
        """LOBPCG from a block that begins with the span of a guess.

        It has a little of everything in every column, and random columns in place of dependent
        ones: guard vectors tell that nothing is missing only of a block of full rank.
        """
        unit, noise = blocks.unit_columns(guess), blocks.unit_columns(self.random)
        small, _ = blocks.orthonormalizer(blocks.gram(unit, multiply(self.inputs.m, unit)))
        inputs, count = blocks.unit_columns(unit @ small), guess.shape[1]
        rest = noise[:, count : lobpcg.block_width(self.inputs.a.n, self.rule.k)]
        block = jnp.concatenate([inputs + NOISE * noise[:, :count], rest], axis=1)
        ritz = self.run("lobpcg", block, self.rule._replace(disturbed=True))
        return _spent(ritz, 0, 0 if self.inputs.m is None else count)

    # -- what the methods without a preconditioner know of A and M --------------------------------

    @property
    def interval(self) -> tuple[Array, Array]:
        """That of the spectrum of sign A, by the probe."""
        low, high = self.probe_a.interval
        return (low, high) if self.rule.sign > 0 else (-high, -low)

    def interval_with(self, inverse: ApproximateInverse, steps: int) -> tuple[Array, Array]:
        """That of the spectrum of sign D A, by ``steps`` products."""

        def product(block):
            return self.rule.sign * self.inputs.a(block)

        return spectral_interval(product, inverse.__call__, self.start, steps)

    def filter_bounds(
        self,
    ) -> tuple[ApproximateInverse | None, tuple[Array, Array], Array | int, Array | int]:
        """A rough inverse of M, the spectrum's interval, and the products with A and M spent."""
        if self.inputs.m is None or self.inputs.op_inv is not None:
            return None, self.interval, 0, 0
        inverse = self.approximate_inverse()
        spent_m = inverse.matvecs + (STEPS + 1) * (inverse.degree - 1)
        return inverse, self.interval_with(inverse, STEPS), STEPS, spent_m

    def polynomial(self) -> tuple[Polynomial, Array | int, Array | int]:
        """LOBPCG's own preconditioner, and the products with A and M spent."""
        a, sign = self.inputs.a, self.rule.sign
        if self.inputs.m is None:
            return Polynomial.within(a, sign, None, self.interval, jnp.array(True)), 0, 0
        inverse = self.approximate_inverse()
        worthwhile, spent_m = inverse.degree == 1, inverse.matvecs
        inverse = inverse.without_polynomial()
        interval = self.interval_with(inverse, SAFE_STEPS)
        return Polynomial.within(a, sign, inverse, interval, worthwhile), SAFE_STEPS, spent_m

    def approximate_inverse(self) -> ApproximateInverse:
        """That of M: the caller's, that of a diagonal, or one made of products with M."""
        m = self.inputs.m
        assert m is not None
        if self.inputs.m_solve is not None:
            return given_inverse(m, self.inputs.m_solve)
        weights = diagonal_of(m)
        if weights is not None:
            return diagonal_inverse(m, weights)
        return approximate_inverse(
            m, self.norms[1], self.start, smooth=self.problem.which == "smallest"
        )


def _spent(ritz: Ritz, matvecs: Array | int, matvecs_M: Array | int) -> Ritz:
    """With so many products more."""
    return ritz._replace(matvecs=ritz.matvecs + matvecs, matvecs_M=ritz.matvecs_M + matvecs_M)


def healthy(probe_a: Probe, probe_m: Probe) -> Array:
    """Whether the probes found nothing that rules a Hermitian A and a positive M out."""
    limit = tolerances.hermiticity(probe_a.norm.dtype)
    errors = jnp.maximum(probe_a.hermiticity_error, probe_m.hermiticity_error)
    return (errors <= limit) & (probe_m.lowest > 0) & probe_a.finite & probe_m.finite
