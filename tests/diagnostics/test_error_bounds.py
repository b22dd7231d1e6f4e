"""Residual norms, how many pairs converged, error bounds: recomputed from outside."""

import numpy as np
import pytest
import scipy.linalg

from jax_peig import Status, partial_eigh
from tests.support import spectra
from tests.support.small_pencils import EPS, LOOSE, METHODS, TOL, K, any_pencil, rough


def residual(pencil, result):
    w, x = np.asarray(result.eigenvalues), np.asarray(result.eigenvectors)
    return pencil.A @ x - pencil.mass @ x * w


@pytest.mark.slow
@pytest.mark.parametrize("condition", [None, 1e2])
@pytest.mark.parametrize("noise", [1e-1, 1e-4, 1e-8])
def test_residual_norms(noise, condition):
    for seed in range(3):
        pencil = any_pencil(seed, condition)
        result = rough(pencil, seed, noise)
        expected = np.linalg.norm(residual(pencil, result), axis=0)
        np.testing.assert_allclose(
            result.info.residual_norms, expected, rtol=1e-6, atol=1e-13 * np.sqrt(condition or 1)
        )


@pytest.mark.parametrize("method", METHODS)
def test_residual_norms_of_converged_pairs(method):
    pencil = any_pencil(0, 1e2)
    result = partial_eigh(pencil.A, pencil.M, K, method=method)
    expected = np.linalg.norm(residual(pencil, result), axis=0)
    np.testing.assert_allclose(result.info.residual_norms, expected, rtol=1e-2, atol=1e-12)
    assert int(result.info.converged) == K


@pytest.mark.parametrize("condition", [None, 1e2])
def test_how_many_converged(condition):
    """||r|| <= tol (||A|| + |lam| ||M||) ||x||, where the norms are estimated from below."""
    counts = set()
    for seed in range(12):
        pencil = any_pencil(seed, condition)
        result = rough(pencil, seed, 10.0 ** np.random.default_rng(seed).uniform(-6, -1, K), LOOSE)
        x, w = np.asarray(result.eigenvectors), np.asarray(result.eigenvalues)
        norm_a, norm_m = np.linalg.norm(pencil.A, 2), np.linalg.norm(pencil.mass, 2)
        size = (norm_a + np.abs(w) * norm_m) * np.linalg.norm(x, axis=0)
        relative = np.linalg.norm(residual(pencil, result), axis=0) / size
        count = int(result.info.converged)
        assert np.sum(relative <= 0.3 * LOOSE) <= count <= np.sum(relative <= LOOSE)
        assert count == K or int(result.info.status) != Status.CONVERGED
        counts.add(count)
    assert len(counts) > 1, "the test does not distinguish"


@pytest.mark.parametrize("condition", [None, 1.0, 10.0, 1e3, 1e6])
def test_error_bounds_bound(condition):
    """An eigenvalue lies within the bound of each computed one, whatever state the pair is in."""
    tightest = np.inf
    for seed in range(25):
        pencil = any_pencil(seed, condition)
        for noise in (1.0, 1e-2, 1e-5, 1e-9, 0.0):
            result = rough(pencil, seed, noise)
            w, bounds = np.asarray(result.eigenvalues), np.asarray(result.info.error_bounds)
            distance = np.min(np.abs(pencil.values[:, None] - w[None, :]), axis=0)
            # What the pencil's own making has lost.
            made = EPS * (condition or 1) * 10
            assert np.all(distance <= bounds + made), (seed, noise)
            tightest = min(tightest, np.min((bounds + made) / np.maximum(distance, 1e-300)))
    assert tightest < 1e3, "bounds are allowed to be too large, but not that much"


@pytest.mark.parametrize("condition", [10.0, 1e3, 1e6])
def test_error_bounds_are_the_residual_in_the_inverse_norm(condition):
    """||r||_{M^-1} / ||x||_M, by a direct solve."""
    for seed in range(5):
        pencil = any_pencil(seed, condition)
        result = rough(pencil, seed, 1e-2)
        r, x = residual(pencil, result), np.asarray(result.eigenvectors)
        solved = scipy.linalg.solve(pencil.M, r, assume_a="pos")
        exact = np.sqrt(np.sum(r * solved, axis=0) / np.sum(x * (pencil.M @ x), axis=0))
        np.testing.assert_allclose(result.info.error_bounds, exact, rtol=2e-2)
        assert np.all(np.asarray(result.info.error_bounds) >= exact * (1 - 1e-3))


@pytest.mark.parametrize("method", METHODS)
def test_error_bounds_of_converged_pairs(method):
    """Rounding counted in: a bound is never zero, and it holds against SciPy."""
    for seed in range(10):
        for condition in (None, 1e3):
            pencil = any_pencil(seed, condition)
            result = partial_eigh(pencil.A, pencil.M, K, method=method)
            bounds = np.asarray(result.info.error_bounds)
            w, _ = spectra.reference(pencil.A, pencil.M)
            slack = EPS * (condition or 1)
            assert np.all(bounds > 0)
            assert np.all(np.abs(np.asarray(result.eigenvalues) - w[:K]) <= bounds + slack)
            scale = np.linalg.norm(pencil.A, 2) * (condition or 1)
            assert np.all(bounds <= 100 * TOL * scale)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dense", "davidson"])
def test_what_converged_means_at_a_large_norm(method):
    """The docstring's number: with ||A|| = 5e9 and lam = 1 the default tolerance allows 0.2.

    The bounds hold, and are within what the tolerance allows, for a smaller one as well.
    """
    assert 0.15 < TOL * 5e9 < 0.2
    values = np.concatenate([[1.0, 2.0, 4.0], np.geomspace(1e2, 5e9, 33)])
    for tol in (TOL, 1e-12):
        w, _, info = partial_eigh(np.diag(values), k=2, method=method, tol=tol)
        assert int(info.status) == Status.CONVERGED
        assert np.all(np.abs(w - values[:2]) <= info.error_bounds)
        assert np.all(info.error_bounds <= tol * (5e9 + 2) + 100 * EPS * 5e9)
