"""The matrices of the table `choice`: grids, meshes, graphs, chains and models, all sparse."""

from __future__ import annotations

import functools
import gzip
import itertools
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse as sp
import scipy.spatial

from jax_peig._cli.matrix_market import AS_SPARSE_ARRAYS
from tests.support import finite_elements

from . import problems

DATA = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"


def stored(name: str) -> Any:
    """A Matrix Market file of the shared data.

    Raises
    ------
    FileNotFoundError
        Where there is none.
    """
    path = next(DATA.glob(f"{name}.mtx*"), DATA / name)
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        return sp.csr_array(scipy.io.mmread(file, **AS_SPARSE_ARRAYS))


def _symmetric(n: int, rows: Any, columns: Any, values: Any) -> Any:
    upper = sp.csr_array((values, (rows, columns)), shape=(n, n))
    return sp.csr_array(upper + upper.T)


def _graph(n: int, edges: Any, weights: Any = None) -> Any:
    """The Laplacian of a weighted graph; double edges count twice."""
    edges = np.asarray(edges)
    weights = np.ones(len(edges)) if weights is None else weights
    adjacent = _symmetric(n, edges[:, 0], edges[:, 1], weights)
    return sp.csr_array(sp.diags_array(adjacent @ np.ones(n)) - adjacent)


def _fixed(laplacian: Any) -> Any:
    """A graph's Laplacian with one more spring, at node 0: definite."""
    n = laplacian.shape[0]
    return sp.csr_array(laplacian + sp.csr_array(([1.0], ([0], [0])), shape=(n, n)))


def _anisotropic(edge: int, weak: float) -> Any:
    line = finite_elements.laplacian(edge)
    return sp.csr_array(sp.kronsum(line, weak * line))


def _plate(edge: int) -> Any:
    """The 13-point stencil of a simply supported plate."""
    laplacian = finite_elements.laplacian(edge, edge)
    return sp.csr_array(laplacian @ laplacian)


def _elements(edge: int) -> tuple[Any, Any]:
    found = problems.make("P3", edge)
    return found.matrix, found.mass


