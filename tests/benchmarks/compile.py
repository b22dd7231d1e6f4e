"""What the first call costs: seconds to trace, lower and compile, and the size of the programs.

    python -m tests.benchmarks.compile [--method METHOD] [--repeat N] [--save FILE.json | --keep]

A row is one program: the four smallest eigenvalues of a periodic chain of n sites with a potential,
given as a function of one vector, alone (value), with the gradient of a loss of the vectors (grad),
or as a Hessian-vector product (hvp). Each is compiled ``--repeat`` times, in a fresh process each,
and the median of the seconds is shown. "lowered" counts the lines of StableHLO that JAX hands to
XLA, "lines" those of the optimised program, and "fusions" its fusions. The last rows are JAX's own
solvers, on the matrix itself. The counts are exact on one version of JAX.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.sparse.linalg import lobpcg_standard

from . import page, record, report

N, K = 1000, 4
METHODS = ("dense", "chebyshev", "lobpcg", "davidson")
PEERS = ("jnp.linalg.eigh", "lobpcg_standard")
PROGRAMS = ("value", "grad", "hvp")
KINDS = (("float64", None), ("complex128", None), ("float64", "diagonal"), ("float64", "full"))
SECONDS = ("trace", "lower", "compile")
COUNTS = ("lowered", "lines", "fusions")
HEADINGS = ["solver", "dtype", "M", "program", *(f"{s} s" for s in SECONDS), *COUNTS]
WIDTHS = [16, 10, 8, 7, 7, 7, 9, 7, 6, 7]


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    options = _parse(arguments)
    if options.one:
        print(json.dumps(measured(*json.loads(options.one))))
        return 0
    results = report.begin(options) | {"n": N, "k": K, "rows": []}
    print(report.cells(HEADINGS, WIDTHS))
    for chosen in options.programs:
        row = dict(zip(("solver", "dtype", "mass", "program"), chosen, strict=True))
        found = [_in_a_process(chosen) for _ in range(options.repeat)]
        row |= {name: statistics.median(f[name] for f in found) for name in SECONDS}
        row |= {name: found[0][name] for name in COUNTS}
        results["rows"].append(row)
        print(report.cells(_cells(row), WIDTHS), flush=True)
    page.finish(results, options)
    return 0


def all_programs(methods: list[str]) -> list[tuple[str, str, str | None, str]]:
    """Every program of the table: solver, dtype, kind of M, and what is differentiated."""
    ours = [(m, *kind, p) for m in methods for kind in KINDS for p in PROGRAMS]
    peers = [(PEERS[0], "float64", None, p) for p in PROGRAMS]
    return [*ours, *peers, (PEERS[1], "float64", None, "value")]


def program(solver: str, dtype: str, mass: str | None, kind: str) -> tuple[Callable[..., Any], Any]:
    """A function to compile, and its arguments."""
    loss = functools.partial(_loss, solver, dtype, mass)
    theta = jnp.linspace(0.0, 1.0, N) ** 2
    if kind == "value":
        return loss, (theta,)
    if kind == "grad":
        return jax.value_and_grad(loss), (theta,)
    return (lambda t, v: jax.jvp(jax.grad(loss), (t,), (v,))[1]), (theta, theta)


def _loss(solver: str, dtype: str, mass: str | None, theta: Any) -> Any:
    """A sum over pairs of the potential that does not depend on their basis or phase."""
    values, vectors = _pairs(solver, dtype, mass, theta)
    return jnp.sum(values) + jnp.sum(theta**3 * jnp.sum(jnp.abs(vectors) ** 2, axis=1) ** 2)


def _pairs(solver: str, dtype: str, mass: str | None, theta: Any) -> tuple[Any, Any]:
    import jax_peig

    def product(u: Any) -> Any:
        neighbours = jnp.roll(u, 1) + jnp.roll(u, -1)
        return 2 * u - neighbours + theta.astype(u.dtype) * u

    def weighted(u: Any) -> Any:
        return (4 * u + jnp.roll(u, 1) + jnp.roll(u, -1)) / 6

    if solver in METHODS:
        M: Any = {None: None, "diagonal": 1 + theta, "full": weighted}[mass]
        return jax_peig.partial_eigh(product, M, K, n=N, dtype=dtype, method=solver)[:2]
    matrix = jax.vmap(product, in_axes=1, out_axes=1)(jnp.eye(N))
    if solver == PEERS[0]:
        w, x = jnp.linalg.eigh(matrix)
        return w[:K], x[:, :K]
    start = jax.random.normal(jax.random.key(0), (N, K), matrix.dtype)
    w, x, _ = lobpcg_standard(-matrix, start)
    return -w, x


def measured(solver: str, dtype: str, mass: str | None, kind: str) -> dict[str, Any]:
    """Trace, lower and compile a program, and count what comes out."""
    jax.config.update("jax_enable_x64", True)
    function, operands = program(solver, dtype, mass, kind)
    marks = [time.perf_counter()]

    def timed(step: Callable[..., Any], *given: Any) -> Any:
        made = step(*given)
        marks.append(time.perf_counter())
        return made

    traced = timed(jax.jit(function).trace, *operands)
    lowered = timed(traced.lower)
    compiled = timed(lowered.compile)
    seconds = [end - start for start, end in itertools.pairwise(marks)]
    return dict(zip(SECONDS, seconds, strict=True)) | counts(lowered, compiled)


def counts(lowered: Any, compiled: Any) -> dict[str, int]:
    """Lines of the program before and after XLA's optimisation, and its fusions."""
    text = compiled.as_text()
    return {
        "lowered": len(lowered.as_text().splitlines()),
        "lines": len(text.splitlines()),
        "fusions": text.count(" fusion("),
    }


def _in_a_process(chosen: tuple[str, str, str | None, str]) -> dict[str, Any]:
    """`measured` in a fresh process."""
    command = [sys.executable, "-m", "tests.benchmarks.compile", "--one", json.dumps(chosen)]
    root = record.HERE.parents[1]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def markdown(results: dict[str, Any]) -> str:
    """The table for the page."""
    return report.markdown(HEADINGS, map(_cells, results["rows"]))


def _cells(row: dict[str, Any]) -> list[str]:
    texts = [row["solver"], row["dtype"], row["mass"] or "-", row["program"]]
    texts += [f"{row[name]:.2f}" for name in SECONDS]
    return [*texts, *(str(row[name]) for name in COUNTS)]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = report.parser("compile", __doc__)
    parser.add_argument("--method", action="append", choices=METHODS, help="default: all")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a program in JSON, for a process
    options = parser.parse_args(arguments)
    options.programs = all_programs(options.method or list(METHODS))
    if options.quick:
        options.programs, options.repeat = [("dense", "float64", None, "value")], 1
    return options


if __name__ == "__main__":
    sys.exit(main())
