"""Error bounds and estimates of `partial_eigh` against spectra known to more than its rounding.

    python -m tests.benchmarks.bounds [--draws N] [--method METHOD] [--single]
                                      [--save FILE.json | --keep]

Small dense pencils (n = 60, k = 6; M = I, and M of condition 10 and 1000) with random spectra,
distinct and with clusters, exact and nearly so, are solved under ``vmap`` to tolerances from 1e-2
to 1e-10, and at the tightest one also with so few steps that hardly anything converges. Whatever is
returned is counted, converged or not. The true error of a computed eigenvalue is its distance to
the nearest eigenvalue of the pencil as stored, which `exact_spectrum` knows to extended precision.

* violations: true error above ``info.error_bounds``. There must be none. The exact spectrum's own
  uncertainty, below 1e-3 of float64's rounding where long doubles are long, is granted.
* estimate / error: quantiles of ``info.error_estimates`` over the true error, where that is above
  rounding. 1 is perfect; an estimate is no bound, and may be below.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from tests.support import spectra

from . import page, report
from .base import cluster_labels

N, K = 60, 6
CONDITIONS = (None, 10.0, 1000.0)
# (tol, max_steps): the last ones end long before they have converged.
STOPS = (
    (1e-2, None), (1e-4, None), (1e-6, None), (1e-8, None), (1e-10, None),
    (1e-10, 1), (1e-10, 3), (1e-10, 6),
)  # fmt: skip
METHODS = ("lobpcg", "chebyshev")
QUANTILES = (1, 10, 50, 90, 99)
ABOVE_ROUNDING = 100.0
WIDTHS = [10, 10, 9, 9, 9, 10, 10, 46, 46]
HEADINGS = [
    "method", "M", "tol", "max_steps", "pairs", "converged", "violations",
    "estimate / error: " + ", ".join(f"{q} %" for q in QUANTILES), "bound / error",
]  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """What one program made of its draws; arrays are (draws, k).

    Attributes
    ----------
    method, condition, tol, max_steps
        The program.
    error, bound, estimate : numpy.ndarray
        True errors and what `Info` says of them.
    granted : numpy.ndarray
        The uncertainty of the true errors, (draws, 1).
    rounding : numpy.ndarray
        The rounding of float64 (or float32) in the computed eigenvalues, (draws, 1).
    converged : int
        How many pairs reached the tolerance.
    """

    method: str
    condition: float | None
    tol: float
    max_steps: int | None
    error: np.ndarray
    bound: np.ndarray
    estimate: np.ndarray
    granted: np.ndarray
    rounding: np.ndarray
    converged: int

    @property
    def violated(self) -> np.ndarray:
        """Where the bound does not hold, NaN included."""
        return ~(self.error <= self.bound + self.granted)

    def ratios(self, said: np.ndarray) -> np.ndarray:
        """``said`` over the true error where that is above rounding."""
        seen = self.error > ABOVE_ROUNDING * self.rounding
        return said[seen] / self.error[seen]


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns 1 when a bound was violated."""
    options = _parse(arguments)
    results = report.begin(options) | {"draws": options.draws, "rows": []}
    dtype = np.float32 if options.single else np.float64
    print(report.cells(HEADINGS, WIDTHS))
    found = []
    for finding in study(
        options.draws, methods=options.method or METHODS, stops=options.stops, dtype=dtype
    ):
        found.append(finding)
        results["rows"].append(describe([finding]))
        print(report.cells(_cells(results["rows"][-1]), WIDTHS), flush=True)
    results["groups"] = grouped(found)
    results["total"] = describe(found)
    print(report.cells(_cells(results["total"]), WIDTHS))
    print(f"{options.draws * len(found)} problems")
    page.finish(results, options)
    return int(results["total"]["violations"] > 0)


