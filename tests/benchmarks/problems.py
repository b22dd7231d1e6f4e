"""The benchmark problems P1 to P6: deterministic, each with its exact answer.

====  ==================================================================  =====  ==========
name  operator                                                            k      full size
====  ==================================================================  =====  ==========
P1    2-D Laplacian, 5-point, Dirichlet: exactly repeated pairs           8 low  100 x 100
P2    3-D harmonic oscillator, 7-point, box [-5.5, 5.5]                   10 low 24^3
P3    generalised: bilinear finite elements, stiffness and mass           8 low  80 x 80
P4    explicit symmetric matrix of prescribed spectrum                    10 top n = 1000
P5    Laplacian of a random 6-regular graph                               4 top  n = 50,000
P6    batch of symmetric 32 x 32 matrices, one repeated pair in each      4 low  256 of them
====  ==================================================================  =====  ==========

Every problem is ``A(theta) x = lam M x``. For P1, P2, P3 and P5 theta is the diagonal potential,
``A(theta) = A_0 + diag(theta)``; for P4 and P6 it is the matrix itself. The exact eigenpairs are
those of the *discrete* operator: tensor products of 1-D eigenvectors for P1 to P3, the
prescribed ones for P4 and P6, a tight ARPACK run for P5, which has no closed form.

The losses and the form of a problem are in ``base.py``. Nothing here uses jax_peig.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from . import references
from .base import EXTRA, Problem
from .tensor_problems import diagonal_term, dirichlet, finite_elements, laplacian, oscillator

ANY_COUNT = ("P1", "P2", "P3")  # made for any number of pairs
FULL_SIZES = {"P1": 100, "P2": 24, "P3": 80, "P4": 1000, "P5": 50_000, "P6": 256}
SMALL_SIZES = {"P1": 14, "P2": 12, "P3": 12, "P4": 120, "P5": 400, "P6": 6}


class CutClusterError(ValueError):
    """The wanted pairs, or the occupied ones, end inside a cluster."""


def make(name: str, size: int | str = "full", k: int | None = None) -> Problem:
    """Build a problem, or return the one already built.

    Parameters
    ----------
    name : str
        ``"P1"`` to ``"P6"``.
    size : int or str
        ``"full"`` (that of the module's table), ``"small"`` (for tests), or the number itself:
        grid points per axis for P1 to P3, n for P4 and P5, members of the batch for P6.
    k : int, optional
        How many pairs are wanted, at least 4; P1 to P3 only. Default: that of the module's table.

    Returns
    -------
    Problem

    Raises
    ------
    CutClusterError
        Where k, or the number of occupied pairs, cuts a cluster.
    """
    if name not in _BUILDERS:
        raise ValueError(f"unknown problem {name!r}: it must be one of {sorted(_BUILDERS)}")
    if isinstance(size, str):
        if size not in ("full", "small"):
            raise ValueError(f"size {size!r} must be 'full', 'small' or a number")
        size = (FULL_SIZES if size == "full" else SMALL_SIZES)[name]
    if k is not None and name not in ANY_COUNT:
        raise ValueError(f"k = {k} for {name}: only {', '.join(ANY_COUNT)} are made for any k")
    return _make(name, size, k)


def make_near(name: str, size: int | str, k: int) -> Problem:
    """`make` with the k nearest to the one given that cuts no cluster, the smaller of two."""
    for away in range(k):
        for count in (k - away, k + away):
            if count >= 4:
                try:
                    return make(name, size, count)
                except CutClusterError:
                    continue
    raise CutClusterError(f"{name} at size {size}: every k near {k} cuts a cluster")


@functools.lru_cache(maxsize=16)
def _make(name: str, size: int, k: int | None) -> Problem:
    problem = _BUILDERS[name](size) if k is None else _BUILDERS[name](size, k)
    lam = np.atleast_2d(problem.wanted)
    scale = np.abs(lam).max()
    # A cluster cut by k or by `occupied` would make the losses non-smooth: refuse such a size.
    for end in (problem.k, problem.occupied):
        if np.abs(lam[:, end] - lam[:, end - 1]).min() < 1e-6 * scale:
            raise CutClusterError(
                f"{name} at size {size} has a cluster across pair {end}: change size"
            )
    return problem


# ---------------------------------------------------------------- P4 and P6: prescribed spectra


def _matrix_product(theta: Any, x: Any) -> Any:
    return theta @ x


def _orthogonal(n: int, seed: int) -> np.ndarray:
    """A dense orthogonal matrix: the sine basis reflected in a pseudo-random hyperplane."""
    _, sines = dirichlet(n)
    normal = np.random.default_rng(seed).random(n) - 0.5
    normal /= np.linalg.norm(normal)
    return sines - 2.0 * np.outer(normal, normal @ sines)


def _explicit(n: int) -> Problem:
    """P4: A = Q diag(s) Q^T, top ten 10, 9, 8, 8, 8, 7, 6.5, 6, 5.5, 5, the rest in [-4, 4]."""
    top = [10.0, 9.0, 8.0, 8.0, 8.0, 7.0, 6.5, 6.0, 5.5, 5.0]
    spectrum = np.r_[top, np.linspace(4.0, -4.0, n - len(top))]
    Q, k, occupied = _orthogonal(n, 4), len(top), 5
    matrix = (Q * spectrum) @ Q.T
    matrix = (matrix + matrix.T) / 2.0

    def resolvent(j: int, g: np.ndarray) -> np.ndarray:
        free = Q[:, occupied:]
        return free @ ((free.T @ g) / (spectrum[j] - spectrum[occupied:]))

    return Problem(
        name="P4", title=f"explicit, n = {n}", size=n, n=n, k=k, which="largest", theta=matrix,
        product=_matrix_product, mass_product=None, matrix=matrix, mass=None,
        wanted=spectrum[: k + EXTRA], vectors=Q[:, :k], occupied=occupied,
        norm=10.0, mass_norm=1.0, resolvent=resolvent,
    )  # fmt: skip


def _batch(members: int) -> Problem:
    """P6: each member has its own spectrum a, b, b, c, ... and its own basis.

    The pair b, b is exact in the prescription. The first member is diagonal, so that its pair
    is exact in floating point too.
    """
    n, k, occupied = 32, 4, 3
    rng = np.random.default_rng(6)
    spectrum = np.sort(rng.random((members, n)) * 20.0, axis=1) + np.arange(n)  # gaps >= 1
    spectrum[:, 2] = spectrum[:, 1]
    Q = np.stack([np.eye(n), *(_orthogonal(n, 100 + i) for i in range(1, members))])
    matrix = np.einsum("bip,bp,bjp->bij", Q, spectrum, Q)
    matrix = (matrix + matrix.transpose(0, 2, 1)) / 2.0

    def resolvent(member: int, j: int, g: np.ndarray) -> np.ndarray:
        free, lam = Q[member][:, occupied:], spectrum[member]
        return free @ ((free.T @ g) / (lam[j] - lam[occupied:]))

    return Problem(
        name="P6", title=f"batch of {members}, 32 x 32", size=members, n=n, k=k, which="smallest",
        theta=matrix, product=_matrix_product, mass_product=None, matrix=matrix, mass=None,
        wanted=spectrum[:, : k + EXTRA], vectors=Q[:, :, :k], occupied=occupied,
        norm=float(spectrum.max()), mass_norm=1.0, resolvent=resolvent,
    )  # fmt: skip


# ---------------------------------------------------------------- P5: no closed form


def _graph(n: int) -> Problem:
    """P5: L = 6 I - sum_i (P_i + P_i^T) for three random permutations P_i."""
    k, occupied, deflated = 4, 3, 16
    rng = np.random.default_rng(5)
    ahead = [rng.permutation(n) for _ in range(3)]
    neighbours = [p.astype(np.int32) for q in ahead for p in (q, np.argsort(q))]
    adjacency = sum(sp.csr_array((np.ones(n), (np.arange(n), p)), shape=(n, n)) for p in neighbours)
    matrix = (6.0 * sp.eye_array(n) - adjacency).tocsr()

    def product(theta: Any, x: Any) -> Any:
        total = x[neighbours[0]]
        for p in neighbours[1:]:  # unrolled: one fused gather loop, no (n, 6) intermediate
            total = total + x[p]
        return 6.0 * x - total + diagonal_term(theta, x)

    start = rng.random(n) - 0.5
    values, vectors = spla.eigsh(matrix, k=deflated, which="LA", tol=0, v0=start, ncv=4 * deflated)
    values, vectors = values[::-1], vectors[:, ::-1]
    return Problem(
        name="P5", title=f"6-regular graph, n = {n}", size=n, n=n, k=k, which="largest",
        theta=np.zeros(n), product=product, mass_product=None, matrix=matrix, mass=None,
        wanted=values[: k + EXTRA].copy(), vectors=vectors[:, :k].copy(), occupied=occupied,
        norm=float(values[0]), mass_norm=1.0,
        resolvent=functools.partial(
            references.deflated_resolvent, matrix, values, vectors, occupied
        ),
    )  # fmt: skip


_BUILDERS: dict[str, Callable[..., Problem]] = {
    "P1": laplacian,
    "P2": oscillator,
    "P3": finite_elements,
    "P4": _explicit,
    "P5": _graph,
    "P6": _batch,
}
