"""The JSON file of a table: its rows, with the command and the machine that gave them."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE / "results"
PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "pyamg", "primme", "torch", "xitorch")
# What changes the compiler or the number of threads of a library.
VARIABLES = (
    "XLA_FLAGS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "JAX_PLATFORMS",
)  # fmt: skip


# ---------------------------------------------------------------- what a file begins with


def head(options: argparse.Namespace) -> dict[str, Any]:
    """``table``, ``command`` and ``machine``, for options that `report.parser` parsed."""
    return {"table": options.table, "command": options.command, "machine": machine()}


def machine() -> dict[str, Any]:
    """Hardware, system, versions and load; no names or paths of the machine."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": _cores(),
        "memory_gib": _memory_gib(),
        "device": jax.devices()[0].platform,
        "system": _system(),
        "python": platform.python_version(),
        "jax_peig": _package(),
        "packages": {package: _version(package) for package in PACKAGES},
        "variables": {name: os.environ[name] for name in VARIABLES if os.environ.get(name)},
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def sentence(found: dict[str, Any]) -> str:
    """A `machine` in words."""
    versions = {"Python": found["python"], **found["packages"]}
    installed = [f"{name} {version}" for name, version in versions.items() if version]
    absent = [name for name, version in versions.items() if not version]
    settings = [f"`{name}={value}`" for name, value in found["variables"].items()]
    parts = [
        f"Measured on {found['date']}: {short(found)} ({found['architecture']}, "
        f"{found['device']}), {found['memory_gib']} GiB of memory, {found['system']}",
        ", ".join([f"jax_peig {found['jax_peig']}", *installed]),
        f"without {', '.join(absent)}" if absent else "",
        f"with {', '.join(settings)}" if settings else "",
        "" if found["load"] is None else f"load {found['load']} at the start",
    ]
    return "; ".join(part for part in parts if part) + "."


def short(found: dict[str, Any]) -> str:
    """Processor and cores."""
    return f"{found['processor']}, {found['cores']} cores"


def _processor() -> str:
    """The processor's model, as Linux names it, or what Python knows."""
    listed = pathlib.Path("/proc/cpuinfo")
    if listed.exists():
        for text in listed.read_text().splitlines():
            if text.startswith("model name"):
                return text.partition(":")[2].strip()
    return platform.processor() or "processor unknown"


def _cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError):  # not everywhere
        return None


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _package() -> str:
    """The package's version, and where git knows it the last commit that changed the package."""
    import jax_peig

    commit = _git("log", "-1", "--format=%h", "--", "jax_peig")
    if not commit:
        return jax_peig.__version__
    changed = " with changes" if _git("status", "--porcelain", "--", "jax_peig") else ""
    return f"{jax_peig.__version__} (commit {commit}{changed})"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=HERE.parents[1], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


# ---------------------------------------------------------------- files


def write(results: dict[str, Any], file: pathlib.Path) -> None:
    """Write results as JSON."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(_without_nan(results), indent=1) + "\n", encoding="utf-8")


def path(table: str) -> pathlib.Path:
    """Where the results of a table are kept."""
    return RESULTS / f"{table}.json"


def kept(table: str) -> dict[str, Any] | None:
    """What was kept of a table, or None."""
    file = path(table)
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: None instead."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
