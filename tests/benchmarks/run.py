"""Print and save the table: jax_peig, and on request its peers, on the problems P1 to P6.

    python -m tests.benchmarks.run [P1 ...] [--peers] [--repeat N] [--save FILE.json]
                                   [--size small|full|NUMBER]

Times are medians after warm-up, compile time apart (for SciPy with ILU, the set-up). Residuals and
the rightness of the set are recomputed with the SciPy matrices and the exact spectrum, gradients
compared with the exact ones; the last number of a gradient counts its backward products. Ratios
compare solvers of the same run. What a peer cannot do, or does wrongly, stays in the table: "!"
marks a residual above the target or a set not right from every start, "~" a time taken while the
machine was busy.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import sys
from typing import Any

import jax

from .ours import JaxPeig
from .peers import all_peers
from .problems import FULL_SIZES, make
from .rows import bench, describe
from .solvers import Solver

PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "primme", "torch", "xitorch")
WIDTHS = (24, 10, 9, 8, 8, 5, 30, 30)
HEADINGS = (
    "solver", "time ms", "compile s", "products", "residual", "set",
    "L1: ms, x forward, error, mv", "L2: ms, x forward, error, mv",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns the exit status.

    The status is 1 when a row of jax_peig failed, missed the target or claimed a wrong set.
    """
    options = _parse(arguments)
    results = run(
        options.problems or sorted(FULL_SIZES),
        size=options.size,
        peers=options.peers,
        variants=options.variants,
        only=options.only,
        target=options.target,
        starts=options.starts,
        repeat=options.repeat,
        slow=options.slow,
        gradients=not options.no_gradients,
    )
    if options.save is not None:
        options.save.write_text(json.dumps(_without_nan(results), indent=1) + "\n")
    bad = [r for r in results["rows"] if r["solver"].startswith("jax_peig") and _is_bad(r)]
    return 1 if bad else 0


def run(
    names: list[str],
    *,
    size: int | str = "full",
    peers: bool = False,
    variants: bool = False,
    only: list[str] | None = None,
    target: float = 1e-8,
    starts: int = 3,
    repeat: int = 7,
    slow: bool = False,
    gradients: bool = True,
) -> dict[str, Any]:
    """Run problems, printing each row when it is there.

    Parameters
    ----------
    names : list of str
        ``"P1"`` to ``"P6"``.
    size : int or str
        As in `problems.make`.
    peers, variants : bool
        Whether to run the peers, and jax_peig's other methods and forms of the operator.
    only : list of str, optional
        Keep the solvers whose names contain one of these, ignoring case.
    target, starts, repeat, slow, gradients
        As in `rows.bench`.

    Returns
    -------
    dict
        ``machine``, ``settings``, ``problems``, ``rows`` and ``ratios``, ready for JSON.
    """
    jax.config.update("jax_enable_x64", True)
    settings = {"size": size, "target": target, "starts": starts, "repeat": repeat}
    results: dict[str, Any] = {
        "machine": machine(), "settings": settings, "problems": [], "rows": [], "ratios": [],
    }  # fmt: skip
    print("  ".join(f"{key} {value}" for key, value in results["machine"].items()))
    for name in names:
        problem = make(name, size)
        results["problems"].append(describe(problem))
        print(_title(results["problems"][-1]))
        rows = []
        for solver in _solvers(peers, variants, only):
            row = bench(
                solver, problem, target=target, starts=starts, repeat=repeat, slow=slow,
                gradients=gradients,
            )  # fmt: skip
            rows.append(row)
            print(_line(row), flush=True)
        found = ratios(rows)
        for ratio in found:
            print(_ratio_line(ratio))
        results["rows"] += rows
        results["ratios"] += found
    return results


def _solvers(peers: bool, variants: bool, only: list[str] | None) -> list[Solver]:
    chosen: list[Solver] = [JaxPeig()]
    if variants:
        chosen += [JaxPeig(form="vector"), JaxPeig(method="lobpcg")]
    if peers:
        chosen += all_peers()
    if only:
        chosen = [s for s in chosen if any(text.lower() in s.name.lower() for text in only)]
    return chosen


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