def _regular(n: int, degree: int) -> Any:
    rng = np.random.default_rng(n)
    hops = [rng.permutation(n) for _ in range(degree // 2)]
    edges = np.concatenate([np.stack([np.arange(n), hop], axis=1) for hop in hops])
    return _fixed(_graph(n, edges[edges[:, 0] != edges[:, 1]]))


def _small_world(n: int, rewired: float) -> Any:
    rng = np.random.default_rng(n)
    edges = np.concatenate([np.stack([np.arange(n), np.arange(n) + s], 1) % n for s in (1, 2, 3)])
    moved = rng.random(len(edges)) < rewired
    edges[moved, 1] = rng.integers(0, n, moved.sum())
    return _fixed(_graph(n, edges[edges[:, 0] != edges[:, 1]]))


def _attached(n: int) -> Any:
    """Preferential attachment: each new node has three edges to old ones."""
    rng = np.random.default_rng(n)
    ends, edges = [0, 1, 2, 3], []
    for node in range(4, n):
        for other in {ends[i] for i in rng.integers(0, len(ends), 3)}:
            edges.append((node, other))
            ends += [node, other]
    return _fixed(_graph(n, edges))


def _roads(n: int) -> Any:
    """Delaunay's triangulation of random points; an edge is as stiff as it is short."""
    points = np.random.default_rng(n).random((n, 2))
    triangles = scipy.spatial.Delaunay(points).simplices
    edges = np.concatenate([triangles[:, [a, b]] for a, b in itertools.combinations(range(3), 2)])
    edges = np.unique(np.sort(edges, axis=1), axis=0)
    lengths = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    return _fixed(_graph(n, edges, 1 / (n**0.5 * lengths)))


def _tree(n: int) -> Any:
    nodes = np.arange(1, n)
    return _fixed(_graph(n, np.stack([nodes, (nodes - 1) // 2], axis=1)))


def _springs(n: int, contrast: float) -> Any:
    stiff = contrast ** np.random.default_rng(n).random(n + 1)
    return sp.diags_array(
        [-stiff[1:-1], stiff[:-1] + stiff[1:], -stiff[1:-1]], offsets=[-1, 0, 1]
    ).tocsr()


def _masses(n: int) -> tuple[Any, Any]:
    masses = 1e3 ** np.random.default_rng(n).random(n)
    return finite_elements.laplacian(n), sp.csr_array(sp.diags_array(masses))


def _band(n: int, width: int) -> Any:
    """A random Gram matrix of bandwidth ``width``."""
    rng = np.random.default_rng(width)
    half = sp.diags_array(
        [rng.standard_normal(n - d) for d in range(width + 1)], offsets=list(range(width + 1))
    )
    return sp.csr_array(half.T @ half)


def _dominated(n: int) -> Any:
    rng = np.random.default_rng(n)
    weak = _symmetric(n, *rng.integers(0, n, (2, 4 * n)), 0.1 * rng.standard_normal(4 * n))
    return sp.csr_array(weak + sp.diags_array(10 + np.arange(float(n))))


def anderson(*shape: int, disorder: float) -> Any:
    """Hopping on a grid with random levels of width ``disorder``."""
    n = int(np.prod(shape))
    levels = disorder * (np.random.default_rng(n).random(n) - 0.5)
    hops = finite_elements.laplacian(*shape) - 2 * len(shape) * sp.eye_array(n)
    return sp.csr_array(hops + sp.diags_array(levels))


def _wells(edge: int) -> Any:
    """A Schroedinger operator with bound states."""
    x = np.linspace(-1, 1, edge)
    depth = np.exp(-20 * (x[:, None] ** 2 + x[None, :] ** 2)).ravel()
    laplacian = finite_elements.laplacian(edge, edge)
    return sp.csr_array(laplacian * (edge / 10) ** 2 - 8 * sp.diags_array(depth))


def _low_rank(n: int, rank: int) -> Any:
    """A diagonal plus the products of sparse vectors."""
    rng = np.random.default_rng(n)
    vectors = sp.random_array((n, rank), density=60 / n, rng=rng, data_sampler=rng.standard_normal)
    levels = sp.diags_array(np.geomspace(1e-3, 1e2, n))
    return sp.csr_array(levels + vectors @ vectors.T)


def _hubbard(sites: int, particles: int, repulsion: float = 4.0) -> Any:
    """A Hubbard ring with as many particles of either spin."""
    states = [s for s in range(2**sites) if s.bit_count() == particles]
    place = {s: i for i, s in enumerate(states)}
    hops = sp.lil_array((len(states), len(states)))
    for s, site in itertools.product(states, range(sites)):
        bits = (1 << site) | (1 << (site + 1) % sites)
        if (s & bits).bit_count() == 1:
            between = 1 if site + 1 < sites or particles % 2 else -1
            hops[place[s], place[s ^ bits]] -= between
    pairs = [(a & b).bit_count() for a in states for b in states]
    return sp.csr_array(sp.kronsum(hops, hops) + sp.diags_array(repulsion * np.array(pairs)))


MATRICES: dict[str, Callable[[], Any]] = {
    "line 2000": lambda: finite_elements.laplacian(2000),
    "line 20,000": lambda: finite_elements.laplacian(20_000),
    "grid 60^2": lambda: finite_elements.laplacian(60, 60),
    "grid 120^2": lambda: finite_elements.laplacian(120, 120),
    "grid 300^2": lambda: finite_elements.laplacian(300, 300),
    "grid 500 x 20": lambda: finite_elements.laplacian(500, 20),
    "free grid 120^2": lambda: finite_elements.neumann(120, 120),
    "box 14^3": lambda: finite_elements.laplacian(14, 14, 14),
    "box 28^3": lambda: finite_elements.laplacian(28, 28, 28),
    "contrast 1e4, 120^2": lambda: finite_elements.rough(120, 1e4),
    "contrast 1e6, 120^2": lambda: finite_elements.rough(120, 1e6),
    "anisotropy 1e-2, 120^2": lambda: _anisotropic(120, 1e-2),
    "anisotropy 1e-4, 120^2": lambda: _anisotropic(120, 1e-4),
    "elements 60^2": lambda: _elements(60),
    "elements 140^2": lambda: _elements(140),
    "brick 14 x 7 x 7": lambda: finite_elements.brick(14, 7, 7)[0],
    "plate 40^2": lambda: _plate(40),
    "plate 90^2": lambda: _plate(90),
    "4-regular 4000": lambda: _regular(4000, 4),
    "6-regular 6000": lambda: _regular(6000, 6),
    "small world 5000, 0.1": lambda: _small_world(5000, 0.1),
    "small world 20,000, 1e-3": lambda: _small_world(20_000, 1e-3),
    "attachment 5000": lambda: _attached(5000),
    "roads 3000": lambda: _roads(3000),
    "roads 20,000": lambda: _roads(20_000),
    "tree 8191": lambda: _tree(8191),
    "springs 2000, 1e6": lambda: _springs(2000, 1e6),
    "masses 2000, 1e3": lambda: _masses(2000),
    "band 5000, 10": lambda: _band(5000, 10),
    "band 3000, 60": lambda: _band(3000, 60),
    "dominated 5000": lambda: _dominated(5000),
    "Anderson 14^3": lambda: anderson(14, 14, 14, disorder=16.5),
    "wells 120^2": lambda: _wells(120),
    "low rank 5000": lambda: _low_rank(5000, 40),
    "Hubbard 8 sites": lambda: _hubbard(8, 4),
    "bcsstk13": functools.partial(stored, "bcsstk13"),
    "Lund": lambda: (stored("lund_a"), stored("lund_b")),
}
# The rule was made without a look at these, drawn by a fixed seed.
UNSEEN = tuple(sorted(np.random.default_rng(18).permutation(sorted(MATRICES))[:12].tolist()))


def make(name: str) -> tuple[Any, Any]:
    """A matrix of `MATRICES` and its M, or None."""
    found = MATRICES[name]()
    return found if isinstance(found, tuple) else (found, None)
