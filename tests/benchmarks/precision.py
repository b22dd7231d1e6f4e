"""A trial: the recurrence of a Chebyshev filter in float32, all that is judged in float64.

    python -m tests.benchmarks.precision [--problem NAME] [--repeat N] [--save FILE.json | --keep]

A plain filtered subspace iteration, of 16 vectors, is run to a relative residual of 1e-8 in three
forms that differ in the filter alone:

* p(A) X by its recurrence in float64;
* X p(L) + R_p, with the recurrence run on the residual R = A X - X L in float64;
* the same with the recurrence in float32: its rounding multiplies the residual, and dies with it.

Upper bounds of the spectrum are the exact norms. Nothing shows that the set is complete here: what
the package adds for that costs the same in all forms, and the gain of a whole solve is smaller.
"""

from __future__ import annotations

import functools
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import page, problems, report, timing
from .base import Problem

TARGET = 1e-8
WIDTH = 16
# The degree of the first step; it grows by as much in every further one, to that of the case. Far
# below the lowest Ritz value of a random block a high degree grows beyond what float32 holds.
FIRST_DEGREE = 20
MOST_STEPS = 60
# Name, size and degree; n is 10,000 to 1,000,000.
CASES = {
    "P1 100": ("P1", 100, 40),
    "P2 24": ("P2", 24, 16),
    "P1 316": ("P1", 316, 120),
    "P2 46": ("P2", 46, 32),
    "P2 100": ("P2", 100, 64),
}
TINY = {"P1 14": ("P1", 14, 10)}
FORMS = {
    "float64": (False, jnp.float64),
    "residual, float64": (True, jnp.float64),
    "residual, float32": (True, jnp.float32),
}
ERRORS = ("residual", "error")
HEADINGS = [
    "problem", "n", "degree", *(f"{form}: s (steps)" for form in FORMS), "gain", "residual", "error"
]  # fmt: skip
WIDTHS = [36, 8, 6, 18, 28, 28, 5, 8, 8]


