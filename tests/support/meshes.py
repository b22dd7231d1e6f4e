"""Structures on meshes by scikit-fem, with a material parameter for each element."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.sparse
import skfem
from skfem.helpers import dd, ddot, dot, eye, trace
from skfem.models.elasticity import lame_parameters, linear_elasticity

from jax_peig import operators

POISSON = 0.3  # Poisson's ratio


@dataclass(frozen=True)
class Assembly:
    """A matrix that is linear in one factor for each element.

    Attributes
    ----------
    pattern : (n, n) CSR array
        Its entries, for factors of one.
    lift : (nnz, elements) CSR array
        The entries as a function of the factors.
    """

    pattern: Any
    lift: Any

    def matrix(self, factors: np.ndarray) -> Any:
        """By SciPy."""
        made = self.pattern.copy()
        made.data = self.lift @ factors
        return made

    def operator(self) -> tuple[Any, Any]:
        """A `SparseOperator` of the pattern, and the product with ``lift`` in JAX."""
        places = self.lift.tocoo()
        rows, columns, shares = places.row, places.col, jnp.asarray(places.data)

        def entries(factors: Any) -> Any:
            return jnp.zeros(self.pattern.nnz).at[rows].add(shares * factors[columns])

        return operators.from_scipy(self.pattern), entries


def assembled(form: Any, basis: Any, free: np.ndarray) -> Assembly:
    """A form on the degrees of freedom that are ``free``."""
    data = form.coo_data(basis)
    number = np.full(basis.N, -1)
    number[free] = np.arange(len(free))
    (rows, columns), elements = number[data.indices], np.arange(data.data.size) % basis.nelems
    kept = (rows >= 0) & (columns >= 0)
    rows, columns, elements, values = (x[kept] for x in (rows, columns, elements, data.data))
    shape = (len(free), len(free))
    pattern = scipy.sparse.csr_array((values, (rows, columns)), shape=shape)
    pattern.sum_duplicates()
    number = pattern.copy()
    number.data = np.arange(1, pattern.nnz + 1)
    places = number[rows, columns] - 1
    shares = scipy.sparse.csr_array((values, (places, elements)), shape=(pattern.nnz, basis.nelems))
    return Assembly(pattern, shares)


@skfem.BilinearForm
def _bending(u, v, w):
    curvature = dd(u)
    moments = (1 - POISSON) * curvature + POISSON * eye(trace(curvature), 2)
    return ddot(moments, dd(v)) / (12 * (1 - POISSON**2))


@skfem.BilinearForm
def _inertia(u, v, w):
    return u * v


@skfem.BilinearForm
def _vector_inertia(u, v, w):
    return dot(u, v)


def plate(refinements: int = 3) -> tuple[Assembly, Assembly]:
    """A simply supported square plate of Morley elements: stiffness and mass.

    The mesh has all symmetries of the square. The factors are t^3 and t, t the thickness.
    """
    mesh = skfem.MeshTri.init_symmetric().refined(refinements)
    basis = skfem.Basis(mesh, skfem.ElementTriMorley())
    held = basis.get_dofs(mesh.boundary_facets()).all("u")
    free = np.setdiff1d(np.arange(basis.N), held)
    return assembled(_bending, basis, free), assembled(_inertia, basis, free)


def brick(*cubes: int) -> tuple[Assembly, Assembly]:
    """A free elastic brick of sides 3, 2 and 1.5, of trilinear elements: stiffness and mass.

    The factors are Young's modulus and the density.
    """
    sides = [np.linspace(0, side, m + 1) for side, m in zip((3, 2, 1.5), cubes, strict=True)]
    basis = skfem.Basis(skfem.MeshHex.init_tensor(*sides), skfem.ElementVector(skfem.ElementHex1()))
    free = np.arange(basis.N)
    elasticity = linear_elasticity(*lame_parameters(1.0, POISSON))
    return assembled(elasticity, basis, free), assembled(_vector_inertia, basis, free)


def sphere(refinements: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (v, 3) and triangles (t, 3) of a refined octahedron, on the unit sphere."""
    vertices = [tuple(sign * row) for row in np.eye(3) for sign in (1.0, -1.0)]
    triangles = [(x, y, z) for x in (0, 1) for y in (2, 3) for z in (4, 5)]
    for _ in range(refinements):
        place: dict[tuple[int, int], int] = {}

        def middle(a: int, b: int, place=place) -> int:
            edge = (min(a, b), max(a, b))
            if edge not in place:
                point = np.add(vertices[a], vertices[b])
                place[edge] = len(vertices)
                vertices.append(tuple(point / np.linalg.norm(point)))
            return place[edge]

        finer = []
        for a, b, c in triangles:
            ab, bc, ca = middle(a, b), middle(b, c), middle(c, a)
            finer += [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        triangles = finer
    return np.array(vertices), np.array(triangles)


def cotangent_laplacian(vertices: np.ndarray, triangles: np.ndarray) -> tuple[Any, Any]:
    """The stiffness of linear elements on a surface, and the lumped mass (v,)."""
    n = len(vertices)
    stiffness, mass = scipy.sparse.csr_array((n, n)), np.zeros(n)
    for corner in range(3):
        here, a, b = np.roll(triangles, -corner, axis=1).T
        u, v = vertices[a] - vertices[here], vertices[b] - vertices[here]
        twice = np.linalg.norm(np.cross(u, v), axis=1)
        weights = np.sum(u * v, axis=1) / twice / 2
        edges = scipy.sparse.csr_array((weights, (a, b)), shape=(n, n))
        stiffness = stiffness - edges - edges.T
        mass += np.bincount(here, twice / 6, minlength=n)
    rows = scipy.sparse.diags_array(stiffness @ np.ones(n))
    return scipy.sparse.csr_array(stiffness - rows), mass
