"""low_rank where the gap is small, and where zeros are kept."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_peig import derivative_report, low_rank, singular_apply, singular_space
from tests.singular.test_space import assert_derivatives, difference
from tests.support.rectangular import matrix

# Orthogonal, and exact in binary: with powers of two the singular values are exact too.
LEFT = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
RIGHT = LEFT[[2, 0, 3, 1]]
DIRECTION = np.random.default_rng(1).normal(size=(4, 4))


def exact(exponent):
    """A of singular values 1, 2^-4, 2^exponent, 2^(exponent - 3), and the slope of A_3, exactly.

    With N = U^T E V, the entries of U^T A_k' V between a kept i and a left j are
    (s_i^2 N_ij + s_i s_j N_ji)/(s_i^2 - s_j^2).
    """
    s = 2.0 ** np.array([0, -4, exponent, exponent - 3])
    n, k = LEFT.T @ DIRECTION @ RIGHT, 3
    slope = np.zeros_like(n)
    slope[:k, :k] = n[:k, :k]
    for i in range(k):
        over = s[i] ** 2 - s[k] ** 2
        slope[i, k] = (s[i] ** 2 * n[i, k] + s[i] * s[k] * n[k, i]) / over
        slope[k, i] = (s[i] ** 2 * n[k, i] + s[i] * s[k] * n[i, k]) / over
    return (LEFT * s) @ RIGHT.T, LEFT @ slope @ RIGHT.T


@pytest.mark.slow
@pytest.mark.parametrize("exponent", [-10, -20, -30, -37, -40])
def test_small_gaps(exponent):
    """Down to s_k = 1e-12 s_1; the error is that of the vectors, bound / gap."""
    a, wanted = exact(exponent)
    found, slope = jax.jvp(lambda a: low_rank(a, 3), (a,), (DIRECTION,))
    error = np.linalg.norm(slope.X - wanted) / np.linalg.norm(wanted)
    limit = float(found.info.error_bounds[-1] / found.info.gap)
    assert not found.info.cut
    assert limit < 1e-2
    assert error <= 4 * limit + 1e-14
    weights = np.random.default_rng(2).normal(size=(4, 4))
    pulled = jax.grad(lambda a: jnp.sum(weights * low_rank(a, 3).X))(a)
    difference = abs(np.sum(pulled * DIRECTION) - np.sum(weights * wanted))
    assert difference <= (4 * limit + 1e-14) * np.linalg.norm(weights) * np.linalg.norm(wanted)


@pytest.mark.slow
def test_a_gap_of_rounding():
    """1, 2^-4, and two values whose distance no derivative survives: NaN, and k = 2 is named."""
    a, _ = exact(-46)
    weights = jnp.asarray(DIRECTION)
    report = derivative_report(lambda a: jnp.sum(weights * low_rank(a, 3).X), jnp.asarray(a))
    (problem,) = report.calls[0].problems
    assert problem.endswith("of the smaller ones the largest is k = 2")
    assert np.isnan(jax.grad(lambda a: jnp.sum(weights * low_rank(a, 3).X))(a)).all()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lobpcg", "davidson"])
def test_small_gaps_of_an_iteration(method):
    """1, 0.1, 1e-9, 1e-10: as good as the third pair, or NaN; right from a small tolerance."""
    values = np.r_[1, 0.1, 1e-9, 1e-10, 1e-11 * np.linspace(1, 0, 30)]
    a, noise = matrix(values, (300, 250))
    weights = jnp.asarray(noise[1]) / 300

    @functools.partial(jax.jit, static_argnums=(1, 2))
    def slope(key, method, tol):
        def value(a):
            found = low_rank(a, 3, method=method, tol=tol, key=key)
            return jnp.sum(weights * found.X), found.info

        return jax.grad(value, has_aux=True)(a)

    wanted, _ = slope(jax.random.key(0), "dense", None)

    def error(found):
        return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)

    for seed in range(6):
        found, info = slope(jax.random.key(seed), method, None)
        limit = 4 * float(info.error_bounds[2]) / (values[2] - values[3])
        assert np.isnan(found).all() or error(found) <= limit
    found, _ = slope(jax.random.key(0), method, 1e-14)
    assert error(found) < 1e-5


# -- zeros ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "dtype", "h"),
    [
        ((6, 4), np.float64, jnp.sin),
        ((4, 6), np.complex128, jnp.sin),
        ((5, 5), np.complex128, jnp.sin),
        ((6, 4), np.complex128, None),
    ],
    ids=["tall", "wide, complex", "square, complex", "identity"],
)
def test_zeros_at_full_rank(shape, dtype, h):
    """k = min(m, n): A itself, and A g(A^H A), are smooth at zeros."""
    k = min(shape)
    a, noise = matrix((3, 2, 2, *np.zeros(k - 3)), shape, dtype)
    e = 0.2 * noise[0]
    name = np.sin if h is jnp.sin else np.asarray

    def f(t):
        return jnp.sum(jnp.abs(low_rank(a + t * e, k, h, odd=True).X - 0.1) ** 4)[None]

    def reference(t):
        u, s, vh = np.linalg.svd(a + t * e, full_matrices=False)
        return np.sum(np.abs((u * name(s)) @ vh - 0.1) ** 4)[None]

    assert_derivatives(f, reference)


def test_all_derivatives_of_the_identity():
    """At k = min(m, n) the truncation is linear: its third derivative is zero, and no NaN."""
    a, noise = matrix((3, 2, 0), (5, 3))
    cubes = lambda t: jnp.sum(low_rank(a + t * noise[0], 3).X ** 3)  # noqa: E731
    third = jax.jit(jax.grad(jax.grad(jax.grad(cubes))))(0.0)
    np.testing.assert_allclose(third, 6 * np.sum(noise[0] ** 3), rtol=1e-12)


@pytest.mark.slow
def test_zeros_below_full_rank():
    """What rank is left is chosen by the perturbation: NaN, in both modes, and the report says so.

    The weight of one entry in the space of zeros reaches no kept vector.
    """
    a = jnp.diag(jnp.array([3.0, 2.0, 0.0, 0.0]))
    corner = lambda a: low_rank(a, 3).X[3, 3]  # noqa: E731
    assert np.isnan(jax.grad(corner)(a)).all()
    assert np.isnan(jax.jvp(corner, (a,), (jnp.ones((4, 4)),))[1])
    a, noise = matrix((3, 2, 0, 0), (5, 4))
    weights = jnp.asarray(noise[0])
    report = derivative_report(lambda a: jnp.sum(weights * low_rank(a, 3).X), jnp.asarray(a))
    (problem,) = report.calls[0].problems
    assert "zero singular value" in problem
    assert "largest is k = 2" in problem


@pytest.mark.slow
def test_factors_of_a_zero():
    """No factors of A = 0 (2, 1) have a derivative: their product's would be along one vector."""
    zero = jnp.zeros((2, 1))
    space, moved = jax.jvp(lambda a: singular_space(a, 1), (zero,), (jnp.ones((2, 1)),))
    assert space.info.cut
    assert np.isnan(moved.left).all()
    slopes = jax.jacobian(lambda a: low_rank(a, 1).X)(zero)
    np.testing.assert_allclose(slopes, np.eye(2)[:, None, :, None])


