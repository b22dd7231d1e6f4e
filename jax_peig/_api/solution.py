"""The compiled part of partial_eigh: solve without derivatives, judge, attach the derivatives."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, auto_axes

from jax_peig._core.batching import one_after_another
from jax_peig._core.results import Info, PartialEigh
from jax_peig._core.sharding import explicit_mesh
from jax_peig._core.status import Status
from jax_peig._core.types import Array, Block
from jax_peig._derivatives import refinement
from jax_peig._derivatives.attach import attach
from jax_peig._derivatives.rules import Rule
from jax_peig._derivatives.systems import (
    ForwardResult,
    SystemData,
    default_tolerance,
    guards_of,
)
from jax_peig._diagnostics.info import Errors, Findings, account, diagnose, usable
from jax_peig._operators.hermitian import asymmetry, has_imaginary_diagonal, hermitian_part
from jax_peig._operators.operator import Operator
from jax_peig._operators.probe import Probe
from jax_peig._problem.convergence import Ritz
from jax_peig._problem.problem import Inputs, Problem


class Solved(NamedTuple):
    """A problem solved without derivatives, and the data for its derivatives."""

    a: Operator  # Hermitian, with derivatives
    m: Operator | None
    lam: Array  # (k,)
    x: Block  # (n, k)
    info: Info
    forward: ForwardResult


@functools.partial(jax.jit, static_argnums=0)
def compiled(static: tuple[Problem, Rule], inputs: Inputs) -> PartialEigh:
    """Pairs with derivatives, and their account."""
    problem, rule = static
    solved = solve_and_judge(problem, rule, inputs)
    first = rule.first_output(solved.lam, solved.x.dtype)
    first, x = attach(rule, solved.a, solved.m, first, solved.x, solved.forward)
    return PartialEigh(first, x, solved.info)


def over_devices(
    static: tuple[Problem, Rule], inputs: Inputs, grid: tuple[int, ...] | None
) -> PartialEigh:
    """`compiled`, left to the compiler's partitioning on a mesh of Explicit axes.

    The eigenvectors come back sharded as the first array that has n rows, or the rows of a
    ``grid``, all else replicated.
    """
    mesh = explicit_mesh(inputs)
    if mesh is None:
        return compiled(static, inputs)
    problem = static[0]
    kinds = [jax.typeof(leaf) for leaf in jax.tree.leaves(inputs)]
    grids = [g for g in ((inputs.a.n,), grid) if g]
    rows = [k.sharding.spec[0] for k in kinds if any(k.shape[: len(g)] == g for g in grids)]
    by_rows = PartitionSpec(next((r for r in rows if r is not None), None), None)
    block, rest = (NamedSharding(mesh, spec) for spec in (by_rows, PartitionSpec()))
    fields: dict[str, Any] = {field.name: rest for field in dataclasses.fields(Info)}
    fields["MX"] = None if inputs.m is None else block
    fields["history"] = rest if problem.monitor.rows else None
    fields.update(method=problem.method.name, reason=problem.reason)
    shardings: Any = (rest, block, Info(**fields))
    return _partitioned(static, PartialEigh(*shardings))(inputs)


@functools.lru_cache(maxsize=128)
def _partitioned(static: tuple[Problem, Rule], shardings: PartialEigh) -> Any:
    """`compiled` of its last argument, the same function for the same problem: compiled once.

    Under jit, without which JAX does not differentiate across the change of axes.
    """
    return jax.jit(auto_axes(functools.partial(compiled, static), out_sharding=shardings))


def solve_and_judge(problem: Problem, rule: Rule, inputs: Inputs) -> Solved:
    """The pairs, their account, and the data of the derivative's systems: no derivatives yet."""
    a, m = hermitian_part(inputs.a), None if inputs.m is None else hermitian_part(inputs.m)
    solve = functools.partial(_without_derivatives, problem, rule)
    # The eigensolver sees parameters without tangents, and is never differentiated.
    frozen = jax.lax.stop_gradient(inputs)
    found = solve(frozen) if problem.method.finds_all else one_after_another(solve, frozen)
    return Solved(a, m, *found)


