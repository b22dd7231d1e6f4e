"""LOBPCG with a multigrid preconditioner beside SciPy's lobpcg with the same hierarchy of PyAMG.

    python -m tests.benchmarks.multigrid [--problem NAME] [--repeat N] [--processes N]
                                         [--save FILE.json | --keep]

A row is one problem. Both solvers get the levels that PyAMG makes, and the loosest tolerance that
their own measure needs for a relative residual of 1e-8; what they reach is shown. SciPy's
preconditioner is PyAMG's V-cycle with its Gauss-Seidel smoother. "set-up" is PyAMG's, then that of
`preconditioners.multigrid` from PyAMG's levels. "grad" is value and gradient of a rough loss of the
vectors in a potential on the diagonal, whose linear systems take the same preconditioner, over the
forward solve; it is left out above 300,000 unknowns. The error is that of the eigenvalues, relative
to the largest wanted one: P1 and P3 are known exactly, and the others by shift and invert.
"""

from __future__ import annotations

import functools
import resource
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.sparse.linalg as spla
from jax.tree_util import Partial

from tests.support import finite_elements

from . import page, problems, processes, report, timing

TARGET = 1e-8
MOST_FOR_GRADIENTS = 300_000
HEADINGS = [
    "problem", "n", "levels", "set-up s", "compile s", "seconds", "matvecs", "residual", "error",
    "SciPy s", "residual", "SciPy / ours", "grad x", "GiB",
]  # fmt: skip
WIDTHS = [26, 8, 6, 12, 9, 8, 7, 8, 8, 8, 8, 12, 6, 5]


@dataclass(frozen=True)
class Case:
    """A pencil with its smallest eigenvalues."""

    title: str
    matrix: Any  # (n, n), sparse
    mass: Any
    wanted: np.ndarray  # (k,)
    norm: float
    near_nullspace: Any = None


def _known(name: str, size: int) -> Case:
    found = problems.make(name, size)
    return Case(found.title, found.matrix, found.mass, found.wanted[: found.k], found.norm)


def _by_factorisation(title: str, matrix: Any, near_nullspace: Any = None) -> Case:
    start = np.random.default_rng(0).standard_normal(matrix.shape[0])
    wanted = spla.eigsh(matrix.tocsc(), 8, sigma=0.0, v0=start, return_eigenvectors=False)
    norm = float(spla.eigsh(matrix, 1, v0=start, tol=1e-3, return_eigenvectors=False)[0])
    return Case(title, matrix, None, np.sort(wanted), norm, near_nullspace)


def _brick(*shape: int) -> Case:
    matrix, motions = finite_elements.brick(*shape)
    blocks = scipy.sparse.bsr_array(matrix, blocksize=(3, 3))
    return _by_factorisation(f"elastic brick {' x '.join(map(str, shape))}", blocks, motions)


def _rough(edge: int) -> Case:
    matrix = finite_elements.rough(edge)
    return _by_factorisation(f"contrast 1e6, {edge} x {edge}", matrix)


CASES: dict[str, Callable[[], Case]] = {
    "P1-256": lambda: _known("P1", 256),
    "P1-512": lambda: _known("P1", 512),
    "P1-1024": lambda: _known("P1", 1024),
    "P3-80": lambda: _known("P3", 80),
    "P3-320": lambda: _known("P3", 320),
    "brick-12": lambda: _brick(12, 6, 6),
    "brick-24": lambda: _brick(24, 12, 12),
    "rough-128": lambda: _rough(128),
    "rough-256": lambda: _rough(256),
}
QUICK = {"P1-12": lambda: _known("P1", 12)}


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    cases = (CASES, QUICK)
    options = report.parse_cases(
        "multigrid", __doc__, "--problem", cases, arguments, processes=True
    )
    if options.processes > 1:
        results = processes.table(options, rows=["problem"])
    else:
        results = report.begin(options) | {"target": TARGET, "rows": []}
        print(report.cells(HEADINGS, WIDTHS))
        for make in options.cases.values():
            results["rows"].append(measured(make(), options.repeat))
            print(report.cells(_cells(results["rows"][-1]), WIDTHS), flush=True)
    page.finish(results, options)
    return 0


