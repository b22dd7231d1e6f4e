"""Warm starts: what a solve costs that begins with the eigenvectors of a nearby problem.

    python -m tests.benchmarks.warm [P1 P2 P3] [--tol TOL] [--steps N] [--method METHOD]
                                    [--size small|full|NUMBER] [--save FILE.json | --keep]

A sweep of N steps, each of which changes the operator by one per cent, in one of three ways:

* ``potential``: a field, half smooth and half noise, is added to the diagonal, with a maximum of
  one per cent of the k-th eigenvalue (with M, of that times the mean lumped mass). P1 and P3 begin
  with a smooth potential as large as the k-th eigenvalue, symmetric, so that the first step splits
  pairs; P2 with its own, whose shells it splits.
* ``coefficients``: A -> D A D with D^2 = 1 + s, s smooth, |s| <= 0.01: each a_ij by a per cent.
* ``noise``: the same with s noise, the harshest: eigenvectors get rough parts.

Every step is solved cold, from a random block, and warm, from the vectors that the warm solve of
the step before returned. Products are those that `partial_eigh` counts, its probes included. The
ratios are warm over cold: of the products of the whole sweep, of its worst step, of the times. The
goal is 0.5. Sets are judged by shift-invert ARPACK on the changed SciPy matrices.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from . import page, report
from .base import EXTRA, Problem
from .ours import JaxPeig
from .problems import make
from .rows import failure
from .solvers import judge
from .timing import measure

AXES = {"P1": 2, "P2": 3, "P3": 2}
CHANGES = ("potential", "coefficients", "noise")
PERCENT = 0.01
GOAL = 0.5
WIDTHS = [7, 13, 11, 9, 9, 7, 7, 9, 9, 7, 9]
HEADINGS = [
    "problem", "change", "method", "cold mv", "warm mv", "ratio", "worst", "cold ms", "warm ms",
    "ratio", "right",
]  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns 1 when a row failed, missed the goal or a set."""
    options = _parse(arguments)
    results = report.begin(options) | {"tol": options.tol, "size": options.size, "rows": []}
    print(f"tol = {options.tol:g}, {options.steps} steps\n{report.cells(HEADINGS, WIDTHS)}")
    for name in options.problems or list(AXES):
        for change in options.change or CHANGES:
            problems = sweep(make(name, options.size), change, options.steps)
            for method in options.method or JaxPeig.iterations:
                row = compare(problems, method, options.tol, options.repeat)
                results["rows"].append({"problem": name, "change": change} | row)
                print(report.cells(_cells(results["rows"][-1]), [*WIDTHS, 0]), flush=True)
    page.finish(results, options)
    return int(any(_is_bad(row) for row in results["rows"]))


def sweep(base: Problem, change: str, steps: int) -> list[Problem]:
    """The problem to begin with and those of all steps: one program serves them all.

    Parameters
    ----------
    base : Problem
        P1, P2 or P3.
    change : {"potential", "coefficients", "noise"}
    steps : int

    Returns
    -------
    list of Problem
        steps + 1 of them. theta is the potential, or 1 + s; ``wanted`` and ``vectors`` are
        those of each.
    """
    rng = np.random.default_rng(7)
    lumped = 1.0 if base.mass is None else float(base.mass.sum()) / base.n
    scale = float(base.wanted[base.k - 1]) * lumped
    draw = functools.partial(_field, base, rng)
    if change == "potential":
        theta, product = base.theta, base.product
        if not theta.any():
            theta = scale * _symmetric(base)
        thetas = [theta]
        for _ in range(steps):
            thetas.append(thetas[-1] + PERCENT * scale * (draw(0.0) + draw(1.0)) / 2.0)
    else:
        thetas, product = [np.ones(base.n)], _scaled(base)
        for _ in range(steps):
            thetas.append(thetas[-1] * (1.0 + PERCENT * draw(float(change == "noise"))))
    return [_exact(base, theta, product, change) for theta in thetas]


def _scaled(base: Problem) -> Callable[[Any, Any], Any]:
    """``product(theta, x) = D A D x`` with D^2 = theta and the base's A."""

    def product(theta: Any, x: Any) -> Any:
        root = jnp.sqrt(theta).reshape((-1,) + (1,) * (x.ndim - 1))
        return root * base.product(jnp.asarray(base.theta), root * x)

    return product


def _field(base: Problem, rng: np.random.Generator, noise: float) -> np.ndarray:
    """A field (n,) of maximum 1: a few long waves, or noise."""
    if noise:
        field = rng.standard_normal(base.n)
    else:
        axes = AXES[base.name]
        line = np.linspace(0.0, 1.0, base.size)
        field = np.zeros(base.n)
        for _ in range(4):
            waves = [
                np.cos(2.0 * np.pi * (rng.random() * line + rng.random())) for _ in range(axes)
            ]
            field = field + functools.reduce(np.multiply.outer, waves).ravel()
    return field / np.abs(field).max()


def _symmetric(base: Problem) -> np.ndarray:
    """A smooth bump (n,) that keeps the symmetry of the square, and with it the pairs."""
    wave = np.sin(np.linspace(0.0, np.pi, base.size)) ** 2
    return functools.reduce(np.multiply.outer, [wave] * AXES[base.name]).ravel()


