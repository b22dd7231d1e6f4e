"""The compiled part of partial_eigh: solve without derivatives, judge, attach the derivatives."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.results import Info, PartialEigh, Status
from jax_peig._core.types import Array, Block
from jax_peig._derivatives import rules as derivative_rules
from jax_peig._derivatives.refinement import refine
from jax_peig._derivatives.systems import SystemData, Systems, guards_of
from jax_peig._diagnostics.info import account, diagnose, usable
from jax_peig._eigensolvers.convergence import Ritz, residuals
from jax_peig._eigensolvers.problem import Inputs, Problem
from jax_peig._eigensolvers.run import solve
from jax_peig._operators.operator import (
    Operator,
    asymmetry,
    has_imaginary_diagonal,
    hermitian_part,
)

# The loosest tolerance of the derivative's systems by default.
LOOSEST = 1e-3


class Solved(NamedTuple):
    """A problem without derivatives: the pairs, their account, and what derivatives need."""

    a: Operator  # Hermitian, with derivatives
    m: Operator | None
    lam: Array
    x: Block
    info: Info
    forward: derivative_rules.ForwardResult


def solve_and_judge(problem: Problem, rules: derivative_rules.Rules, inputs: Inputs) -> Solved:
    """Everything but the derivatives."""
    k = problem.k
    a = hermitian_part(inputs.a)
    m = None if inputs.m is None else hermitian_part(inputs.m)
    # The eigensolver sees parameters without tangents, and is never differentiated.
    frozen = jax.lax.stop_gradient(inputs._replace(a=a, m=m))
    ritz, probe_a, probe_m, helpful = solve(problem, frozen)
    if problem.polish is not None:
        ritz = problem.polish(frozen.a, ritz, k)
    inner = frozen.derivative_preconditioner
    data = SystemData(
        preconditioner=frozen.preconditioner if inner is None else inner,
        norms=(probe_a.norm, probe_m.norm),
        tol=jnp.array(0.0),
        complement=ritz.complement,
        spectrum=ritz.spectrum,
        guards=guards_of(ritz, k, (probe_a.norm, probe_m.norm)),
        op_inv=frozen.op_inv,
        sigma=frozen.sigma,
    )
    if rules.refine and k < inputs.a.n:
        ritz = _refined(problem, rules, frozen, ritz, data)
        data = data._replace(guards=guards_of(ritz, k, data.norms))
    # An array's Hermitian part is a well-posed problem, unless M's diagonal is not real; a product
    # has no such part.
    given_a = asymmetry(inputs.a, a, probe_a.norm)
    given_m = asymmetry(inputs.m, m, probe_m.norm)
    zero = jnp.zeros_like(probe_a.norm)
    status = diagnose(
        ritz,
        probe_a.hermiticity_error if given_a is None else zero,
        jnp.where(
            has_imaginary_diagonal(inputs.m),
            jnp.inf,
            probe_m.hermiticity_error if given_m is None else zero,
        ),
        probe_a.finite & probe_m.finite,
    )
    errors = (
        probe_a.hermiticity_error if given_a is None else given_a,
        probe_m.hermiticity_error if given_m is None else given_m,
    )
    info, cut = account(problem, frozen, ritz, data.norms, status, errors, helpful)
    valid = usable(info.status)
    lam = jnp.where(valid, ritz.values[:k], jnp.nan)
    x = jnp.where(valid, ritz.vectors[:, :k], jnp.nan)
    tol = _derivative_tolerance(info.error_bounds, info.gap, info.cut)
    tol = jnp.where(jnp.isnan(inputs.derivative_tol), tol, inputs.derivative_tol)
    data = data._replace(tol=tol)
    mx = None if m is None else jnp.where(valid, ritz.MX[:, :k], jnp.nan)
    forward = derivative_rules.ForwardResult(
        data, mx, info.clusters, cut, info.status == Status.CONVERGED
    )
    return Solved(a, m, lam, x, info, forward)


def _derivative_tolerance(bounds: Array, gap: Array, cut: Array) -> Array:
    """A tenth of the eigenvectors' own error: residual over gap, at least.

    Solving further gains nothing: the gradient inherits that error anyway.
    """
    least = tolerances.derivative(gap.dtype)
    error = jnp.max(bounds) * blocks.reciprocal(gap)
    return jnp.where(cut, least, jnp.clip(0.1 * error, least, LOOSEST)).astype(gap.dtype)


def _refined(
    problem: Problem, rules: derivative_rules.Rules, inputs: Inputs, ritz: Ritz, data: SystemData
) -> Ritz:
    """The pairs after one more step, see `refine`."""
    k, sign = problem.k, rules.settings.sign
    values = ritz.values
    r = residuals(ritz)[:, :k]
    bounds = blocks.column_norms(r) * blocks.column_norms(ritz.vectors[:, :k])
    gap = jnp.min(jnp.abs(values[None, :k] - values[k:, None]), initial=jnp.inf)
    data = data._replace(tol=_derivative_tolerance(bounds, gap, jnp.array(False)))
    systems = Systems(
        inputs.a, inputs.m, ritz.vectors[:, :k], ritz.MX[:, :k], values[:k], data, sign
    )

    def order(theta: Array) -> Array:
        return jnp.argsort(problem.places(theta, inputs.sigma))

    return refine(ritz, systems, rules.settings.solvers, rules.settings.max_steps, order)


@functools.partial(jax.jit, static_argnums=0)
def compiled(static: tuple[Problem, derivative_rules.Rules], inputs: Inputs) -> PartialEigh:
    """Pairs with derivatives, and their account."""
    problem, rules = static
    a, m, lam, x, info, forward = solve_and_judge(problem, rules, inputs)
    if rules.whole:
        lam = jnp.diag(lam).astype(x.dtype)
    lam, x = derivative_rules.attach(rules, a, m, lam, x, forward)
    return PartialEigh(lam, x, info)
