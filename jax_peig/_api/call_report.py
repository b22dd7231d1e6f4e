"""The part of a derivative report that is about one call of partial_eigh."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_peig._api.solution import solve_and_judge
from jax_peig._core import blocks
from jax_peig._core.results import Info
from jax_peig._core.status import Status
from jax_peig._core.types import Array, Block
from jax_peig._derivatives import solve as systems_solve
from jax_peig._derivatives.rounds import solver_of
from jax_peig._derivatives.rules import Rule
from jax_peig._derivatives.sylvester import Settings
from jax_peig._derivatives.systems import Point, SylvesterSystem, Systems
from jax_peig._derivatives.well_posed import Causes
from jax_peig._diagnostics import clusters
from jax_peig._problem.problem import Inputs, Problem

# What each of the `Causes` means, and its remedy.
CAUSES = {
    "gauge": (
        "the loss depends on an arbitrary choice, of the vectors inside a cluster or of the phase "
        "of a complex vector: make it invariant, or remove that part by project_gauge"
    ),
    "occupation": (
        "the loss uses the vectors of a cluster and weighs its eigenvalues differently, which "
        "separate eigenvalues and vectors cannot carry: write it by eigenspace, with density, "
        "spectral_apply or spectral_sum"
    ),
    "cut": "the loss uses vectors of a cluster that k cuts: choose a k that takes whole clusters",
}
# The same of singular triplets.
SINGULAR_CAUSES = {
    "gauge": (
        "the loss depends on an arbitrary choice, of the vectors inside a cluster of singular "
        "values or of the common phase of two vectors: write it by singular_space, with "
        "singular_apply or low_rank"
    ),
    "occupation": (
        "the loss uses the vectors of a repeated singular value and weighs its copies differently, "
        "as (U * s) @ Vh does, which separate triplets cannot carry: write it by low_rank, or by "
        "singular_space with singular_apply or singular_sum"
    ),
    "cut": (
        "the loss uses vectors of a cluster of singular values that k cuts: choose a k that takes "
        "whole clusters"
    ),
}
ZERO = (
    "a zero singular value is among the k: its vectors, and a truncation below k = min(m, n), have "
    "no derivative; low_rank(A, min(m, n)) has one"
)


@dataclasses.dataclass(frozen=True, repr=False)
class CallReport:
    """One call of `partial_eigh` inside the function, in the order in which they were made.

    Attributes
    ----------
    n, k, method : int, int, str
        The problem, and the eigensolver.
    solvers : tuple
        The solvers of the linear systems, in the order in which they are tried.
    info : Info
        The account of the eigenpairs.
    gap : float
        Distance of the k-th eigenvalue, in the order wanted, to the next.
    residuals : (k,)
        True relative residuals of the linear systems; 0 for a pair whose vector has no cotangent.
    tolerance : float
        The relative residual that they had to reach.
    steps, matvecs : int
        Iterations of the linear systems, and their products of A with one vector. Those of "cg",
        "gmres" and callables are not known, and products with OPinv are not counted.
    gauge : float
        The part of the cotangent that depends on an arbitrary choice, over the cotangent. It is
        zero up to rounding if the loss is well-posed.
    problems : tuple of str
        The reasons why the derivative is ill-posed or inaccurate; empty if there are none.
    """

    n: int
    k: int
    method: str
    solvers: tuple[Any, ...]
    info: Info
    gap: float
    residuals: np.ndarray
    tolerance: float
    steps: int
    matvecs: int
    gauge: float
    problems: tuple[str, ...]

    def __str__(self) -> str:
        names = " then ".join(s if isinstance(s, str) else "a callable" for s in self.solvers)
        worst = np.max(self.residuals, initial=0.0)
        count = f"{self.steps} steps, {self.matvecs} matvecs"
        count = count if solver_of(self.solvers[0]).counted else "not counted"
        return (
            f"n = {self.n}, k = {self.k}, {self.method}; gap {self.gap:.1e}; systems "
            f"by {names}: residual {worst:.1e} (tolerance {self.tolerance:.1e}), "
            f"{count}; gauge-dependent part {self.gauge:.1e}"
        )

    __repr__ = __str__


class _Judgement(NamedTuple):
    """The account of one call, of its systems and of its cotangents."""

    info: Info
    tol: Array
    residuals: Array  # (k,), relative
    steps: Array
    matvecs: Array
    solved: Array  # all systems reached their tolerance
    gauge: Array  # the gauge-dependent part of the cotangents, over the cotangents
    causes: Causes
    zero: Array  # the last of the k values cannot be told from zero
    whole: Array  # the largest smaller k that cuts no cluster; 0 where there is none


@functools.partial(jax.jit, static_argnums=0)
def _judge(
    static: tuple[Problem, Rule],
    inputs: Inputs,
    pairs: tuple[Array, Array],
    cotangents: tuple[Array, Array],
) -> _Judgement:
    """Solve a call once more, for its account, and then its systems; apply the checks.

    The pairs are those that the cotangents belong to: another program may round to other vectors
    inside a cluster.
    """
    problem, rule = static
    a, m, _, _, info, forward = solve_and_judge(problem, rule, inputs)
    lam, x = rule.eigenvalues(pairs[0]), pairs[1]
    mx = x if m is None else m(x)
    system = SylvesterSystem(a, m, x, mx, jnp.diag(lam).astype(x.dtype), forward.data)
    at = Point(system, lam, forward)
    lb, xb = cotangents[0].conj(), cotangents[1].conj()
    solution, residuals = _solve_systems(system, xb, rule.settings)
    skew = rule.gauge_part(at, lb, blocks.gram(x, xb))
    size = rule.cotangent_size(at, lb, xb)
    return _Judgement(
        info=info,
        tol=forward.data.tol,
        residuals=residuals,
        steps=solution.steps,
        matvecs=solution.matvecs,
        solved=jnp.all(solution.converged),
        gauge=jnp.max(jnp.abs(skew)) * blocks.reciprocal(size),
        causes=rule.ill_posed(at, skew, lb, xb, derived=False),
        zero=lam[-1] <= info.error_bounds[-1],
        whole=clusters.largest_whole(
            lam,
            info.error_bounds,
            clusters.Clusters(info.clusters, forward.cut, info.gap),
            rule.gap_resolution,
        ),
    )


def _solve_systems(
    system: SylvesterSystem, xb: Block, settings: Settings
) -> tuple[systems_solve.Solution, Array]:
    """The linear systems of a gradient, and their relative residuals (k,)."""
    n, k = xb.shape
    if k == n:
        none, lengths = jnp.array(0), jnp.zeros_like(jnp.diagonal(system.r).real)
        solution = systems_solve.Solution(xb, jnp.ones(k, bool), lengths, none, none)
        return solution, lengths
    systems = Systems.of(system, settings.sign)
    rhs, full = systems.dual(systems.dual(xb)), blocks.column_norms(xb)
    solution = systems_solve.solve(systems, rhs, full, settings.solvers, settings.max_steps)
    return solution, solution.residuals * blocks.reciprocal(blocks.column_norms(rhs))


def examine(
    problem: Problem,
    rule: Rule,
    inputs: Inputs,
    pairs: tuple[Array, Array],
    cotangents: tuple[Array, Array],
) -> CallReport:
    """The checks and the linear systems of one call."""
    found = _judge((problem, rule), inputs, pairs, cotangents)
    return CallReport(
        n=inputs.a.n,
        k=problem.k,
        method=problem.method.name,
        solvers=rule.settings.solvers,
        info=found.info,
        gap=float(found.info.gap),
        residuals=np.asarray(found.residuals),
        tolerance=float(found.tol),
        steps=int(found.steps),
        matvecs=int(found.matvecs),
        gauge=float(found.gauge),
        problems=_problems(found, problem.singular),
    )


def _problems(found: _Judgement, singular: bool) -> tuple[str, ...]:
    """The reasons why the derivative of a call is ill-posed or inaccurate."""
    info, problems = found.info, []
    if int(info.status) != Status.CONVERGED:
        problems.append(f"the eigenpairs: {info.message}")
    if not bool(found.solved) and not bool(info.cut):  # a cut makes a system singular
        problems.append("a linear system did not reach its tolerance")
    texts = dict(SINGULAR_CAUSES if singular else CAUSES)
    if singular and bool(found.zero):
        texts["cut"] = ZERO
    texts["cut"] += f"; {largest_smaller(int(found.whole))}"
    problems += [texts[name] for name, seen in found.causes._asdict().items() if bool(seen)]
    return tuple(problems)


def largest_smaller(k: int) -> str:
    """Say which smaller k cuts no cluster."""
    return f"of the smaller ones the largest is k = {k}" if k else "no smaller k does"
