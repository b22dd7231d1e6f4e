"""Dense pencils (A, M) with a prescribed spectrum, for the tests; and programs they share."""

import functools
from typing import NamedTuple

import jax
import numpy as np
import scipy.linalg

from jax_peig import partial_eigh


class Pencil(NamedTuple):
    """A X = M X diag(values), X^H M X = I, exact but for the rounding of float64."""

    A: np.ndarray  # (n, n)
    M: np.ndarray | None  # (n, n), positive definite; None is the identity
    values: np.ndarray  # (n,), ascending
    vectors: np.ndarray  # (n, n)

    @property
    def mass(self) -> np.ndarray:
        """M as a matrix."""
        return np.eye(self.A.shape[0]) if self.M is None else self.M

    def projector(self, first: int, last: int) -> np.ndarray:
        """X X^H M over the pairs ``first`` to ``last - 1``, which no choice of vectors changes."""
        return projector(self.vectors[:, first:last], self.M)


def pencil(values, *, dtype=np.float64, condition=None, seed=0) -> Pencil:
    """Make a pencil with the eigenvalues ``values``.

    With U a random unitary matrix and S = Q diag(s) Q^H a positive one, ||S||^2 = 1 and
    cond(S)^2 = ``condition``:  A = S U diag(values) U^H S,  M = S S,  X = S^{-1} U.

    Parameters
    ----------
    values : (n,)
        In any order.
    dtype
        Of A and M; complex gives complex Hermitian matrices.
    condition : float, optional
        Condition number of M; None is M = I.
    seed : int
        Same arguments, same pencil.
    """
    values = np.sort(np.asarray(values, np.float64))
    n = values.size
    rng = np.random.default_rng(seed)
    is_complex = np.issubdtype(dtype, np.complexfloating)
    u = unitary(rng, n, is_complex)
    a = hermitian(u * values @ u.conj().T)
    if condition is None:
        return Pencil(a.astype(dtype), None, values, u)
    q = unitary(rng, n, is_complex)
    s = np.logspace(0, -np.log10(condition) / 2, n)
    root, inverse = hermitian(q * s @ q.conj().T), hermitian(q / s @ q.conj().T)
    mass = hermitian(q * s**2 @ q.conj().T)
    return Pencil(hermitian(root @ a @ root).astype(dtype), mass.astype(dtype), values, inverse @ u)


def unitary(rng: np.random.Generator, n: int, is_complex: bool = False) -> np.ndarray:
    """Draw a unitary (orthogonal where real) matrix from the Haar measure."""
    z = rng.standard_normal((n, n))
    if is_complex:
        z = z + 1j * rng.standard_normal((n, n))
    q, r = np.linalg.qr(z)
    phases = np.diagonal(r) / np.abs(np.diagonal(r))
    return q * phases


def hermitian(matrix: np.ndarray) -> np.ndarray:
    """Give the Hermitian part."""
    return (matrix + matrix.conj().T) / 2


def projector(vectors: np.ndarray, mass: np.ndarray | None) -> np.ndarray:
    """X X^H M for M-orthonormal X."""
    vectors = np.asarray(vectors)
    dual = vectors if mass is None else np.asarray(mass) @ vectors
    return vectors @ dual.conj().T


def reference(a, m=None) -> tuple[np.ndarray, np.ndarray]:
    """All eigenpairs by SciPy, ascending, M-orthonormal."""
    return scipy.linalg.eigh(np.asarray(a), None if m is None else np.asarray(m))


# -- spectra with clusters, of order n, for k wanted pairs ------------------------------


def clustered(n: int, k: int, where: str, *, separation: float = 0.0) -> np.ndarray:
    """Make a spectrum 1, 2, 3, ... with one cluster; ``separation`` apart inside it.

    ``where``: "start" (the first three), "inside" (three in the middle of the k), "half" (k // 2),
    "all but one" (k - 1), "all" (k), "cut" (k and k + 1 together), "none".
    """
    first, size = {
        "none": (0, 1),
        "start": (0, 3),
        "inside": (k // 2 - 1, 3),
        "half": (0, k // 2),
        "all but one": (0, k - 1),
        "all": (0, k),
        "cut": (k - 2, 3),
    }[where]
    values = np.arange(1.0, n + 1)
    values[first : first + size] = values[first] + separation * np.arange(size)
    return values


CLUSTERS = ("none", "start", "inside", "half", "all but one", "all")


def stiff(n: int, k: int, condition: float | None = None) -> Pencil:
    """Make a pencil that takes many steps without a preconditioner: 1 to k, then up to 1e5."""
    values = np.concatenate([np.arange(1.0, k + 1), np.logspace(1, 5, n - k)])
    return pencil(values, condition=condition, seed=14)


# -- programs that more than one test uses, compiled once ------------------------------------------


@functools.cache
def jitted(k: int, method: str, which: str = "smallest"):
    """(A, M) -> PartialEigh under jit."""
    return jax.jit(lambda a, m: partial_eigh(a, m, k, method=method, which=which))


@functools.cache
def batched(k: int, method: str):
    """(A, M) -> PartialEigh over a leading axis of both, under jit."""
    return jax.jit(jax.vmap(lambda a, m: partial_eigh(a, m, k, method=method)))
