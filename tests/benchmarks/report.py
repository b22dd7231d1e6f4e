"""What the tables have in common: the machine, the settings of a call, lines of text, JSON."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import math
import os
import pathlib
import platform
from typing import Any

import jax

from .rows import Settings

PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "primme", "torch", "xitorch")
COLUMNS = {
    "solver": 32, "time ms": 10, "compile s": 9, "products": 8, "residual": 8, "right": 9,
    "L1: ms, x forward, error, mv": 30, "L2: ms, x forward, error, mv": 30,
}  # fmt: skip


# ---------------------------------------------------------------- the command line


def parser(module: str, doc: str | None, *, timed: bool = True) -> argparse.ArgumentParser:
    """A parser with the options that the tables share.

    Parameters
    ----------
    module, doc : str
        Of the table, for its help.
    timed : bool
        Whether the table has times, and so repetitions.
    """
    made = argparse.ArgumentParser(prog=f"python -m tests.benchmarks.{module}", description=doc)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    add = made.add_argument
    add("--quick", action="store_true", help="tiny problems, to see that everything runs")
    add("--save", type=pathlib.Path, metavar="FILE.json", help="write everything there")
    if timed:
        count = Settings.repeat
        add("--repeat", type=int, default=count, metavar="N", help=f"of a time (default: {count})")
    return made


def add_settings(made: argparse.ArgumentParser) -> None:
    """Add the options from which `settings` makes the settings of rows."""
    add = made.add_argument
    add("--slow", action="store_true", help="run peers that take minutes")
    add("--starts", type=int, default=Settings.starts, metavar="N", help="starts to be right (3)")
    add("--target", type=float, default=Settings.target, help="relative residual (1e-8)")


def add_size(made: argparse.ArgumentParser) -> None:
    """Add the option for `problems.make`."""
    text = "small, full, or a number (default: full)"
    made.add_argument("--size", type=_size, default="full", help=text)


def _size(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def settings(options: argparse.Namespace, gradients: bool) -> Settings:
    """The settings of rows that the command line asks for."""
    return Settings(options.target, options.starts, options.repeat, options.slow, gradients)


def begin() -> dict[str, Any]:
    """Turn float64 on, and print and return `machine`."""
    jax.config.update("jax_enable_x64", True)
    found = machine()
    print("  ".join(f"{key} {value}" for key, value in found.items()))
    return found


def machine() -> dict[str, Any]:
    """Versions and cores; no names or paths of the machine."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        **versions,
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "device": jax.devices()[0].platform,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def save(results: dict[str, Any], path: pathlib.Path | None) -> None:
    """Write results as JSON, unless there is nowhere to."""
    if path is not None:
        path.write_text(json.dumps(_without_nan(results), indent=1) + "\n")


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: None instead."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# ---------------------------------------------------------------- text


def cells(texts: list[str], widths: list[int]) -> str:
    """A line of left-justified cells."""
    return "  ".join(t.ljust(w) for t, w in zip(texts, widths, strict=True)).rstrip()


def title(described: dict[str, Any]) -> str:
    """A problem, and the headings of its rows."""
    matvecs = described["backward_products_of_deflated_cg"]
    text = (
        f"\n{described['problem']}: {described['title']}; n = {described['n']}, "
        f"k = {described['k']} {described['which']}, relative gap {described['relative_gap']:.1e}"
    )
    if matvecs is not None:
        text += f", L2's backward in {matvecs} products of deflated CG"
    return text + "\n" + cells(list(COLUMNS), list(COLUMNS.values()))


def line(row: dict[str, Any]) -> str:
    """A row of `rows.bench`."""
    solver = row["solver"]
    if row.get("method") and row["method"] not in solver:
        solver += f" ({row['method']})"
    if "seconds" not in row:
        return f"{solver:<{COLUMNS['solver']}}  {row['status']}"
    right = "/".join(str(count) for count in row["right_starts"])
    texts = [
        solver,
        milliseconds(row),
        "" if row["compile_seconds"] is None else f"{row['compile_seconds']:.2f}",
        "" if row["products"] is None else str(row["products"]),
        f"{row['residual']:.1e}" + ("" if row["status"] == "ok" else "!"),
        right if row["right"] else f"WRONG {right}",
    ]
    for loss in ("L1", "L2"):
        gradient = row.get("gradients", {}).get(loss)
        if gradient is None:
            texts.append("")
        elif "seconds" not in gradient:
            texts.append(gradient["status"][:60])
        else:
            parts = [milliseconds(gradient), f"{gradient['over_forward']:.2f}"]
            parts.append(f"{gradient['error']:.1e}")
            if gradient["backward_products"] is not None:
                parts.append(str(gradient["backward_products"]))
            texts.append(", ".join(parts))
    text = cells(texts, list(COLUMNS.values()))
    if row["false_claims"]:
        text += f"  CLAIMED CONVERGED, WRONG SET: {row['false_claims']} starts"
    return text


def milliseconds(entry: dict[str, Any]) -> str:
    """A time, marked where the machine was busy."""
    return f"{1e3 * entry['seconds']:.4g}" + ("~" if entry["noisy"] else "")


def ratio_line(ratio: dict[str, Any]) -> str:
    """An entry of `run.ratios`."""
    text = f"  {ratio['peer']} / {ratio['solver']}: forward {ratio['forward']:.2f}"
    if "products" in ratio:
        text += f", products {ratio['products']:.2f}"
    for loss in ("L1", "L2"):
        if loss in ratio:
            text += f", {loss} {ratio[loss]:.2f}"
            text += "" if ratio[f"{loss}_both_finite"] else " (not finite)"
    text += "" if ratio["both_reached"] else "  (target not reached by both)"
    return text + ("  ~" if ratio["noisy"] else "")
