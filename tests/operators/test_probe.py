"""Lanczos' estimates of a spectrum, against Rayleigh-Ritz in an explicit Krylov space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jax_peig._operators.probe import positive_interval, spectral_interval

N, STEPS = 40, 6


def diagonal(values):
    return lambda block: jnp.asarray(values)[:, None] * block


def start(seed=0):
    return np.random.default_rng(seed).standard_normal((N, 1))


def test_the_interval_is_that_of_the_krylov_space():
    """The Ritz values, extended by the residuals of their vectors."""
    values = np.linspace(-1, 2, N) ** 3
    found = jax.jit(lambda x: spectral_interval(diagonal(values), lambda x: x, x, STEPS))(start())
    krylov = np.hstack([values[:, None] ** i * start() for i in range(STEPS)])
    q = scipy.linalg.qr(krylov, mode="economic")[0]
    ritz, s = np.linalg.eigh(q.T @ (values[:, None] * q))
    reach = np.linalg.norm(values[:, None] * (q @ s) - q @ s * ritz, axis=0)
    expected = np.min(ritz - reach), np.max(ritz + reach)
    # A power basis of six vectors loses half of the digits.
    np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize("distinct", [[3.0], [1.0, 2.0, 5.0], [-4.0, -1.0], [2.0, 3.0, 4.0, 7.0]])
def test_an_exhausted_space_tells_the_spectrum(distinct):
    """As many steps as there are distinct eigenvalues; the further ones add no value."""
    values = np.resize(distinct, N)
    found = jax.jit(lambda x: spectral_interval(diagonal(values), lambda x: x, x, 16))(start())
    scale = np.abs(distinct).max() * N * np.finfo(float).eps
    # The space ends where the next vector is shorter than a hundred eps of the product.
    np.testing.assert_allclose(found, (min(distinct), max(distinct)), atol=100 * scale)


def test_a_positive_interval_in_another_inner_product():
    """D A with a diagonal D: its smallest Ritz value from above, and a bound of the largest."""
    a, d = np.linspace(1, 3, N), np.linspace(2, 1, N) ** 2
    low, high = positive_interval(diagonal(a), diagonal(d), jnp.asarray(start()))
    assert np.min(a * d) <= low <= np.max(a * d) <= high