def measured(case: Case, repeat: int) -> dict[str, Any]:
    """A row."""
    hierarchy, pyamg_seconds = _hierarchy(case)
    row = {
        "problem": case.title,
        "n": case.matrix.shape[0],
        "levels": len(hierarchy.levels),
        "pyamg_seconds": pyamg_seconds,
    }
    row |= _ours(case, hierarchy, repeat) | _scipys(case, hierarchy, repeat)
    # In KiB on Linux; of the process so far.
    row["gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return row


def _hierarchy(case: Case) -> tuple[Any, float]:
    """PyAMG's levels, by the choices of `multigrid`, and the seconds they took."""
    import pyamg

    from jax_peig.preconditioners.multigrid_setup import STRENGTH

    blocks = case.matrix.format == "bsr"
    kind = scipy.sparse.bsr_matrix if blocks else scipy.sparse.csr_matrix
    matrix = kind(case.matrix)
    np.random.seed(0)  # noqa: NPY002
    begin = time.perf_counter()
    made = pyamg.smoothed_aggregation_solver(
        matrix, B=case.near_nullspace, symmetry="hermitian", strength=STRENGTH, max_coarse=500
    )
    return made, time.perf_counter() - begin


def _potential(theta: Any, matrix: Any, block: Any) -> Any:
    return matrix @ block + theta[:, None] * block


def _ours(case: Case, hierarchy: Any, repeat: int) -> dict[str, Any]:
    import jax_peig
    from jax_peig.operators import from_scipy
    from jax_peig.preconditioners import multigrid

    begin = time.perf_counter()
    t = jax.block_until_ready(multigrid(hierarchy))
    setup = time.perf_counter() - begin
    n, k = case.matrix.shape[0], len(case.wanted)
    A = from_scipy(scipy.sparse.csr_array(case.matrix))
    M = None if case.mass is None else from_scipy(scipy.sparse.csr_array(case.mass))
    weights = jnp.asarray(np.random.default_rng(0).random(n))

    def solve(theta: Any, A: Any, M: Any, t: Any) -> Any:
        operator = jax_peig.BlockProduct(Partial(_potential, theta, A))
        return jax_peig.partial_eigh(
            operator, M, k, n=n, method="lobpcg", preconditioner=t, tol=TARGET
        )

    def loss(*given: Any) -> Any:
        w, x, _ = solve(*given)
        return jnp.sum(w) + n * jnp.sum(weights * jnp.sum(x**2, axis=1) ** 2)

    given = (jnp.zeros(n), A, M, t)
    forward, compile_seconds = timing.compile_ahead(solve, *given)
    w, x, info = forward(*given)
    taken = timing.measure(functools.partial(forward, *given), repeat)
    row = {
        "setup_seconds": setup,
        "compile_seconds": compile_seconds,
        "seconds": taken.seconds,
        "noisy": taken.noisy,
        "matvecs": int(info.matvecs),
        "converged": int(info.converged),
        "residual": _residual(case, w, x),
        "error": _error(case, w),
        "over_forward": None,
    }
    if n <= MOST_FOR_GRADIENTS:
        gradient, _ = timing.compile_ahead(jax.value_and_grad(loss), *given)
        both = timing.measure(functools.partial(gradient, *given), repeat)
        row["over_forward"] = both.seconds / taken.seconds
    return row


def _scipys(case: Case, hierarchy: Any, repeat: int) -> dict[str, Any]:
    start = np.random.default_rng(1000).standard_normal((case.matrix.shape[0], len(case.wanted)))
    inverse, mass = hierarchy.aspreconditioner(cycle="V"), case.mass
    matrix = hierarchy.levels[0].A
    lengths = 1.0  # of vectors of M-norm one, by which SciPy measures a residual
    if mass is not None:
        vector = np.ones(start.shape[0])
        lengths = 1 / np.sqrt(vector @ (mass @ vector) / vector.size)

    def solve() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return spla.lobpcg(
                matrix, start, B=mass, M=inverse, tol=TARGET * case.norm * lengths, maxiter=300,
                largest=False,
            )  # fmt: skip

    w, x = solve()
    taken = timing.measure(solve, repeat)
    return {
        "scipy_seconds": taken.seconds,
        "scipy_noisy": taken.noisy,
        "scipy_residual": _residual(case, w, x),
        "scipy_error": _error(case, w),
    }


def _residual(case: Case, w: Any, x: Any) -> float:
    """The worst of ||A x - w M x|| / (||A|| ||x||)."""
    w, x = np.asarray(w), np.asarray(x)
    mx = x if case.mass is None else case.mass @ x
    lengths = np.linalg.norm(case.matrix @ x - mx * w, axis=0) / np.linalg.norm(x, axis=0)
    return float(lengths.max() / case.norm)


def _error(case: Case, w: Any) -> float:
    return float(np.abs(np.sort(np.asarray(w)) - case.wanted).max() / case.wanted.max())


def markdown(results: dict[str, Any]) -> str:
    """The table for the page."""
    return report.markdown(HEADINGS, map(_cells, results["rows"]))


def _cells(row: dict[str, Any]) -> list[str]:
    over = row["over_forward"]
    return [
        row["problem"],
        str(row["n"]),
        str(row["levels"]),
        f"{row['pyamg_seconds']:.2f} + {row['setup_seconds']:.2f}",
        f"{row['compile_seconds']:.2f}",
        f"{row['seconds']:.2f}" + ("~" if row["noisy"] else ""),
        str(row["matvecs"]),
        report.number(row["residual"], ".1e"),
        report.number(row["error"], ".1e"),
        f"{row['scipy_seconds']:.2f}" + ("~" if row["scipy_noisy"] else ""),
        report.number(row["scipy_residual"], ".1e"),
        f"{row['scipy_seconds'] / row['seconds']:.1f}",
        "-" if over is None else f"{over:.2f}",
        f"{row['gib']:.1f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
