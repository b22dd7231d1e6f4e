"""P1 to P5 on a GPU beside CuPy, torch and jnp.linalg.eigh, and the bandwidth of products.

    python -m tests.benchmarks.gpu [--budget SECONDS] [--repeat N] [--save FILE.json | --keep]

The sizes go up until the budget is spent. Every solver has the same tolerance, 1e-8 in float64
and 1e-4 in float32, and is judged in float64 on the host: the true residual, and whether the set is
the exact one. A product is timed inside a compiled loop, and its bytes, those of the block that is
read and written and of the stored entries, are compared with a large copy in the same run.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.experimental import sparse

from . import page, report, timing
from .base import Problem
from .problems import make
from .rows import failure
from .solvers import judge, starting_block

SIZES = {
    "P1": (100, 400, 1000, 3162),
    "P2": (24, 100, 215),
    "P3": (80, 400, 1000),
    "P4": (1000, 4000),
    "P5": (50_000,),
}
QUICK = {"P1": (14,), "P3": (12,), "P4": (120,)}
TOLERANCES = {"float64": 1e-8, "float32": 1e-4}
COLUMNS, PRODUCTS = 16, 50
MAX_STEPS = 3000
HEADINGS = [
    "problem", "n", "dtype", "solver", "time ms", "compile s", "residual", "right",
]  # fmt: skip
WIDTHS = [40, 9, 8, 24, 10, 9, 8, 0]
PRODUCT_HEADINGS = ["problem", "n", "dtype", "product", "us a column", "GB/s", "of a copy"]

Solve = Callable[[], tuple[Any, Any]]  # -> w, x


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 2 where there is no GPU."""
    options = _parse(arguments)
    device = jax.devices()[0]
    if device.platform != "gpu" and not options.quick:
        print(f"The first device is {device.device_kind}: no GPU is at hand. See --quick.")
        return 2
    results = report.begin(options) | {"card": device.device_kind, "rows": [], "products": []}
    results["copy_bytes_per_second"] = copy_bandwidth(10**5 if options.quick else 2 * 10**8)
    end = time.perf_counter() + options.budget
    for name, size in _by_order(options.sizes):
        if time.perf_counter() > end:
            results["rows"].append({"problem": f"{name} {size}", "status": "not run: no time left"})
            continue
        problem = make(name, size)
        for dtype, tol in TOLERANCES.items():
            results["products"] += products(problem, dtype, results["copy_bytes_per_second"])
            forms = _forms(problem, dtype)
            ours = {f"jax_peig {form}": functools.partial(_ours, form=form) for form in forms}
            for solver, prepare in {**ours, **PEERS}.items():
                row = measured(problem, dtype, tol, solver, prepare, options.repeat)
                results["rows"].append(row)
                print(report.cells(_cells(row), WIDTHS), flush=True)
    page.finish(results, options)
    return 0


def _by_order(sizes: dict[str, tuple[int, ...]]) -> list[tuple[str, int]]:
    """All problems of the first size, then those of the second, and so on."""
    longest = max(map(len, sizes.values()))
    return [(name, s[i]) for i in range(longest) for name, s in sizes.items() if i < len(s)]


def copy_bandwidth(entries: int) -> float:
    """Bytes that a copy reads and writes in a second."""
    x = jnp.ones(entries, jnp.float32)
    copy = jax.jit(lambda x, c: x + c)
    taken = timing.measure(functools.partial(copy, x, jnp.float32(1)), 7)
    return 8 * entries / taken.seconds


# ---------------------------------------------------------------- products


def products(problem: Problem, dtype: str, copied: float) -> list[dict[str, Any]]:
    """A row for each form of A: the product with a block, inside a compiled loop."""
    x = jnp.asarray(starting_block(problem, COLUMNS, 0), dtype)
    scale, rows = 1 / float(problem.norm), []
    for name, (operator, stored) in _forms(problem, dtype).items():
        # A scaled product keeps the block bounded, and each step needs the one before it.
        def loop(operator: Any, x: Any) -> Any:
            def step(_: Any, x: Any) -> Any:
                return _times(operator, x) * scale

            return jax.lax.fori_loop(0, PRODUCTS, step, x)

        run = functools.partial(jax.jit(loop), operator, x)
        seconds = timing.measure(run, 5).seconds / PRODUCTS
        rate = (2 * x.nbytes + stored) / seconds
        rows.append(
            {
                "problem": problem.title,
                "n": problem.n,
                "dtype": dtype,
                "product": name,
                "microseconds": 1e6 * seconds / COLUMNS,
                "bytes_per_second": rate,
                "of_a_copy": rate / copied,
            }
        )
    return rows


