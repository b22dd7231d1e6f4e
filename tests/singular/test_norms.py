"""Ky Fan and nuclear norms, and thresholding, against LAPACK, at repeated and zero values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_peig import (
    PartialEighError,
    Status,
    ky_fan_norm,
    nuclear_norm,
    singular_value_threshold,
)
from tests.support import gauge_free as gf
from tests.support.rectangular import along, matrix

T0 = np.zeros(2)


@pytest.mark.slow
def test_ky_fan_norm():
    a, noise = matrix((3, 3, 2, 1, 1), (8, 5), np.complex128, seed=3)
    u, _, vh = np.linalg.svd(a, full_matrices=False)
    value, gradient = jax.value_and_grad(ky_fan_norm)(a, 2)
    np.testing.assert_allclose(value, 6, rtol=1e-14)
    # JAX's gradient of a real function of complex arrays is conjugated.
    np.testing.assert_allclose(gradient.conj(), u[:, :2] @ vh[:2], atol=1e-13)

    def by_lapack(t):
        return np.linalg.svd(along(a, noise, np.asarray(t)), compute_uv=False)[:2].sum()

    found = jax.jit(jax.hessian(lambda t: ky_fan_norm(along(a, noise, t), 2)))(T0)
    gf.assert_close(found, gf.hessian_fd(by_lapack, T0), 1e-6)


def test_ky_fan_norm_where_it_has_a_kink():
    a, noise = matrix((3, 3, 2, 1, 1), (8, 5), seed=3)

    def f(t):
        return ky_fan_norm(along(a, noise, t), 1)

    once, twice = jax.jit(lambda t: (jax.grad(f)(t), jax.hessian(f)(t)))(T0)
    assert np.isfinite(once).all()
    assert np.isnan(twice).all()


def test_nuclear_norm():
    a, _ = matrix((3, 3, 2, 1, 1), (8, 5), seed=4)
    u, _, vh = np.linalg.svd(a, full_matrices=False)
    gradient = jax.grad(lambda a: nuclear_norm(a).norm)(a)
    np.testing.assert_allclose(gradient, u @ vh, atol=1e-13)
    assert float(nuclear_norm(a).left_out) == 0.0


@pytest.mark.slow
def test_curvature_of_the_nuclear_norm():
    a, noise = matrix((3, 3, 2, 1, 1), (8, 5), seed=4)

    def by_lapack(t):
        return np.linalg.norm(along(a, noise, np.asarray(t)), ord="nuc")

    found = jax.jit(jax.hessian(lambda t: nuclear_norm(along(a, noise, t)).norm))(T0)
    gf.assert_close(found, gf.hessian_fd(by_lapack, T0), 1e-6)


@pytest.mark.slow
def test_nuclear_norm_of_a_low_rank_matrix():
    a, noise = matrix((3, 3, 2), (8, 5), seed=5)
    u, _, vh = np.linalg.svd(a, full_matrices=False)
    wanted = u[:, :3] @ vh[:3]
    gradient = jax.grad(lambda a: nuclear_norm(a, 4).norm)(a)
    np.testing.assert_allclose(gradient, wanted, atol=1e-12)
    found = nuclear_norm(a, 3)
    np.testing.assert_allclose(found.norm, 8, rtol=1e-14)
    assert 0 <= float(found.left_out) < 1e-5
    second = jax.grad(jax.grad(lambda t: nuclear_norm(a + t * noise[0], 4).norm))
    assert np.isnan(second(0.0))  # a kink


@pytest.mark.parametrize("dtype", [np.float64, np.complex128], ids=["real", "complex"])
@pytest.mark.parametrize("explicit", [True, False])
def test_what_the_nuclear_norm_leaves_out(explicit, dtype):
    a, _ = matrix((3, 2, 0.5, 0.4, 0.1), (8, 5), dtype, seed=6)
    given = a if explicit else (lambda v: jnp.asarray(a) @ v)
    found = nuclear_norm(given, 2, shape=(8, 5), dtype=dtype)
    exact = np.linalg.norm(a, ord="nuc")
    assert float(found.norm) < exact <= float(found.norm + found.left_out)
    if explicit:  # sqrt(3 (||A||_F^2 - 13))
        np.testing.assert_allclose(found.left_out, np.sqrt(3 * 0.42), rtol=1e-11)
    else:  # three of at most 2 and its bound
        np.testing.assert_allclose(found.left_out, 3 * (2 + found.info.error_bounds[1]), rtol=1e-14)
        assert float(found.left_out) > 6.0


@pytest.mark.slow
def test_what_did_not_converge():
    a, _ = matrix((3, 2.9, 2.8, *np.linspace(2.7, 0.1, 17)), (30, 20), seed=11)
    options = {"method": "lobpcg", "max_steps": 1}
    assert np.isnan(ky_fan_norm(a, 2, **options))
    assert np.isnan(nuclear_norm(a, 2, **options).norm)
    found = singular_value_threshold(a, 2.85, 2, **options)
    assert np.isnan(found.X).all()
    assert int(found.info.status) == Status.MAX_STEPS


def threshold_reference(a, noise, t, level, weights):
    u, s, vh = np.linalg.svd(along(a, noise, np.asarray(t)), full_matrices=False)
    return np.sum(weights * np.sin(((u * np.maximum(s - level, 0)) @ vh).real))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "k", "dtype"),
    [
        ((3, 3, 2.5, 1, 1), 3, np.float64),
        pytest.param((3, 3, 2.5, 1, 1), 5, np.float64, marks=pytest.mark.slow),
        pytest.param((3, 3, 2.5), 3, np.float64, marks=pytest.mark.slow),
        pytest.param((3, 3, 2.5, 1, 1), 3, np.complex128, marks=pytest.mark.slow),
        pytest.param((3, 3, 2.5, 1, 1), 5, np.complex128, marks=pytest.mark.slow),
    ],
)
def test_singular_value_threshold(values, k, dtype):
    """Weights differ over the pair 3, 3, and the vectors are used: both orders are right."""
    a, noise = matrix(values, (6, 5), dtype, seed=7)
    weights = np.random.default_rng(0).normal(size=(6, 5))

    def f(t):
        x = singular_value_threshold(along(a, noise, t), 2.0, k).X
        return jnp.sum(weights * jnp.sin(x.real))

    def by_lapack(t):
        return threshold_reference(a, noise, t, 2.0, weights)

    both = jax.jit(lambda t: (f(t), jax.grad(f)(t), jax.hessian(f)(t)))
    value, gradient, hessian = both(T0)
    np.testing.assert_allclose(value, by_lapack(T0), rtol=1e-12)
    gf.assert_close(gradient, gf.gradient_fd(by_lapack, T0), 1e-9)
    gf.assert_close(hessian, gf.hessian_fd(by_lapack, T0), 1e-6)


@pytest.mark.slow
def test_threshold_of_a_matrix_of_lower_rank():
    """k cuts the zeros: first derivatives are right in both modes, second ones are NaN."""
    a, noise = matrix((3, 3), (6, 5), seed=8)
    weights = np.random.default_rng(0).normal(size=(6, 5))

    def f(t):
        x = singular_value_threshold(along(a, noise, t), 2.0, 4).X
        return jnp.sum(weights * jnp.sin(x))

    wanted = gf.gradient_fd(lambda t: threshold_reference(a, noise, t, 2.0, weights), T0)
    reverse, forward, twice = jax.jit(
        lambda t: (jax.grad(f)(t), jax.jacfwd(f)(t), jax.hessian(f)(t))
    )(T0)
    gf.assert_close(reverse, wanted, 1e-9)
    gf.assert_close(forward, wanted, 1e-9)
    assert np.isnan(twice).all()


@pytest.mark.slow
def test_slope_in_the_threshold():
    a, _ = matrix((3, 3, 2.5, 1), (6, 5), seed=9)
    u, _, vh = np.linalg.svd(a, full_matrices=False)
    slope = jax.jacfwd(lambda t: singular_value_threshold(a, t, 4).X)(2.0)
    np.testing.assert_allclose(slope, -u[:, :3] @ vh[:3], atol=1e-13)


@pytest.mark.slow
def test_threshold_is_refused():
    a, _ = matrix((3, 3, 2.5, 1), (6, 5), seed=9)

    def squares(a, t, k):
        found = singular_value_threshold(a, t, k)
        return jnp.sum(found.X**2), found

    run = jax.jit(jax.value_and_grad(squares, (0, 1), has_aux=True), static_argnums=2)
    for k, refused, done in ((2, (2.0, 0.5), (2.6,)), (5, (-1.0,), (0.0, 0.5))):
        for t in refused:
            (_, found), slopes = run(a, t, k)
            assert np.isnan(found.X).all()
            assert bool(found.covered) == (t < 0)
            assert int(found.info.status) == (Status.CONVERGED if t < 0 else Status.K_TOO_SMALL)
            assert all(np.isnan(slope).all() for slope in slopes)
        for t in done:
            (_, found), _ = run(a, t, k)
            assert np.isfinite(found.X).all()
            assert bool(found.covered)
            found.info.raise_if_failed()
    with pytest.raises(PartialEighError, match=r"K_TOO_SMALL: .*raise k"):
        singular_value_threshold(a, 2.0, 2).info.raise_if_failed()


@pytest.mark.slow
def test_how_well_the_next_singular_value_is_known():
    """Exactly by "dense"; by an iteration, which does not wait for it, to a tenth of the gap."""
    a, _ = matrix((3, 2, *np.linspace(0.5, 0.1, 18)), (30, 20), seed=10)
    for method, t, covered in (
        ("dense", 2.05, True),
        ("dense", 1.95, False),
        ("lobpcg", 2.05, False),
        ("lobpcg", 2.15, True),
    ):
        found = singular_value_threshold(a, t, 1, method=method)
        assert bool(found.covered) == covered, (method, t)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda a: ky_fan_norm(a, 0), ValueError, "ky_fan_norm: k = 0"),
        (lambda a: nuclear_norm(a, 9), ValueError, "nuclear_norm: rank = 9"),
        (lambda a: singular_value_threshold(a, 1j, 2), TypeError, "expected a real scalar"),
        (lambda a: singular_value_threshold(a, np.ones(2), 2), TypeError, "a real scalar"),
        (lambda a: singular_value_threshold(a, -0.5, 2), ValueError, "t is -0.5"),
    ],
)
def test_bad_arguments(call, error, text):
    with pytest.raises(error, match=text):
        call(np.ones((8, 5)))
