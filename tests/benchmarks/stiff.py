"""ShiftInvert beside SciPy's eigsh and PRIMME with a factorisation: stiff and large problems.

    python -m tests.benchmarks.stiff [--problem NAME] [--repeat N] [--processes N]
                                     [--save FILE.json | --keep]

A row is one problem, its pairs nearest to zero. "factor s" is SuperLU's factorisation of A, in the
symmetric mode that all solvers use, and "seconds" what follows it. The peers get the loosest
tolerance with which they find the right set from four starts; "solves" is the largest count of the
starts. PRIMME, if it is installed, has the factor as its preconditioner. The errors are those of
the eigenvalues, each relative to itself, and for rigid motions to the last of the pairs: P1
and P3 are known exactly, the stiffness matrix by LAPACK, whose own error is some eps ||A||, and the
meshes by eigsh to machine precision. The brick is free. Its sigma is zero, where A is singular; the
peers get a shift below it.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg as spla

from . import matrices, page, problems, processes, report, timing

TOLERANCES = (1e-4, 1e-6, 1e-8, 1e-10, 0.0)
STARTS = 4
RIGHT = 1e-6  # relative error of the eigenvalues of a right set
HEADINGS = [
    "problem", "n", "k", "factor s", "compile s", "seconds", "solves", "error", "bound",
    "eigsh s", "solves", "error", "eigsh / ours", "PRIMME s", "solves", "error",
]  # fmt: skip
WIDTHS = [26, 8, 3, 8, 9, 8, 7, 8, 8, 8, 7, 8, 12, 8, 7, 8]


@dataclass(frozen=True)
class Case:
    """A pencil with its eigenvalues nearest to zero, none negative."""

    title: str
    matrix: Any  # (n, n), sparse
    mass: Any
    wanted: np.ndarray  # (k,), ascending
    shift: float = 0.0  # that of the peers


def _known(name: str, size: int) -> Case:
    found = problems.make(name, size)
    return Case(found.title, found.matrix, found.mass, found.wanted[: found.k])


def _stiffness(k: int = 6) -> Case:
    matrix = matrices.stored("bcsstk13")
    wanted = scipy.linalg.eigvalsh(matrix.toarray(), subset_by_index=[0, k - 1])
    return Case("bcsstk13, condition 1e10", matrix, None, wanted)


def _six_ones(n: int = 3000) -> Case:
    values = np.r_[np.ones(6), 1e9 * np.linspace(0.1, 1, n - 6)]
    return Case("sixfold 1, norm 1e9", scipy.sparse.diags_array(values), None, np.ones(6))


def _on_mesh(title: str, stiffness: Any, mass: Any, k: int, rigid: int = 0) -> Case:
    """A structure by its `Assembly`; the zeros of its rigid motions are exact."""
    matrix, inertia = stiffness.pattern.tocsc(), mass.pattern.tocsc()
    scale = matrix.diagonal().min() / inertia.diagonal().max()
    shift = -1e-3 * scale if rigid else 0.0
    start = np.random.default_rng(0).standard_normal(matrix.shape[0])
    wanted = np.sort(spla.eigsh(matrix, k, inertia, sigma=shift, v0=start)[0])
    return Case(title, matrix, inertia, np.r_[np.zeros(rigid), wanted[rigid:]], shift)


def _plate(refinements: int = 5) -> Case:
    from tests.support import meshes

    return _on_mesh("plate, Morley elements", *meshes.plate(refinements), k=6)


def _brick(*cubes: int) -> Case:
    from tests.support import meshes

    return _on_mesh("free elastic brick", *meshes.brick(*cubes), k=8, rigid=6)


CASES: dict[str, Callable[[], Case]] = {
    "P1-100": lambda: _known("P1", 100),
    "P1-256": lambda: _known("P1", 256),
    "P1-512": lambda: _known("P1", 512),
    "P3-80": lambda: _known("P3", 80),
    "bcsstk13": _stiffness,
    "six-ones": _six_ones,
    "plate": _plate,
    "brick": lambda: _brick(12, 8, 6),
}
QUICK = {"P1-12": lambda: _known("P1", 12)}


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    cases = (CASES, QUICK)
    options = report.parse_cases("stiff", __doc__, "--problem", cases, arguments, processes=True)
    if options.processes > 1:
        results = processes.table(options, rows=["problem"])
    else:
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
        _shifted(case), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    row = {"problem": case.title, "n": case.matrix.shape[0], "k": len(case.wanted)}
    peers = _eigsh(case, factor, repeat) | _primme(case, factor, repeat)
    return row | {"factor_seconds": seconds} | _ours(case, repeat) | peers


def _shifted(case: Case) -> Any:
    mass = scipy.sparse.eye_array(case.matrix.shape[0]) if case.mass is None else case.mass
    return scipy.sparse.csc_array(case.matrix - case.shift * mass)


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
        "bound": float(np.max(np.asarray(info.error_bounds) / _scale(case))),
    }


def _eigsh(case: Case, factor: Any, repeat: int) -> dict[str, Any]:
    def run(tol: float, start: Any, inverse: Any) -> Any:
        return spla.eigsh(
            case.matrix, len(case.wanted), case.mass, sigma=case.shift, OPinv=inverse, tol=tol,
            v0=start, return_eigenvectors=True,
        )[0]  # fmt: skip

    return _peer("eigsh", run, case, factor, repeat)


def _primme(case: Case, factor: Any, repeat: int) -> dict[str, Any]:
    if importlib.util.find_spec("primme") is None:
        return {}
    import primme

    def run(tol: float, start: Any, inverse: Any) -> Any:
        return primme.eigsh(
            case.matrix, len(case.wanted), case.mass, which="SA", OPinv=inverse, tol=tol,
            v0=start[:, None], return_unconverged=True, raise_for_unconverged=False,
            method="PRIMME_DEFAULT_MIN_MATVECS",
        )[0]  # fmt: skip

    return _peer("primme", run, case, factor, repeat)


def _peer(
    name: str, run: Callable[..., Any], case: Case, factor: Any, repeat: int
) -> dict[str, Any]:
    """The columns of a peer; ``run(tol, start, inverse)`` gives its eigenvalues."""
    n = case.matrix.shape[0]
    solves: list[int] = []

    def solve(x: Any) -> Any:
        solves.append(1 if x.ndim == 1 else x.shape[1])
        return factor.solve(x)

    inverse = spla.LinearOperator((n, n), matvec=solve, matmat=solve, dtype=float)
    starts = [np.random.default_rng(seed).standard_normal(n) for seed in range(STARTS)]
    for tol in TOLERANCES:
        counts, errors = [], []
        for start in starts:
            solves.clear()
            errors.append(_error(case, run(tol, start, inverse)))
            counts.append(sum(solves))
        if max(errors) < RIGHT:
            break
    taken = timing.measure(functools.partial(run, tol, starts[0], inverse), repeat)
    return {
        f"{name}_seconds": taken.seconds,
        f"{name}_noisy": taken.noisy,
        f"{name}_solves": max(counts),
        f"{name}_error": max(errors),
        f"{name}_tol": tol,
    }


def _scale(case: Case) -> np.ndarray:
    return np.where(case.wanted > 0, case.wanted, case.wanted[-1])


def _error(case: Case, w: Any) -> float:
    return float(np.max(np.abs(np.sort(np.asarray(w)) - case.wanted) / _scale(case)))


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
        *_peer_cells(row, "eigsh"),
        f"{row['eigsh_seconds'] / row['seconds']:.2f}",
        *_peer_cells(row, "primme"),
    ]


def _peer_cells(row: dict[str, Any], name: str) -> list[str]:
    if f"{name}_seconds" not in row:
        return ["not installed", "", ""]
    return [
        f"{row[f'{name}_seconds']:.3f}" + ("~" if row[f"{name}_noisy"] else ""),
        str(row[f"{name}_solves"]),
        report.number(row[f"{name}_error"], ".1e"),
    ]


if __name__ == "__main__":
    sys.exit(main())
