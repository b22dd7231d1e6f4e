"""Large batches: many small matrices, many k-points, and one hard member among easy ones.

    python -m tests.benchmarks.batches [--case NAME] [--repeat N] [--processes N]
                                       [--save FILE.json | --keep]

The loss is rough in the eigenvectors, sum_r c_r (sum_j |x_rj|^2)^2, and "gradient" is the time of
value and gradient in the matrices, or in the potential that all k-points share. The errors are
those of the eigenvalues beside LAPACK, over the norm; of k-points, for a sample of them.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import page, processes, report, timing

K = 4
CHUNK = 256  # members that lax.map takes at once, at most
SAMPLE = 3
WAYS = ("vmap", "lax.map")
ROUNDS, BUDGET = 1, 2.0  # of a time: one call of a large batch takes seconds
HEADINGS = [
    "batch", "n", "solver", "by", "value s", "gradient s", "gradient x", "us a member", "error",
]  # fmt: skip
WIDTHS = [24, 6, 16, 8, 9, 10, 10, 11, 8]
SLOW_HEADINGS = ["method", "by", "easy s", "with one hard s", "ratio", "of matvecs", "in step"]

Loss = Callable[[Any, Any], tuple[Any, Any]]  # (shared, members) -> value, eigenvalues


@dataclass(frozen=True)
class Case:
    """A batch: what all members share, what each has, and the eigenvalues of some of them."""

    title: str
    n: int
    shared: Any
    members: Any
    solve: Callable[[str, Any, Any], Any]  # solver, shared, member -> w, x
    runs: tuple[tuple[str, str], ...]  # solver, way
    exact: Callable[[int], np.ndarray]  # of a member
    checked: tuple[int, ...]
    chunk: int | None


def _matrices(n: int, count: int, ways: Sequence[str]) -> Case:
    a = np.random.default_rng(n).standard_normal((count, n, n)) / np.sqrt(8 * n)
    a += np.swapaxes(a, 1, 2)

    def solve(solver: str, shift: Any, matrix: Any) -> Any:
        import jax_peig

        moved = matrix + jnp.diag(shift)
        if solver == "jnp.linalg.eigh":
            w, x = jnp.linalg.eigh(moved)
            return w[:K], x[:, :K]
        return jax_peig.partial_eigh(moved, k=K, method=solver)[:2]

    return Case(
        title=f"{count} matrices", n=n, shared=np.zeros(n), members=a, solve=solve,
        runs=tuple((s, way) for s in ("dense", "jnp.linalg.eigh") for way in ways),
        exact=lambda i: np.linalg.eigvalsh(a[i])[:K],
        checked=tuple(range(0, count, max(count // 100, 1))), chunk=_chunk(count),
    )  # fmt: skip


def _chunk(count: int) -> int:
    """The largest divisor of the count, up to `CHUNK`.

    With a remainder, lax.map makes two batched LAPACK calls: before JAX 0.11.2 those of
    jnp.linalg.eigh wait for each other for ever on two cores.
    """
    return next(size for size in range(min(CHUNK, count), 0, -1) if count % size == 0)


def _k_points(side: int, count: int, ways: Sequence[str]) -> Case:
    """A crystal in two dimensions of period 6, at random k; vectors are its periodic grids."""
    length = 6.0
    waves = 2 * np.pi * np.fft.fftfreq(side, length / side)
    bell = np.exp(4 * (np.cos(2 * np.pi * np.arange(side) / side) - 1))
    shape = (side, side)
    points = np.random.default_rng(0).uniform(-np.pi / length, np.pi / length, (count, 2))

    def kinetic(k: Any) -> Any:
        return ((waves[:, None] + k[0]) ** 2 + (waves[None, :] + k[1]) ** 2) / 2

    def solve(solver: str, V: Any, k: Any) -> Any:
        import jax_peig

        energy = kinetic(k)
        given = {"preconditioner": jax_peig.preconditioners.fourier(energy, 1.0)}
        energy = energy.astype(complex)
        w, x, _ = jax_peig.partial_eigh(
            lambda u: jnp.fft.ifft2(energy * jnp.fft.fft2(u)) + V.astype(complex) * u, k=K,
            like=jax.ShapeDtypeStruct(shape, complex), method=solver,
            **(given if solver == "lobpcg" else {}),
        )  # fmt: skip
        return w, x.reshape(-1, K)

    potential = -2 * np.outer(bell, bell) * (1 + 0.1 * np.linspace(0, 1, side))

    def exact(i: int) -> np.ndarray:
        dft = np.fft.fft2(np.eye(side**2).reshape(side**2, *shape), norm="ortho")
        dft = dft.reshape(side**2, -1).T
        dense = (dft.conj().T * kinetic(points[i]).ravel()) @ dft + np.diag(potential.ravel())
        return np.linalg.eigvalsh(dense)[:K]

    return Case(
        title=f"{count} k-points", n=side**2, shared=potential, members=points, solve=solve,
        runs=tuple((s, way) for s in ("chebyshev", "lobpcg") for way in ways), exact=exact,
        checked=tuple(range(0, count, -(-count // SAMPLE))), chunk=None,
    )  # fmt: skip


CASES: dict[str, Callable[[], Case]] = {
    "matrices-32": lambda: _matrices(32, 10_000, WAYS),
    "matrices-64": lambda: _matrices(64, 10_000, WAYS[:1]),
    "k-points-16": lambda: _k_points(16, 256, WAYS),
    "k-points-32": lambda: _k_points(32, 256, WAYS[1:]),
}
QUICK = {
    "matrices-6": lambda: _matrices(6, 5, WAYS),
    "k-points-5": lambda: _k_points(5, 3, WAYS[1:]),
}


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    cases = (CASES, QUICK)
    options = report.parse_cases("batches", __doc__, "--case", cases, arguments, processes=True)
    if options.processes > 1:
        identities = {"rows": ("batch", "n", "solver", "by"), "slow": ("method", "by")}
        results = processes.table(options, **identities)
    else:
        results = report.begin(options) | _all_cases(options)
    page.finish(results, options)
    return 0


def _all_cases(options: argparse.Namespace) -> dict[str, Any]:
    rows, slow = [], []
    print(report.cells(HEADINGS, WIDTHS))
    for make in options.cases.values():
        case = make()
        for solver, way in case.runs:
            rows.append(measured(case, solver, way, options.repeat))
            print(report.cells(_cells(rows[-1]), WIDTHS), flush=True)
    for method, way in (("chebyshev", "vmap"), ("lobpcg", "vmap"), ("lobpcg", "lax.map")):
        slow.append(one_hard(method, way, options))
        print("  ".join(_slow_cells(slow[-1])), flush=True)
    return {"rows": rows, "slow": slow}


def measured(case: Case, solver: str, way: str, repeat: int) -> dict[str, Any]:
    """A row."""
    c = 0.5 + np.random.default_rng(1).random(case.n)

    def loss(shared: Any, members: Any) -> Any:
        def one(member: Any) -> Any:
            w, x = case.solve(solver, shared, member)
            return jnp.sum(c * jnp.sum(jnp.abs(x) ** 2, axis=1) ** 2), w

        values, w = _mapped(one, members, way, case.chunk)
        return jnp.sum(values), w

    given = jnp.asarray(case.shared), jnp.asarray(case.members)
    value, _ = timing.compile_ahead(loss, *given)
    wanted = int(case.shared.ndim == 1)  # the matrices, or the potential
    gradient, _ = timing.compile_ahead(jax.value_and_grad(loss, wanted, has_aux=True), *given)
    (_, w), slope = jax.tree.map(np.asarray, gradient(*given))
    errors = [
        np.abs(w[i] - case.exact(i)).max() / np.abs(case.exact(i)).max() for i in case.checked
    ]
    calls = [functools.partial(f, *given) for f in (value, gradient)]
    times = [timing.measure(call, repeat, rounds=ROUNDS, budget=BUDGET) for call in calls]
    return {
        "batch": case.title,
        "n": case.n,
        "members": len(case.members),
        "solver": solver,
        "by": way,
        "seconds": times[0].seconds,
        "noisy": times[0].noisy,
        "gradient_seconds": times[1].seconds,
        "gradient_noisy": times[1].noisy,
        "finite": bool(np.isfinite(slope).all()),
        "error": float(max(errors)),
    }


def _mapped(one: Callable[[Any], Any], members: Any, way: str, chunk: int | None) -> Any:
    if way == "vmap":
        return jax.vmap(one)(members)
    return jax.lax.map(one, members, batch_size=chunk)


def one_hard(method: str, way: str, options: argparse.Namespace) -> dict[str, Any]:
    """Chains with a well: a weak coupling leaves the lowest levels close, and takes more steps."""
    n, count = (40, 3) if options.quick else (1000, 64)
    well = 100 * np.linspace(0.0, 1.0, n) ** 2

    def solve(coupling: Any) -> Any:
        import jax_peig

        def product(u: Any) -> Any:
            return well * u + coupling * (2 * u - jnp.roll(u, 1) - jnp.roll(u, -1))

        w, _, info = jax_peig.partial_eigh(product, k=K, n=n, method=method)
        return w, info.matvecs, info.converged

    easy = jnp.linspace(20.0, 30.0, count)
    mixed = easy.at[count // 2].set(0.01)
    batch, _ = timing.compile_ahead(lambda c: _mapped(solve, c, way, None), easy)
    counts = [np.asarray(batch(c)[1]) for c in (easy, mixed)]
    calls = [functools.partial(batch, c) for c in (easy, mixed)]
    times = [timing.measure(call, options.repeat, rounds=ROUNDS, budget=BUDGET) for call in calls]
    return {
        "method": method,
        "by": way,
        "members": count,
        "n": n,
        "seconds": [t.seconds for t in times],
        "noisy": any(t.noisy for t in times),
        "ratio": times[1].seconds / times[0].seconds,
        "matvecs_ratio": float(counts[1].sum() / counts[0].sum()),
        "in_step": float(count * counts[1].max() / counts[1].sum()),
        "converged": bool((np.asarray(batch(mixed)[2]) == K).all()),
    }


def markdown(results: dict[str, Any]) -> str:
    """The tables for the page."""
    slow = results["slow"]
    about = f"**One hard member among {slow[0]['members']}; n = {slow[0]['n']}**"
    tables = [
        report.markdown(HEADINGS, map(_cells, results["rows"])),
        report.markdown(SLOW_HEADINGS, map(_slow_cells, slow)),
    ]
    return f"\n\n{about}\n\n".join(tables)


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["batch"],
        str(row["n"]),
        row["solver"],
        row["by"],
        f"{row['seconds']:.3f}" + ("~" if row["noisy"] else ""),
        (f"{row['gradient_seconds']:.3f}" if row["finite"] else "NaN")
        + ("~" if row["gradient_noisy"] else ""),
        f"{row['gradient_seconds'] / row['seconds']:.1f}",
        f"{1e6 * row['seconds'] / row['members']:.0f}",
        report.number(row["error"], ".1e"),
    ]


def _slow_cells(row: dict[str, Any]) -> list[str]:
    noise = "~" if row["noisy"] else ""
    times = [f"{seconds:.3f}{noise}" for seconds in row["seconds"]]
    ratios = [f"{row[name]:.2f}" for name in ("ratio", "matvecs_ratio", "in_step")]
    return [row["method"], row["by"], *times, *ratios]


if __name__ == "__main__":
    sys.exit(main())