def study(
    draws: int,
    *,
    methods: Sequence[str] = METHODS,
    conditions: Sequence[float | None] = CONDITIONS,
    stops: Sequence[tuple[float, int | None]] = STOPS,
    dtype: Any = np.float64,
    seed: int = 0,
) -> Iterator[Finding]:
    """Solve ``draws`` pencils with each program, one for each method, M or not, and stop.

    Parameters
    ----------
    draws : int
        Pencils for each program.
    methods : sequence of str
        Of `partial_eigh`.
    conditions : sequence of float or None
        Condition numbers of M; None is M = I.
    stops : sequence of (float, int or None)
        Pairs of tol and max_steps.
    dtype
        float64 or float32.
    seed : int
        Every program gets draws of its own.

    Yields
    ------
    Finding
    """
    for number, condition in enumerate(conditions):
        for which, (tol, max_steps) in enumerate(stops):
            for position, method in enumerate(methods):
                rng = np.random.default_rng([seed, number, which, position])
                pencils = [_draw(rng, condition, dtype) for _ in range(draws)]
                yield _find(pencils, method, condition, tol, max_steps, rng)


def _draw(rng: np.random.Generator, condition: float | None, dtype: Any) -> spectra.Pencil:
    """A pencil with one of the spectra that matter, at a random scale, shifted at times."""
    kind = rng.choice(["uniform", "steep", *spectra.CLUSTERS, "cut"])
    if kind == "uniform":
        values = np.sort(rng.random(N)) * N
    elif kind == "steep":
        values = np.logspace(0.0, rng.uniform(1.0, 4.0), N)
    else:
        separation = rng.choice([0.0, 1e-12, 1e-8, 1e-4, 1e-2])
        values = spectra.clustered(N, K, kind, separation=separation)
    values = (values - rng.choice([0.0, values.mean()])) * 10.0 ** rng.uniform(-3.0, 3.0)
    seed = int(rng.integers(2**31))
    return spectra.pencil(values, dtype=dtype, condition=condition, seed=seed)


def _find(
    pencils: list[spectra.Pencil],
    method: str,
    condition: float | None,
    tol: float,
    max_steps: int | None,
    rng: np.random.Generator,
) -> Finding:
    A = jnp.stack([p.A for p in pencils])
    M = None if condition is None else jnp.stack([p.mass for p in pencils]).astype(A.dtype)
    keys = jax.random.split(jax.random.key(int(rng.integers(2**31))), len(pencils))
    values, _, info = _program(method, tol, max_steps)(A, M, keys)
    exact, doubt, size = zip(*(exact_spectrum(p.A, p.M) for p in pencils), strict=True)
    distance = np.abs(
        np.asarray(values)[:, :, None].astype(np.longdouble) - np.stack(exact)[:, None]
    )
    scale = np.array(size)[:, None]
    return Finding(
        method=method,
        condition=condition,
        tol=tol,
        max_steps=max_steps,
        error=distance.min(-1).astype(float),
        bound=np.asarray(info.error_bounds, float),
        estimate=np.asarray(info.error_estimates, float),
        granted=np.array(doubt)[:, None],
        rounding=float(jnp.finfo(A.dtype).eps) * scale,
        converged=int(np.sum(np.asarray(info.converged))),
    )


@functools.lru_cache(maxsize=1)
def _program(method: str, tol: float, max_steps: int | None) -> Any:
    """(A, M, key) -> PartialEigh under vmap, compiled."""
    import jax_peig

    def solve(a: Any, m: Any, key: Any) -> Any:
        return jax_peig.partial_eigh(a, m, K, method=method, tol=tol, max_steps=max_steps, key=key)

    return jax.jit(jax.vmap(solve))


