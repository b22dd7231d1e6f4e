"""Pencils of order 36 that the tests of `Info` share: good, rough, and what spoils them."""

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jax_peig import partial_eigh
from tests.support import spectra

N, K = 36, 6
METHODS = ("dense", "lobpcg")
EPS = np.finfo(np.float64).eps
TOL = EPS ** (2 / 3)
LOOSE = 1e-3


def times(matrix, v):
    return matrix @ v


def by_product(matrix):
    """Give an operator that is known by its product; one program for all matrices of a shape."""
    return None if matrix is None else Partial(times, jnp.asarray(matrix))


def rough(pencil, seed, noise, tol=None):
    """Give pairs as good as ``noise`` allows, 1e-4 at best: one step from a perturbed start."""
    g = np.random.default_rng(seed).standard_normal((N, K))
    v0 = pencil.vectors[:, :K] + noise * g
    return partial_eigh(pencil.A, pencil.M, K, method="lobpcg", v0=v0, tol=tol, max_steps=1)


def any_pencil(seed, condition):
    """Draw a spectrum with and without clusters, of either sign."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(-10, 10, N)
    values[rng.integers(0, N, 4)] = values[0]
    return spectra.pencil(values, condition=condition, seed=seed)


GOOD = spectra.pencil(spectra.clustered(N, K, "inside"), condition=10.0, seed=10)
SKEW = np.triu(np.random.default_rng(0).standard_normal((N, N)), 1)
SKEW = SKEW - SKEW.T


def changed(matrix, position, value):
    matrix = np.array(matrix)
    matrix[position] = value
    return matrix
