"""What eight devices say to each other in each method, read from the compiled programs.

    python -m tests.benchmarks.collectives [--method NAME] [--save FILE.json | --keep]

The programs are those of ``tests/scale/test_collectives.py``: a chain of 4096 rows on 8 virtual
devices, whose product sends one row to either neighbour. They are compiled and not run. Both sides
of a branch count, so that the counts are bounds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

from tests.scale.test_collectives import DEVICES, STEP, WHATS, N

from . import page, record, report

HEADINGS = [
    "method", "program", "all-reduces: polynomial", "step", "once", "permutes: polynomial", "step",
    "gathers", "largest message",
]  # fmt: skip
WIDTHS = [10, 9, 23, 5, 5, 20, 5, 8, 15]
POINTWISE = ("all-reduce", "collective-permute")


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    options = _parse(arguments)
    results = report.begin(options) | {"devices": DEVICES, "n": N, "rows": []}
    print(report.cells(HEADINGS, WIDTHS))
    for method in options.method or STEP:
        for what in options.whats:
            row = {"method": method, "program": what} | counted(loops(method, what))
            results["rows"].append(row)
            print(report.cells(_cells(row), WIDTHS), flush=True)
    page.finish(results, options)
    return 0


def loops(method: str, what: str) -> list[Any]:
    """Of each loop its collectives, and whether it holds others; the first runs once."""
    flags = os.environ.get("XLA_FLAGS", "")
    flags += f" --xla_force_host_platform_device_count={DEVICES}"
    run = subprocess.run(
        [sys.executable, "-m", "tests.scale.test_collectives", method, what],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        cwd=record.HERE.parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout.splitlines()[-1])


def counted(found: list[Any]) -> dict[str, Any]:
    """The counts of a row, each the largest of all loops of its kind.

    A polynomial is an innermost loop that multiplies by A and sums nothing over the devices. All
    other loops are steps.
    """
    kinds = [[kind for kind, _ in collectives] for collectives, _ in found]
    inner = [
        one
        for one, (_, holds_others) in zip(kinds, found, strict=True)
        if not holds_others and "all-reduce" not in one and one
    ]
    once, *steps = [one for one in kinds if one not in inner]

    def most(kind: str, group: list[list[str]]) -> int:
        return max((one.count(kind) for one in group), default=0)

    return {
        "once": once.count("all-reduce"),
        "polynomials": len(inner),
        "polynomial": {kind: most(kind, inner) for kind in POINTWISE},
        "step": {kind: most(kind, steps) for kind in POINTWISE},
        "others": sum(kind not in POINTWISE for one in kinds for kind in one),
        "largest": max(size for collectives, _ in found for _, size in collectives),
    }


def markdown(results: dict[str, Any]) -> str:
    """The table for the page."""
    return report.markdown(HEADINGS, map(_cells, results["rows"]))


def _cells(row: dict[str, Any]) -> list[str]:
    def inside(kind: str) -> str:
        return str(row["polynomial"][kind]) if row["polynomials"] else "-"

    return [
        row["method"],
        row["program"],
        inside("all-reduce"),
        str(row["step"]["all-reduce"]),
        str(row["once"]),
        inside("collective-permute"),
        str(row["step"]["collective-permute"]),
        str(row["others"]),
        str(row["largest"]),
    ]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = report.parser("collectives", __doc__, timed=False)
    parser.add_argument("--method", action="append", choices=STEP, help="default: all")
    options = parser.parse_args(arguments)
    options.whats = WHATS
    if options.quick:
        options.method, options.whats = ["chebyshev"], WHATS[:1]
    return options


if __name__ == "__main__":
    sys.exit(main())
