"""One table from several fresh processes: a compiled program's time differs from one to the next.

Where a process puts its buffers and its threads, and what it compiled before, last as long as it
does. Repetitions in one process do not show that, so a row is that of the process whose time is the
median, and keeps the times of all.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from . import record


def repeated(module: str, arguments: list[str], count: int) -> list[dict[str, Any]]:
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


def joined(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the first run, each in the process whose time is the median.

    Beside its ``seconds`` a row has ``process_seconds``, of all processes that timed it. A false
    claim in any process counts, and so does a noisy time in the process that is shown.
    """
    rows = []
    for first in runs[0]["rows"]:
        same = [row for run in runs for row in run["rows"] if _key(row) == _key(first)]
        timed = sorted((row for row in same if "seconds" in row), key=lambda row: row["seconds"])
        if not timed:
            rows.append(first)
            continue
        middle = timed[(len(timed) - 1) // 2]
        rows.append(
            middle
            | {
                "process_seconds": [row["seconds"] for row in timed],
                "false_claims": max(row["false_claims"] for row in timed),
            }
        )
    return rows


def _key(row: dict[str, Any]) -> tuple[str, str]:
    return row["problem"], row["solver"]
