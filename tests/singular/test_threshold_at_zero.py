"""singular_value_threshold at t = 0, where it is the identity, and its slope there."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from jax_peig import singular_value_threshold
from jax_peig.operators import from_scipy
from tests.support import gauge_free as gf
from tests.support.rectangular import matrix

ORDERS = tuple(itertools.product((jax.jacfwd, jax.jacrev), repeat=2))
DIAGONAL = np.diag([1.0, 0.0])
DIRECTION = np.array([[2.0, 3.0], [5.0, 7.0]])


def along(a, e, k, form=lambda a: a):
    """(s, t) -> X of A + s E."""

    def function(s, t):
        given = form(a + jnp.asarray(s, e.dtype) * e)
        return singular_value_threshold(given, t, k, shape=a.shape, dtype=a.dtype).X

    return function


def compiled(f, traced):
    """``f`` of t = 0, which it is traced with or knows."""
    return jax.jit(f)(0.0) if traced else jax.jit(lambda: f(0.0))()


def first(f, traced=False):
    """X and its derivative in s, by forward and by reverse mode."""

    def both(t):
        value, pushed = jax.jvp(lambda s: f(s, t), (0.0,), (1.0,))
        parts = jax.jacrev(lambda s: jnp.stack([f(s, t).real, f(s, t).imag]))(0.0)
        return value, pushed, parts[0] + 1j * parts[1] if jnp.iscomplexobj(pushed) else parts[0]

    return compiled(both, traced)


@pytest.mark.parametrize(("k", "traced"), [(1, False), (1, True), (2, False), (2, True)])
def test_a_diagonal_with_a_zero(k, traced):
    """Of an explicit A the derivative is the identity, whatever the k triplets know."""
    f = along(DIAGONAL, DIRECTION, k)
    value, *slopes = first(f, traced)
    np.testing.assert_allclose(value, DIAGONAL, atol=1e-15)
    for slope in slopes:
        np.testing.assert_allclose(slope, DIRECTION, rtol=1e-14)


@pytest.mark.parametrize(
    "traced", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["now", "traced"]
)
def test_the_identity_has_no_second_derivative(traced):
    """It is zero; with a traced t it may be NaN, but is never another number."""
    f = along(DIAGONAL, DIRECTION, 2)
    for outer, inner in ORDERS:

        def twice(t, outer=outer, inner=inner):
            return outer(inner(lambda s: f(s, t)))(0.0)

        found = compiled(twice, traced)
        assert np.all((found == 0) | (traced & np.isnan(found)))


@pytest.mark.slow
def test_a_function_that_k_triplets_do_not_know():
    """Its derivative is NaN, never a number; where they are all it is the identity."""

    def form(a):
        return lambda v: a @ v

    for k in (1, 2):
        value, *slopes = first(along(DIAGONAL, DIRECTION, k, form))
        np.testing.assert_allclose(value, DIAGONAL, atol=1e-15)
        for slope in slopes:
            np.testing.assert_allclose(slope, DIRECTION if k == 2 else np.nan, rtol=1e-14)


def test_a_sparse_matrix_is_explicit():
    sparse = from_scipy(scipy.sparse.csr_array(np.ones((2, 2))))
    f = along(DIAGONAL, DIRECTION, 1, lambda a: sparse.with_values(a.reshape(-1)))
    np.testing.assert_allclose(first(f)[1], DIRECTION, rtol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "shape", "dtype"),
    [
        ((3, 3, 0), (5, 3), np.complex128),
        pytest.param((0, 0), (2, 3), np.float64, marks=pytest.mark.slow),
        *(
            pytest.param(values, shape, dtype, marks=pytest.mark.slow)
            for values in ((3, 3, 0), (3, 2, 1), (0, 0, 0))
            for shape in ((5, 3), (3, 5), (3, 3))
            for dtype in (np.float64, np.complex128)
        ),
    ],
)
def test_all_singular_values(values, shape, dtype):
    """Tall, wide and square, real and complex, of full and lower rank, and A = 0."""
    a, noise = matrix(values, shape, dtype, seed=3)
    f = along(a, noise[0], len(values))
    value, *slopes = first(f, traced=True)
    np.testing.assert_allclose(value, a, atol=1e-13)
    for slope in slopes:
        np.testing.assert_allclose(slope, noise[0], rtol=1e-12)
    wanted = (thresholded(a, 1e-3) - a) / 1e-3  # exact: below all positive singular values
    np.testing.assert_allclose(jax.jit(jax.jacfwd(f, 1))(0.0, 0.0), wanted, atol=1e-11)


def thresholded(a, t):
    u, s, vh = np.linalg.svd(a, full_matrices=False)
    return (u * np.maximum(s - t, 0)) @ vh


@pytest.mark.parametrize("values", [(3, 2, 1), (3, 2, 0)], ids=["full rank", "lower rank"])
def test_derivative_of_the_slope(values):
    """Of d/dt = -U V^H, at a full rank; with a zero singular value it has none."""
    a, noise = matrix(values, (5, 3), seed=4)
    f = along(a, noise[0], 3)
    found = jax.jit(jax.jacfwd(jax.jacfwd(f, 1), 0))(0.0, 0.0)
    if 0 in values:
        assert np.isnan(found).all()
        return

    def polar(s):
        u, _, vh = np.linalg.svd(a + s[0] * noise[0], full_matrices=False)
        return u @ vh

    wanted = [
        -gf.gradient_fd(lambda s, i=i: polar(s).ravel()[i], np.zeros(1))[0] for i in range(15)
    ]
    gf.assert_close(found.ravel(), np.array(wanted), 1e-9)


def test_a_batch_of_thresholds():
    """Zero among them."""
    t = np.array([0.0, 0.5, 0.0, 2.5])
    a, noise = matrix((3, 2, 0), (5, 3), seed=5)
    f = along(a, noise[0], 3)
    slopes = jax.jit(jax.vmap(jax.jacrev(f), in_axes=(None, 0)))(0.0, t)
    for at, slope in zip(t, slopes, strict=True):
        if at == 0:
            np.testing.assert_allclose(slope, noise[0], rtol=1e-12)
            continue
        ahead, behind = (thresholded(a + s * noise[0], at) for s in (1e-5, -1e-5))
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, atol=1e-8)