def _forms(problem: Problem, dtype: str) -> dict[str, tuple[Any, int]]:
    """The forms of A, each with the bytes of its entries and indices."""
    from jax_peig import operators

    if not problem.potential:
        matrix = jnp.asarray(problem.matrix, dtype)
        return {"array": (matrix, matrix.nbytes)}
    theta = jnp.asarray(problem.theta, dtype)
    listed = scipy.sparse.csr_array(problem.matrix.astype(dtype))
    ours, bcoo = operators.from_scipy(listed), sparse.BCOO.from_scipy_sparse(listed)
    return {
        "function": (jax.tree_util.Partial(problem.product, theta), theta.nbytes),
        "SparseOperator": (ours, sum(leaf.nbytes for leaf in jax.tree.leaves(ours))),
        "BCOO": (bcoo, bcoo.data.nbytes + bcoo.indices.nbytes),
    }


def _times(operator: Any, x: Any) -> Any:
    return operator(x) if isinstance(operator, jax.tree_util.Partial) else operator @ x


# ---------------------------------------------------------------- solvers


def _ours(problem: Problem, dtype: str, tol: float, form: str) -> tuple[Solve, float | None]:
    import jax_peig

    A: Any = _forms(problem, dtype)[form][0]
    M: Any = None
    if form == "function":
        A = jax_peig.BlockProduct(A)
    if problem.mass is not None:
        M = jax_peig.operators.from_scipy(scipy.sparse.csr_array(problem.mass.astype(dtype)))

    def solve(A: Any, M: Any) -> Any:
        return jax_peig.partial_eigh(
            A, M, problem.k, which=problem.which, n=problem.n, dtype=dtype, tol=tol
        )[:2]

    run, seconds = timing.compile_ahead(solve, A, M)
    return functools.partial(run, A, M), seconds


def _lapack(problem: Problem, dtype: str, tol: float) -> tuple[Solve, float | None]:
    if problem.potential:
        raise NotImplementedError("the matrix is not an array")

    def solve(matrix: Any) -> Any:
        w, x = jnp.linalg.eigh(matrix)
        order = slice(None, problem.k) if problem.which == "smallest" else slice(-problem.k, None)
        return w[order], x[:, order]

    given = jnp.asarray(problem.matrix, dtype)
    run, seconds = timing.compile_ahead(solve, given)
    return functools.partial(run, given), seconds


def _cupy(problem: Problem, dtype: str, tol: float, lobpcg: bool) -> tuple[Solve, float | None]:
    import cupy
    import cupyx.scipy.sparse as cusparse
    import cupyx.scipy.sparse.linalg as culinalg

    def given(matrix: Any) -> Any:
        listed = scipy.sparse.issparse(matrix)
        return cusparse.csr_matrix(matrix.astype(dtype)) if listed else cupy.asarray(matrix, dtype)

    A, B = given(problem.matrix), None if problem.mass is None else given(problem.mass)
    if B is not None and not lobpcg:
        raise NotImplementedError("it takes no M")
    largest = problem.which == "largest"
    columns = problem.k if lobpcg else 1
    start = cupy.asarray(starting_block(problem, columns, 0), dtype)

    def solve() -> Any:
        if lobpcg:  # its tolerance is absolute
            absolute = tol * problem.norm
            found = culinalg.lobpcg(A, start, B, tol=absolute, maxiter=MAX_STEPS, largest=largest)
        else:
            which = "LA" if largest else "SA"
            found = culinalg.eigsh(A, problem.k, which=which, v0=start[:, 0], tol=tol)
        cupy.cuda.Device().synchronize()
        return cupy.asnumpy(found[0]), cupy.asnumpy(found[1])

    return solve, None


