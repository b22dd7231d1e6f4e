"""What "auto" chooses for the smallest pairs of known matrices, beside the fastest method.

    python -m tests.benchmarks.choice [--matrix NAME] [--repeat N] [--save FILE.json | --keep]

A row is one matrix of `matrices.py`, its six smallest pairs at the default tolerance. The methods
that run are those that "auto" can choose: "shift_invert", and "chebyshev" or, with an M that is
not diagonal, "lobpcg". The list was fixed first. The rule was then made without a look at twelve of
them, which a fixed seed drew and "*" marks. The seconds are those of a compiled call; those of
"shift_invert" begin with the factorisation. Each method has a bound on its steps, and ">" stands
before the seconds of one that did not converge within it. The seconds of the choice itself, which
is made outside of ``jit``, count for "auto".
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.support import finite_elements
from tests.support.choices import chosen

from . import matrices, page, report, timing

PAIRS = 6
MAX_STEPS = {"dense": None, "chebyshev": 25, "lobpcg": 300, "shift_invert": 250}
HEADINGS = [
    "matrix", "n", "entries", "norm / w_6", "auto", "choice ms", "dense s", "chebyshev s",
    "lobpcg s", "shift_invert s", "difference", "auto / best",
]  # fmt: skip
WIDTHS = [26, 6, 8, 10, 12, 9, 8, 11, 9, 14, 10, 11]
QUICK = {"line 600": lambda: (finite_elements.laplacian(600), None)}


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    options = _parse(arguments)
    results = report.begin(options) | {"rows": [], "absent": []}
    print(report.cells(HEADINGS, WIDTHS))
    for name, make in options.matrices.items():
        try:
            A, M = make()
        except FileNotFoundError:
            results["absent"].append(name)
            continue
        results["rows"].append(measured(name, A, M, options.repeat))
        print(report.cells(_cells(results["rows"][-1]), WIDTHS), flush=True)
    page.finish(results, options)
    return 0


def measured(name: str, A: Any, M: Any, repeat: int) -> dict[str, Any]:
    """A row."""
    from jax_peig.operators import from_scipy

    n = A.shape[0]
    a, m, mass = from_scipy(A), None, np.ones(n)
    diagonal = M is None or M.nnz == n
    if M is not None:
        mass = M.diagonal()
        m = jnp.asarray(mass) if diagonal else from_scipy(M)
    method, _ = chosen(a, m, PAIRS)
    seconds = timing.measure(lambda: chosen(a, m, PAIRS), repeat, budget=0.5).seconds
    ways = ("chebyshev" if diagonal else "lobpcg", "shift_invert")
    ways = ("dense",) if method == "dense" else ways
    runs = {way: _run(way, a, m, repeat) for way in ways}
    values = [run.pop("values") for run in runs.values()]
    norm = float(np.max(abs(A) @ np.ones(n)) / np.min(mass))
    right = [run["converged"] for run in runs.values()]
    best = min((run["seconds"] for run in runs.values() if run["converged"]), default=None)
    return {
        "matrix": name,
        "unseen": name in matrices.UNSEEN,
        "n": n,
        "nnz": A.nnz,
        "spread": norm / abs(values[-1][-1]),
        "method": method,
        "choice_seconds": seconds,
        "runs": runs,
        "difference": float(np.max(np.abs(values[0] - values[-1]))) / norm if all(right) else None,
        "ratio": (seconds + runs[method]["seconds"]) / best if runs[method]["converged"] else None,
    }


@functools.partial(jax.jit, static_argnames="method")
def _solve(A: Any, M: Any, method: str) -> Any:
    import jax_peig

    found = jax_peig.partial_eigh(A, M, PAIRS, method=method, max_steps=MAX_STEPS[method])
    return found.eigenvalues, found.info


def _run(method: str, A: Any, M: Any, repeat: int) -> dict[str, Any]:
    """The seconds of a call; the same program serves all matrices of one pattern."""
    from jax_peig import Status
    from jax_peig.operators import factors

    def call() -> Any:
        factors.clear()
        return _solve(A, M, method)

    w, info = jax.block_until_ready(call())  # compiles
    once = timing.run_once(call)
    taken = once if once > 1 else timing.measure(call, repeat, budget=2.0).seconds
    return {
        "seconds": taken,
        "converged": int(info.status) == Status.CONVERGED,
        "values": np.sort(np.asarray(w)),
    }


def markdown(results: dict[str, Any]) -> str:
    """The table for the page."""
    rows = results["rows"]
    lines = [report.markdown(HEADINGS, map(_cells, rows)), ""]
    for title, unseen in (("seen", False), ("unseen", True)):
        ratios = [row["ratio"] for row in rows if row["unseen"] == unseen and row["ratio"]]
        count = sum(row["unseen"] == unseen for row in rows)
        if ratios:
            lines.append(
                f"{count} {title} matrices: {len(ratios)} solved, auto / best "
                f"{statistics.median(ratios):.2f} in the median, {max(ratios):.1f} at most."
            )
    if results["absent"]:
        lines.append(f"Left out, since their files are absent: {', '.join(results['absent'])}.")
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["matrix"] + ("*" if row["unseen"] else ""),
        str(row["n"]),
        str(row["nnz"]),
        f"{row['spread']:.1e}",
        row["method"],
        f"{1e3 * row['choice_seconds']:.0f}",
        *(_seconds(row["runs"].get(way)) for way in MAX_STEPS),
        "-" if row["difference"] is None else f"{row['difference']:.0e}",
        "-" if row["ratio"] is None else f"{row['ratio']:.2f}",
    ]


def _seconds(run: dict[str, Any] | None) -> str:
    return "" if run is None else f"{'' if run['converged'] else '> '}{run['seconds']:.3f}"


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = report.parser("choice", __doc__)
    add = parser.add_argument
    add("--matrix", action="append", choices=matrices.MATRICES, help="default: all")
    options = parser.parse_args(arguments)
    names = options.matrix or matrices.MATRICES
    options.matrices = {name: functools.partial(matrices.make, name) for name in names}
    if options.quick:
        options.matrices, options.repeat = QUICK, 1
    return options


if __name__ == "__main__":
    sys.exit(main())
