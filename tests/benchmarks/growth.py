"""How the cost of a forward solve grows with the order n and with the number of pairs k.

    python -m tests.benchmarks.growth [P1 P2 k] [--only TEXT] [--starts N]
                                      [--repeat N] [--processes N] [--save FILE.json | --keep]

Three series: P1 on finer and finer grids, P2 likewise, and P1 with more and more pairs. Each row is
that of ``tests.benchmarks.run`` without gradients; a series ends with the products and the time of
each solver at all its sizes, and the exponent p of the best ``cost = c size^p``. The size is n, or
k in the series over k. A k that would cut a cluster is replaced by the nearest one that does not.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np

from . import page, processes, report, run
from .ours import JaxPeig
from .peers import Primme, ScipyArpack
from .problems import make, make_near
from .rows import Settings
from .solvers import Solver

# series: (problem, grid points per axis, k or None for the problem's own)
Case = tuple[str, int, int | None]
SERIES: dict[str, list[Case]] = {
    "P1": [("P1", edge, None) for edge in (50, 100, 200)],
    "P2": [("P2", edge, None) for edge in (16, 24, 32)],
    "k": [("P1", 100, k) for k in (4, 8, 16, 32)],
}
# The smallest are dense for "auto".
QUICK: dict[str, list[Case]] = {
    "P1": [("P1", edge, None) for edge in (12, 24)],
    "P2": [("P2", edge, None) for edge in (8, 10)],
    "k": [("P1", 24, k) for k in (4, 16)],
}


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns the exit status, as `run.main` does."""
    options = _parse(arguments)
    if options.processes > 1:
        results = processes.table(options, rows=("series", "n", "k", "solver"))
    else:
        begun = report.begin(options)
        settings = report.settings(options, gradients=False)
        series = QUICK if options.quick else SERIES
        tables = []
        for name in options.series or list(series):
            tables += growth(name, series[name], settings, options.only)
        results = run.collect(begun, settings, tables)
    results["growth"] = summaries(results["rows"])
    page.finish(results, options)
    return run.exit_status(results)


def solvers(only: list[str] | None = None) -> list[Solver]:
    """jax_peig's choice, its thrifty method, and the peers that find pairs from products."""
    chosen: list[Solver] = [
        JaxPeig(),
        JaxPeig("davidson"),
        Primme("", "PRIMME_DEFAULT_MIN_TIME"),
        Primme("fewest products", "PRIMME_DEFAULT_MIN_MATVECS"),
        ScipyArpack(),
    ]
    return run.keep(chosen, only)


def growth(
    series: str, cases: list[Case], settings: Settings, only: list[str] | None = None
) -> list[dict[str, Any]]:
    """`run.table` for each case of a series, in its order; a row tells its series, n and k."""
    tables = []
    for name, size, k in cases:
        problem = make(name, size) if k is None else make_near(name, size, k)
        table = run.table(problem, solvers(only), settings)
        labels = {"series": series, "n": problem.n, "k": problem.k}
        tables.append(table | {"rows": [row | labels for row in table["rows"]]})
        if k is not None and problem.k != k:
            print(f"  k = {problem.k} in place of {k}, which would cut a cluster")
    return tables


def summaries(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """`summary` of each series, printed too."""
    found = {}
    for name in dict.fromkeys(row["series"] for row in rows):
        own = [row for row in rows if row["series"] == name]
        found[name] = summary(own, "k" if name == "k" else "n")
        print(f"\n{name}: growth with {found[name]['with']} = {found[name]['sizes']}")
        for entry in found[name]["solvers"]:
            print(_line(entry))
    return found


def summary(rows: list[dict[str, Any]], label: str) -> dict[str, Any]:
    """Costs of each solver over a series, and how they grow.

    Parameters
    ----------
    rows : list of dict
        Of one series.
    label : {"n", "k"}
        What grows.

    Returns
    -------
    dict
        ``with``, ``sizes``, and under ``solvers`` one entry for each: ``products`` and ``seconds``
        (None where it did not reach the target), whether these are ``noisy``, and their exponents
        (from the iterations alone; None from fewer than two).
    """
    sizes = list(dict.fromkeys(row[label] for row in rows))
    entries = []
    for solver in dict.fromkeys(row["solver"] for row in rows):
        entry: dict[str, Any] = {"solver": solver}
        own = {row[label]: row for row in rows if row["solver"] == solver}
        reached = [own[size] if own[size]["status"] == "ok" else {} for size in sizes]
        # what LAPACK does to a small matrix is another law than an iteration's
        iterated = [{} if row.get("method") == "dense" else row for row in reached]
        for cost in ("products", "seconds"):
            entry[cost] = [row.get(cost) for row in reached]
            entry[f"{cost}_exponent"] = exponent(sizes, [row.get(cost) for row in iterated])
        entry["noisy"] = [row.get("noisy", False) for row in reached]
        entries.append(entry)
    return {"with": label, "sizes": sizes, "solvers": entries}


def exponent(sizes: list[int], costs: list[float | None]) -> float | None:
    """The p of ``cost = c size^p`` by least squares in the logarithms."""
    known = [(size, cost) for size, cost in zip(sizes, costs, strict=True) if cost]
    if len({size for size, _ in known}) < 2:
        return None
    size, cost = np.log(np.array(known, float)).T
    return float(np.polyfit(size, cost, 1)[0])


def _line(entry: dict[str, Any]) -> str:
    def shown(costs: list[float | None], scale: float) -> str:
        return " ".join("-" if c is None else f"{scale * c:.4g}" for c in costs)

    texts = [entry["solver"]]
    for cost, unit, scale in (("products", "mv", 1.0), ("seconds", "ms", 1e3)):
        p = entry[f"{cost}_exponent"]
        texts.append(
            f"{unit} {shown(entry[cost], scale)}" + ("" if p is None else f", p = {p:.2f}")
        )
    return report.cells(texts, [report.COLUMNS["solver"], 45, 45])


def markdown(results: dict[str, Any]) -> str:
    """A table for each series: times, matvecs in parentheses, and the exponents of both."""
    tables = []
    for name, found in results["growth"].items():
        problem = "P1" if name == "k" else name
        sizes = [f"{found['with']} = {size}" for size in found["sizes"]]
        headings = [f"{problem}: ms (matvecs)", *sizes, "exponent of ms", "of matvecs"]
        tables.append(report.markdown(headings, map(_cells, found["solvers"])))
    return "\n\n".join(tables)


def _cells(entry: dict[str, Any]) -> list[str]:
    found = zip(entry["seconds"], entry["products"], entry["noisy"], strict=True)
    texts = [run.time_and_matvecs(*one) for one in found]
    exponents = (entry["seconds_exponent"], entry["products_exponent"])
    texts += ["-" if p is None else f"{p:.2f}" for p in exponents]
    return [entry["solver"], *texts]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = report.parser("growth", __doc__, processes=True)
    report.add_settings(parser)
    add = parser.add_argument
    add("series", nargs="*", metavar="SERIES", help=f"{', '.join(SERIES)}; all of them by default")
    add("--only", action="append", metavar="TEXT", help="only solvers with TEXT in their names")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.series) - set(SERIES))
    if unknown:
        parser.error(f"unknown series {unknown}: choose from {list(SERIES)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
