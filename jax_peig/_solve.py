"""From operators to approximate eigenpairs: probe, start, and the eigensolver that was chosen."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig import _blocks, _tolerances
from jax_peig._eigensolvers import chebyshev, davidson, dense, lobpcg
from jax_peig._eigensolvers.polynomial import Polynomial
from jax_peig._eigensolvers.ritz import Goal, Ritz, Spectrum, multiply
from jax_peig._mass import RoughInverse, diagonal_inverse, given_inverse, rough_inverse
from jax_peig._operators import diagonal_of
from jax_peig._probe import LANCZOS_STEPS, PRODUCTS, SAFE_STEPS, Probe, probe, spectral_interval
from jax_peig._request import Given, Request
from jax_peig._types import Array, Block

# Of everything in every column of a guess, so that none is blind.
NOISE = 1e-4

_SOLVERS = {"chebyshev": chebyshev, "lobpcg": lobpcg, "davidson": davidson}


def block_width(method: str, n: int, k: int) -> int:
    """The width of the block that a method works with."""
    return n if method == "dense" else _SOLVERS[method].block_width(n, k)


def basis_width(n: int, k: int, basis: int | None) -> int:
    """The number of basis vectors that "davidson" keeps."""
    return davidson.default_basis(n, k) if basis is None else min(basis, n)


def solve(request: Request, given: Given) -> tuple[Ritz, Probe, Probe, Array]:
    """Approximate pairs, what the probes of A and M found, and whether all helpers are definite.

    The helpers are the preconditioner and the caller's M_solve.
    """
    k, dtype, n = request.k, request.dtype, given.a.n
    goal = Goal(k, request.which == "largest", request.tol, request.max_steps, request.monitor)
    if request.method == "dense":
        ritz, probe_a, probe_m = dense.solve(given.a, given.m, goal, dtype, given.sigma)
        return ritz, probe_a, probe_m, jnp.array(True)
    keys = jax.random.split(given.key, 3)
    drawn = _blocks.random_block(keys[0], n, 2 + request.width, dtype)
    probe_a, probe_m = probe(given.a, drawn[:, :2]), probe(given.m, drawn[:, :2])
    worthwhile = healthy(probe_a, probe_m)
    helpers = [probe(h, drawn[:, :2]) for h in (given.preconditioner, given.m_solve)]
    helpful = jnp.all(jnp.array([healthy(h, h) for h in helpers]))
    task = _Task(request, given, goal, (probe_a, probe_m), worthwhile, drawn[:, 2:], keys[1:])
    if given.start is None:
        ritz = task.run(request.method, task.random)
    else:
        guess = given.start[:, :k]
        guess = jnp.where(jnp.all(jnp.isfinite(guess), axis=0)[None, :], guess, 0)
        ritz = task.from_guess(guess)
    if ritz.spectrum is None and given.m is None and given.sigma is None:
        low, high = probe_a.interval
        ritz = ritz._replace(spectrum=Spectrum(-low if goal.largest else high, None))
    ritz = _spent(ritz, PRODUCTS, 0 if given.m is None else PRODUCTS)
    ritz = ritz._replace(definite=ritz.definite & (probe_m.lowest > 0))
    return ritz, probe_a, probe_m, helpful


class _Task(NamedTuple):
    """What all eigensolvers are told."""

    request: Request
    given: Given
    goal: Goal
    probes: tuple[Probe, Probe]
    worthwhile: Array
    random: Block  # (n, width)
    keys: Array

    @property
    def norms(self) -> tuple[Array, Array]:
        """||A|| and ||M||, roughly."""
        return self.probes[0].norm, self.probes[1].norm

    def run(self, method: str, block: Block, goal: Goal | None = None) -> Ritz:
        """Iterate from a block."""
        given, goal = self.given, self.goal if goal is None else goal
        a, m, t = given.a, given.m, given.preconditioner
        if method == "lobpcg":
            spent_a, spent_m = 0, 0
            if t is None:
                t, spent_a, spent_m = _polynomial(self.request, given, self.norms, self.keys)
            ritz = lobpcg.solve(a, m, t, block, self.norms, goal, self.worthwhile)
            return _spent(ritz, spent_a, spent_m)
        if method == "davidson":
            basis = self.request.basis
            return davidson.solve(
                a, m, t, block, self.norms, goal, self.worthwhile, self.keys[1], basis
            )
        inverse, interval, spent_a, spent_m = _filter_bounds(
            self.request, given, self.probes[0], self.norms, self.keys
        )
        ritz = chebyshev.solve(
            a, m, inverse, block, interval, self.norms, goal, self.worthwhile, self.keys[1],
            sigma=given.sigma, op_inv=given.op_inv,
        )  # fmt: skip
        return _spent(ritz, spent_a, spent_m)

    def from_guess(self, guess: Block) -> Ritz:
        """Start from a guess of k columns at most, which may be blind to a wanted pair.

        No residual shows it, and guard vectors only do that began at random, as many as a cold
        start has, and were iterated as long. LOBPCG's columns all are: its W begins as unit
        vectors, of the noise in the guess. Davidson's method calls a witness, and so does the
        filter without M; with M it leaves the guess to LOBPCG.
        """
        method, m, k = self.request.method, self.given.m, self.goal.k
        if method == "lobpcg":
            return self.disturbed(guess)
        if self.given.sigma is not None:
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
        _, interval, _, _ = _filter_bounds(
            self.request, self.given, self.probes[0], self.norms, self.keys
        )
        ritz, good = chebyshev.improve(
            self.given.a, guess, interval, self.norms, self.goal, self.worthwhile, self.keys[1]
        )
        width = ritz.values.shape[0]
        left = self.goal.max_steps - chebyshev.GUESS_STEPS
        if left <= 0:
            return ritz._replace(stagnated=jnp.array(False))
        rest = self.goal._replace(max_steps=left)

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
        if self.request.monitor.rows and history is not None and before.history is not None:
            # One after the other; the last rows are lost where there is no room.
            at = jnp.arange(history.shape[0])
            later = history[jnp.clip(at - before.steps, 0)]
            history = jnp.where((at < before.steps)[:, None], before.history, later)
        return ritz._replace(
            steps=ritz.steps + before.steps,
            products=ritz.products + before.products,
            products_M=ritz.products_M + before.products_M,
            definite=ritz.definite & before.definite,
            history=history,
        )

    def beside(self, guess: Block) -> Ritz:
        """Start from a guess and a whole random block, with a filter that no witness follows.

        With a solve a guess is worth nothing: at n = 400 and k = 6, copies, all that is counted was
        33 from a random block alone, and 81 with the answer beside it.
        """
        (n, width), given = self.random.shape, guess.shape[1]
        if self.given.op_inv is not None or width + given > n:
            return self.run("chebyshev", self.random)
        block = jnp.concatenate([guess, self.random], axis=1)
        return self.run("chebyshev", block, self.goal._replace(given=given))

    def handed_over(self, guess: Block) -> Ritz:
        """LOBPCG from a guess, with its own polynomial, in place of the filter with M.

        On P3 after a change of 1 % it takes a third of the products of a cold start.
        """
        task = self._replace(given=self.given._replace(preconditioner=None))
        small = 3 * self.goal.k > self.given.a.n
        return self.run("chebyshev", self.random) if small else task.disturbed(guess)

    def disturbed(self, guess: Block) -> Ritz:
        """LOBPCG from a block that begins with the span of a guess.

        It has a little of everything in every column, and random columns in place of dependent
        ones: guard vectors tell that nothing is missing only of a block of full rank.
        """
        unit, noise = _blocks.unit_columns(guess), _blocks.unit_columns(self.random)
        small, _ = _blocks.orthonormalizer(_blocks.gram(unit, multiply(self.given.m, unit)))
        given, count = _blocks.unit_columns(unit @ small), guess.shape[1]
        rest = noise[:, count : lobpcg.block_width(self.given.a.n, self.goal.k)]
        block = jnp.concatenate([given + NOISE * noise[:, :count], rest], axis=1)
        ritz = self.run("lobpcg", block, self.goal._replace(disturbed=True))
        return _spent(ritz, 0, 0 if self.given.m is None else count)


def _spent(ritz: Ritz, products: Array | int, products_M: Array | int) -> Ritz:
    """With so many products more."""
    return ritz._replace(products=ritz.products + products, products_M=ritz.products_M + products_M)


def _filter_bounds(request: Request, given: Given, probe_a: Probe, norms, keys):
    """A rough inverse of M, the interval of the spectrum, and the products with A and M spent."""
    sign = -1 if request.which == "largest" else 1
    if given.m is None or given.op_inv is not None:
        low, high = probe_a.interval
        return None, (low, high) if sign > 0 else (-high, -low), 0, 0
    inverse = _inverse(request, given, norms[1], keys[0])
    interval = _interval(given, sign, inverse, norms[0], keys[1], request.dtype, LANCZOS_STEPS)
    spent_m = inverse.products + (LANCZOS_STEPS + 1) * (inverse.degree - 1)
    return inverse, interval, LANCZOS_STEPS, spent_m


def _polynomial(request: Request, given: Given, norms, keys):
    """LOBPCG's own preconditioner, and the products with A and M spent."""
    sign, inverse = -1 if request.which == "largest" else 1, None
    worthwhile, spent_m = jnp.array(True), jnp.array(0)
    if given.m is not None:
        inverse = _inverse(request, given, norms[1], keys[0])
        worthwhile, spent_m = inverse.degree == 1, inverse.products
        inverse = inverse.without_polynomial()
    interval = _interval(given, sign, inverse, norms[0], keys[1], request.dtype, SAFE_STEPS)
    made = Polynomial.within(given.a, sign, inverse, interval, worthwhile)
    return made, SAFE_STEPS, spent_m


def _interval(given: Given, sign: int, inverse: RoughInverse | None, norm, key, dtype, steps: int):
    """The spectrum of sign D A, by ``steps`` products."""

    def product(block):
        return sign * given.a(block)

    inner = None if inverse is None else inverse.__call__
    return spectral_interval(product, inner, norm, key, given.a.n, dtype, steps)


def _inverse(request: Request, given: Given, norm: Array, key: Array) -> RoughInverse:
    """A rough inverse of M: the caller's, that of a diagonal, or one made of products with M."""
    m = given.m
    assert m is not None
    if given.m_solve is not None:
        return given_inverse(m, given.m_solve)
    weights = diagonal_of(m)
    if weights is not None:
        return diagonal_inverse(m, weights)
    return rough_inverse(m, norm, key, request.dtype, smooth=request.which == "smallest")


def healthy(probe_a: Probe, probe_m: Probe) -> Array:
    """Whether the probes found nothing that rules a Hermitian A and a positive M out."""
    limit = _tolerances.hermiticity(probe_a.norm.dtype)
    errors = jnp.maximum(probe_a.hermiticity_error, probe_m.hermiticity_error)
    return (errors <= limit) & (probe_m.lowest > 0) & probe_a.finite & probe_m.finite