def _without_derivatives(
    problem: Problem, rule: Rule, inputs: Inputs
) -> tuple[Array, Block, Info, ForwardResult]:
    """The eigenvalues (k,), the vectors (n, k), their account, and the data of the systems."""
    k = problem.k
    a, m = hermitian_part(inputs.a), None if inputs.m is None else hermitian_part(inputs.m)
    given = inputs._replace(a=a, m=m)
    ritz, probe_a, probe_m, helpers = problem.method.solve(problem, given)
    if problem.postprocess is not None:
        ritz = problem.postprocess(a, ritz, k)
    data = _system_data(given, ritz, k, (probe_a.norm, probe_m.norm))
    if rule.refine and k < a.n:
        ritz = _refined(problem, rule, given, ritz, data)
        data = data._replace(guards=guards_of(ritz, k, data.norms))
    told_a, judged_a = _errors(inputs.a, a, probe_a)
    told_m, judged_m = _errors(inputs.m, m, probe_m)
    # An array M whose diagonal is not real has no Hermitian part that was meant.
    skew = jnp.where(has_imaginary_diagonal(inputs.m), jnp.inf, judged_m.hermiticity)
    judged_m = judged_m._replace(hermiticity=skew)
    findings = Findings(
        norms=data.norms,
        status=diagnose(ritz, judged_a, judged_m, probe_a.finite & probe_m.finite),
        errors=(told_a, told_m),
        helpers=helpers,
    )
    info, cut = account(problem, given, ritz, findings, rule.gap_resolution)
    valid = usable(info.status)
    lam = jnp.where(valid, ritz.values[:k], jnp.nan)
    x = jnp.where(valid, ritz.vectors[:, :k], jnp.nan)
    tol = default_tolerance(info.error_bounds, info.gap, info.cut)
    tol = jnp.where(jnp.isnan(inputs.derivative_tol), tol, inputs.derivative_tol)
    forward = ForwardResult(
        data=data._replace(tol=tol, refused=cut if rule.on_gauge == "nan" else None),
        mx=None if m is None else jnp.where(valid, ritz.MX[:, :k], jnp.nan),
        labels=info.clusters,
        cut=cut,
        converged=info.status == Status.CONVERGED,
    )
    return lam, x, info, forward


def _system_data(inputs: Inputs, ritz: Ritz, k: int, norms: tuple[Array, Array]) -> SystemData:
    """The help that the forward solve gives to the derivative's systems; ``tol`` is not known."""
    inner = inputs.derivative_preconditioner
    return SystemData(
        preconditioner=inputs.preconditioner if inner is None else inner,
        norms=norms,
        tol=jnp.array(0.0),
        complement=ritz.complement,
        spectrum=ritz.spectrum,
        guards=guards_of(ritz, k, norms),
        op_inv=inputs.op_inv,
        sigma=inputs.sigma if ritz.inverted is None else ritz.inverted.pole,
        refused=None,
    )


def _refined(problem: Problem, rule: Rule, inputs: Inputs, ritz: Ritz, data: SystemData) -> Ritz:
    """The pairs after one step of refinement."""

    def order(theta: Array) -> Array:
        return jnp.argsort(problem.places(theta, inputs.sigma))

    pencil = (inputs.a, inputs.m)
    systems = refinement.systems_of(pencil, ritz, problem.k, data, rule.settings.sign)
    return refinement.refine(ritz, systems, rule.settings, order)


def _errors(given: Operator | None, part: Operator | None, probe: Probe) -> tuple[Errors, Errors]:
    """How far an operator is from a Hermitian matrix, as info tells it and as the status judges it.

    The Hermitian part of an array is a well-posed problem whatever the array: its asymmetry is told
    and not judged. A product has no such part, and the probe's estimate is told and judged.
    """
    found = Errors(probe.hermiticity_error, probe.linearity_error)
    error = asymmetry(given, part, probe.norm)
    if error is None:
        return found, found
    return found._replace(hermiticity=error), found._replace(hermiticity=jnp.zeros_like(error))
