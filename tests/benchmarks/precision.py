"""Chebyshev(mixed_precision=True) beside Chebyshev(), whole solves with all evidence.

    python -m tests.benchmarks.precision [--problem NAME] [--repeat N] [--save FILE.json | --keep]

Both solve to a relative residual of 1e-8, from the same start, compiled before. The gain depends on
what binds the product: memory, or the arithmetic.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_peig import BlockProduct, Chebyshev, Status, partial_eigh

from . import page, problems, report, timing
from .base import Problem

TOL = 1e-8
# Name and size; n is 10,000 to 1,000,000.
CASES = {
    "P1 100": ("P1", 100),
    "P2 24": ("P2", 24),
    "P4 1000": ("P4", 1000),
    "P5 50000": ("P5", 50_000),
    "P1 316": ("P1", 316),
    "P2 46": ("P2", 46),
    "P2 100": ("P2", 100),
}
TINY = {"P1 14": ("P1", 14)}
FORMS = {"float64": False, "mixed": True}
HEADINGS = ["problem", "n", *(f"{form}: s (matvecs)" for form in FORMS), "gain",
    "error, float64", "error, mixed",
]  # fmt: skip
WIDTHS = [40, 8, 20, 18, 5, 14, 12]


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns 1 when a solve did not converge."""
    options = report.parse_cases("precision", __doc__, "--problem", (CASES, TINY), arguments)
    results = report.begin(options) | {"rows": []}
    print(report.cells(HEADINGS, WIDTHS))
    for name, size in options.cases.values():
        problem = problems.make(name, size)
        row = {"problem": problem.title, "n": problem.n}
        row |= {form: measured(problem, mixed, options.repeat) for form, mixed in FORMS.items()}
        results["rows"].append(row)
        print(report.cells(_cells(row), WIDTHS), flush=True)
    page.finish(results, options)
    return int(not all(row[form]["converged"] for row in results["rows"] for form in FORMS))


def measured(problem: Problem, mixed: bool, repeat: int) -> dict[str, Any]:
    """Seconds, matvecs and the eigenvalues' error of one form on one problem."""
    theta, key = jnp.asarray(problem.theta), jax.random.key(0)
    call, _ = timing.compile_ahead(functools.partial(solve, problem, mixed), theta, key)
    found, end = timing.measure(lambda: call(theta, key), repeat), call(theta, key)
    error = np.max(np.abs(end.eigenvalues - problem.wanted[: problem.k])) / problem.norm
    return {
        "seconds": found.seconds, "noisy": found.noisy, "matvecs": int(end.info.matvecs),
        "converged": bool(end.info.status == Status.CONVERGED), "error": float(error),
    }  # fmt: skip


def solve(problem: Problem, mixed: bool, theta: Any, key: Any) -> Any:
    """The wanted pairs."""
    given: Any = theta
    if problem.potential:
        given = BlockProduct(jax.tree_util.Partial(problem.product, theta))
    method = Chebyshev(mixed_precision=mixed)
    return partial_eigh(
        given, k=problem.k, n=problem.n, which=problem.which, tol=TOL, method=method, key=key
    )


def markdown(results: dict[str, Any]) -> str:
    """The table for the page."""
    return report.markdown(HEADINGS, map(_cells, results["rows"]))


def _cells(row: dict[str, Any]) -> list[str]:
    found = [row[form] for form in FORMS]
    times = [
        f"{each['seconds']:.3g}{'~' if each['noisy'] else ''} ({each['matvecs']})"
        f"{'' if each['converged'] else ' not converged'}"
        for each in found
    ]
    gain = found[0]["seconds"] / found[1]["seconds"]
    errors = [report.number(each["error"], ".0e") for each in found]
    return [row["problem"], str(row["n"]), *times, f"{gain:.2f}", *errors]


if __name__ == "__main__":
    sys.exit(main())
