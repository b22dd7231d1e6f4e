"""P1 to P3: grids whose exact eigenpairs are tensor products of 1-D ones.

Each product is written for one vector (n,) and for a block (n, b) at once.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.sparse as sp

from .base import EXTRA, Problem


def dirichlet(edge: int) -> tuple[np.ndarray, np.ndarray]:
    """Angles t_i = pi i / (edge + 1) and the orthonormal sine vectors of tridiag(-1, 2, -1)."""
    i = np.arange(1, edge + 1)
    angle = np.pi * i / (edge + 1)
    return angle, np.sqrt(2.0 / (edge + 1)) * np.sin(np.outer(i, angle))  # (edge, edge)


def _tridiagonal(edge: int, off: float, diagonal: float) -> sp.csr_array:
    return sp.diags_array(
        [np.full(edge - 1, off), np.full(edge, diagonal), np.full(edge - 1, off)],
        offsets=[-1, 0, 1],
    ).tocsr()


def _kronecker(*factors: Any) -> sp.csr_array:
    return functools.reduce(lambda a, b: sp.kron(a, b, format="csr"), factors)


def _tensor_pairs(
    values: np.ndarray, basis: np.ndarray, axes: int, k: int, occupied: int
) -> dict[str, Any]:
    """Exact answers where lam = e_i + e_j (+ e_l) and x = v_i (x) v_j (x v_l).

    `basis` (m, m) holds the 1-D vectors, orthonormal in the 1-D mass; `values` their e_i.
    """
    edge = len(values)
    grid = functools.reduce(np.add.outer, [values] * axes)  # (m,) * axes
    order = np.argsort(grid.ravel(), kind="stable")
    wanted = grid.ravel()[order[: k + EXTRA]]
    columns = []
    for flat in order[:k]:
        index = np.unravel_index(flat, grid.shape)
        columns.append(functools.reduce(np.kron, [basis[:, i] for i in index]))
    free = np.ones(grid.shape, bool)
    free.flat[order[:occupied]] = False

    def transform(matrix: np.ndarray, block: np.ndarray) -> np.ndarray:
        for axis in range(axes):
            block = np.moveaxis(np.tensordot(matrix, block, (1, axis)), 0, axis)
        return block

    def resolvent(j: int, g: np.ndarray) -> np.ndarray:
        # y = sum_p x_p (x_p^T g) / (lam_j - lam_p): three small tensor transforms, no solve
        inverse = np.zeros(grid.shape)
        inverse[free] = 1.0 / (wanted[j] - grid[free])
        coefficients = inverse * transform(basis.T, g.reshape((edge,) * axes))
        return transform(basis, coefficients).ravel()

    return {
        "wanted": wanted,
        "vectors": np.stack(columns, axis=1),
        "occupied": occupied,
        "resolvent": resolvent,
    }


def _as_grid(x: Any, edge: int, axes: int) -> Any:
    """Reshape (n,) or (n, b) to (edge, ..., edge * b), the block merged into the last axis.

    A neighbour along the last axis is then b places away, and the innermost loop runs over
    edge * b contiguous numbers: twice as fast as a separate, short block axis at b = 8.
    """
    return x.reshape((edge,) * (axes - 1) + (-1,))


def _neighbours(u: Any, edge: int, axes: int) -> Any:
    """Sum over the 2 * axes nearest neighbours, zero outside the grid (padded slices)."""
    b = u.shape[-1] // edge
    strides = [1] * (axes - 1) + [b]
    padded = jnp.pad(u, [(s, s) for s in strides])
    centre = [slice(s, s + length) for s, length in zip(strides, u.shape, strict=True)]
    total = None
    for axis, side in itertools.product(range(axes), (0, 2)):
        window = list(centre)
        start = side * strides[axis]
        window[axis] = slice(start, start + u.shape[axis])
        part = padded[tuple(window)]
        total = part if total is None else total + part
    return total


def _eight_around(u: Any, edge: int) -> tuple[Any, Any]:
    """Sums over the four side neighbours and over the four corners of a 2-D grid.

    One pass over nine windows; the separable form, in two passes, was two to three times slower.
    """
    b, length = u.shape[1] // edge, u.shape[1]
    padded = jnp.pad(u, [(1, 1), (b, b)])

    def window(i: int, j: int) -> Any:
        return padded[i : i + edge, j * b : j * b + length]

    side = window(0, 1) + window(2, 1) + window(1, 0) + window(1, 2)
    corner = window(0, 0) + window(0, 2) + window(2, 0) + window(2, 2)
    return side, corner


def diagonal_term(theta: Any, x: Any) -> Any:
    """``diag(theta) x`` for x (n,) or (n, b), without implicit rank promotion."""
    return theta.reshape((-1,) + (1,) * (x.ndim - 1)) * x


def laplacian(edge: int, k: int = 8) -> Problem:
    """P1: lam = 4 - 2 cos t_i - 2 cos t_j with product-sine vectors; symmetry i <-> j repeats."""
    n = edge**2
    angle, sines = dirichlet(edge)
    values = 2.0 - 2.0 * np.cos(angle)
    one, eye = _tridiagonal(edge, -1.0, 2.0), sp.eye_array(edge, format="csr")

    def product(theta: Any, x: Any) -> Any:
        around = _neighbours(_as_grid(x, edge, 2), edge, 2)
        return diagonal_term(4.0 + theta, x) - around.reshape(x.shape)

    return Problem(
        name="P1", title=f"2-D Laplacian {edge} x {edge}", size=edge, n=n, k=k, which="smallest",
        theta=np.zeros(n), product=product, mass_product=None,
        matrix=_kronecker(one, eye) + _kronecker(eye, one), mass=None,
        norm=2.0 * values.max(), mass_norm=1.0,
        **_tensor_pairs(values, sines, 2, k=k, occupied=4),
    )  # fmt: skip


def oscillator(edge: int, k: int = 10) -> Problem:
    """P2: -Laplacian/2 + r^2/2. The discrete 1-D pairs come from a dense tridiagonal solve.

    The second shell of six, exactly repeated in the continuum, is two triples here, (200) and
    (110), a relative 1e-2 apart: the grid's own splitting, not rounding.
    """
    n = edge**3
    position = np.linspace(-5.5, 5.5, edge)
    step = float(position[1] - position[0])  # of no dtype, beside arrays of any
    well = position**2 / 2.0
    values, basis = scipy.linalg.eigh_tridiagonal(
        1.0 / step**2 + well, np.full(edge - 1, -0.5 / step**2)
    )
    kinetic, eye = _tridiagonal(edge, -0.5 / step**2, 1.0 / step**2), sp.eye_array(edge).tocsr()
    theta = functools.reduce(np.add.outer, [well] * 3).ravel()  # r^2 / 2

    def product(theta: Any, x: Any) -> Any:
        around = _neighbours(_as_grid(x, edge, 3), edge, 3)
        return diagonal_term(3.0 / step**2 + theta, x) - 0.5 / step**2 * around.reshape(x.shape)

    laplacian = (
        _kronecker(kinetic, eye, eye)
        + _kronecker(eye, kinetic, eye)
        + _kronecker(eye, eye, kinetic)
    )
    return Problem(
        name="P2", title=f"3-D oscillator {edge}^3", size=edge, n=n, k=k, which="smallest",
        theta=theta, product=product, mass_product=None,
        matrix=(laplacian + sp.diags_array(theta)).tocsr(), mass=None,
        norm=3.0 * values.max(), mass_norm=1.0,
        **_tensor_pairs(values, basis, 3, k=k, occupied=4),
    )  # fmt: skip


def finite_elements(edge: int, k: int = 8) -> Problem:
    """P3: K = K1 (x) M1 + M1 (x) K1, M = M1 (x) M1 for the bilinear elements of the unit square.

    In 1-D, K1 = tridiag(-1, 2, -1)/h and M1 = h tridiag(1, 4, 1)/6 share the sine vectors:
    mu_i = (2 - 2 cos t_i)/h over h (4 + 2 cos t_i)/6, and lam = mu_i + mu_j.
    """
    n, step = edge**2, 1.0 / (edge + 1)
    angle, sines = dirichlet(edge)
    stiff = (2.0 - 2.0 * np.cos(angle)) / step
    heavy = step * (4.0 + 2.0 * np.cos(angle)) / 6.0
    one = _tridiagonal(edge, -1.0 / step, 2.0 / step)
    weight = _tridiagonal(edge, step / 6.0, 4.0 * step / 6.0)

    def product(theta: Any, x: Any) -> Any:
        # K: 8/3 in the centre, -1/3 at the eight neighbours
        side, corner = _eight_around(_as_grid(x, edge, 2), edge)
        return diagonal_term(8.0 / 3.0 + theta, x) - (side + corner).reshape(x.shape) / 3.0

    def mass_product(x: Any) -> Any:
        # M: h^2/36 times 16 in the centre, 4 at the sides, 1 at the corners
        side, corner = _eight_around(_as_grid(x, edge, 2), edge)
        return step**2 / 36.0 * (16.0 * x + (4.0 * side + corner).reshape(x.shape))

    return Problem(
        name="P3", title=f"finite elements {edge} x {edge}, generalised", size=edge, n=n, k=k,
        which="smallest", theta=np.zeros(n), product=product, mass_product=mass_product,
        matrix=_kronecker(one, weight) + _kronecker(weight, one), mass=_kronecker(weight, weight),
        norm=float((np.outer(stiff, heavy) + np.outer(heavy, stiff)).max()),
        mass_norm=float(heavy.max() ** 2),
        **_tensor_pairs(stiff / heavy, sines / np.sqrt(heavy), 2, k=k, occupied=4),
    )  # fmt: skip
