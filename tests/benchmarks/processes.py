"""One table from several fresh processes: a compiled program's time differs from one to the next.

Where a process puts its buffers and its threads, and what it compiled before, last as long as it
does. Repetitions in one process do not show that, so a row is that of the process whose time is the
median, and keeps the times of all.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from typing import Any

from . import record, report

Row = dict[str, Any]


def table(options: argparse.Namespace, **identities: Iterable[str]) -> dict[str, Any]:
    """What the command of a table finds in ``options.processes`` processes.

    Parameters
    ----------
    options : Namespace
        From a `report.parser`.
    **identities : names
        For each list of rows in the results, the entries that tell its rows apart.
    """
    begun = report.begin(options)
    runs = _repeated(f"{__package__}.{options.table}", options.alone, options.processes)
    lists = {name: joined([run[name] for run in runs], of) for name, of in identities.items()}
    return runs[0] | begun | lists | {"processes": len(runs)}


def _repeated(module: str, arguments: list[str], count: int) -> list[dict[str, Any]]:
    """What a table's command saves, from ``count`` processes one after the other.

    A peer that ends its process leaves what was saved until then; the longest results come first.
    """
    found = []
    for _ in range(count):
        with tempfile.TemporaryDirectory() as folder:
            saved = pathlib.Path(folder) / "results.json"
            command = [sys.executable, "-m", module, *arguments, "--save", str(saved)]
            subprocess.run(command, cwd=record.HERE.parents[1], check=False)
            if saved.exists():
                found.append(json.loads(saved.read_text(encoding="utf-8")))
    if not found:
        raise RuntimeError(f"{module} saved nothing in any of {count} processes")
    return sorted(found, key=lambda run: -len(run["rows"]))


def joined(runs: list[list[Row]], identity: Iterable[str]) -> list[Row]:
    """The rows of the first run, each in the process whose time is the median.

    Beside its ``seconds`` a row has ``process_seconds``, of all processes that timed it. A false
    claim in any process counts, and so does a noisy time in the process that is shown.
    """
    names = tuple(identity)
    return [_median([r for run in runs for r in run if _same(r, row, names)]) for row in runs[0]]


def _same(one: Row, other: Row, names: tuple[str, ...]) -> bool:
    return all(one[name] == other[name] for name in names)


def _median(rows: list[Row]) -> Row:
    timed = sorted((row for row in rows if "seconds" in row), key=lambda row: row["seconds"])
    if not timed:
        return rows[0]
    middle = timed[(len(timed) - 1) // 2] | {"process_seconds": [row["seconds"] for row in timed]}
    if "false_claims" in middle:
        middle["false_claims"] = max(row["false_claims"] for row in timed)
    return middle
