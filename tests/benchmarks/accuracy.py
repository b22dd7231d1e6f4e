"""Gradients of drawn problems: is `derivative_report` right about them, and is any refused wrongly?

    python -m tests.benchmarks.accuracy [estimates] [alarms] [--draws N] [--method METHOD]
                                        [--save FILE.json | --keep]

Dense matrices (n = 60, k = 6), real and complex, with distinct eigenvalues and with clusters inside
the wanted set, of exact and of near repetition, are given by their products. The loss is rough,
smooth and invariant, and its exact gradient known from LAPACK's vectors in closed form:

    f = sum_r c_r rho_r^2 + sum_j lam_j,   rho = diag(X X^H),
    df/dA = X X^H + sum_{j <= k < p} (x_p^H C x_j) / (lam_j - lam_p) (x_p x_j^H + h.c.),
    C = diag(2 c rho).

* estimates: forward tolerances from 1e-3 to 1e-9; quantiles of ``report.error`` over the true
  relative error, and how many lie within three times of it. 1 is perfect; errors below 1e-11 are
  rounding and left out.
* alarms: in float64 and float32, at several forward tolerances; how many gradients are NaN, of
  which there must be none, and the true relative errors of the others.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tests.support import spectra

from . import page, report

N, K = 60, 6
METHODS = ("chebyshev", "lobpcg", "davidson")
STUDIES = ("estimates", "alarms")
TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
# (dtype, tol) of the alarms; None is the default of `partial_eigh`.
ALARMS = (
    (np.float64, None), (np.float64, 1e-5), (np.float64, 1e-3), (np.float32, None),
    (np.float32, 1e-3),
)  # fmt: skip
SEPARATIONS = (0.0, 1e-14, 1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
ROUNDING = 1e-11
QUANTILES = (0, 5, 50, 95, 100)
WIDTHS = [10, 10, 9, 9, 7, 9, 46]
_SHARES = ", ".join(f"{share} %" for share in QUANTILES)
HEADINGS = {
    "estimates": [
        "method", "dtype", "tol", "problems", "seen", "within 3", f"estimate / error: {_SHARES}",
    ],
    "alarms": [
        "method", "dtype", "tol", "problems", "refused", "given", f"gradient error: {_SHARES}",
    ],
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns 1 when a well-posed gradient was refused."""
    options = _parse(arguments)
    results = report.begin(options) | {"draws": options.draws, "rows": []}
    for study in options.studies or STUDIES:
        print(f"\n{report.cells(HEADINGS[study], WIDTHS)}")
        run = {"estimates": estimates, "alarms": alarms}[study]
        for row in run(options.draws, options.method or METHODS, *options.cases.get(study, ())):
            results["rows"].append({"study": study} | row)
            print(report.cells(_cells(row), WIDTHS), flush=True)
    page.finish(results, options)
    return int(sum(row.get("refused", 0) for row in results["rows"]) > 0)


# -- the problems ----------------------------------------------------------------------------------