@pytest.mark.slow
def test_a_function_that_is_not_odd():
    a, _ = matrix((3, 2, 1), (4, 3))
    assert np.isnan(low_rank(a, 3, jnp.cos, odd=True).X).all()
    assert np.isfinite(low_rank(a, 3, jnp.cos).X).all()


@pytest.mark.slow
def test_odd_functions_without_zeros_agree():
    """``odd`` changes no derivative where there are no zeros."""
    a, noise = matrix((3, 2, 2, 1), (6, 4))
    slopes = [
        jax.grad(lambda a: jnp.sum(noise[0] * low_rank(a, 4, jnp.tanh, odd=odd).X))(a)  # noqa: B023
        for odd in (False, True)
    ]
    np.testing.assert_allclose(*slopes, rtol=1e-11, atol=1e-12)


@pytest.mark.slow
def test_an_odd_function_of_small_scale():
    """tanh(s / 1e-8) next to s = 1: no square of a singular value is formed."""
    values = np.array([1.0, 2e-8, 0.0])
    f = lambda a: low_rank(a, 3, lambda s: jnp.tanh(s / 1e-8), odd=True).X  # noqa: E731
    a = jnp.diag(jnp.asarray(values))
    np.testing.assert_allclose(jnp.diagonal(f(a)), np.tanh(values / 1e-8), atol=1e-6)
    slopes = jnp.diagonal(jax.jacobian(lambda s: jnp.diagonal(f(jnp.diag(s))))(jnp.asarray(values)))
    np.testing.assert_allclose(1e-8 * slopes, 1 - np.tanh(values / 1e-8) ** 2, atol=1e-6)


@pytest.mark.slow
def test_the_polar_factor_needs_positive_values():
    a, noise = matrix((3, 2, 0), (3, 3))
    b = jnp.asarray(noise[0][0])
    polar = lambda a: jnp.sum(singular_apply(None, singular_space(a, 3), b))  # noqa: E731
    assert np.isnan(jax.grad(polar)(a)).all()
    a, _ = matrix((3, 2, 1), (3, 3))
    slope = jax.jvp(polar, (a,), (noise[1],))[1]

    def reference(t):
        u, _, vh = np.linalg.svd(a + t * noise[1])
        return np.sum(u @ (vh @ b))

    np.testing.assert_allclose(slope, difference(reference, 1), rtol=1e-8)
