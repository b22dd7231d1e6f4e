"""What all iterative eigensolvers share: probes, the random start, the account of the matvecs.

A subclass of `IterativeMethod` says what it is called, which problems it does not suit, how wide
its block is, and how it iterates from a random block and from a guess.
"""

import abc
import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.checks import check_positive
from jax_peig._core.types import Array, Block
from jax_peig._factorizations.shift_inverse import shift_inverse_of
from jax_peig._operators.mass_inverse import (
    ApproximateInverse,
    approximate_inverse,
    diagonal_inverse,
    given_inverse,
)
from jax_peig._operators.operator import (
    Operator,
    diagonal_of,
    has_positive_diagonal,
)
from jax_peig._operators.probe import (
    STEPS,
    Probe,
    linearity_error,
    probe,
    probe_matvecs,
    spectral_interval,
)
from jax_peig._problem.convergence import Ritz, Spectrum, StoppingRule
from jax_peig._problem.problem import (
    Found,
    HelperCheck,
    Inputs,
    Method,
    Problem,
    Structure,
)


class Pencil(NamedTuple):
    """A and M as an iteration sees them."""

    a: Operator
    m: Operator | None
    norms: tuple[Array, Array]  # ||A||, ||M||, roughly: relative residuals refer to them
    worthwhile: Array  # False where the problem is known to be ill-posed: then nothing is computed


@dataclasses.dataclass(frozen=True)
class IterativeMethod(Method):
    """A method whose steps are bounded."""

    max_steps: int | None = None

    def __post_init__(self) -> None:
        check_positive(f"{type(self).__name__}: max_steps", self.max_steps, int)

    @property
    def steps(self) -> int | None:
        """The bound on the steps that the value carries; None where it carries none."""
        return self.max_steps

    def probe_steps(self, structure: Structure) -> int:
        """How many Lanczos steps the probe of A takes."""
        del structure
        return STEPS

    def random_width(self, n: int, k: int) -> int:
        """How many columns the random block has that `cold` starts from."""
        return self.block_width(n, k)

    def mass_probe_steps(self, structure: Structure) -> int:
        """How many Lanczos steps the probe of M takes."""
        del structure
        return STEPS

    @abc.abstractmethod
    def cold(self, task: "Task") -> Ritz:
        """Find the pairs from a random block."""

    @abc.abstractmethod
    def warm(self, task: "Task", guess: Block) -> Ritz:
        """Find the pairs from a guess of k columns at most, which may miss a wanted pair entirely.

        No residual shows that. Guard vectors show it only where they began at random, as many as
        in a cold start, and were iterated as long.
        """

    def solve(self, problem: Problem, inputs: Inputs) -> Found:
        """Probe the operators, iterate, and count what the probes cost."""
        task, helpers = self.prepared(problem, inputs)
        if inputs.start is None:
            ritz = self.cold(task)
        else:
            guess = inputs.start[:, : problem.k]
            usable = jnp.all(jnp.isfinite(guess), axis=0)
            ritz = self.warm(task, jnp.where(usable[None, :], guess, 0))
        if ritz.spectrum is None and inputs.m is None and inputs.sigma is None:
            ritz = ritz._replace(spectrum=Spectrum(task.interval[1], None))
        m = inputs.m
        ritz = ritz.having_spent(
            self.probe_steps(problem.structure) + probe_matvecs(inputs.a),
            0 if m is None else self.mass_probe_steps(problem.structure) + probe_matvecs(m),
        )
        definite = positive(task.probe_m, self.inverts)
        if not self.inverts:
            definite &= has_positive_diagonal(m)
        ritz = ritz._replace(definite=ritz.definite & definite)
        return Found(ritz, task.probe_a, task.probe_m, helpers)

    def prepared(self, problem: Problem, inputs: Inputs) -> tuple["Task", HelperCheck]:
        """Draw the random start and probe the operators."""
        n, k = inputs.a.n, problem.k
        drawn = blocks.random_block(inputs.key, n, 2 + self.random_width(n, k), problem.dtype)
        pair, random = drawn[:, :2], drawn[:, 2:]
        probe_a = probe(inputs.a, pair, self.probe_steps(problem.structure))
        probe_m = probe(inputs.m, pair, self.mass_probe_steps(problem.structure))
        helpers = [probe(h, pair) for h in (inputs.preconditioner, inputs.m_solve)]
        op_inv = inputs.op_inv if shift_inverse_of(inputs.op_inv) is None else None
        errors = [h.linearity_error for h in helpers] + [linearity_error(op_inv, pair)]
        check = HelperCheck(
            jnp.all(jnp.array([healthy(h, h) for h in helpers])), jnp.max(jnp.array(errors))
        )
        worthwhile = healthy(probe_a, probe_m, semidefinite=self.inverts)
        pencil = Pencil(inputs.a, inputs.m, (probe_a.norm, probe_m.norm), worthwhile)
        task = Task(
            problem, inputs, problem.stopping_rule, pencil, probe_a, probe_m,
            random, lanczos_start=pair[:, 1:], key=inputs.key,
        )  # fmt: skip
        return task, check


class Task(NamedTuple):
    """What every iterative eigensolver is told."""

    problem: Problem
    inputs: Inputs
    rule: StoppingRule
    pencil: Pencil
    probe_a: Probe
    probe_m: Probe
    random: Block  # (n, width)
    lanczos_start: Block  # (n, 1), random
    key: Array

    @property
    def interval(self) -> tuple[Array, Array]:
        """The interval that encloses the spectrum of sign A, by the probe."""
        low, high = self.probe_a.interval
        return (low, high) if self.rule.sign > 0 else (-high, -low)

    def interval_with(self, inverse: ApproximateInverse, steps: int) -> tuple[Array, Array]:
        """The interval that encloses the spectrum of sign D A, by ``steps`` matvecs."""

        def product(block: Block, /) -> Block:
            return self.rule.sign * self.inputs.a(block)

        return spectral_interval(product, inverse.__call__, self.lanczos_start, steps)

    def mass_inverse(self) -> ApproximateInverse:
        """The approximate inverse of M: the caller's, a diagonal one, or one made of matvecs."""
        m = self.inputs.m
        assert m is not None
        if self.inputs.m_solve is not None:
            return given_inverse(m, self.inputs.m_solve)
        weights = diagonal_of(m)
        if weights is not None:
            return diagonal_inverse(m, weights)
        smooth = self.problem.structure.which == "smallest"
        return approximate_inverse(m, self.probe_m.norm, self.lanczos_start, smooth=smooth)


def positive(probe_m: Probe, semidefinite: bool) -> Array:
    """Whether the probe found nothing that rules out a positive definite, or semidefinite, M."""
    if not semidefinite:
        return probe_m.lowest > 0
    return probe_m.lowest >= -(tolerances.eps(probe_m.norm.dtype) ** 0.5) * probe_m.norm


def healthy(probe_a: Probe, probe_m: Probe, semidefinite: bool = False) -> Array:
    """Whether the probes found nothing that rules out a Hermitian A and a positive definite M.

    A method that solves with A - pole M bears an M that is ``semidefinite``.
    """
    limit = tolerances.hermiticity(probe_a.norm.dtype)
    errors = [e for p in (probe_a, probe_m) for e in (p.hermiticity_error, p.linearity_error)]
    return (
        (jnp.max(jnp.array(errors)) <= limit)
        & positive(probe_m, semidefinite)
        & probe_a.finite
        & probe_m.finite
    )
