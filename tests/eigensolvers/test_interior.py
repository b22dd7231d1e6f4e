"""which="nearest": the right set inside the spectrum, with and without a solve, and derivatives.

The claim: CONVERGED means the k eigenvalues nearest to sigma, with multiplicity, as LAPACK says.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jax_peig import Status, partial_eigh
from jax_peig._eigensolvers.chebyshev_filter import block_width
from tests.support import gauge_free, spectra

N, K = 60, 4


@functools.cache
def solver(method, with_inverse=False):
    def solve(a, m, sigma):
        shifted = a - sigma * (jnp.eye(N, dtype=a.dtype) if m is None else m)
        inverse = (lambda v: jnp.linalg.solve(shifted, v)) if with_inverse else None
        return partial_eigh(a, m, K, which="nearest", sigma=sigma, method=method, OPinv=inverse)

    return jax.jit(solve)


def nearest(a, m, sigma, k=K):
    values = scipy.linalg.eigvalsh(a, m)
    return values[np.argsort(np.abs(values - sigma), kind="stable")[:k]]


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


WAYS = (("chebyshev", False), ("shift_invert", True), ("shift_invert", False), ("dense", False))


@pytest.mark.parametrize(("method", "inverse"), WAYS)
@pytest.mark.parametrize("kind", ["real", *map(slow, ["complex", "mass"])])
@pytest.mark.parametrize("sigma", [-3.0, 7.3, 20.1, 40.6, 80.0])
def test_the_nearest_are_found(method, inverse, kind, sigma):
    """At the ends, inside, on an eigenvalue's double, and outside the spectrum."""
    values = np.arange(1.0, N + 1)
    values[19:21] = 20.02
    pencil = spectra.pencil(
        values,
        dtype=np.complex128 if kind == "complex" else np.float64,
        condition=30.0 if kind == "mass" else None,
    )
    result = solver(method, inverse)(pencil.A, pencil.M, sigma)
    assert int(result.info.status) == Status.CONVERGED
    w = np.asarray(result.eigenvalues)
    expected = nearest(pencil.A, pencil.M, sigma)
    np.testing.assert_allclose(np.sort(w), np.sort(expected), rtol=0, atol=1e-9)
    assert np.all(np.diff(np.abs(w - sigma)) >= -1e-9)  # by distance
    x = np.asarray(result.eigenvectors)
    mx = x if pencil.M is None else pencil.M @ x
    np.testing.assert_allclose(x.conj().T @ mx, np.eye(K), atol=1e-10)
    np.testing.assert_allclose(pencil.A @ x, mx * w, atol=1e-7)
    errors = np.min(np.abs(w[:, None] - pencil.values[None, :]), axis=1)
    assert np.all(errors <= np.asarray(result.info.error_bounds))


@pytest.mark.parametrize(("method", "inverse"), WAYS)
def test_clusters_on_both_sides(method, inverse):
    """A pair below sigma, a triple above that k cuts: labels and the cut are per cluster."""
    values = np.concatenate([np.arange(-30.0, -1), [-0.5, -0.5, 0.6, 0.6, 0.6], np.arange(2.0, 28)])
    pencil = spectra.pencil(values)
    info = solver(method, inverse)(pencil.A, None, 0.0).info
    assert list(np.asarray(info.clusters)) == [0, 0, 1, 1]
    assert bool(info.cut)
    assert float(info.gap) < 1e-9


def losses(method, inverse, sigma=0.1):
    def loss(a, m, c):
        shifted = a - sigma * (jnp.eye(N) if m is None else m)
        solve = (lambda v: jnp.linalg.solve(shifted, v)) if inverse else None
        w, x, _ = partial_eigh(a, m, K, which="nearest", sigma=sigma, method=method, OPinv=solve)
        return jnp.sum(w) + jnp.sum(c * jnp.sum(x**2, axis=1) ** 2)

    return loss


@pytest.mark.parametrize(("method", "inverse"), WAYS)
@pytest.mark.slow
@pytest.mark.parametrize("generalized", [False, True])
def test_gradients_at_exact_degeneracy(method, inverse, generalized):
    """The density of a double pair on each side of sigma, against finite differences of LAPACK."""
    values = np.concatenate([np.arange(-30.0, -2), [-0.5, -0.5, 0.9, 0.9], np.arange(3.0, 31)])
    pencil = spectra.pencil(values, condition=20.0 if generalized else None)
    rng = np.random.default_rng(1)
    c = 0.5 + rng.random(N)
    e, f = (spectra.hermitian(rng.standard_normal((N, N))) for _ in range(2))
    a0, m0, f = pencil.A, pencil.M, f * 0.01

    def reference(t):
        a = a0 + t * e
        m = np.eye(N) if m0 is None else m0 + t * f
        w, x = scipy.linalg.eigh(a, m)
        chosen = np.argsort(np.abs(w - 0.1))[:K]
        return np.sum(w[chosen]) + np.sum(c * np.sum(x[:, chosen] ** 2, axis=1) ** 2)

    loss = losses(method, inverse)

    def along(t):
        return loss(a0 + t * e, None if m0 is None else m0 + t * f, c)

    slope = float(jax.jit(jax.grad(along))(0.0))
    expected = gauge_free.gradient_fd(lambda t: reference(t[0]), np.zeros(1))[0]
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


@pytest.mark.parametrize("mass", ["identity", "diagonal"])
def test_the_fold_takes_the_matvecs_that_the_distances_ask_for(mass):
    """At most twice those of the Chebyshev polynomial that separates the k-th from the block's end.

    Levels at random: the squared distance of the k-th pair is some millionths of the largest, so
    that a step of a low degree gains nearly nothing.
    """
    n, sigma = 2000, 0.5
    rng = np.random.default_rng(0)
    values, m = np.sort(rng.random(n)), 1 + rng.random(n)
    order = np.argsort(np.abs(values - sigma))
    width = block_width(n, K)
    distances = np.abs(values - sigma)[order] ** 2
    kth, behind, last = distances[[K - 1, width, -1]]
    growth = 2 * np.sqrt((behind - kth) / (last - behind))
    tol = np.finfo(float).eps ** (2 / 3)
    for start in range(2):
        result = partial_eigh(
            values if mass == "identity" else values * m,
            None if mass == "identity" else m,
            K,
            sigma=sigma,
            method="chebyshev",
            key=jax.random.key(start),
        )
        assert int(result.info.status) == Status.CONVERGED
        np.testing.assert_allclose(result.eigenvalues, values[order[:K]], rtol=1e-12)
        assert int(result.info.matvecs) <= 2 * 2 * width * np.log(2 / tol) / growth


WRONG = {
    "sigma missing": ({"which": "nearest"}, ValueError, "needs sigma"),
    "sigma too much": ({"which": "smallest", "sigma": 1.0}, ValueError, "which='nearest'"),
    "OPinv too much": ({"OPinv": np.eye(N)}, ValueError, "which='nearest'"),
    "sigma complex": ({"which": "nearest", "sigma": 1j}, TypeError, "real number"),
    "sigma text": ({"which": "nearest", "sigma": "0"}, TypeError, "real number"),
    "lobpcg": ({"which": "nearest", "sigma": 0.0, "method": "lobpcg"}, ValueError, "'chebyshev'"),
    "M_solve without M": ({"M_solve": np.eye(N)}, ValueError, "without M"),
    "history": ({"history": 1}, TypeError, "True or False"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(case):
    options, kind, text = WRONG[case]
    with pytest.raises(kind, match=text):
        partial_eigh(np.eye(N), k=2, **options)
