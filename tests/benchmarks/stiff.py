"""ShiftInvert beside SciPy's eigsh with a factorisation: stiff, interior and large problems.

    python -m tests.benchmarks.stiff [--problem NAME] [--repeat N] [--save FILE.json | --keep]

A row is one problem, its pairs nearest to zero. "factor s" is SuperLU's factorisation of A, in the
symmetric mode that both solvers use, and "seconds" what follows it. eigsh gets the loosest
tolerance with which it finds the right set from four starts; "solves" is the largest count of its
starts. The errors are those of the eigenvalues, each relative to itself: P1 and P3 are known
exactly, the stiffness matrix by LAPACK, whose own error is some eps ||A||.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import pathlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.io
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg as spla

from jax_peig._cli.matrix_market import AS_SPARSE_ARRAYS

from . import page, problems, report, timing

DATA = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
TOLERANCES = (1e-4, 1e-6, 1e-8, 1e-10, 0.0)
STARTS = 4
RIGHT = 1e-6  # relative error of the eigenvalues of a right set
HEADINGS = [
    "problem", "n", "k", "factor s", "compile s", "seconds", "solves", "error", "bound",
    "eigsh s", "solves", "error", "eigsh / ours",
]  # fmt: skip
WIDTHS = [26, 8, 3, 8, 9, 8, 7, 8, 8, 8, 7, 8, 12]


@dataclass(frozen=True)
class Case:
    """A pencil with its eigenvalues nearest to zero, all positive."""

    title: str
    matrix: Any  # (n, n), sparse
    mass: Any
    wanted: np.ndarray  # (k,)


def _known(name: str, size: int) -> Case:
    found = problems.make(name, size)
    return Case(found.title, found.matrix, found.mass, found.wanted[: found.k])


def _stiffness(k: int = 6) -> Case:
    with gzip.open(DATA / "bcsstk13.mtx.gz") as file:
        matrix = scipy.sparse.csr_array(scipy.io.mmread(file, **AS_SPARSE_ARRAYS))
    wanted = scipy.linalg.eigvalsh(matrix.toarray(), subset_by_index=[0, k - 1])
    return Case("bcsstk13, condition 1e10", matrix, None, wanted)


def _six_ones(n: int = 3000) -> Case:
    values = np.r_[np.ones(6), 1e9 * np.linspace(0.1, 1, n - 6)]
    return Case("sixfold 1, norm 1e9", scipy.sparse.diags_array(values), None, np.ones(6))


CASES: dict[str, Callable[[], Case]] = {
    "P1-100": lambda: _known("P1", 100),
    "P1-256": lambda: _known("P1", 256),
    "P1-512": lambda: _known("P1", 512),
    "P3-80": lambda: _known("P3", 80),
    "bcsstk13": _stiffness,
    "six-ones": _six_ones,
}
QUICK = {"P1-12": lambda: _known("P1", 12)}


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    options = _parse(arguments)
    results = report.begin(options) | {"rows": []}
    print(report.cells(HEADINGS, WIDTHS))
    for make in options.cases.values():
        results["rows"].append(measured(make(), options.repeat))
        print(report.cells(_cells(results["rows"][-1]), WIDTHS), flush=True)
    page.finish(results, options)
    return 0


def measured(case: Case, repeat: int) -> dict[str, Any]:
    """A row."""
    begin = time.perf_counter()
    factor = spla.splu(
        scipy.sparse.csc_array(case.matrix), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    row = {"problem": case.title, "n": case.matrix.shape[0], "k": len(case.wanted)}
    return row | {"factor_seconds": seconds} | _ours(case, repeat) | _eigsh(case, factor, repeat)


def _ours(case: Case, repeat: int) -> dict[str, Any]:
    import jax_peig
    from jax_peig.operators import from_scipy

    A = from_scipy(scipy.sparse.csr_array(case.matrix))
    M = None if case.mass is None else from_scipy(scipy.sparse.csr_array(case.mass))
    k = len(case.wanted)

    def solve(A: Any, M: Any, key: Any) -> Any:
        found = jax_peig.partial_eigh(A, M, k, sigma=0.0, method="shift_invert", key=key)
        return found.eigenvalues, found.info

    given = (A, M, jax.random.key(0))
    forward, compile_seconds = timing.compile_ahead(solve, *given)
    w, info = jax.block_until_ready(forward(*given))  # makes the factor
    taken = timing.measure(functools.partial(forward, *given), repeat)
    return {
        "compile_seconds": compile_seconds,
        "seconds": taken.seconds,
        "noisy": taken.noisy,
        "solves": int(info.solves),
        "converged": int(info.converged),
        "error": _error(case, w),
        "bound": float(jnp.max(info.error_bounds / jnp.abs(w))),
    }


def _eigsh(case: Case, factor: Any, repeat: int) -> dict[str, Any]:
    n, k = case.matrix.shape[0], len(case.wanted)
    solves: list[int] = []

    def solve(x: Any) -> Any:
        solves.append(1)
        return factor.solve(x)

    inverse = spla.LinearOperator((n, n), matvec=solve, dtype=float)
    starts = [np.random.default_rng(seed).standard_normal(n) for seed in range(STARTS)]

    def run(tol: float, start: Any) -> Any:
        return spla.eigsh(
            case.matrix, k, case.mass, sigma=0.0, OPinv=inverse, tol=tol, v0=start,
            return_eigenvectors=True,
        )[0]  # fmt: skip

    for tol in TOLERANCES:
        counts, errors = [], []
        for start in starts:
            solves.clear()
            errors.append(_error(case, run(tol, start)))
            counts.append(len(solves))
        if max(errors) < RIGHT:
            break
    taken = timing.measure(functools.partial(run, tol, starts[0]), repeat)
    return {
        "eigsh_seconds": taken.seconds,
        "eigsh_noisy": taken.noisy,
        "eigsh_solves": max(counts),
        "eigsh_error": max(errors),
        "eigsh_tol": tol,
    }


def _error(case: Case, w: Any) -> float:
    return float(np.max(np.abs(np.sort(np.asarray(w)) - case.wanted) / case.wanted))


def markdown(results: dict[str, Any]) -> str:
    """The table for the page."""
    return report.markdown(HEADINGS, map(_cells, results["rows"]))


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["problem"],
        str(row["n"]),
        str(row["k"]),
        f"{row['factor_seconds']:.2f}",
        f"{row['compile_seconds']:.2f}",
        f"{row['seconds']:.3f}" + ("~" if row["noisy"] else ""),
        str(row["solves"]),
        report.number(row["error"], ".1e"),
        report.number(row["bound"], ".1e"),
        f"{row['eigsh_seconds']:.3f}" + ("~" if row["eigsh_noisy"] else ""),
        str(row["eigsh_solves"]),
        report.number(row["eigsh_error"], ".1e"),
        f"{row['eigsh_seconds'] / row['seconds']:.2f}",
    ]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = report.parser("stiff", __doc__)
    parser.add_argument("--problem", action="append", choices=CASES, help="default: all")
    options = parser.parse_args(arguments)
    options.cases = {name: CASES[name] for name in options.problem or CASES}
    if options.quick:
        options.cases, options.repeat = QUICK, 1
    return options


if __name__ == "__main__":
    sys.exit(main())
