"""What a benchmark problem consists of, whichever it is.

The two losses of the benchmarks are

    L1 = sum_j w_j lam_j                    w constant on clusters
    L2 = sum_r c_r rho_r^2                  rho_r = sum_{j < occupied} x_rj^2

with rough positive c, and ``occupied`` at the end of a cluster, so that both are smooth however
the clusters split. Their exact gradients are in ``references.py``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import references

EXTRA = 2  # exact eigenvalues kept beyond the k wanted, for the gap


@dataclass(frozen=True, eq=False)
class Problem:
    """One eigenvalue problem, the forms in which solvers want it, and its exact answer.

    Attributes
    ----------
    name, title, size
        Which problem, in words, and the argument it was made with.
    n, k, which
        Dimension, number of wanted pairs, ``"smallest"`` or ``"largest"``.
    theta : numpy.ndarray
        The parameter at which everything is evaluated: (n,), (n, n) or (batch, n, n).
    product : callable
        ``product(theta, x) = A(theta) x`` in jax.numpy, for x (n,) or a block (n, b). In a
        batched problem, for one member of the batch.
    mass_product : callable or None
        ``mass_product(x) = M x`` in the same way; None where M = I.
    matrix, mass
        A(theta) and M for SciPy: CSR, or a dense array (batched for P6); mass is None for M = I.
    wanted : numpy.ndarray
        The exact eigenvalues, (k + 2,), in the order of `which`; (batch, k + 2) for P6. The last
        two lie outside the wanted set.
    vectors : numpy.ndarray
        Exact M-orthonormal eigenvectors of the first k, (n, k) or (batch, n, k).
    clusters : numpy.ndarray
        Label of the cluster of each of the k pairs, (k,), counted from 0.
    occupied : int
        Number of leading pairs in the density of L2; the end of a cluster.
    norm, mass_norm : float
        Exact spectral norms of A and M.
    w, c : numpy.ndarray
        Weights of L1 (k,) and of L2 (n,).
    resolvent : callable
        ``resolvent(j, g) = sum_p x_p (x_p^T g) / (lam_j - lam_p)`` over all p >= occupied, for g
        (n,): all that the reference gradient of L2 needs. With the batch index first in P6.
    """

    name: str
    title: str
    size: int
    n: int
    k: int
    which: str
    theta: np.ndarray
    product: Callable[[Any, Any], Any]
    mass_product: Callable[[Any], Any] | None
    matrix: Any
    mass: Any
    wanted: np.ndarray
    vectors: np.ndarray
    occupied: int
    norm: float
    mass_norm: float
    resolvent: Callable[..., np.ndarray]

    @property
    def batched(self) -> bool:
        """Whether theta is a stack of matrices, to be solved under vmap."""
        return self.theta.ndim == 3

    @property
    def potential(self) -> bool:
        """Whether theta is a diagonal potential rather than a matrix."""
        return self.theta.ndim == 1

    @functools.cached_property
    def clusters(self) -> np.ndarray:
        """Cluster labels of the wanted pairs: equal to 1e-9 of the norm is one cluster."""
        lam = np.atleast_2d(self.wanted)[0, : self.k]
        return cluster_labels(lam, 1e-9 * np.abs(lam).max())

    @property
    def gap(self) -> float:
        """Distance from the k wanted eigenvalues to the next one (the smallest in a batch)."""
        lam = np.atleast_2d(self.wanted)
        return float(np.abs(lam[:, self.k] - lam[:, self.k - 1]).min())

    def expected_gradient_error(self, residual: float) -> float:
        """Order of L2's relative gradient error at a relative residual: residual ||A|| / gap.

        With M-orthonormal vectors ``||x||^2`` is not 1, and a residual relative to ``||x||``
        counts that much more.
        """
        size = float((self.vectors**2).sum(-2).max())
        return residual * self.norm * size / self.gap

    @functools.cached_property
    def w(self) -> np.ndarray:
        """Weights of L1: different from cluster to cluster, equal inside one."""
        return 1.0 / (1.0 + self.clusters)

    @functools.cached_property
    def c(self) -> np.ndarray:
        """Weights of L2: rough, in [0.5, 1.5]; a smooth c would make L2's gradient too easy."""
        return 0.5 + np.random.default_rng(11).random(self.n)

    def loss(self, name: str, lam: Any, X: Any, w: Any, c: Any) -> Any:
        """L1 or L2 of computed pairs; the same text serves NumPy, JAX and torch arrays.

        Parameters
        ----------
        name : str
            ``"L1"`` or ``"L2"``.
        lam, X : array
            Eigenvalues (..., k) and eigenvectors (..., n, k); unused ones may be None.
        w, c : array
            `self.w` and `self.c` as arrays of the library that is to do the arithmetic.

        Returns
        -------
        array
            A scalar: in a batch, the sum over its members.
        """
        if name == "L1":
            return (lam * w.reshape((1,) * (lam.ndim - 1) + (-1,))).sum()
        rho = (X[..., : self.occupied] ** 2).sum(-1)  # (..., n)
        return (c.reshape((1,) * (rho.ndim - 1) + (-1,)) * rho**2).sum()

    @functools.cached_property
    def exact(self) -> references.Reference:
        """Exact values and gradients of L1 and L2, computed once, in NumPy."""
        return references.reference(self)


def cluster_labels(lam: np.ndarray, tolerance: float) -> np.ndarray:
    """Label sorted eigenvalues: a new cluster begins wherever two neighbours differ by more."""
    return np.r_[0, np.cumsum(np.abs(np.diff(lam)) > tolerance)]