def exact_spectrum(A: np.ndarray, M: np.ndarray | None) -> tuple[np.ndarray, float, float]:
    """The eigenvalues of a pencil of float64 matrices, to extended precision.

    LAPACK's vectors X make X^T A X and X^T M X nearly diagonal. Computed in long doubles they are
    corrected cluster by cluster: lam_0 plus the eigenvalues of the small matrix C - lam_0 G, a
    difference so small that float64 has digits enough for it. What is left out is of second
    order in LAPACK's own rounding.

    Parameters
    ----------
    A : (n, n)
    M : (n, n) or None

    Returns
    -------
    (numpy.ndarray, float, float)
        The eigenvalues, (n,) in long doubles; a bound on their error; and ||A|| / lambda_min(M),
        the unit in which eigenvalues are rounded.
    """

    def symmetric(matrix: np.ndarray) -> np.ndarray:
        full = matrix.astype(np.longdouble)
        return (full + full.T) / 2

    n = A.shape[0]
    long_a = symmetric(A)
    long_m = np.eye(n, dtype=np.longdouble) if M is None else symmetric(M)
    lam, X = scipy.linalg.eigh(long_a.astype(float), long_m.astype(float))
    size = float(np.linalg.norm(A, 2) / np.linalg.eigvalsh(long_m.astype(float))[0])
    X = X.astype(np.longdouble)
    C, G = X.T @ (long_a @ X), X.T @ (long_m @ X)
    separate = 1e-5 * size
    labels = cluster_labels(lam, separate)
    values = np.empty(n, np.longdouble)
    for label in range(labels[-1] + 1):
        own = np.flatnonzero(labels == label)
        block, gram = C[np.ix_(own, own)], G[np.ix_(own, own)]
        first = np.longdouble(lam[own[0]])
        rest = (block - first * gram).astype(float)
        values[own] = first + scipy.linalg.eigh(rest, gram.astype(float), eigvals_only=True)
    coupling = (C - np.diag(np.diag(C))) - lam * (G - np.diag(np.diag(G)))
    coupling[labels[:, None] == labels[None, :]] = 0.0
    second = float(np.max((coupling**2).sum(0))) / separate
    # inside a cluster of some width, float64 solves for the differences from its first member
    width = max(np.ptp(lam[labels == label]) for label in range(labels[-1] + 1))
    eps = float(np.finfo(np.longdouble).eps)
    doubt = n * eps * size + second + n * float(np.finfo(float).eps) * width
    return values, doubt, size


def describe(findings: list[Finding]) -> dict[str, Any]:
    """Violations and quantiles of findings taken together, for JSON."""
    shown: dict[str, Any] = {
        name: _common(findings, name) for name in ("method", "condition", "tol", "max_steps")
    }
    shown |= {
        "pairs": sum(f.error.size for f in findings),
        "converged": sum(f.converged for f in findings),
        "violations": int(sum(f.violated.sum() for f in findings)),
    }
    for name in ("estimate", "bound"):
        ratios = np.concatenate([f.ratios(getattr(f, name)) for f in findings])
        shown[f"{name}_pairs"] = ratios.size
        shown[f"{name}_over_error"] = (
            np.quantile(ratios, np.array(QUANTILES) / 100.0).tolist() if ratios.size else None
        )
    return shown


def grouped(findings: list[Finding]) -> list[dict[str, Any]]:
    """`describe` of all stops of each method and M together."""
    groups: dict[Any, list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.method, finding.condition), []).append(finding)
    return [describe(group) for group in groups.values()]


def _common(findings: list[Finding], name: str) -> Any:
    values = {getattr(finding, name) for finding in findings}
    return values.pop() if len(values) == 1 else "all"


def markdown(results: dict[str, Any]) -> str:
    """The table for the page: a row for each method and M, and one for all."""
    return report.markdown(HEADINGS, map(_cells, [*results["groups"], results["total"]]))


def _cells(row: dict[str, Any]) -> list[str]:
    texts = [
        row["method"],
        "I" if row["condition"] is None else _short(row["condition"]),
        _short(row["tol"]),
        "" if row["max_steps"] is None else str(row["max_steps"]),
        *(str(row[name]) for name in ("pairs", "converged")),
        str(row["violations"]) + ("!" if row["violations"] else ""),
    ]
    for name in ("estimate", "bound"):
        found = row[f"{name}_over_error"]
        texts.append("-" if found is None else " ".join(f"{q:.2g}" for q in found))
    return texts


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = report.parser("bounds", __doc__, timed=False)
    add = parser.add_argument
    add("--draws", type=int, default=12, metavar="N", help="problems for each program (12)")
    methods = (*METHODS, "davidson", "dense")
    add("--method", action="append", choices=methods, help=f"default: {', '.join(METHODS)}")
    add("--single", action="store_true", help="float32")
    options = parser.parse_args(arguments)
    options.stops = STOPS
    if options.quick:
        options.draws, options.stops = 2, ((1e-4, None), (1e-10, 3))
    return options


if __name__ == "__main__":
    sys.exit(main())
