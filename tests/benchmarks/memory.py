"""How much memory a solve needs, by XLA's own analysis of the compiled programs.

    python -m tests.benchmarks.memory [--method METHOD] [--size N] [--save FILE.json | --keep]

The programs are the eight smallest pairs of the five-point Laplacian on a square grid, and the
value and gradient of a rough loss of them. They are compiled and not run. A number counts buffers
of the order n in float64, beside arguments and results.
"""

from __future__ import annotations

import argparse
import functools
import sys
from typing import Any

import jax
import jax.numpy as jnp

from jax_peig import LOBPCG, BlockProduct, Chebyshev, Davidson, partial_eigh

from . import page, report
from .timing import compile_ahead

K = 8
SIDE = 1000
METHODS = {method.name: method for method in (Chebyshev(), LOBPCG(), Davidson())}
HEADINGS = ["method", "block", "value", "5 block + 2 k", "value and grad", "beyond", "6 k"]
WIDTHS = [10, 5, 6, 13, 14, 6, 5]


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    options = _parse(arguments)
    results = report.begin(options) | {"n": options.size**2, "k": K, "rows": []}
    print(report.cells(HEADINGS, WIDTHS))
    for method in options.method or METHODS:
        results["rows"].append(vectors(method, options.size))
        print(report.cells(_cells(results["rows"][-1]), WIDTHS), flush=True)
    page.finish(results, options)
    return 0


def vectors(method: str, side: int) -> dict[str, Any]:
    """The temporary vectors of both programs of one method, and the width of its block."""
    n = side**2
    value = functools.partial(_loss, method, side)
    potential = jnp.zeros(n)
    row = {"method": method, "block": METHODS[method].block_width(n, K)}
    for name, program in (("value", value), ("grad", jax.value_and_grad(value))):
        compiled, _ = compile_ahead(program, potential)
        row[name] = compiled.memory_analysis().temp_size_in_bytes / (8 * n)
    return row


def _loss(method: str, side: int, potential: Any) -> Any:
    def product(block: Any) -> Any:
        u = block.reshape(side, side, -1)
        p = jnp.pad(u, ((1, 1), (1, 1), (0, 0)))
        neighbours = p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:]
        return (4 * u - neighbours).reshape(block.shape) + potential[:, None] * block

    a, n = BlockProduct(product), side**2
    w, x, _ = partial_eigh(a, k=K, n=n, dtype=float, method=METHODS[method])
    rough = jnp.where(jnp.arange(n) % 3 == 0, 1.0, 0.2)
    return jnp.sum(w) + jnp.sum(rough * jnp.sum(x**2, axis=1) ** 2)


def markdown(results: dict[str, Any]) -> str:
    """The table for the page."""
    text = f"Order n = {results['n']}, k = {results['k']}."
    return text + "\n\n" + report.markdown(HEADINGS, map(_cells, results["rows"]))


def _cells(row: dict[str, Any]) -> list[str]:
    found = [row["value"], 5 * row["block"] + 2 * K, row["grad"], row["grad"] - row["value"], 6 * K]
    return [row["method"], str(row["block"]), *(f"{number:.0f}" for number in found)]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = report.parser("memory", __doc__, timed=False)
    parser.add_argument("--method", action="append", choices=METHODS, help="default: all")
    parser.add_argument("--size", type=int, default=SIDE, metavar="N", help="the grid's side")
    options = parser.parse_args(arguments)
    if options.quick:
        options.method, options.size = ["chebyshev"], 40
    return options


if __name__ == "__main__":
    sys.exit(main())
