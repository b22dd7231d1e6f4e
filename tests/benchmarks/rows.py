"""One row of the table: one solver on one problem, tried, judged and timed.

Solvers mean different things by their tolerance. To compare them at the same accuracy, each is
given the loosest tolerance, on a ladder of sqrt(10), at which the judge finds the residual below
the target and the set right from every start. What never gets there keeps its row, and says so.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import jax

from .base import Problem
from .references import backward_products
from .solvers import Forward, Judgement, Solver, gradient_error, judge
from .timing import measure

STEP = math.sqrt(10.0)
TIGHTER, LOOSER = 6, 4  # rungs at most, below and above the first tolerance
PATIENCE = 4.0  # seconds: a slower call is tried from one start, and not loosened


@dataclass(frozen=True)
class Settings:
    """How a row is made; the same for all solvers of a table.

    Attributes
    ----------
    target : float
        Relative residual ``||A x - lam M x|| / (||A|| ||x||)`` to be reached.
    starts : int
        Starting vectors that must all give the right set.
    repeat : int
        Repetitions in one round of timing.
    slow : bool
        Whether to run what a solver calls slow.
    gradients : bool
        Whether to time the value and gradient of L1 and L2 too.
    """

    target: float = 1e-8
    starts: int = 3
    repeat: int = 7
    slow: bool = False
    gradients: bool = True


@dataclass(frozen=True)
class Trial:
    """A solver at one tolerance, from one or more starts.

    Attributes
    ----------
    tol : float
        In the solver's own meaning.
    good : bool
        Whether every start reached the target and the right set.
    right, starts : int
        How many starts gave the right set, out of how many tried.
    false_claims : int
        How many starts gave a wrong set, the solver saying that it converged.
    worst : Judgement
        That of the start with the largest residual, wrong sets first.
    seconds : float
        One call, for planning.
    forward : Forward
        That of the first start, to be timed.
    output : object
        What its call returned.
    """

    tol: float
    good: bool
    right: int
    starts: int
    false_claims: int
    worst: Judgement
    seconds: float
    forward: Forward
    output: Any


def attempt(solver: Solver, problem: Problem, tol: float, starts: int, target: float) -> Trial:
    """Run and judge a solver at one tolerance; stop at the first bad start."""
    judged, first, false_claims, seconds = [], None, 0, 0.0
    for start in range(starts):
        forward = solver.forward(problem, tol, start)
        begin = time.perf_counter()
        output = jax.block_until_ready(forward.call())
        seconds = time.perf_counter() - begin
        verdict = judge(problem, *forward.pairs(output))
        judged.append(verdict)
        if forward.claim is not None and forward.claim(output) and not verdict.right:
            false_claims += 1
        if first is None:
            first = (forward, output)
        if seconds > PATIENCE or not _reached(verdict, target):
            break
    assert first is not None
    return Trial(
        tol=tol,
        good=all(_reached(verdict, target) for verdict in judged),
        right=sum(verdict.right for verdict in judged),
        starts=len(judged),
        false_claims=false_claims,
        worst=max(judged, key=lambda v: (not v.right, _or_inf(v.residual))),
        seconds=seconds,
        forward=first[0],
        output=first[1],
    )


def settle(
    solver: Solver, problem: Problem, target: float, starts: int
) -> tuple[Trial, list[Trial]]:
    """The loosest tolerance at which the solver is good; its closest approach if there is none.

    Returns
    -------
    (Trial, list of Trial)
        That one, and all that were tried.
    """
    trial = attempt(solver, problem, solver.first_tolerance(problem, target), starts, target)
    tried = [trial]
    if trial.good:
        for _ in range(LOOSER):
            if trial.worst.residual > target / STEP or trial.seconds > PATIENCE:
                break
            looser = attempt(solver, problem, trial.tol * STEP, starts, target)
            tried.append(looser)
            # a direct solver, or one that knows no better, does not listen to its tolerance
            if not looser.good or looser.worst.residual < 2.0 * trial.worst.residual:
                break
            trial = looser
        return trial, tried
    for _ in range(TIGHTER):
        if trial.seconds > 4.0 * PATIENCE:
            break
        trial = attempt(solver, problem, trial.tol / STEP, starts, target)
        tried.append(trial)
        if trial.good:
            return trial, tried
    return min(tried, key=lambda t: (not t.worst.right, _or_inf(t.worst.residual))), tried


def bench(solver: Solver, problem: Problem, settings: Settings) -> dict[str, Any]:
    """Try, judge and time a solver on a problem.

    Returns
    -------
    dict
        For JSON. ``status`` is ``"ok"``, ``"not run: ..."``, ``"failed: ..."`` or
        ``"not reached"``; numbers are those of the judge and the clock.
    """
    row: dict[str, Any] = {"problem": problem.name, "solver": solver.name}
    skipped = solver.unavailable() or solver.unsuited(problem)
    if skipped is None and solver.slow(problem) and not settings.slow:
        skipped = "slow: give --slow"
    if skipped is not None:
        return row | {"status": f"not run: {skipped}"}
    try:
        trial, tried = settle(solver, problem, settings.target, settings.starts)
        row |= _forward_entries(trial, problem, settings.repeat)
        row["false_claims"] = sum(each.false_claims for each in tried)
    except Exception as error:  # the failure of a peer is a result
        return row | {"status": failure(error)}
    if settings.gradients and solver.differentiable:
        row["gradients"] = {
            loss: _gradient_entries(solver, problem, loss, trial, row["seconds"], settings.repeat)
            for loss in ("L1", "L2")
        }
    return row


def _forward_entries(trial: Trial, problem: Problem, repeat: int) -> dict[str, Any]:
    forward = trial.forward
    timing = measure(forward.call, repeat)
    return {
        "status": "ok" if trial.good else "not reached",
        "method": None if forward.method is None else forward.method(trial.output),
        "tol": trial.tol,
        "residual": trial.worst.residual,
        "right": trial.worst.right,
        "right_starts": [trial.right, trial.starts],
        "eigenvalue_error": trial.worst.eigenvalue_error,
        "orthonormality": trial.worst.orthonormality,
        "products": None if forward.matvecs is None else forward.matvecs(trial.output),
        "seconds": timing.seconds,
        "best_seconds": timing.best,
        "spread": timing.spread,
        "slowdown": timing.slowdown,
        "noisy": timing.noisy,
        "compile_seconds": forward.compile_seconds,
        "expected_gradient_error": problem.expected_gradient_error(trial.worst.residual),
    }


def _gradient_entries(
    solver: Solver, problem: Problem, loss: str, trial: Trial, forward_seconds: float, repeat: int
) -> dict[str, Any]:
    try:
        prepared = solver.value_and_grad(problem, loss, trial.tol, start=0)
        error = gradient_error(problem, loss, prepared.gradient(prepared.call()))
        timing = measure(prepared.call, repeat)
        count = prepared.backward_products
        matvecs = None if count is None else count()
    except Exception as error:
        return {"status": failure(error)}
    return {
        "status": "ok" if math.isfinite(error) else "not finite",
        "error": error,
        "seconds": timing.seconds,
        "over_forward": timing.seconds / forward_seconds,
        "noisy": timing.noisy,
        "compile_seconds": prepared.compile_seconds,
        "backward_products": matvecs,
    }


def describe(problem: Problem, gradients: bool = True) -> dict[str, Any]:
    """What the table says of a problem before its rows, for JSON; of gradients only if asked."""
    return {
        "problem": problem.name,
        "title": problem.title,
        "size": problem.size,
        "n": problem.n,
        "k": problem.k,
        "which": problem.which,
        "relative_gap": problem.gap * problem.mass_norm / problem.norm,
        "backward_products_of_deflated_cg": backward_products(problem) if gradients else None,
    }


def _reached(verdict: Judgement, target: float) -> bool:
    return verdict.right and verdict.residual <= target


def _or_inf(residual: float) -> float:
    return residual if math.isfinite(residual) else math.inf


def failure(error: Exception) -> str:
    """What a row says of a solver that raised."""
    text = " ".join(str(error).split())
    return f"failed: {type(error).__name__}: {text[:160]}"