def draw(rng: np.random.Generator, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """A Hermitian matrix of some scale, with a cluster or none inside the wanted set, and c."""
    kind = rng.choice(spectra.CLUSTERS)
    values = spectra.clustered(N, K, kind)
    gap = rng.uniform(0.1, 1.0)
    values[K:] += values[K - 1] + gap - values[K]
    separation = rng.choice(SEPARATIONS) * values[-1]
    for first in np.flatnonzero(np.diff(values[:K], prepend=-1.0) > 0):
        own = np.flatnonzero(values[:K] == values[first])
        values[own] += separation * rng.random(own.size) * (own.size > 1)
    values = (values - rng.choice([0.0, 10.0])) * 10.0 ** rng.uniform(-2.0, 2.0)
    complex_ = bool(rng.integers(2)) and dtype == np.float64
    seed = int(rng.integers(2**31))
    pencil = spectra.pencil(values, dtype=np.complex128 if complex_ else np.float64, seed=seed)
    return pencil.A, 0.5 + rng.random(N)


def exact_gradient(A: np.ndarray, c: np.ndarray) -> np.ndarray:
    """df/dA in closed form, as a Hermitian matrix."""
    lam, X = np.linalg.eigh(A)
    inside, beyond = X[:, :K], X[:, K:]
    rho = np.sum(np.abs(inside) ** 2, axis=1)
    coupling = beyond.conj().T @ ((2 * c * rho)[:, None] * inside)
    half = beyond @ (coupling / (lam[None, :K] - lam[K:, None])) @ inside.conj().T
    return inside @ inside.conj().T + half + half.conj().T


def _product(A: Any, u: Any) -> Any:
    return A @ u


def _loss(A: Any, c: Any, method: str, tol: float | None) -> Any:
    import jax_peig

    options = {"n": N, "dtype": A.dtype, "method": method, "tol": tol}
    lam, X, _ = jax_peig.partial_eigh(Partial(_product, A), k=K, **options)
    rho = jnp.sum(jnp.abs(X) ** 2, axis=1)
    return jnp.sum(c * rho**2) + jnp.sum(lam)


def _hermitian(gradient: Any) -> np.ndarray:
    """Of JAX's cotangent of A what a Hermitian change of A sees, as a gradient."""
    g = np.asarray(gradient).conj()
    return (g + np.swapaxes(g, -1, -2).conj()) / 2


def _relative_error(gradient: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(gradient - exact) / np.linalg.norm(exact))


# -- the studies -----------------------------------------------------------------------------------


def estimates(draws: int, methods: Any, tolerances: Any = TOLERANCES) -> Iterator[dict[str, Any]]:
    """``draws`` problems for each method, shared out over the tolerances, and a row for all."""
    import jax_peig

    for position, method in enumerate(methods):
        rng = np.random.default_rng([1, position])
        pairs: list[tuple[float, float]] = []
        for tol in tolerances:
            f = functools.partial(_loss, method=method, tol=tol)
            before = len(pairs)
            for _ in range(-(-draws // len(tolerances))):
                A, c = draw(rng, np.float64)
                A = A.astype(complex)  # one program for both
                found = jax_peig.derivative_report(f, jnp.asarray(A), jnp.asarray(c))
                error = _relative_error(_hermitian(found.gradient), exact_gradient(A, c))
                pairs.append((found.error, error))
            yield _estimated(method, f"{tol:g}", pairs[before:])
        yield _estimated(method, "all", pairs)


def _estimated(method: str, tol: str, pairs: list[tuple[float, float]]) -> dict[str, Any]:
    estimate, error = np.array(pairs).T
    seen = error > ROUNDING
    ratio = estimate[seen] / error[seen]
    return {
        "method": method,
        "dtype": "complex128",
        "tol": tol,
        "problems": len(pairs),
        "seen": int(seen.sum()),
        "count": int(np.sum((ratio <= 3) & (ratio >= 1 / 3))),
        "quantiles": np.quantile(ratio, np.array(QUANTILES) / 100).tolist() if ratio.size else [],
    }


def alarms(draws: int, methods: Any, cases: Any = ALARMS) -> Iterator[dict[str, Any]]:
    """``draws`` problems for each method, shared out over dtypes and tolerances."""
    share = -(-draws // len(cases))
    for position, method in enumerate(methods):
        for number, (dtype, tol) in enumerate(cases):
            rng = np.random.default_rng([2, position, number])
            drawn = [draw(rng, dtype) for _ in range(share)]
            kind = np.complex128 if dtype == np.float64 else np.float32
            A = np.stack([a for a, _ in drawn]).astype(kind)
            c = np.stack([c for _, c in drawn]).astype(dtype)
            f = functools.partial(_loss, method=method, tol=tol)
            gradients = _hermitian(jax.jit(jax.vmap(jax.grad(f)))(A, c))
            exact = map(exact_gradient, A.astype(complex), c)
            errors = np.array(list(map(_relative_error, gradients, exact)))
            refused = ~np.isfinite(errors)
            yield {
                "method": method,
                "dtype": np.dtype(dtype).name,
                "tol": "default" if tol is None else f"{tol:g}",
                "problems": share,
                "refused": int(refused.sum()),
                "count": share - int(refused.sum()),
                "quantiles": np.quantile(errors[~refused], np.array(QUANTILES) / 100).tolist(),
            }


# -- the tables ------------------------------------------------------------------------------------


def markdown(results: dict[str, Any]) -> str:
    """The tables for the page, one for each study that ran."""
    tables = []
    for study in STUDIES:
        if rows := [row for row in results["rows"] if row["study"] == study]:
            tables.append(report.markdown(HEADINGS[study], map(_cells, rows)))
    return "\n\n".join(tables)


def _cells(row: dict[str, Any]) -> list[str]:
    middle = row["seen"] if "seen" in row else row["refused"]
    quantiles = " ".join(f"{q:.2g}" for q in row["quantiles"])
    numbers = map(str, (row["problems"], middle, row["count"]))
    return [row["method"], row["dtype"], row["tol"], *numbers, quantiles]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = report.parser("accuracy", __doc__, timed=False)
    add = parser.add_argument
    add("studies", nargs="*", metavar="STUDY", help=f"{' or '.join(STUDIES)}; both by default")
    add("--draws", type=int, default=350, metavar="N", help="problems for each method (350)")
    add("--method", action="append", choices=METHODS, help="default: all three")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.studies) - set(STUDIES)):
        parser.error(f"unknown studies {unknown}: choose from {list(STUDIES)}")
    options.cases = {}
    if options.quick:
        options.draws, options.method = 3, ["chebyshev"]
        options.cases = {"estimates": [(1e-4,)], "alarms": [((np.float32, 1e-3),)]}
    return options


if __name__ == "__main__":
    sys.exit(main())
