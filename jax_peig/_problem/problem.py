"""What an eigensolver is given, what it is, and what it returns.

`Structure` is what is known before any value is, `Problem` all that is static, `Inputs` the arrays
and operators. A `Method` is a frozen value that owns all that depends on the choice of the
eigensolver. `Found` is its answer.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeAlias

import jax.numpy as jnp

from jax_peig._core.monitor import Monitor
from jax_peig._core.types import Array, Block
from jax_peig._factorizations.shift_inverse import Matrices, ShiftInverse
from jax_peig._operators.operator import Operator
from jax_peig._operators.probe import Probe
from jax_peig._problem.convergence import Ritz, StoppingRule

# (A, Ritz, k) -> Ritz: better pairs.
Postprocess: TypeAlias = Callable[[Operator, Any, int], Any]


class Structure(NamedTuple):
    """What is known of a problem before any value is, so that ``jit`` changes nothing of it.

    The method is chosen by it, and each method says by it whether it suits the problem.
    """

    n: int
    k: int
    which: str  # "smallest", "largest" or "nearest"
    mass: str = "identity"  # or "diagonal", or "general"
    preconditioner: bool = False
    m_solve: bool = False
    op_inv: bool = False
    entries: bool = False  # those of A and M are known, so that A - sigma M can be factorised
    guess: bool = False
    derivative_preconditioner: bool = False
    stiff: bool = False  # by known values: the one field that ``jit`` does not know

    @property
    def interior(self) -> bool:
        """Whether the eigenvalues nearest to sigma are wanted."""
        return self.which == "nearest"


class Problem(NamedTuple):
    """Everything that is compiled into the forward program; hashable by value."""

    structure: Structure
    method: Method
    reason: str  # why this method
    dtype: str
    tol: float
    tol_relative_to: str  # "norm" or "eigenvalue"
    max_steps: int
    degeneracy_tol: float | None
    monitor: Monitor
    postprocess: Postprocess | None = None  # hashable by value

    @property
    def k(self) -> int:
        """The number of wanted pairs."""
        return self.structure.k

    @property
    def singular(self) -> bool:
        """Whether the pairs are singular triplets, which alone have a postprocess."""
        return self.postprocess is not None

    @property
    def stopping_rule(self) -> StoppingRule:
        """When an iteration may end."""
        largest = self.structure.which == "largest"
        return StoppingRule(
            self.k, largest, self.tol, self.max_steps, self.monitor,
            to_eigenvalue=self.tol_relative_to == "eigenvalue",
        )  # fmt: skip

    def places(self, values: Array, sigma: Array | None) -> Array:
        """Where eigenvalues stand in the order wanted, ascending."""
        if sigma is not None:
            return jnp.abs(values - sigma)
        return -values if self.structure.which == "largest" else values


class Inputs(NamedTuple):
    """The arrays and operators that the program is called with; a pytree. None was not given."""

    a: Operator
    m: Operator | None
    preconditioner: Operator | None
    m_solve: Operator | None
    op_inv: Operator | None
    derivative_preconditioner: Operator | None
    start: Block | None
    sigma: Array | None
    derivative_tol: Array  # of the linear systems; NaN is the default
    key: Array


class Found(NamedTuple):
    """Approximate pairs, and what was seen of the operators on the way."""

    ritz: Ritz
    probe_a: Probe
    probe_m: Probe
    helpers: HelperCheck


class HelperCheck(NamedTuple):
    """What random vectors showed of the preconditioner, M_solve and OPinv."""

    definite: Array  # the preconditioner and M_solve look linear, Hermitian, positive definite
    linearity_error: Array  # the largest of the three; that of an iterative solver is its tolerance

    @classmethod
    def nothing(cls, dtype: str) -> HelperCheck:
        """Where none was used."""
        return cls(jnp.array(True), jnp.zeros((), jnp.finfo(dtype).dtype))


@dataclasses.dataclass(frozen=True)
class Method(abc.ABC):
    """An eigensolver and its options; hashable by value."""

    name: ClassVar[str]  # its short name
    default_max_steps: ClassVar[int]
    inverts: ClassVar[bool] = False  # it solves with A - pole M
    finds_all: ClassVar[bool] = False  # all n pairs, so that the gap is known like the pairs

    @property
    def steps(self) -> int | None:
        """The bound on the steps that the value carries; None where it carries none."""
        return None

    def unsuited(self, structure: Structure) -> str | None:
        """Why the method cannot solve such a problem, and what to do; None where it can."""
        del structure
        return None

    def factorized(self, matrices: Matrices, sigma: Any) -> ShiftInverse | None:
        """(A - pole M)^{-1}, for a method that `inverts`."""
        del matrices, sigma
        return None

    @abc.abstractmethod
    def block_width(self, n: int, k: int) -> int:
        """The width of the blocks that A is mostly applied to."""

    @abc.abstractmethod
    def solve(self, problem: Problem, inputs: Inputs) -> Found:
        """Find the wanted pairs, and more where there are more."""

    def knows_spectrum(self, structure: Structure) -> bool:
        """Whether the solve leaves the interval that the derivative's semi-iteration needs."""
        return structure.mass == "identity" and not structure.interior

    def derivative_solvers(self, structure: Structure) -> tuple[str, ...]:
        """Which solvers of the derivative's linear systems are tried by default, in this order."""
        if structure.interior:  # the systems are indefinite
            return ("shift-invert", "minres") if structure.op_inv else ("minres",)
        helped = structure.preconditioner or structure.derivative_preconditioner
        fixed = self.knows_spectrum(structure) and not helped
        return ("semi_iteration" if fixed else "cg", "minres")
