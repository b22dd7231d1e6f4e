"""The main table: jax_peig, and on request its peers, on the problems P1 to P6.

    python -m tests.benchmarks.run [P1 ...] [--peers] [--variants] [--repeat N]
                                   [--processes N] [--size small|full|NUMBER]
                                   [--save FILE.json | --keep]

Times are medians after warm-up, compile time apart (for SciPy with ILU, the set-up). Residuals and
the rightness of the set are recomputed with the SciPy matrices and the exact spectrum, gradients
compared with the exact ones; the last number of a gradient counts its backward products. Behind
the solver stands the method that it chose; "right" counts the starts that gave the right set.
Ratios compare solvers of the same run. What a peer cannot do, or does wrongly, stays in the table:
"!" marks a residual above the target or a set not right from every start, "~" a time taken while
the machine was busy. With ``--processes`` a row is that of the median process, and the fastest and
the slowest time stand behind.

``README.md`` beside this file lists all tables.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
from typing import Any

from . import page, processes, record, report
from .base import Problem
from .ours import JaxPeig
from .peers import all_peers
from .problems import FULL_SIZES, make
from .rows import Settings, bench, describe
from .solvers import Solver


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns the exit status.

    The status is 1 when a row of jax_peig failed, missed the target or claimed a wrong set.
    """
    options = _parse(arguments)
    if options.processes > 1:
        return exit_status(_over_processes(options))
    begun = report.begin(options)
    settings = report.settings(options, gradients=not options.no_gradients)
    parts, results = [], {}
    for name in options.problems or sorted(FULL_SIZES):
        solvers = _solvers(options.peers, options.variants, options.only)
        parts.append(table(make(name, options.size), solvers, settings))
        results = collect(begun, settings, parts) | {"size": options.size}
        page.finish(results, options)  # each time: a peer may end the whole process
    return exit_status(results)


def _over_processes(options: argparse.Namespace) -> dict[str, Any]:
    """The table of the median of several processes, written where the options say."""
    results = processes.table(options, rows=("problem", "solver"))
    of_each = itertools.groupby(results["rows"], key=lambda row: row["problem"])
    results["ratios"] = [ratio for _, rows in of_each for ratio in ratios(list(rows))]
    page.finish(results, options)
    return results


def table(problem: Problem, solvers: list[Solver], settings: Settings) -> dict[str, Any]:
    """Run solvers on a problem, printing each row when it is there.

    Ratios are printed for the first solver of jax_peig alone, and kept for all.

    Returns
    -------
    dict
        ``problem``, ``rows`` and ``ratios``, ready for JSON.
    """
    described = describe(problem, settings.gradients)
    print("\n" + report.title(described))
    print(report.cells(list(report.COLUMNS), report.COLUMNS.values()))
    rows = []
    for solver in solvers:
        rows.append(bench(solver, problem, settings))
        print(report.line(rows[-1]), flush=True)
    found = ratios(rows)
    for ratio in found:
        if ratio["solver"] == found[0]["solver"]:
            print(report.ratio_line(ratio))
    return {"problem": described, "rows": rows, "ratios": found}


def collect(
    begun: dict[str, Any], settings: Settings, parts: list[dict[str, Any]]
) -> dict[str, Any]:
    """Join what `table` returned for several problems, under ``problems``, ``rows``, ``ratios``."""
    return begun | {
        "settings": dataclasses.asdict(settings),
        "problems": [part["problem"] for part in parts],
        "rows": [row for part in parts for row in part["rows"]],
        "ratios": [ratio for part in parts for ratio in part["ratios"]],
    }


def _solvers(peers: bool, variants: bool, only: list[str] | None) -> list[Solver]:
    chosen: list[Solver] = [JaxPeig()]
    if variants:
        chosen += [JaxPeig(method) for method in JaxPeig.iterations]
        chosen += [JaxPeig(form="vector")]
    if peers:
        chosen += all_peers()
    return keep(chosen, only)


