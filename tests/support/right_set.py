"""Programs and marks of the tests of the right set: compiled once for each shape."""

import functools

import jax
import numpy as np
import pytest

from jax_peig import partial_eigh
from tests.support import hard_spectra as hard
from tests.support.hard_spectra import is_claimed

METHODS = ("chebyshev", "lobpcg", "davidson")
# The others take no preconditioner.
PRECONDITIONED = METHODS[1:]
# What is cheap is run for the first by default, for the second by `-m slow`; for the third only
# the tests of `every_method`.
_slow = [pytest.param(method, marks=pytest.mark.slow) for method in METHODS[1:]]
each_method = pytest.mark.parametrize("method", [METHODS[0], _slow[0]])
every_method = pytest.mark.parametrize("method", [METHODS[0], *_slow])


N, K = 61, 4
BLOCK = 6  # k + min(max(2, k // 2), 8)


@functools.cache
def program(method, k, which="smallest", batched=False, **options):
    """(A, M, v0, key, preconditioner) -> PartialEigh, compiled once for each shape."""

    def solve(A, M=None, v0=None, key=None, preconditioner=None):
        given = {} if preconditioner is None else {"preconditioner": preconditioner}
        given |= {"v0": v0, "key": key}
        return partial_eigh(A, M, k, which=which, method=method, **given, **options)

    return jax.jit(jax.vmap(solve) if batched else solve)


def solve(problem, method, k=K, which="smallest", *, v0=None, seed=0, T=None, **options):
    arrays = {"key": jax.random.key(seed)}
    arrays |= {} if v0 is None else {"v0": np.asarray(v0)}
    arrays |= {} if T is None else {"preconditioner": T}
    return program(method, k, which, **options)(problem.A, problem.M, **arrays)


def run(problem, method, k=K, which="smallest", *, accuracy=1e-8, **options):
    """Solve; whether the result claims convergence, and then it is right."""
    result = solve(problem, method, k, which, **options)
    tol = options.get("tol", hard.TOL)
    return is_claimed(result, problem, which, tol=tol, accuracy=accuracy)


def member(batch, i):
    """One problem's result of a batch, in NumPy."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[i], batch)