def _torch(problem: Problem, dtype: str, tol: float) -> tuple[Solve, float | None]:
    import torch

    where = "cuda" if torch.cuda.is_available() else "cpu"

    def given(matrix: Any) -> Any:
        if not scipy.sparse.issparse(matrix):
            return torch.from_numpy(np.asarray(matrix, dtype)).to(where)
        listed = scipy.sparse.coo_array(matrix.astype(dtype))
        indices = torch.from_numpy(np.stack(listed.coords).astype(np.int64))
        values = torch.from_numpy(listed.data)
        return torch.sparse_coo_tensor(indices, values, listed.shape).coalesce().to(where)

    A, B = given(problem.matrix), None if problem.mass is None else given(problem.mass)
    X = given(starting_block(problem, problem.k, 0))

    def solve() -> Any:
        largest = problem.which == "largest"
        w, x = torch.lobpcg(A, k=problem.k, B=B, X=X, niter=MAX_STEPS, tol=tol / 2, largest=largest)
        return w.cpu().numpy(), x.cpu().numpy()

    return solve, None


Prepare = Callable[[Problem, str, float], tuple[Solve, float | None]]
PEERS: dict[str, Prepare] = {
    "jnp.linalg.eigh": _lapack,
    "CuPy eigsh": functools.partial(_cupy, lobpcg=False),
    "CuPy lobpcg": functools.partial(_cupy, lobpcg=True),
    "torch.lobpcg": _torch,
}
PACKAGES = {"CuPy eigsh": "cupy", "CuPy lobpcg": "cupy", "torch.lobpcg": "torch"}


def measured(
    problem: Problem, dtype: str, tol: float, solver: str, prepare: Prepare, repeat: int
) -> dict[str, Any]:
    """A row; one without times where the solver is not installed, not made for this, or fails."""
    row = {"problem": problem.title, "n": problem.n, "dtype": dtype, "solver": solver}
    package = PACKAGES.get(solver)
    if package and importlib.util.find_spec(package) is None:
        return row | {"status": "not installed"}
    try:
        solve, compile_seconds = prepare(problem, dtype, tol)
        w, x = (np.asarray(part, float) for part in solve())
        taken = timing.measure(solve, repeat)
    except NotImplementedError as error:
        return row | {"status": f"not run: {error}"}
    except Exception as error:
        return row | {"status": failure(error)}
    verdict = judge(problem, w, x)
    return row | {
        "status": "ok",
        "seconds": taken.seconds,
        "noisy": taken.noisy,
        "compile_seconds": compile_seconds,
        "residual": verdict.residual,
        "right": verdict.right,
    }


def markdown(results: dict[str, Any]) -> str:
    """The tables for the page."""
    rate = results["copy_bytes_per_second"] / 1e9
    about = f"**Products; a large copy moves {rate:.0f} GB/s on {results['card']}**"
    tables = [
        report.markdown(HEADINGS, map(_cells, results["rows"])),
        report.markdown(PRODUCT_HEADINGS, map(_product_cells, results["products"])),
    ]
    return f"\n\n{about}\n\n".join(tables)


def _cells(row: dict[str, Any]) -> list[str]:
    given = [row["problem"], *(str(row.get(name, "")) for name in ("n", "dtype", "solver"))]
    if row["status"] != "ok":
        return [*given, row["status"][:60], "", "", ""]
    compiled = row["compile_seconds"]
    return [
        *given,
        report.milliseconds(row),
        "" if compiled is None else f"{compiled:.2f}",
        report.number(row["residual"], ".1e"),
        "yes" if row["right"] else "NO",
    ]


def _product_cells(row: dict[str, Any]) -> list[str]:
    return [
        row["problem"],
        str(row["n"]),
        row["dtype"],
        row["product"],
        f"{row['microseconds']:.3g}",
        f"{row['bytes_per_second'] / 1e9:.3g}",
        f"{row['of_a_copy']:.2f}",
    ]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = report.parser("gpu", __doc__)
    text = "seconds after which no larger problem begins (default: 480)"
    parser.add_argument("--budget", type=float, default=480.0, metavar="S", help=text)
    options = parser.parse_args(arguments)
    options.sizes = SIZES
    if options.quick:
        options.sizes, options.repeat = QUICK, 1
    return options


if __name__ == "__main__":
    sys.exit(main())