class State(NamedTuple):
    """Ritz pairs of a block with their residuals."""

    x: Any  # (n, b), orthonormal
    theta: Any  # (b,), ascending
    r: Any  # A X - X diag(theta)
    worst: Any  # the largest relative residual of the wanted
    step: Any


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns 1 when a form did not reach the target."""
    options = report.parse_cases("precision", __doc__, "--problem", (CASES, TINY), arguments)
    results = report.begin(options) | {"rows": []}
    print(report.cells(HEADINGS, WIDTHS))
    for name, size, degree in options.cases.values():
        problem = problems.make(name, size)
        row = {"problem": problem.title, "n": problem.n, "degree": degree}
        for form in FORMS:
            row[form] = measured(problem, degree, form, options.repeat)
        results["rows"].append(row)
        print(report.cells(_cells(row), WIDTHS), flush=True)
    page.finish(results, options)
    reached = [row[form]["residual"] <= TARGET for row in results["rows"] for form in FORMS]
    return int(not all(reached))  # NaN did not reach it


def measured(problem: Problem, degree: int, form: str, repeat: int) -> dict[str, Any]:
    """Seconds, steps, the residual and the error of one form on one problem."""
    start = np.random.default_rng(0).standard_normal((problem.n, WIDTH))
    call, _ = timing.compile_ahead(functools.partial(solve, problem, degree, form), start)
    found = timing.measure(lambda: call(start), repeat)
    end = call(start)
    error = np.max(np.abs(end.theta[: problem.k] - problem.wanted[: problem.k])) / problem.norm
    return {
        "seconds": found.seconds, "noisy": found.noisy, "steps": int(end.step),
        "residual": float(end.worst), "error": float(error),
    }  # fmt: skip


def solve(problem: Problem, degree: int, form: str, start: Any) -> State:
    """The iteration, to the target or to the bound on its steps."""
    theta = jnp.asarray(problem.theta)

    def judged(block: Any, step: Any) -> State:
        x = _orthonormal(block)
        ax = problem.product(theta, x)
        values, c = jnp.linalg.eigh(x.T @ ax)
        x, ax = x @ c, ax @ c
        r = ax - x * values[None, :]
        lengths = jnp.linalg.norm(r[:, : problem.k], axis=0)
        return State(x, values, r, jnp.max(lengths) / problem.norm, step)

    def goes_on(state: State) -> Any:
        return (state.worst > TARGET) & (state.step < MOST_STEPS)

    def iterate(state: State) -> State:
        return judged(filtered(problem, state, degree, form), state.step + 1)

    return jax.lax.while_loop(goes_on, iterate, judged(start, 0))


def filtered(problem: Problem, state: State, degree: int, form: str) -> Any:
    """p(A) X for a scaled Chebyshev polynomial that is small from the largest Ritz value on.

    Y_{j+1} = 2 s_{j+1} / e (A - c) Y_j - s_j s_{j+1} Y_{j-1}, with s_{j+1} = 1 / (2 / s_1 - s_j),
    keeps the lowest pair at one. Of Y_j = X P_j + S_j the numbers P_j follow the same recurrence
    with A replaced by L, and S_j one with the source 2 s_{j+1} / e R P_j.
    """
    by_residual, dtype = FORMS[form]
    low, cut, upper = state.theta[0], state.theta[-1], 1.01 * problem.norm
    centre, half = (upper + cut) / 2, (upper - cut) / 2
    s_1 = half / (low - centre)
    scale = jnp.linalg.norm(state.r, axis=0) if by_residual else jnp.ones_like(state.theta)
    source = (state.r / scale[None, :]).astype(dtype)
    potential = jnp.asarray(problem.theta, dtype)

    def step(_: Any, carry: Any) -> Any:
        before, y, p_before, p, s = carry
        after = 1 / (2 / s_1 - s)
        a, b = 2 * after / half, s * after
        right = problem.product(potential, y) - centre.astype(dtype) * y
        if by_residual:
            right = right + source * p.astype(dtype)[None, :]
        new = a.astype(dtype) * right - b.astype(dtype) * before
        return y, new, p, a * (state.theta - centre) * p - b * p_before, after

    one = jnp.ones_like(state.theta)
    p_1 = (state.theta - centre) * s_1 / half
    if by_residual:
        y_0, y_1 = jnp.zeros_like(source), (s_1 / half).astype(dtype) * source
    else:
        y_0 = state.x
        y_1 = (problem.product(potential, state.x) - centre * state.x) * s_1 / half
    most = jnp.minimum(degree, FIRST_DEGREE * (state.step + 1))
    end = jax.lax.fori_loop(1, most, step, (y_0, y_1, one, p_1, s_1))
    y, p = end[1].astype(state.x.dtype), end[3]
    return state.x * p[None, :] + y * scale[None, :] if by_residual else y


def _orthonormal(block: Any) -> Any:
    """By the eigenvectors of the Gram matrix, twice."""
    for _ in range(2):
        block = block / jnp.linalg.norm(block, axis=0)[None, :]
        d, u = jnp.linalg.eigh(block.T @ block)
        block = block @ (u / jnp.sqrt(d)[None, :])
    return block


def markdown(results: dict[str, Any]) -> str:
    """The table for the page."""
    return report.markdown(HEADINGS, map(_cells, results["rows"]))


def _cells(row: dict[str, Any]) -> list[str]:
    found = [row[form] for form in FORMS]
    times = [
        f"{each['seconds']:.3g}{'~' if each['noisy'] else ''} ({each['steps']})" for each in found
    ]
    gain = min(each["seconds"] for each in found[:2]) / found[2]["seconds"]
    # NaN, which is None in JSON, is the largest.
    found = [[np.nan if e[name] is None else e[name] for e in found] for name in ERRORS]
    worst = [report.number(float(np.max(each)), ".0e") for each in found]
    return [row["problem"], str(row["n"]), str(row["degree"]), *times, f"{gain:.2f}", *worst]


if __name__ == "__main__":
    sys.exit(main())