def _exact(base: Problem, theta: np.ndarray, product: Any, change: str) -> Problem:
    """The base problem with another theta and product, and its pairs by shift-invert ARPACK."""
    if change == "potential":
        matrix = base.matrix + sp.diags_array(theta - base.theta)
    else:
        root = sp.diags_array(np.sqrt(theta))
        matrix = root @ base.matrix @ root
    count = base.k + EXTRA
    mass = None if base.mass is None else base.mass.tocsc()
    start = np.random.default_rng(8).standard_normal(base.n)
    values, vectors = spla.eigsh(
        matrix.tocsc(), count, M=mass, sigma=0.0, v0=start, tol=0, ncv=4 * count
    )
    return dataclasses.replace(
        base, theta=theta, product=product, matrix=matrix.tocsr(), wanted=values,
        vectors=vectors[:, : base.k],
    )  # fmt: skip


def compare(problems: list[Problem], method: str, tol: float, repeat: int = 3) -> dict[str, Any]:
    """Solve a sweep cold and warm by one method.

    Returns
    -------
    dict
        For JSON: ``method``, ``status``, and unless it failed, for ``cold`` and ``warm`` each the
        ``products`` of all steps, ``seconds``, ``noisy``, ``right`` and ``converged`` (steps) and
        the largest ``residual``; and ``ratio`` and ``worst_ratio`` of products, ``time_ratio``.
    """
    row: dict[str, Any] = {"method": method, "steps": len(problems) - 1}
    solver = JaxPeig(method)
    try:
        fresh, _ = solver.program(problems[0], tol)
        begun, _ = solver.program(problems[0], tol, warm=True)
        keys = [jax.random.key(step) for step in range(len(problems))]
        calls = [(jnp.asarray(p.theta), key) for p, key in zip(problems, keys, strict=True)]
        vectors, starts = fresh(*calls[0]).eigenvectors, []
        for call in calls[1:]:
            starts.append(vectors)
            vectors = begun(*call, vectors).eigenvectors
        arguments = {
            "cold": [(fresh, call) for call in calls[1:]],
            "warm": [(begun, (*call, v)) for call, v in zip(calls[1:], starts, strict=True)],
        }
        for way, solves in arguments.items():
            row[way] = _run(problems[1:], solves, repeat)
    except Exception as error:
        return row | {"status": failure(error)}
    cold, warm = row["cold"], row["warm"]
    ratios = np.array(warm["products"]) / np.array(cold["products"])
    return row | {
        "status": "ok",
        "ratio": sum(warm["products"]) / sum(cold["products"]),
        "worst_ratio": float(ratios.max()),
        "time_ratio": warm["seconds"] / cold["seconds"],
    }


def _run(problems: list[Problem], solves: list[Any], repeat: int) -> dict[str, Any]:
    def run() -> list[Any]:
        return [program(*arguments) for program, arguments in solves]

    found = run()
    verdicts = [
        judge(problem, np.asarray(one.eigenvalues), np.asarray(one.eigenvectors))
        for problem, one in zip(problems, found, strict=True)
    ]
    timing = measure(run, repeat)
    return {
        "products": [int(one.info.matvecs) for one in found],
        "seconds": timing.seconds,
        "noisy": timing.noisy,
        "right": sum(verdict.right for verdict in verdicts),
        "converged": sum(int(one.info.status) == 0 for one in found),
        "residual": max(verdict.residual for verdict in verdicts),
    }


def markdown(results: dict[str, Any]) -> str:
    """The table for the page."""
    return report.markdown([*HEADINGS, ""], map(_cells, results["rows"]))


def _cells(row: dict[str, Any]) -> list[str]:
    """Under `HEADINGS`, and one more cell for what went wrong."""
    texts = [row["problem"], row["change"], row["method"]]
    if row["status"] != "ok":
        return [*texts, *[""] * (len(HEADINGS) - len(texts)), row["status"]]
    cold, warm = row["cold"], row["warm"]
    texts += [str(sum(one["products"])) for one in (cold, warm)]
    texts += [f"{row['ratio']:.2f}", f"{row['worst_ratio']:.2f}"]
    texts += [report.milliseconds(one) for one in (cold, warm)]
    texts += [f"{row['time_ratio']:.2f}", f"{warm['right']}/{row['steps']}"]
    remarks = []
    for way in ("cold", "warm"):
        for good, text in (("converged", "NOT CONVERGED"), ("right", "WRONG")):
            if missed := row["steps"] - row[way][good]:
                remarks.append(f"{way}: {missed} {text}")
    remarks += ["above the goal"] if row["ratio"] > GOAL else []
    return [*texts, ", ".join(remarks)]


def _is_bad(row: dict[str, Any]) -> bool:
    if row["status"] != "ok" or row["ratio"] > GOAL:
        return True
    return any(row[way]["right"] < row["steps"] for way in ("cold", "warm"))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = report.parser("warm", __doc__)
    add = parser.add_argument
    add("problems", nargs="*", metavar="P", help="P1, P2, P3; all of them by default")
    report.add_size(parser)
    add("--tol", type=float, default=1e-8, help="of partial_eigh (default: 1e-8)")
    add("--steps", type=int, default=10, metavar="N", help="of the sweep (default: 10)")
    add("--method", action="append", choices=JaxPeig.iterations, help="all of them by default")
    add("--change", action="append", choices=CHANGES, help="all of them by default")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.problems) - set(AXES))
    if unknown:
        parser.error(f"unknown problems {unknown}: choose from {list(AXES)}")
    if options.quick:
        options.size, options.steps, options.repeat = "small", 2, 1
    return options


if __name__ == "__main__":
    sys.exit(main())
