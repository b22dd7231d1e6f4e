"""The approximate inverse of M that the filter of "chebyshev" takes, against LAPACK."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jax_peig import Derivative, Status, derivative_report, partial_eigh
from jax_peig._operators.mass_inverse import ERROR, approximate_inverse
from jax_peig._operators.operator import as_operator
from tests.support import spectra

N, KEYS = 60, 64

SPECTRA = {
    "three decades": np.logspace(-3, 0, N),
    "one decade": np.logspace(-1, 0, N),
    "even": np.linspace(0.1, 1, N),
    "one far out": np.append(np.linspace(0.1, 0.8, N - 1), 1.0),
}


@pytest.mark.parametrize("kind", SPECTRA)
def test_approximate_inverse_is_positive_definite(kind):
    """For every start of the Lanczos steps that bound M's spectrum; an indefinite one diverges."""
    values = SPECTRA[kind]
    vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(N, N)))[0]
    m = (vectors * values) @ vectors.T
    operator = as_operator(jnp.asarray(m), N, m.dtype, "M")

    def inverse(key):
        start = jax.random.normal(key, (N, 1))
        return approximate_inverse(operator, jnp.array(1.0), start, smooth=False)(jnp.eye(N))

    for d in jax.jit(jax.vmap(inverse))(jax.random.split(jax.random.key(1), KEYS)):
        share = scipy.linalg.eigvalsh(np.linalg.cholesky(m).T @ d @ np.linalg.cholesky(m))
        assert share[0] > 0
        assert share[-1] < 1 + 1.01 * ERROR


@pytest.mark.slow
def test_ill_conditioned_mass_by_many_starts():
    pencil = spectra.pencil(np.linspace(1.0, 50.0, N), condition=1000.0, seed=3)

    def solve(key):
        result = partial_eigh(pencil.A, pencil.M, 4, method="chebyshev", tol=1e-9, key=key)
        return result.info.status, result.eigenvalues

    status, w = jax.jit(jax.vmap(solve))(jax.random.split(jax.random.key(2), KEYS))
    assert set(status.tolist()) == {int(Status.CONVERGED)}
    np.testing.assert_allclose(w, np.tile(pencil.values[:4], (KEYS, 1)), rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("resembles", [True, False])
def test_the_derivative_after_lobpcg(resembles):
    """By the semi-iteration where row sums resemble M, else by MINRES from the start."""
    if resembles:
        n, h = 150, 1 / 151
        ones = np.ones(n - 1)
        a = (2 * np.eye(n) - np.diag(ones, 1) - np.diag(ones, -1)) / h
        m = (4 * np.eye(n) + np.diag(ones, 1) + np.diag(ones, -1)) * h / 6
    else:
        pencil = spectra.pencil(np.logspace(0, 3, N), condition=100.0, seed=5)
        n, a, m = N, pencil.A, pencil.M
    weights = jnp.asarray(np.random.default_rng(6).standard_normal(n))

    def density(a, **options):
        return weights @ jnp.sum(partial_eigh(a, m, 4, **options).eigenvectors ** 2, axis=1)

    def report(**options):
        options |= {"method": "lobpcg", "tol": 1e-11}
        return derivative_report(lambda a: density(a, **options), jnp.asarray(a))

    want = jax.grad(density)(jnp.asarray(a), method="dense")
    got = report()
    np.testing.assert_allclose(got.gradient, want, rtol=0, atol=1e-6 * np.max(np.abs(want)))
    chosen, minres = (r.calls[0] for r in (got, report(derivative=Derivative(solver="minres"))))
    assert chosen.solvers == ("semi_iteration", "minres")
    # But for the rounding of two programs; the semi-iteration takes 1.8 times as many.
    same = abs(chosen.matvecs - minres.matvecs) <= 0.1 * minres.matvecs
    assert same == (not resembles)
    assert minres.matvecs > 0
    assert np.max(chosen.residuals) <= 10 * chosen.tolerance


@pytest.mark.slow
@pytest.mark.parametrize(
    "solve",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["approximate inverse", "M_solve"],
)
def test_a_guess_with_a_mass(solve):
    """The filter leaves it to LOBPCG: half of the products, the same pairs, the same gradient."""
    pencil = spectra.stiff(N, 4, condition=3.0)
    noise = np.random.default_rng(4).standard_normal((N, 4))
    v0 = pencil.vectors[:, :4] + 1e-6 * noise
    options = {"method": "chebyshev", "tol": 1e-10}
    options |= {"M_solve": np.linalg.inv(pencil.mass)} if solve else {}

    def density(a, key, v0, **options):
        result = partial_eigh(a, pencil.M, 4, key=key, v0=v0, **options)
        weights = jnp.sin(jnp.arange(1.0, N + 1))
        value = jnp.sum(weights * jnp.sum(result.eigenvectors**2, axis=1) ** 2)
        return value, (result.eigenvalues, result.info)

    gradient = jax.grad(density, has_aux=True)
    want, (w, _) = gradient(pencil.A, None, None, method="dense")
    matvecs = {"cold": 0, "warm": 0}
    solves = jax.jit(lambda key, v0: gradient(pencil.A, key, v0, **options))
    for seed in range(4):
        for way, guess in (("cold", None), ("warm", v0)):
            got, (values, info) = solves(jax.random.key(seed), guess)
            assert int(info.status) == Status.CONVERGED
            assert ("LOBPCG" in info.reason) == (way == "warm")
            np.testing.assert_allclose(values, w, rtol=1e-9)
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-6 * np.max(np.abs(want)))
            matvecs[way] += int(info.matvecs)
    assert matvecs["warm"] < 0.5 * matvecs["cold"]
