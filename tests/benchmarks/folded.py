"""The folded iteration, and the filter with a full M without a solve: what stands in for them.

    python -m tests.benchmarks.folded [--problem NAME] [--repeat N] [--save FILE.json | --keep]

The problems are known by their products alone. The first ask for the eigenvalues nearest to sigma.
"chebyshev" folds them by itself; "lobpcg" and "davidson" are given the fold, (A - sigma)^2, as a
function, which needs M = I. "dense" makes the matrix from n products first, and "factorised" is
what the entries would allow: "shift_invert" with the matrix. The others ask for the smallest pairs
with an M that is no diagonal and has no M_solve. There "factorised" is the same for the matrices.

Each way has a bound on its steps, and ">" stands before the seconds of one that did not converge
within it. The error is the largest one of the eigenvalues, relative to the norm, against LAPACK or
shift and invert by SciPy.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from tests.support import finite_elements

from . import matrices, page, problems, report, timing

PAIRS = 4
MOST_DENSE = 3000
MAX_STEPS = {"chebyshev": 60, "lobpcg": 300, "davidson": 1000, "dense": None, "factorised": 300}
HEADINGS = ["problem", "n", *(f"{way} s" for way in MAX_STEPS), "matvecs", "error"]
WIDTHS = [32, 6, 11, 9, 10, 8, 12, 24, 8]


@dataclass(frozen=True)
class Case:
    """A pencil (n, n) of sparse matrices, and sigma, or None for the smallest pairs."""

    matrix: Any
    mass: Any = None
    sigma: float | None = None

    def wanted(self) -> np.ndarray:
        """The eigenvalues (k,), ascending."""
        start = np.random.default_rng(0).standard_normal(self.matrix.shape[0])
        mass = None if self.mass is None else self.mass.tocsc()
        pole = -1e-3 if self.sigma is None else self.sigma
        return np.sort(spla.eigsh(self.matrix.tocsc(), PAIRS, mass, sigma=pole, v0=start)[0])


def _levels(n: int) -> Case:
    return Case(sp.diags_array(np.arange(float(n))), sigma=n / 2 + 0.3)


def _overlapping(edge: int, overlap: float) -> Case:
    """A grid with M = (1, s, 1) along each axis, whose row sums tell little for large s."""
    line = sp.diags_array([overlap, 1.0, overlap], offsets=[-1, 0, 1], shape=(edge, edge))
    return Case(finite_elements.laplacian(edge, edge), sp.csr_array(sp.kron(line, line)))


def _elements(edge: int, sigma: float | None = None) -> Case:
    found = problems.make("P3", edge)
    return Case(found.matrix, found.mass, sigma)


def _oscillator() -> Case:
    return Case(problems.make("P2").matrix, sigma=2.3)


CASES: dict[str, Callable[[], Case]] = {
    "levels 500, middle": lambda: _levels(500),
    "grid 50^2, at 0.05": lambda: Case(finite_elements.laplacian(50, 50), sigma=0.05),
    "Anderson 50^2, middle": lambda: Case(matrices.anderson(50, 50, disorder=8.0), sigma=0.0),
    "elements 40^2, at 60": lambda: _elements(40, 60.0),
    "elements 40^2, at 500": lambda: _elements(40, 500.0),
    "elements 40^2": lambda: _elements(40),
    "elements 120^2": lambda: _elements(120),
    "overlap 0.3, 40^2": lambda: _overlapping(40, 0.3),
    "overlap 0.45, 40^2": lambda: _overlapping(40, 0.45),
    "oscillator 24^3, at 2.3": _oscillator,
}
QUICK = {"elements 6^2": lambda: _elements(6)}


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    options = report.parse_cases("folded", __doc__, "--problem", (CASES, QUICK), arguments)
    results = report.begin(options) | {"rows": []}
    print(report.cells(HEADINGS, WIDTHS))
    for name, make in options.cases.items():
        results["rows"].append(measured(name, make(), options.repeat))
        print(report.cells(_cells(results["rows"][-1]), WIDTHS), flush=True)
    page.finish(results, options)
    return 0


def measured(name: str, case: Case, repeat: int) -> dict[str, Any]:
    """A row."""
    wanted, norm = case.wanted(), float(np.max(abs(case.matrix) @ np.ones(case.matrix.shape[0])))
    if case.mass is not None:
        norm /= np.min(case.mass.diagonal())
    runs = {way: _run(way, case, wanted, norm, repeat) for way in MAX_STEPS if _suits(way, case)}
    return {"problem": name, "n": case.matrix.shape[0], "runs": runs}


def _suits(way: str, case: Case) -> bool:
    if way == "dense":
        return case.matrix.shape[0] <= MOST_DENSE
    return way in ("chebyshev", "factorised") or case.sigma is None or case.mass is None


def _run(way: str, case: Case, wanted: np.ndarray, norm: float, repeat: int) -> dict[str, Any]:
    from jax_peig import Status
    from jax_peig.operators import factors, from_scipy

    pencil = [None if x is None else from_scipy(sp.csr_array(x)) for x in (case.matrix, case.mass)]
    function, _ = timing.compile_ahead(functools.partial(_solve, way, case.sigma), *pencil)

    def call() -> Any:
        factors.clear()
        return function(*pencil)

    begin = time.perf_counter()
    w, info = jax.block_until_ready(call())
    once = time.perf_counter() - begin
    return {
        "seconds": once if once > 1 else timing.measure(call, repeat, budget=2.0).seconds,
        "converged": int(info.status) == Status.CONVERGED,
        "status": Status(int(info.status)).name,
        "matvecs": int(info.matvecs),
        "solves": int(info.solves),
        "error": float(np.max(np.abs(np.sort(np.asarray(w)) - wanted)) / norm),
    }


def _solve(way: str, sigma: float | None, A: Any, M: Any) -> Any:
    import jax_peig
    from jax_peig import BlockProduct

    n, max_steps = A.shape[0], MAX_STEPS[way]
    if way == "factorised":
        found = jax_peig.partial_eigh(
            A, M, PAIRS, sigma=sigma, method="shift_invert", max_steps=max_steps
        )
        return found.eigenvalues, found.info
    product = functools.partial(_times, A)
    if way == "dense":
        A, M = (None if x is None else x @ jnp.eye(n) for x in (A, M))
    else:
        A = BlockProduct(product)
        M = None if M is None else BlockProduct(functools.partial(_times, M))
    if sigma is not None and way in ("lobpcg", "davidson"):
        fold = BlockProduct(lambda V: _shifted(product, sigma, _shifted(product, sigma, V)))
        found = jax_peig.partial_eigh(fold, k=PAIRS, n=n, method=way, max_steps=max_steps)
        X = found.eigenvectors
        return jnp.linalg.eigvalsh(X.T @ product(X)), found.info
    found = jax_peig.partial_eigh(A, M, PAIRS, n=n, sigma=sigma, method=way, max_steps=max_steps)
    return found.eigenvalues, found.info


def _times(A: Any, V: Any) -> Any:
    return A @ V


def _shifted(product: Any, sigma: float, V: Any) -> Any:
    return product(V) - sigma * V


def markdown(results: dict[str, Any]) -> str:
    """The table for the page."""
    return report.markdown(HEADINGS, map(_cells, results["rows"]))


def _cells(row: dict[str, Any]) -> list[str]:
    runs = row["runs"]
    shown = [
        f"{runs[way]['matvecs']}" for way in ("chebyshev", "lobpcg", "davidson") if way in runs
    ]
    errors = [run["error"] for run in runs.values() if run["converged"]]
    return [
        row["problem"],
        str(row["n"]),
        *(_seconds(runs.get(way)) for way in MAX_STEPS),
        ", ".join(shown),
        report.number(max(errors, default=None), ".0e"),
    ]


def _seconds(run: dict[str, Any] | None) -> str:
    return "" if run is None else f"{'' if run['converged'] else '> '}{run['seconds']:.3f}"


if __name__ == "__main__":
    sys.exit(main())
