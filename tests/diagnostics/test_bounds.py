"""Weyl's inequality, interlacing, Kato-Temple; and the derivatives of Strang's lecture 16."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jax_peig import bounds, partial_eigh, partial_svd
from tests.support import gauge_free as gf

N, K = 6, 4
ROUNDING = 1e-12
seeds = st.integers(0, 2**32 - 1)
# Few values, so that they repeat.
spectra = st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.5, 2.0, 2.0 + 1e-9]), min_size=N, max_size=N)


def matrix(spectrum, seed):
    u = gf.random_unitary(np.random.default_rng(seed), N, float)
    return (u * np.asarray(spectrum)) @ u.T


@functools.cache
def pairs(which, k):
    return jax.jit(lambda a: partial_eigh(a, k=k, which=which))


def values(a, which="largest", k=N):
    return np.asarray(pairs(which, k)(a).eigenvalues)


# -- properties of partial_eigh's results ---------------------------------------------------------


@given(spectra, spectra, seeds)
@example([0.0] * N, [2.0] * N, 0)
def test_weyl(first, second, seed):
    """lam_{i+j-1}(A + E) <= lam_i(A) + lam_j(E), descending."""
    a, e = matrix(first, seed), matrix(second, seed + 1)
    lam_a, lam_e, lam = values(a), values(e), values(a + e)
    for i in range(N):
        for j in range(N - i):
            assert lam[i + j] <= lam_a[i] + lam_e[j] + ROUNDING
    low, high = bounds.weyl_bounds(lam_a, np.max(np.abs(lam_e)))
    assert np.all(low - ROUNDING <= lam)
    assert np.all(lam <= high + ROUNDING)


@given(spectra, seeds, st.sampled_from(["smallest", "largest"]), st.sampled_from([1e-3, 1.0, 1e3]))
@example([2.0] * N, 0, "largest", 1.0)
def test_interlacing(spectrum, seed, which, size):
    a = matrix(spectrum, seed)
    x = np.random.default_rng(seed).normal(size=N)
    change = size * np.outer(x, x)
    before = values(a, which, K)
    small = ROUNDING * max(1, size) * 10
    for sign, positive in ((1, True), (-1, False)):
        after = values(a + sign * change, which, K)
        low, high = bounds.interlacing(before, positive=positive)
        assert np.all(low - small <= after)
        assert np.all(after <= high + small)


@given(spectra, seeds)
@example([2.0] * N, 0)
def test_interlacing_of_rank_two(spectrum, seed):
    a = matrix(spectrum, seed)
    x = np.random.default_rng(seed).normal(size=(N, 2))
    low, high = bounds.interlacing(values(a), 2)
    after = values(a + x @ x.T)
    assert np.all(low - ROUNDING * 10 <= after)
    assert np.all(after <= high + ROUNDING * 10)


@pytest.mark.parametrize(
    ("theta", "wanted"), [(1.0, (5, 4, 1)), (2.0, (5, 5, 1)), (10.0, (13, 5, 1))]
)
def test_hyping_up_the_second_eigenvector(theta, wanted):
    """Strang's puzzle: lam_2 + theta passes lam_1, and then is mu_1; mu_2 stays below lam_1."""
    u = gf.random_unitary(np.random.default_rng(3), 3, float)
    a = (u * np.array([5.0, 3.0, 1.0])) @ u.T
    lam, x, _ = partial_eigh(a, k=3, which="largest")
    mu = partial_eigh(a + theta * np.outer(x[:, 1], x[:, 1]), k=3, which="largest").eigenvalues
    np.testing.assert_allclose(mu, wanted, rtol=1e-13)
    low, high = bounds.interlacing(lam)
    assert np.all(low - ROUNDING <= mu)
    assert np.all(mu <= high + ROUNDING)
    assert mu[1] <= lam[0] + ROUNDING


# -- the functions --------------------------------------------------------------------------------


def test_interlacing_in_both_orders():
    up = np.array([1.0, 2.0, 4.0])
    for w, rank, positive, low, high in (
        (up, 1, True, up, [2, 4, np.inf]),
        (up[::-1], 1, True, up[::-1], [np.inf, 4, 2]),
        (up, 1, False, [-np.inf, 1, 2], up),
        (up[::-1], 1, False, [2, 1, -np.inf], up[::-1]),
        (up, 0, True, up, up),
        (up, 7, True, up, [np.inf] * 3),
    ):
        found = bounds.interlacing(w, rank, positive=positive)
        np.testing.assert_array_equal(found.lower, low)
        np.testing.assert_array_equal(found.upper, high)


def test_kato_temple_is_a_bound_and_of_second_order():
    """Rayleigh quotients of disturbed eigenvectors, with the exact gap."""
    rng = np.random.default_rng(0)
    exact = np.array([1.0, 2.0, 2.5, 4.0])
    u = gf.random_unitary(rng, 4, float)
    a = (u * exact) @ u.T
    for size in (1e-1, 1e-2, 1e-3):
        x = u[:, 0] + size * u[:, 1:] @ rng.normal(size=3)
        x /= np.linalg.norm(x)
        w = x @ a @ x
        r = np.linalg.norm(a @ x - w * x)
        gap = 2.0 - w
        bound = float(bounds.kato_temple(np.array([w]), np.array([r]), np.array([gap]))[0])
        assert abs(w - 1.0) <= bound <= 6 * r**2
        low, high = bounds.weyl_bounds(np.array([w]), r)
        assert low[0] <= 1.0 <= high[0]