def _is_bad(row: dict[str, Any]) -> bool:
    gradients = row.get("gradients", {}).values()
    return (
        row["status"] != "ok"
        or row["false_claims"] > 0
        or any(gradient["status"] != "ok" for gradient in gradients)
    )


# ---------------------------------------------------------------- text


def _title(described: dict[str, Any]) -> str:
    products = described["backward_products_of_deflated_cg"]
    text = (
        f"\n{described['problem']}: {described['title']}; n = {described['n']}, "
        f"k = {described['k']} {described['which']}, relative gap {described['relative_gap']:.1e}"
    )
    if products is not None:
        text += f", L2's backward in {products} products of deflated CG"
    return text + "\n" + "  ".join(h.ljust(w) for h, w in zip(HEADINGS, WIDTHS, strict=True))


def _line(row: dict[str, Any]) -> str:
    if "seconds" not in row:
        return f"{row['solver']:<{WIDTHS[0]}}  {row['status']}"
    right = "right" if row["right"] else "WRONG"
    residual = f"{row['residual']:.1e}" + ("" if row["status"] == "ok" else "!")
    cells = [
        row["solver"],
        _milliseconds(row),
        "" if row["compile_seconds"] is None else f"{row['compile_seconds']:.2f}",
        "" if row["products"] is None else str(row["products"]),
        residual,
        right,
    ]
    for loss in ("L1", "L2"):
        gradient = row.get("gradients", {}).get(loss)
        if gradient is None:
            cells.append("")
        elif "seconds" not in gradient:
            cells.append(gradient["status"][:60])
        else:
            parts = [_milliseconds(gradient), f"{gradient['over_forward']:.2f}"]
            parts.append(f"{gradient['error']:.1e}")
            if gradient["backward_products"] is not None:
                parts.append(str(gradient["backward_products"]))
            cells.append(", ".join(parts))
    line = "  ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True))
    if row["false_claims"]:
        line += f"  CLAIMED CONVERGED, WRONG SET: {row['false_claims']} starts"
    return line.rstrip()


def _milliseconds(entry: dict[str, Any]) -> str:
    return f"{1e3 * entry['seconds']:.4g}" + ("~" if entry["noisy"] else "")


def _ratio_line(ratio: dict[str, Any]) -> str:
    text = f"  {ratio['peer']} / {ratio['solver']}: forward {ratio['forward']:.2f}"
    if "products" in ratio:
        text += f", products {ratio['products']:.2f}"
    for loss in ("L1", "L2"):
        if loss in ratio:
            text += f", {loss} {ratio[loss]:.2f}"
            text += "" if ratio[f"{loss}_both_finite"] else " (not finite)"
    text += "" if ratio["both_reached"] else "  (target not reached by both)"
    return text + ("  ~" if ratio["noisy"] else "")


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: None instead."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _size(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.run", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("problems", nargs="*", metavar="P", help="P1 ... P6; all of them by default")
    add("--peers", action="store_true", help="run the installed peers too")
    add("--variants", action="store_true", help="run jax_peig's other methods and forms too")
    add("--only", action="append", metavar="TEXT", help="only solvers with TEXT in their names")
    add("--slow", action="store_true", help="run peers that take minutes")
    add("--no-gradients", action="store_true", help="forward solves only")
    add("--size", type=_size, default="full", help="small, full, or a number (default: full)")
    add("--repeat", type=int, default=7, metavar="N", help="repetitions in a round (default: 7)")
    add("--starts", type=int, default=3, metavar="N", help="starts to be right (default: 3)")
    add("--target", type=float, default=1e-8, help="relative residual (default: 1e-8)")
    add("--save", type=pathlib.Path, metavar="FILE.json", help="write everything there")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.problems) - set(FULL_SIZES))
    if unknown:
        parser.error(f"unknown problems {unknown}: choose from {sorted(FULL_SIZES)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
