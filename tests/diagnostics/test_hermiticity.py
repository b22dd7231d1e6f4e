"""How far A and M are from Hermitian, exact for arrays, probed for products."""

import jax
import numpy as np
import pytest

from jax_peig import Status, partial_eigh
from tests.support import spectra
from tests.support.small_pencils import GOOD, METHODS, SKEW, K, N, by_product


def frobenius(matrix):
    return np.linalg.norm(matrix - matrix.conj().T) / np.linalg.norm(matrix)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [1.0, 1e-4])
def test_hermiticity_error_of_an_array_is_exact(method, size):
    """As it was given; its Hermitian part is solved all the same."""
    a, m = GOOD.A + size * SKEW, GOOD.M + size * SKEW / 10
    result = partial_eigh(a, m, K, method=method)
    assert int(result.info.status) == Status.CONVERGED
    np.testing.assert_allclose(result.info.hermiticity_error, frobenius(a), rtol=1e-10)
    np.testing.assert_allclose(result.info.hermiticity_error_M, frobenius(m), rtol=1e-10)
    np.testing.assert_allclose(result.eigenvalues, GOOD.values[:K], rtol=1e-11)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [4.0**-260, 4.0**260])
def test_hermiticity_error_at_the_ends_of_the_range(method, scale):
    """Where squares under- or overflow it is what it is elsewhere."""
    a = GOOD.A + SKEW
    usual = partial_eigh(a, k=K, method=method).info.hermiticity_error
    extreme = partial_eigh(scale * a, k=K, method=method).info.hermiticity_error
    np.testing.assert_allclose(extreme, usual, rtol=1e-14)


def test_hermiticity_error_of_a_product():
    """Exact where the matrix is made; from one random sample otherwise, within a small factor."""
    ratios = []
    for size in (1.0, 1e-2, 1e-5):
        a = GOOD.A + size * SKEW
        dense = partial_eigh(by_product(a), by_product(GOOD.M), K, n=N, method="dense")
        np.testing.assert_allclose(dense.info.hermiticity_error, frobenius(a), rtol=1e-8)
        for seed in range(10):
            key = jax.random.key(seed)
            options = {"n": N, "method": "lobpcg", "key": key, "max_steps": 2}
            probed = partial_eigh(by_product(a), by_product(GOOD.M), K, **options)
            ratios.append(float(probed.info.hermiticity_error) / frobenius(a))
    assert 0.2 < np.median(ratios) < 2
    assert np.max(ratios) < 10


def test_a_complex_symmetric_product_is_not_hermitian():
    a = np.diag(np.arange(1.0, 13)) + 0j
    a[0, 1] = a[1, 0] = 1j
    for method in METHODS:
        result = partial_eigh(by_product(a), k=2, n=12, dtype=complex, method=method)
        assert int(result.info.status) == Status.A_NOT_HERMITIAN
    a[1, 0] = -1j
    for method in METHODS:
        result = partial_eigh(by_product(a), k=2, n=12, dtype=complex, method=method)
        assert int(result.info.status) == Status.CONVERGED
        np.testing.assert_allclose(result.eigenvalues, np.linalg.eigvalsh(a)[:2], rtol=1e-12)


def test_single_precision_is_not_taken_for_a_lack_of_symmetry():
    """Rounding of float32 products is no sign of a product that is not Hermitian."""
    single = spectra.pencil(spectra.clustered(N, K, "none"), dtype=np.float32, seed=12)
    for seed in range(5):
        result = partial_eigh(
            by_product(single.A), k=K, n=N, dtype=np.float32, method="lobpcg",
            key=jax.random.key(seed),
        )  # fmt: skip
        assert int(result.info.status) == Status.CONVERGED
        assert float(result.info.hermiticity_error) < 1e-5