def keep(solvers: list[Solver], only: list[str] | None) -> list[Solver]:
    """Those whose names contain one of the texts, ignoring case; all without texts."""
    if not only:
        return solvers
    return [s for s in solvers if any(text.lower() in s.name.lower() for text in only)]


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each peer's time over jax_peig's, in the rows of one problem.

    A ratio with something that missed the target is kept and marked.
    """
    timed = [row for row in rows if "seconds" in row]
    ours = [row for row in timed if row["solver"].startswith("jax_peig")]
    theirs = [row for row in timed if not row["solver"].startswith("jax_peig")]
    found = []
    for own in ours:
        for peer in theirs:
            entry = {
                "problem": own["problem"],
                "solver": own["solver"],
                "peer": peer["solver"],
                "forward": peer["seconds"] / own["seconds"],
                "both_reached": own["status"] == peer["status"] == "ok",
                "noisy": own["noisy"] or peer["noisy"],
            }
            if own["products"] and peer["products"]:
                entry["products"] = peer["products"] / own["products"]
            for loss in ("L1", "L2"):
                pair = [row.get("gradients", {}).get(loss, {}) for row in (own, peer)]
                if all("seconds" in gradient for gradient in pair):
                    entry[loss] = pair[1]["seconds"] / pair[0]["seconds"]
                    entry[f"{loss}_both_finite"] = all(g["status"] == "ok" for g in pair)
            found.append(entry)
    return found


def exit_status(results: dict[str, Any]) -> int:
    """1 when a row of jax_peig failed, missed the target or claimed a wrong set; else 0."""
    ours = [row for row in results["rows"] if row["solver"].startswith("jax_peig")]
    return int(any(_is_bad(row) for row in ours))


def _is_bad(row: dict[str, Any]) -> bool:
    if row["status"].startswith("not run"):
        return False
    gradients = row.get("gradients", {}).values()
    return (
        row["status"] != "ok"
        or row["false_claims"] > 0
        or any(gradient["status"] != "ok" for gradient in gradients)
    )


# ---------------------------------------------------------------- Markdown


def markdown(results: dict[str, Any]) -> str:
    """A table for each problem."""
    made = results["settings"]
    parts = [
        f"Target: a relative residual of {made['target']:g} from {made['starts']} starts; "
        f"{made['repeat']} repetitions; problem size: {results['size']}."
    ]
    for problem in results["problems"]:
        rows = [row for row in results["rows"] if row["problem"] == problem["problem"]]
        table = report.markdown(list(report.COLUMNS), map(report.texts, rows))
        parts += [f"**{report.title(problem)}**", table]
    return "\n\n".join(parts)


def summary(results: dict[str, Any]) -> str:
    """A row for each problem: the time of method "auto" beside that of the fastest peer.

    Only peers count that reached the target from every start.
    """
    headings = ["problem", "n", "k", "jax_peig: ms (matvecs)", "fastest peer", "its ms", "ratio"]
    rows = []
    for problem in results["problems"]:
        own, peer = _fastest(results["rows"], problem["problem"])
        text = f"{problem['problem']}: {problem['title']}"
        ratio = ""
        if own and peer:
            noisy = "~" if own["noisy"] or peer["noisy"] else ""
            ratio = f"{peer['seconds'] / own['seconds']:.2g}{noisy}"
        rows.append([
            text, str(problem["n"]), str(problem["k"]), _time(own, matvecs=True),
            peer["solver"] if peer else "none", _time(peer), ratio,
        ])  # fmt: skip
    where = record.short(results["machine"])
    target = f"{results['settings']['target']:g}"
    return (
        report.markdown(headings, rows)
        + f"\n\nRatio: time of the peer over that of jax_peig, both with relative residuals below "
        f'{target}. {where}; {results["machine"]["date"]}. "~": the machine was not quiet.'
    )


def _fastest(rows: list[dict[str, Any]], problem: str) -> tuple[Any, Any]:
    """The row of jax_peig's "auto", and that of the fastest peer; None without one."""
    good = [row for row in rows if row["problem"] == problem and row["status"] == "ok"]
    own = [row for row in good if row["solver"] == JaxPeig().name]
    peers = [row for row in good if not row["solver"].startswith(JaxPeig().name)]
    return (own[0] if own else None), min(peers, key=lambda row: row["seconds"], default=None)


def _time(row: dict[str, Any] | None, matvecs: bool = False) -> str:
    if row is None:
        return "-"
    return time_and_matvecs(row["seconds"], row["products"] if matvecs else None, row["noisy"])


def time_and_matvecs(seconds: float | None, products: int | None, noisy: bool) -> str:
    """A time in ms, and behind it the matvecs in parentheses if they were counted."""
    if seconds is None:
        return "-"
    text = report.milliseconds({"seconds": seconds, "noisy": noisy})
    return text + (f" ({products})" if products else "")


# ---------------------------------------------------------------- the command line


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = report.parser("run", __doc__, processes=True)
    report.add_settings(parser)
    add = parser.add_argument
    add("problems", nargs="*", metavar="P", help="P1 ... P6; all of them by default")
    add("--peers", action="store_true", help="run the installed peers too")
    add("--variants", action="store_true", help="run jax_peig's other methods and forms too")
    add("--only", action="append", metavar="TEXT", help="only solvers with TEXT in their names")
    add("--no-gradients", action="store_true", help="forward solves only")
    report.add_size(parser)
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.problems) - set(FULL_SIZES))
    if unknown:
        parser.error(f"unknown problems {unknown}: choose from {sorted(FULL_SIZES)}")
    if options.quick:
        options.size, options.repeat = "small", 1
    return options


if __name__ == "__main__":
    sys.exit(main())
