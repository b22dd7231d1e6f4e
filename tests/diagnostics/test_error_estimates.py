"""`error_estimates` of pairs whose errors are known, and at every end of a spectrum."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_peig import partial_eigh
from jax_peig._diagnostics.error_bounds import error_estimates
from tests.support import spectra

VALUES = np.array([0.0, 1.0, 10.0])
SINE = 0.01
COSINE = np.sqrt(1 - SINE**2)


def estimate(block):
    """Of the first of some orthonormal vectors (3, b), its true error and residual."""
    theta = VALUES @ block**2
    r = VALUES[:, None] * block - block * theta
    lengths = jnp.linalg.norm(r, axis=0), jnp.ones_like(theta)
    bound, rounding = lengths[0][:1], jnp.zeros(1)
    args = map(jnp.asarray, (theta, block, r))
    (found,) = error_estimates(*args, lengths, bound, rounding)
    return found, theta[0], lengths[0][0]


def test_error_along_a_guard_vector():
    """One that was in no Rayleigh-Ritz with the pair knows the whole error."""
    found, error, _ = estimate(np.array([[COSINE, -SINE], [SINE, COSINE], [0, 0]]))
    np.testing.assert_allclose(found, error, rtol=3 * SINE**2)


def test_error_beyond_the_block():
    """Kato and Temple, with the gap to the last guard vector."""
    found, error, residual = estimate(np.array([[COSINE, 0], [0, 1], [SINE, 0]]))
    np.testing.assert_allclose(found, residual**2 / (1 - error), rtol=1e-12)
    assert error < found


def test_error_of_both_kinds():
    """x = c e_0 + a e_1 + b e_2, and a guard vector between e_0 and e_1: the sum of both parts."""
    a, b = 0.8 * SINE, 0.6 * SINE
    found, error, _ = estimate(np.array([[COSINE, -a], [a, COSINE], [b, 0]]))
    np.testing.assert_allclose(error, a**2 + 10 * b**2, rtol=1e-12)
    np.testing.assert_allclose(found, a**2 + 100 * b**2, rtol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "method"),
    [
        ("smallest", "chebyshev"),
        ("smallest", "lobpcg"),
        pytest.param("smallest", "davidson", marks=pytest.mark.slow),
        ("largest", "chebyshev"),
        pytest.param("largest", "lobpcg", marks=pytest.mark.slow),
        ("nearest", "chebyshev"),
    ],
)
def test_estimates_are_sharp(which, method):
    """Where the bounds are some hundred times the true errors, and more."""
    values = np.linspace(1.0, 200.0, 200)
    sigma = 100.3 if which == "nearest" else None
    solve = functools.partial(partial_eigh, k=4, which=which, sigma=sigma, method=method, tol=1e-3)
    matrices = jnp.array([spectra.pencil(values, seed=seed).A for seed in range(8)])
    w, _, info = jax.jit(jax.vmap(solve))(matrices)
    error = np.min(np.abs(np.asarray(w)[..., None] - values), axis=-1)
    ratio = np.asarray(info.error_estimates) / error
    assert np.min(ratio) > 0.5
    # The errors that the polynomial of "lobpcg" leaves lie far beyond the block, and count as near.
    assert np.median(ratio) < (25 if method == "lobpcg" else 15)
    assert np.median(info.error_bounds / error) > 50 * np.median(ratio)
