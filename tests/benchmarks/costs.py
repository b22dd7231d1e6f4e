"""What derivatives cost beside the forward solve: time, products, compilation, memory.

    python -m tests.benchmarks.costs [P1 P2 P3 P4] [--method METHOD] [--size small|full|NUMBER]
                                     [--repeat N] [--save FILE.json | --keep]

For the rough loss L2 of a problem:

* the time of the value alone, of value and gradient, and of a Hessian-vector product (``jax.jvp``
  of the gradient), medians after warm-up;
* the seconds that each takes to trace and compile;
* memory: what XLA's own analysis says of the buffers beside arguments and results that each program
  holds at once, in blocks of n k numbers. The last column is what the gradient needs beyond the
  forward solve.

The last number is |u^T H v - v^T H u| / (|u^T H v| + |v^T H u|) for random directions u and v, the
accuracy of second derivatives as they show it themselves.
"""

from __future__ import annotations

import argparse
import functools
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import page, report
from .base import Problem
from .ours import JaxPeig
from .problems import make
from .timing import compile_ahead, measure

NAMES = ("P1", "P2", "P3", "P4")
TOL = 1e-8
WIDTHS = [7, 10, 10, 7, 7, 9, 7, 7, 8, 7, 7, 9]
HEADINGS = [
    "problem", "method", "value ms", "grad x", "hvp x", "compile s", "grad s", "hvp s", "blocks",
    "grad", "beyond", "asymmetry",
]  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns 1 when a derivative is not finite."""
    options = _parse(arguments)
    results = report.begin(options) | {"size": options.size, "rows": []}
    print(report.cells(HEADINGS, WIDTHS))
    for name in options.problems or NAMES:
        problem = make(name, options.size)
        for method in options.method or ["auto"]:
            row = {"problem": name, "method": method} | costs(problem, method, options.repeat)
            results["rows"].append(row)
            print(report.cells(_cells(row), WIDTHS), flush=True)
    page.finish(results, options)
    return int(not all(np.isfinite(row["asymmetry"]) for row in results["rows"]))


def costs(problem: Problem, method: str, repeat: int) -> dict[str, Any]:
    """Time, compile and measure the three programs of one problem."""
    solver = JaxPeig(method)
    tol = solver.first_tolerance(problem, TOL)
    w, c = jnp.asarray(problem.w), jnp.asarray(problem.c)
    theta = jnp.asarray(problem.theta)
    u, v = (_direction(seed, problem) for seed in (3, 4))

    def value(t: Any) -> Any:
        lam, X, _ = solver.solve(problem, tol, t, jax.random.key(0))
        return problem.loss("L2", lam, X, w, c)

    def product(t: Any, direction: Any) -> Any:
        return jax.jvp(jax.grad(value), (t,), (direction,))[1]

    programs = {
        "forward": (value, (theta,)),
        "grad": (jax.value_and_grad(value), (theta,)),
        "hvp": (product, (theta, v)),
    }
    row: dict[str, Any] = {}
    for name, (function, operands) in programs.items():
        compiled, row[f"{name}_compile"] = compile_ahead(function, *operands)
        row[f"{name}_blocks"] = blocks(compiled, problem)
        timing = measure(functools.partial(compiled, *operands), repeat)
        row[name], row[f"{name}_noisy"] = timing.seconds, timing.noisy
    left, right = float(jnp.sum(u * compiled(theta, v))), float(jnp.sum(v * compiled(theta, u)))
    return row | {"asymmetry": abs(left - right) / (abs(left) + abs(right))}


def blocks(compiled: Any, problem: Problem) -> float:
    """What a compiled program holds beside arguments and results, in blocks of n k numbers."""
    analysis = compiled.memory_analysis()
    return analysis.temp_size_in_bytes / (problem.n * problem.k * problem.theta.itemsize)


def _direction(seed: int, problem: Problem) -> Any:
    """A random change of theta, symmetric where that is a matrix."""
    drawn = np.random.default_rng(seed).standard_normal(problem.theta.shape)
    return jnp.asarray(drawn if problem.potential else drawn + np.swapaxes(drawn, -1, -2))


def markdown(results: dict[str, Any]) -> str:
    """The table for the page."""
    return report.markdown(HEADINGS, map(_cells, results["rows"]))


def _cells(row: dict[str, Any]) -> list[str]:
    forward = row["forward"]
    time = report.milliseconds({"seconds": forward, "noisy": row["forward_noisy"]})
    texts = [row["problem"], row["method"], time]
    texts += [f"{row[name] / forward:.2f}" for name in ("grad", "hvp")]
    texts += [f"{row[f'{name}_compile']:.1f}" for name in ("forward", "grad", "hvp")]
    texts += [f"{row[f'{name}_blocks']:.1f}" for name in ("forward", "grad")]
    texts.append(f"{row['grad_blocks'] - row['forward_blocks']:.1f}")
    return [*texts, report.number(row["asymmetry"], ".0e")]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = report.parser("costs", __doc__)
    add = parser.add_argument
    add("problems", nargs="*", metavar="P", help="P1 to P4; all of them by default")
    methods = ("auto", *JaxPeig.iterations)
    add("--method", action="append", choices=methods, help="default: auto")
    report.add_size(parser)
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.problems) - set(NAMES)):
        parser.error(f"unknown problems {unknown}: choose from {list(NAMES)}")
    if options.quick:
        options.problems, options.size, options.repeat = ["P1"], "small", 1
    return options


if __name__ == "__main__":
    sys.exit(main())
