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
from jax_peig._derivatives.systems import Fixed, Systems, guards_of
from jax_peig._diagnostics.info import account, diagnose, usable
from jax_peig._eigensolvers.convergence import Ritz, residuals
from jax_peig._eigensolvers.problem import Given, Request
from jax_peig._eigensolvers.run import solve
from jax_peig._operators.operator import Operator, asymmetry, hermitian_part

# The loosest tolerance of the derivative's systems by default.
LOOSEST = 1e-3


class Solved(NamedTuple):
    """A problem without derivatives: the pairs, their account, and what derivatives need."""

    a: Operator  # Hermitian, with derivatives
    m: Operator | None
    lam: Array
    x: Block
    info: Info
    facts: derivative_rules.Facts


def solve_and_judge(request: Request, rules: derivative_rules.Rules, given: Given) -> Solved:
    """Everything but the derivatives."""
    k = request.k
    a = hermitian_part(given.a)
    m = None if given.m is None else hermitian_part(given.m)
    # The eigensolver sees parameters without tangents, and is never differentiated.
    frozen = jax.lax.stop_gradient(given._replace(a=a, m=m))
    ritz, probe_a, probe_m, helpful = solve(request, frozen)
    if request.polish is not None:
        ritz = request.polish(frozen.a, ritz, k)
    inner = frozen.derivative_preconditioner
    fixed = Fixed(
        preconditioner=frozen.preconditioner if inner is None else inner,
        norms=(probe_a.norm, probe_m.norm),
        tol=jnp.array(0.0),
        complement=ritz.complement,
        spectrum=ritz.spectrum,
        guards=guards_of(ritz, k, (probe_a.norm, probe_m.norm)),
        op_inv=frozen.op_inv,
        sigma=frozen.sigma,
    )
    if rules.refine and k < given.a.n:
        ritz = _refined(request, rules, frozen, ritz, fixed)
        fixed = fixed._replace(guards=guards_of(ritz, k, fixed.norms))
    # An array's Hermitian part is a well-posed problem whatever the array; a product has no such.
    given_a = asymmetry(given.a, a, probe_a.norm)
    given_m = asymmetry(given.m, m, probe_m.norm)
    zero = jnp.zeros_like(probe_a.norm)
    status = diagnose(
        ritz,
        probe_a.hermiticity_error if given_a is None else zero,
        probe_m.hermiticity_error if given_m is None else zero,
        probe_a.finite & probe_m.finite,
    )
    errors = (
        probe_a.hermiticity_error if given_a is None else given_a,
        probe_m.hermiticity_error if given_m is None else given_m,
    )
    info, cut = account(request, frozen, ritz, fixed.norms, status, errors, helpful)
    valid = usable(info.status)
    lam = jnp.where(valid, ritz.values[:k], jnp.nan)
    x = jnp.where(valid, ritz.vectors[:, :k], jnp.nan)
    tol = _derivative_tolerance(info.error_bounds, info.gap, info.cut)
    tol = jnp.where(jnp.isnan(given.derivative_tol), tol, given.derivative_tol)
    fixed = fixed._replace(tol=tol)
    mx = None if m is None else jnp.where(valid, ritz.MX[:, :k], jnp.nan)
    facts = derivative_rules.Facts(fixed, mx, info.clusters, cut, info.status == Status.CONVERGED)
    return Solved(a, m, lam, x, info, facts)


def _derivative_tolerance(bounds: Array, gap: Array, cut: Array) -> Array:
    """A tenth of the eigenvectors' own error: residual over gap, at least.

    Solving further gains nothing: the gradient inherits that error anyway.
    """
    least = tolerances.derivative(gap.dtype)
    error = jnp.max(bounds) * blocks.reciprocal(gap)
    return jnp.where(cut, least, jnp.clip(0.1 * error, least, LOOSEST)).astype(gap.dtype)


def _refined(
    request: Request, rules: derivative_rules.Rules, given: Given, ritz: Ritz, fixed: Fixed
) -> Ritz:
    """The pairs after one more step, see `refine`."""
    k, sign = request.k, rules.settings.sign
    values = ritz.values
    r = residuals(ritz)[:, :k]
    bounds = blocks.column_norms(r) * blocks.column_norms(ritz.vectors[:, :k])
    gap = jnp.min(jnp.abs(values[None, :k] - values[k:, None]), initial=jnp.inf)
    fixed = fixed._replace(tol=_derivative_tolerance(bounds, gap, jnp.array(False)))
    systems = Systems(
        given.a, given.m, ritz.vectors[:, :k], ritz.MX[:, :k], values[:k], fixed, sign
    )

    def order(theta: Array) -> Array:
        return jnp.argsort(request.places(theta, given.sigma))

    return refine(ritz, systems, rules.settings.solvers, rules.settings.max_steps, order)


@functools.partial(jax.jit, static_argnums=0)
def compiled(static: tuple[Request, derivative_rules.Rules], given: Given) -> PartialEigh:
    """Pairs with derivatives, and their account."""
    request, rules = static
    a, m, lam, x, info, facts = solve_and_judge(request, rules, given)
    if rules.whole:
        lam = jnp.diag(lam).astype(x.dtype)
    lam, x = derivative_rules.attach(rules, a, m, lam, x, facts)
    return PartialEigh(lam, x, info)
