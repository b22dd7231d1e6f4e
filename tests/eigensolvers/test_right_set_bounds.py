"""Error bounds hold, and claimed sets are right, for drawn problems after few steps."""

import functools

import jax
import numpy as np
import pytest

from jax_peig import Status
from tests.support import spectra
from tests.support.hard_spectra import EPS, UNFINISHED
from tests.support.right_set import each_method, program

SMALL, FEW = 24, 3


def drawn_pencils(seed, count, mass):
    """Spectra with copies, masses of condition 1 to 1e6, starts from exact to random."""
    rng = np.random.default_rng(seed)
    made, starts = [], []
    for _ in range(count):
        values = rng.uniform(-10, 10, SMALL)
        values[rng.integers(0, SMALL, rng.integers(1, 9))] = values[0]
        condition = 10.0 ** rng.uniform(0, 6) if mass else None
        made.append(spectra.pencil(values, condition=condition, seed=rng.integers(2**31)))
        noise = 10.0 ** rng.uniform(-10, 1)
        first = rng.integers(0, 5)  # at times those of the wrong pairs
        exact = made[-1].vectors[:, first : first + FEW]
        starts.append(exact + noise * rng.standard_normal(exact.shape))
    return made, np.stack(starts)


@functools.cache
def drawn_results(method, seed, count, mass, **options):
    """Pencils, and what a few steps or a loose tolerance make of them, in NumPy."""
    made, starts = drawn_pencils(seed, count, mass)
    a = np.stack([p.A for p in made])
    m = np.stack([p.M for p in made]) if mass else None
    keys = jax.random.split(jax.random.key(seed), count)
    result = program(method, FEW, batched=True, **options)(a, m, v0=starts, key=keys)
    return made, jax.tree.map(np.asarray, result)


def lost(pencil) -> float:
    """What the making of a pencil has lost of its eigenvalues, and more."""
    return 100 * EPS * (1 if pencil.M is None else np.linalg.cond(pencil.M))


def check_bounds(*drawn, **options):
    """An eigenvalue lies within the bound of each computed one, in whatever state it is."""
    made, (w, _, info) = drawn_results(*drawn, **options)
    assert np.all(np.isin(info.status, [Status.CONVERGED, *UNFINISHED]))
    assert np.all((info.converged == FEW) | (info.status != Status.CONVERGED))
    assert np.all(np.isfinite(info.error_bounds))
    for i, pencil in enumerate(made):
        distance = np.min(np.abs(pencil.values[:, None] - w[i][None, :]), axis=0)
        assert np.all(distance <= info.error_bounds[i] + lost(pencil)), i


def check_sets(method, seed, count, mass, *, tol, beyond=False, **options):
    """What is claimed is within the bounds of the pairs that were wanted: none is passed over.

    The residuals of M-orthonormal vectors are together at most sqrt(k) times the largest; pairs
    closer than the tolerance may be confused. Almost any vector meets a tolerance of
    cond(M)^(-1/2), since ||x|| is that large: such problems are looked at only with ``beyond``.
    """
    made, (w, _, info) = drawn_results(method, seed, count, mass, tol=tol, **options)
    wrong = []
    for i in np.flatnonzero(info.status == Status.CONVERGED):
        condition = 1 if made[i].M is None else np.linalg.cond(made[i].M)
        error = np.max(np.abs(w[i] - made[i].values[:FEW]))
        limit = np.sqrt(FEW) * np.max(info.error_bounds[i]) + lost(made[i])
        limit += tol * np.max(np.abs(made[i].values))
        if error > limit and (tol * np.sqrt(condition) > 0.1) == beyond:
            wrong.append((int(i), w[i], made[i].values[:FEW]))
    assert not wrong, f"WRONG SET claimed {len(wrong)} times, first {wrong[0]}"


# The two tests share what is computed.
HASTY = {"tol": 1e-3, "max_steps": 3}


@pytest.mark.slow
@each_method
def test_error_bounds_of_500_drawn_problems(method):
    check_bounds(method, 0, 512, True, **HASTY)


@pytest.mark.slow
@each_method
def test_sets_of_500_drawn_problems(method):
    check_sets(method, 0, 512, True, **HASTY)


@pytest.mark.slow
@each_method
def test_sets_at_a_tolerance_that_almost_any_vector_meets(method):
    """Starts beside wrong eigenvectors, M of condition 1e4 to 1e6, tol=1e-3."""
    check_sets(method, 0, 512, True, beyond=True, **HASTY)


@pytest.mark.slow
@pytest.mark.parametrize(("tol", "max_steps"), [(1e-5, 10), (1e-10, 1)])
@pytest.mark.parametrize("mass", [False, True], ids=["M = I", "M"])
@pytest.mark.parametrize("check", [check_bounds, check_sets], ids=["bounds", "sets"])
@each_method
def test_1000_drawn_problems(method, check, mass, tol, max_steps):
    check(method, 1 + max_steps, 256, mass, tol=tol, max_steps=max_steps)
