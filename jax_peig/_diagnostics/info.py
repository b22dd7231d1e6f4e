"""The account of a solve: residuals, bounds, estimates, clusters, gap and status, as `Info`."""

from typing import NamedTuple

import jax.numpy as jnp

from jax_peig._core import tolerances
from jax_peig._core.results import Info, Status
from jax_peig._core.types import Array
from jax_peig._diagnostics import clusters
from jax_peig._eigensolvers.convergence import Lengths, Ritz, relative_residuals, residuals
from jax_peig._eigensolvers.problem import Inputs, Problem


def diagnose(ritz: Ritz, error_a: Array, error_m: Array, finite: Array) -> Array:
    """The status of a problem that is not one of a Hermitian A and M > 0; CONVERGED otherwise."""
    limit = tolerances.hermiticity(error_a.dtype)
    found = [
        (~ritz.definite, Status.M_NOT_POSITIVE_DEFINITE),
        (error_m > limit, Status.M_NOT_HERMITIAN),
        (error_a > limit, Status.A_NOT_HERMITIAN),
        (~(finite & ritz.finite), Status.NOT_FINITE),
    ]
    status = jnp.array(int(Status.CONVERGED))
    for wrong, code in found:  # a later one explains an earlier one
        status = jnp.where(wrong, int(code), status)
    return status


def usable(status: Array) -> Array:
    """Whether there are pairs to return, converged or not."""
    unhelped = status == Status.PRECONDITIONER_NOT_POSITIVE_DEFINITE
    return (status <= Status.STAGNATED) | unhelped


class Findings(NamedTuple):
    """What is known of a problem beside its pairs."""

    norms: tuple[Array, Array]  # ||A||, ||M||
    status: Array  # see `diagnose`
    hermiticity_errors: tuple[Array, Array]  # of A and M
    helpful: Array  # the preconditioner and M_solve look positive definite


def account(problem: Problem, inputs: Inputs, ritz: Ritz, findings: Findings) -> tuple[Info, Array]:
    """All that is known of the pairs, from the pairs themselves, and which ones k cuts, (k,)."""
    norms, status, errors, helpful = findings
    k, n = problem.k, ritz.vectors.shape[0]
    # The wanted pairs and the next one; all there are where they lie on two sides.
    seen = ritz.values.shape[0] if problem.structure.interior else min(k + 1, n)
    block = residuals(ritz)
    whole = Lengths.of(block, ritz.values, ritz.vectors, norms)
    values, r = ritz.values[:seen], block[:, :seen]
    lengths = Lengths(whole.r[:seen], whole.x[:seen])
    bounds, mass_products, definite = clusters.error_bounds(values, r, lengths, inputs.m, norms)
    hermitian = status == Status.CONVERGED
    status = jnp.where(hermitian & ~definite, int(Status.M_NOT_POSITIVE_DEFINITE), status)
    valid = hermitian & definite
    reached = relative_residuals(lengths, values, norms)[:k] <= problem.tol
    converged = jnp.where(valid, jnp.sum(reached), 0)
    stopped = jnp.where(ritz.stagnated, int(Status.STAGNATED), int(Status.MAX_STEPS))
    stopped = jnp.where(helpful, stopped, int(Status.PRECONDITIONER_NOT_POSITIVE_DEFINITE))
    status = jnp.where(valid & ~((converged == k) & ritz.complete), stopped, status)
    tolerance = clusters.degeneracy_tolerance(values[:k], problem.degeneracy_tol)
    beyond = jnp.abs(values[:k, None] - values[None, k:])
    # A further guard vector that has not converged is not a copy of a wanted pair: the first would
    # be one too. Its bound would link everything.
    vague = bounds[k + 1 :] > 0.1 * jnp.min(beyond[:, 1:], axis=0, initial=jnp.inf)
    radii = bounds.at[k + 1 :].set(jnp.where(vague, 0, bounds[k + 1 :]))
    labels = clusters.cluster_labels(values, jnp.maximum(radii, tolerance / 2))
    cut = jnp.any(labels[:k, None] == labels[None, k:], axis=1)
    places = problem.places(ritz.values, inputs.sigma)
    rounding = clusters.rounding(values[:k], norms) * lengths.x[:k]
    estimates = clusters.error_estimates(places, ritz.vectors, block, whole, bounds[:k], rounding)
    info = Info(
        converged=converged,
        residual_norms=lengths.r[:k],
        error_bounds=bounds[:k],
        error_estimates=estimates,
        steps=ritz.steps,
        matvecs=ritz.matvecs,
        matvecs_M=ritz.matvecs_M + mass_products,
        status=status,
        clusters=labels[:k],
        gap=jnp.min(beyond, initial=jnp.inf),
        cut=jnp.any(cut),
        hermiticity_error=errors[0],
        hermiticity_error_M=errors[1],
        preconditioner_definite=helpful,
        MX=None if inputs.m is None else ritz.MX[:, :k],
        history=ritz.history if problem.monitor.rows else None,
        method=problem.method.name,
        reason=problem.reason,
    )
    return info, cut
