"""Runs that end early and go on from their eigenvectors: what the interruption costs.

    python -m tests.benchmarks.resume [P1 P2 P3] [--save FILE.json | --keep]

A run that is not disturbed takes some steps. A second one, with another key, ends after half of
them, and a third starts from its vectors as `v0`, all that a process would save.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import page, report
from .base import Problem
from .ours import JaxPeig
from .problems import make
from .solvers import judge

SIZES = {"P1": 100, "P2": 24, "P3": 80}
QUICK = {"P1": 12}
TOL = 1e-8
HEADINGS = [
    "problem", "method", "steps", "matvecs", "first half", "resumed", "both / undisturbed", "right",
    "error",
]  # fmt: skip
WIDTHS = [38, 11, 6, 8, 10, 8, 18, 6, 8]


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    options = _parse(arguments)
    results = report.begin(options) | {"tol": TOL, "rows": []}
    print(report.cells(HEADINGS, WIDTHS))
    for name, size in options.sizes.items():
        for method in JaxPeig.iterations:
            results["rows"].append(interrupted(make(name, size), method))
            print(report.cells(_cells(results["rows"][-1]), WIDTHS), flush=True)
    page.finish(results, options)
    return 0


def interrupted(problem: Problem, method: str) -> dict[str, Any]:
    """A row."""
    whole = _solve(problem, method, key=0)
    steps = int(whole.info.steps)
    first = _solve(problem, method, key=1, max_steps=max(steps // 2, 1))
    saved = np.asarray(first.eigenvectors)
    resumed = _solve(problem, method, key=2, v0=jnp.asarray(saved))
    verdict = judge(problem, resumed.eigenvalues, resumed.eigenvectors)
    counts = [int(found.info.matvecs) for found in (whole, first, resumed)]
    return {
        "problem": problem.title,
        "method": method,
        "steps": steps,
        "converged_at_half": int(first.info.converged),
        "k": problem.k,
        "matvecs": counts[0],
        "first": counts[1],
        "resumed": counts[2],
        "ratio": (counts[1] + counts[2]) / counts[0],
        "right": verdict.right and int(resumed.info.converged) == problem.k,
        "error": verdict.eigenvalue_error,
    }


def _solve(problem: Problem, method: str, key: int, **options: Any) -> Any:
    import jax_peig

    A = jax_peig.BlockProduct(jax.tree_util.Partial(problem.product, jnp.asarray(problem.theta)))
    M = problem.mass_product
    return jax_peig.partial_eigh(
        A, None if M is None else jax_peig.BlockProduct(M), problem.k, which=problem.which,
        n=problem.n, dtype=jnp.float64, method=method, tol=TOL, key=jax.random.key(key), **options,
    )  # fmt: skip


def markdown(results: dict[str, Any]) -> str:
    """The table for the page."""
    return report.markdown(HEADINGS, map(_cells, results["rows"]))


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["problem"],
        row["method"],
        str(row["steps"]),
        str(row["matvecs"]),
        str(row["first"]),
        str(row["resumed"]),
        f"{row['ratio']:.2f}",
        "yes" if row["right"] else "NO",
        report.number(row["error"], ".1e"),
    ]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = report.parser("resume", __doc__, timed=False)
    parser.add_argument("problems", nargs="*", metavar="P", help="P1, P2, P3; default: all")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.problems) - set(SIZES))
    if unknown:
        parser.error(f"unknown problems {unknown}: choose from {list(SIZES)}")
    options.sizes = {name: SIZES[name] for name in options.problems or SIZES}
    if options.quick:
        options.sizes = QUICK
    return options


if __name__ == "__main__":
    sys.exit(main())
