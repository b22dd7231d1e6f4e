"""The account of a solve: residuals, bounds, estimates, clusters, gap and status, as `Info`."""

from typing import NamedTuple

import jax.numpy as jnp

from jax_peig._core import tolerances
from jax_peig._core.results import Info
from jax_peig._core.status import WITH_PAIRS, Status
from jax_peig._core.types import Array, Block
from jax_peig._diagnostics.clusters import find_clusters
from jax_peig._diagnostics.error_bounds import (
    ErrorBounds,
    error_bounds,
    error_estimates,
    rounding,
)
from jax_peig._factorizations.store import UNKNOWN
from jax_peig._operators.operator import Operator
from jax_peig._problem.convergence import Lengths, Ritz, relative_residuals, residuals
from jax_peig._problem.problem import HelperCheck, Inputs, Problem


class Findings(NamedTuple):
    """Findings about a problem beside its pairs."""

    norms: tuple[Array, Array]  # ||A||, ||M||
    status: Array  # see `diagnose`
    errors: tuple["Errors", "Errors"]  # of A and M, as info tells them
    helpers: HelperCheck


class Errors(NamedTuple):
    """How far an operator is from a Hermitian matrix, relative to its norm."""

    hermiticity: Array
    linearity: Array


def diagnose(ritz: Ritz, a: Errors, m: Errors, finite: Array) -> Array:
    """The status of a problem without a Hermitian A and M > 0; CONVERGED otherwise."""
    limit = tolerances.hermiticity(a.hermiticity.dtype)
    found = [
        (~ritz.definite, Status.M_NOT_POSITIVE_DEFINITE),
        (m.hermiticity > limit, Status.M_NOT_HERMITIAN),
        (m.linearity > limit, Status.M_NOT_LINEAR),
        (a.hermiticity > limit, Status.A_NOT_HERMITIAN),
        (a.linearity > limit, Status.A_NOT_LINEAR),
        (~(finite & ritz.finite), Status.NOT_FINITE),
    ]
    status = jnp.array(int(Status.CONVERGED))
    for wrong, code in found:  # a later one explains an earlier one
        status = jnp.where(wrong, int(code), status)
    return status


def usable(status: Array) -> Array:
    """Whether there are pairs to return, converged or not."""
    return jnp.any(status == jnp.array([int(s) for s in WITH_PAIRS]))


def account(
    problem: Problem, inputs: Inputs, ritz: Ritz, findings: Findings, resolution: float | None
) -> tuple[Info, Array]:
    """All that is known of the pairs, from the pairs themselves, and which ones k cuts, (k,).

    ``resolution`` is that of `find_clusters`.
    """
    k, norms = problem.k, findings.norms
    r = residuals(ritz)
    lengths = Lengths.of(r, ritz.values, ritz.vectors, norms)
    seen = _judged(problem, ritz)
    values, judged = ritz.values[:seen], Lengths(lengths.r[:seen], lengths.x[:seen])
    bounds = _bounds(ritz, r, judged, inputs.m, norms)
    relative = relative_residuals(judged, values, norms)[:k]
    if ritz.inverted is None:
        measured = problem.stopping_rule.measured(relative, values[:k], norms)
        reached = measured <= problem.tol
    else:
        reached = (relative <= problem.tol) & ritz.inverted.reached[:k]
    floor = rounding(values[:k], norms) * judged.x[:k]
    converged, status = _status(reached, ritz, findings, bounds.definite)
    clusters = find_clusters(values, bounds.distances, k, problem.degeneracy_tol, resolution)
    estimates = error_estimates(
        problem.places(ritz.values, inputs.sigma),
        ritz.vectors,
        r,
        lengths,
        bounds.distances[:k],
        floor,
    )
    info = Info(
        converged=converged,
        residual_norms=judged.r[:k],
        error_bounds=bounds.distances[:k],
        error_estimates=estimates,
        rounding=floor,
        steps=ritz.steps,
        matvecs=ritz.matvecs,
        matvecs_M=ritz.matvecs_M + bounds.matvecs_M,
        status=status,
        clusters=clusters.labels,
        gap=clusters.gap,
        cut=jnp.any(clusters.cut),
        hermiticity_error=findings.errors[0].hermiticity,
        hermiticity_error_M=findings.errors[1].hermiticity,
        linearity_error=findings.errors[0].linearity,
        linearity_error_M=findings.errors[1].linearity,
        preconditioner_definite=findings.helpers.definite,
        linearity_error_helpers=findings.helpers.linearity_error,
        solves=jnp.array(0) if ritz.inverted is None else ritz.inverted.solves,
        pole=jnp.full_like(bounds.distances[0], jnp.nan)
        if ritz.inverted is None
        else ritz.inverted.pole,
        inertia=jnp.array(UNKNOWN) if ritz.inverted is None else ritz.inverted.counted,
        MX=None if inputs.m is None else ritz.MX[:, :k],
        history=ritz.history if problem.monitor.rows else None,
        method=problem.method.name,
        reason=problem.reason,
    )
    return info, clusters.cut


def _bounds(
    ritz: Ritz, r: Block, lengths: Lengths, m: Operator | None, norms: tuple[Array, Array]
) -> ErrorBounds:
    """The bounds by a factorisation, where there is one, else by the residuals."""
    seen = lengths.r.shape[0]
    if ritz.inverted is not None and ritz.inverted.distances is not None:
        return ErrorBounds(ritz.inverted.distances[:seen], jnp.array(0), jnp.array(True))
    return error_bounds(ritz.values[:seen], r[:, :seen], lengths, m, norms)


def _judged(problem: Problem, ritz: Ritz) -> int:
    """The number of pairs that are judged: the wanted ones and the next.

    Interior pairs have neighbours on two sides, and all are judged.
    """
    if problem.structure.interior:
        return ritz.values.shape[0]
    return min(problem.k + 1, ritz.vectors.shape[0])


def _status(reached: Array, ritz: Ritz, findings: Findings, definite: Array) -> tuple[Array, Array]:
    """How many pairs converged, and the status, from which ones ``reached`` (k,) the tolerance."""
    status = findings.status
    hermitian = status == Status.CONVERGED
    status = jnp.where(hermitian & ~definite, int(Status.M_NOT_POSITIVE_DEFINITE), status)
    valid = hermitian & definite
    converged = jnp.where(valid, jnp.sum(reached), 0)
    stopped = jnp.where(ritz.stagnated, int(Status.STAGNATED), int(Status.MAX_STEPS))
    unhelped = int(Status.PRECONDITIONER_NOT_POSITIVE_DEFINITE)
    helpers = findings.helpers
    helpful = helpers.linearity_error <= tolerances.hermiticity(helpers.linearity_error.dtype)
    stopped = jnp.where(helpers.definite & helpful, stopped, unhelped)
    accurate = converged == reached.shape[0]
    stopped = jnp.where(accurate, int(Status.NOT_SHOWN_COMPLETE), stopped)
    return converged, jnp.where(valid & ~(accurate & ritz.complete), stopped, status)