def test_kato_temple_without_a_gap_is_weyl():
    r = np.array([0.1, 0.1, 0.1, 0.1])
    found = bounds.kato_temple(np.zeros(4), r, np.array([0.0, -1.0, np.inf, 0.05]))
    np.testing.assert_array_equal(found, r)
    exact = bounds.kato_temple(np.zeros(2), np.zeros(2), np.array([0.0, 1.0]))
    np.testing.assert_array_equal(exact, 0)


def test_bounds_of_info_hold():
    """At a loose tolerance: those of info, and Kato-Temple's with the true gap."""
    exact = np.r_[np.arange(1.0, 6.0), np.linspace(8, 40, 595)]
    diagonal = jnp.asarray(exact)
    w, _, info = partial_eigh(lambda v: diagonal * v, k=5, n=600, tol=1e-4)
    error = np.abs(w - exact[:5])
    low, high = bounds.weyl_bounds(w, info.error_bounds)
    assert np.all((low <= exact[:5]) & (exact[:5] <= high))
    distances = np.abs(np.asarray(w)[:, None] - exact)
    gaps = np.min(np.where(np.eye(5, 600, dtype=bool), np.inf, distances), axis=1)
    sharp = bounds.kato_temple(w, info.error_bounds, gaps)
    assert np.all(error <= sharp + 1e-13)
    assert np.all(sharp <= info.error_bounds)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda w: bounds.weyl_bounds(w, np.ones(2)), ValueError, "expected equal ones"),
        (lambda w: bounds.weyl_bounds([1.0], 1.0), TypeError, "w is of list"),
        (lambda w: bounds.weyl_bounds(w * 1j, 1.0), TypeError, "w is of complex128"),
        (lambda w: bounds.interlacing(w, 1.0), TypeError, "rank is 1.0"),
        (lambda w: bounds.interlacing(w, -1), ValueError, "zero or more"),
        (lambda w: bounds.interlacing(w, positive=1), TypeError, "True or False"),
        (lambda w: bounds.interlacing(1.0), ValueError, "w is a scalar"),
        (lambda w: bounds.kato_temple(w, w, np.ones(2)), ValueError, "expected equal ones"),
    ],
)
def test_bad_arguments(call, error, text):
    with pytest.raises(error, match=text):
        call(np.ones(3))


# -- the lecture's derivatives --------------------------------------------------------------------


@pytest.fixture
def moving():
    rng = np.random.default_rng(16)
    return rng.normal(size=(4, 4)), rng.normal(size=(4, 4))


def test_derivative_of_the_square(moving):
    """d(A^2) = A dA + dA A, not 2 A dA."""
    a, da = moving
    _, found = jax.jvp(lambda a: a @ a, (a,), (da,))
    np.testing.assert_allclose(found, a @ da + da @ a, rtol=1e-13)
    assert np.max(np.abs(found - 2 * a @ da)) > 0.1


def test_derivative_of_the_inverse(moving):
    """d(A^{-1}) = -A^{-1} dA A^{-1}."""
    a, da = moving
    _, found = jax.jvp(jnp.linalg.inv, (a,), (da,))
    inverse = np.linalg.inv(a)
    np.testing.assert_allclose(found, -inverse @ da @ inverse, rtol=1e-11)


def test_derivative_of_an_eigenvalue(moving):
    """D lam = y^T dA x, with y = x for a symmetric A."""
    a, da = (m + m.T for m in moving)

    def pairs(a):
        return partial_eigh(a, k=4)[:2]

    (_, x), (w_dot, _) = jax.jvp(pairs, (a,), (da,))
    np.testing.assert_allclose(w_dot, np.diagonal(x.T @ da @ x), rtol=1e-12)
    h = 1e-6  # the differences' errors, h^2 w''' / 6 and eps ||A|| / h, are near 1e-9
    differences = np.linalg.eigvalsh(a + h * da) - np.linalg.eigvalsh(a - h * da)
    np.testing.assert_allclose(w_dot, differences / (2 * h), rtol=1e-7)


def test_derivative_of_an_eigenvalue_of_a_matrix_that_is_not_symmetric(moving):
    """D lam = y^T dA x with y^T A = lam y^T, y^T x = 1: left and right vectors differ."""
    a = np.diag(np.arange(1.0, 5.0)) + 0.2 * moving[0]  # real, simple eigenvalues
    w, x = np.linalg.eig(a)
    y = np.linalg.inv(x)  # rows, y^T x = 1
    pair = jax.jvp(jnp.linalg.eigvals, (a,), (moving[1],))
    found, w_dot = map(np.asarray, pair)
    w_dot = w_dot[[int(np.argmin(np.abs(found - lam))) for lam in w]]
    np.testing.assert_allclose(w_dot, np.diagonal(y @ moving[1] @ x), rtol=1e-11)
    assert np.max(np.abs(np.diagonal(x.T @ moving[1] @ x) - w_dot)) > 0.01


def test_derivative_of_a_singular_value(moving):
    """D sigma = u^T dA v."""
    a, da = moving

    def triplets(a):
        return partial_svd(a, 4)[:3]

    (u, _, vh), (_, s_dot, _) = jax.jvp(triplets, (a,), (da,))
    np.testing.assert_allclose(s_dot, np.diagonal(u.T @ da @ vh.T), rtol=1e-11)
    h = 1e-5
    ends = (np.linalg.svd(a + sign * h * da, compute_uv=False) for sign in (1, -1))
    np.testing.assert_allclose(s_dot, np.subtract(*ends) / (2 * h), rtol=1e-6)
