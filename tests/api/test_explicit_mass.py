"""An explicit M gets what A gets: its Hermitian part is taken, and its asymmetry is told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jax_peig import Status, partial_eigh
from tests.support import gauge_free as gf

N, K = 24, 3
METHODS = ["dense", *(pytest.param(m, marks=pytest.mark.slow) for m in ("lobpcg", "davidson"))]
# What a complex B B^H leaves beside its Hermitian part, in units of eps.
ROUNDING = 10.0


def pencil(dtype=np.complex128):
    rng = np.random.default_rng(0)
    a = gf.random_hermitian(rng, N, dtype)
    factor = gf.mass_factor(rng, N, dtype, 10.0)
    m = factor @ factor.conj().T
    return a, ((m + m.conj().T) / 2).astype(dtype)


def asymmetric(size, dtype=np.complex128):
    """Entries of the given size, none of which a Hermitian matrix has."""
    rng = np.random.default_rng(1)
    real, imag = rng.uniform(0.5, 1.0, (2, N, N))
    skew = np.tril(real, -1) - np.tril(real, -1).T + 1j * (imag + imag.T) / 2
    return (size * skew).astype(dtype)


def relative(matrix):
    return np.linalg.norm(matrix - matrix.conj().T) / np.linalg.norm(matrix)


def both_ways(a, m, **options):
    """M concrete, and M behind a trace."""
    return (
        partial_eigh(a, m, K, **options),
        jax.jit(lambda a, m: partial_eigh(a, m, K, **options))(a, m),
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_mass_that_is_hermitian_but_for_rounding(method):
    a, m = pencil()
    wanted = scipy.linalg.eigh(a, m, eigvals_only=True)[:K]
    given = m + asymmetric(ROUNDING * np.finfo(float).eps)
    assert np.all(np.diagonal(given).imag != 0)
    for w, _, info in both_ways(a, given, method=method):
        info.raise_if_failed()
        np.testing.assert_allclose(w, wanted, rtol=1e-10)
        np.testing.assert_allclose(info.hermiticity_error_M, relative(given), rtol=1e-3)


def test_its_gradient():
    a, m = pencil()
    direction = np.stack([gf.random_hermitian(np.random.default_rng(2), N, m.dtype)] * 2)
    direction[1] *= 1j  # of which the Hermitian part is zero
    given = m + asymmetric(ROUNDING * np.finfo(float).eps)

    def loss(t, m):
        return jnp.sum(partial_eigh(a, m + jnp.asarray(t, m.dtype) * direction[0], K).eigenvalues)

    def by_lapack(t):
        return scipy.linalg.eigh(a, m + t[0] * direction[0], eigvals_only=True)[:K].sum()

    wanted = gf.gradient_fd(by_lapack, np.zeros(1), h=1e-4)[0]
    np.testing.assert_allclose(jax.grad(loss)(0.0, given), wanted, rtol=1e-8)
    gradient = jax.grad(loss, 1)(0.0, given)
    along = [np.sum(gradient * d).real for d in direction]  # JAX pairs without conjugation
    np.testing.assert_allclose(along[0], wanted, rtol=1e-8)
    assert abs(along[1]) < 1e-10 * abs(wanted)


@pytest.mark.parametrize("method", ["dense", pytest.param("chebyshev", marks=pytest.mark.slow)])
def test_a_diagonal_mass(method):
    a, m = pencil()
    diagonal = np.diagonal(m).real
    wanted = scipy.linalg.eigh(a, np.diag(diagonal), eigvals_only=True)[:K]
    given = diagonal + 1j * np.finfo(float).eps * np.cos(np.arange(N))
    for w, _, info in both_ways(a, given, method=method):
        info.raise_if_failed()
        np.testing.assert_allclose(w, wanted, rtol=1e-10)
        assert 0 < float(info.hermiticity_error_M) < 1e-15
    wrong = diagonal + 1e-3j * (np.arange(N) == 4)
    with pytest.raises(ValueError, match=r"M is not Hermitian: its diagonal .* at 4; exp"):
        partial_eigh(a, wrong, K, method=method)
    found = jax.jit(lambda m: partial_eigh(a, m, K, method=method))(wrong)
    assert int(found.info.status) == Status.M_NOT_HERMITIAN
    assert np.isnan(found.eigenvalues).all()


def test_rounding_is_that_of_the_dtype_in_which_it_was_computed():
    """A mass of single precision in a problem of double precision."""
    a, m = pencil()
    given = (m + asymmetric(ROUNDING * np.finfo(np.float32).eps)).astype(np.complex64)
    for _, _, info in both_ways(a, given):
        info.raise_if_failed()
    with pytest.raises(ValueError, match="not Hermitian"):
        partial_eigh(a, given.astype(np.complex128), K)


@pytest.mark.parametrize("method", METHODS)
def test_a_mass_whose_diagonal_is_not_real(method):
    a, m = pencil()
    wrong = m + 1e-4j * np.diag(np.arange(N) == 4)
    text = r"M is not Hermitian: .* at 4; expected a real diagonal.* Check conjugation"
    with pytest.raises(ValueError, match=text):
        partial_eigh(a, wrong, K, method=method)
    w, x, info = jax.jit(lambda m: partial_eigh(a, m, K, method=method))(wrong)
    assert int(info.status) == Status.M_NOT_HERMITIAN
    assert np.isnan(w).all()
    assert np.isnan(x).all()


def test_off_the_diagonal_the_hermitian_part_is_taken():
    """As of A: one triangle, or a direction that is not symmetric, is a question of storage."""
    a, m = pencil()
    wanted = scipy.linalg.eigh(a, m, eigvals_only=True)[:K]
    triangle = 2 * np.triu(m, 1) + np.diag(np.diagonal(m))
    for w, _, info in both_ways(a, triangle):
        info.raise_if_failed()
        np.testing.assert_allclose(w, wanted, rtol=1e-10)
        np.testing.assert_allclose(info.hermiticity_error_M, relative(triangle), rtol=1e-10)
