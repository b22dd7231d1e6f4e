"""hermitian_function against closed forms and LAPACK's finite differences.

Everything at exact repetition, orders one and two.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jax_peig import hermitian_function
from jax_peig._api.matrix_function import divided_differences, second_divided_differences
from tests.support import gauge_free as gf

REPEATED = [(1.0, 1.0, 2.0, 3.0), (1.0,) * 4, (0.0, 0.0, 1.0, 1.0), (1.0, 1 + 1e-9, 1 + 1e-5, 3.0)]
T0 = np.zeros(2)


def matrices(lam, dtype, seed=0):
    rng = np.random.default_rng(seed)
    u = gf.random_unitary(rng, 4, dtype)
    noise = np.stack([gf.random_hermitian(rng, 4, dtype) for _ in range(4)])
    return (u * np.asarray(lam, dtype)) @ u.conj().T, noise


@functools.cache
def orders(f):
    """f, its gradient and its Hessians, forward over reverse and reverse over reverse, of R(t)."""

    def value(r, noise, t):
        t = t.astype(r.dtype)
        r = r + t[0] * noise[0] + t[1] * noise[1] + t[0] * t[1] * noise[2]
        return jnp.sum(noise[3].conj() * f(r)).real

    def run(r, noise):
        g = functools.partial(value, r, noise)
        t = jnp.zeros(2)
        both = jax.hessian(g)(t), jax.jacrev(jax.grad(g))(t), jax.jacfwd(jax.jacfwd(g))(t)
        return g(t), jax.grad(g)(t), *both

    return jax.jit(run)


def cube(r):
    return r @ r @ r


def our_exp(r):
    return hermitian_function(jnp.exp, r)


def our_cube(r):
    return hermitian_function(lambda x: x**3, r)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "closed", "dtype"),
    [
        (our_exp, jax.scipy.linalg.expm, np.float64),
        (our_cube, cube, np.complex128),
        pytest.param(our_exp, jax.scipy.linalg.expm, np.complex128, marks=pytest.mark.slow),
        pytest.param(our_cube, cube, np.float64, marks=pytest.mark.slow),
    ],
)
def test_closed_forms(ours, closed, dtype):
    for lam in REPEATED:
        for found, wanted in zip(
            orders(ours)(*matrices(lam, dtype)), orders(closed)(*matrices(lam, dtype)), strict=True
        ):
            gf.assert_close(found, wanted, 2e-14)


def exact_exp(x, y):
    """exp[x, y] and exp[x, y, y] by their series in y - x, in extended precision."""
    x, d = np.longdouble(x), np.longdouble(y) - np.longdouble(x)
    terms = [d**j / np.prod(np.arange(1, j + 2, dtype=np.longdouble)) for j in range(60)]
    double = [(j + 1) * t / (j + 2) for j, t in enumerate(terms)]
    return np.exp(x) * sum(terms), np.exp(x) * sum(double)


DISTANCES = [0.0, *np.logspace(-15, 1, 33)]


def test_divided_differences_are_right_near_and_far():
    @jax.jit
    def both(lam):
        first = divided_differences(jnp.exp, lam)
        return first[0, 1], second_divided_differences(jnp.exp, lam, first)[0, 1, 1]

    for d in DISTANCES:
        lam = np.array([-0.3, -0.3 + d])
        np.testing.assert_allclose(both(lam), np.array(exact_exp(*lam), float), rtol=5e-15)


def test_a_step_narrower_than_the_distance_is_not_missed():
    """Fermi's function at T = 0.001: h[x, y] = -sinh((y - x) / 2T) / (2 cosh cosh (y - x))."""
    t = 1e-3

    @jax.jit
    def first(lam):
        return divided_differences(lambda x: jax.nn.sigmoid(-x / t), lam)[0, 1]

    for d in DISTANCES:
        a, b = np.longdouble(-0.3 * t) / (2 * t), (np.longdouble(-0.3 * t + d)) / (2 * t)
        if d > 0.5:  # h has come to zero
            wanted = -1 / (1 + np.exp(2 * a)) / (2 * t * (b - a))
        else:
            ratio = np.sinh(b - a) / (b - a) if d else 1
            wanted = -ratio / (4 * t * np.cosh(a) * np.cosh(b))
        found = first(np.array([-0.3 * t, -0.3 * t + d]))
        np.testing.assert_allclose(found, float(wanted), rtol=1e-13)


def test_second_differences_in_a_tail():
    """Fermi's function 100 T above: h[x, y] is a quotient of tiny numbers, and h[x, y, y] of those.

    h[x, y, y] = (h'(y) - h[x, y]) / (y - x), in extended precision.
    """
    t = 0.01

    @jax.jit
    def double(lam):
        def occupied(x):
            return jax.nn.sigmoid(-x / t)

        first = divided_differences(occupied, lam)
        return second_divided_differences(occupied, lam, first)[0, 1, 1]

    for d in (1e-6, 7.5e-6, 3e-5, 1e-4, 1e-2):
        lam = np.array([1.0, 1.0 + d])
        a, b = lam.astype(np.longdouble) / (2 * np.longdouble(t))
        first = -np.sinh(b - a) / (b - a) / (4 * np.cosh(a) * np.cosh(b))
        wanted = (-1 / (4 * np.cosh(b) ** 2) - first) / (2 * (b - a)) / np.longdouble(t) ** 2
        np.testing.assert_allclose(double(lam), float(wanted), rtol=1e-12)


def test_a_kink_between_eigenvalues():
    """max(x - 1.5, 0) of 1, 1, 2, 3: the smooth parts on both sides."""
    r, noise = matrices((1.0, 1.0, 2.0, 3.0), np.float64)

    def ours(r):
        return hermitian_function(lambda x: jnp.maximum(x - 1.5, 0.0), r)

    def reference(t):
        s = r + t[0] * noise[0] + t[1] * noise[1] + t[0] * t[1] * noise[2]
        w, u = np.linalg.eigh(s)
        return np.sum(noise[3] * ((u * np.maximum(w - 1.5, 0)) @ u.T))

    _, gradient, hessian, *_ = orders(ours)(r, noise)
    gf.assert_close(gradient, gf.gradient_fd(reference, T0), 1e-9)
    gf.assert_close(hessian, gf.hessian_fd(reference, T0), 1e-6)


@pytest.mark.slow
def test_derivatives_in_what_h_closes_over():
    """tr(B exp(-s R)), s R = R(t, s): every second derivative, the mixed one too."""
    r, noise = matrices((1.0, 1.0, 2.0, 2.0), np.float64)

    def value(exp, p):
        f = exp(p[0], r + p[1] * noise[0])
        return jnp.sum(noise[3] * f)

    def ours(s, r):
        return hermitian_function(lambda x: jnp.exp(-s * x), r)

    def closed(s, r):
        return jax.scipy.linalg.expm(-s * r)

    p = jnp.array([0.7, 0.0])
    for transform in (jax.grad, jax.hessian, lambda f: jax.jacrev(jax.grad(f))):
        found, wanted = (jax.jit(transform(functools.partial(value, f)))(p) for f in (ours, closed))
        gf.assert_close(found, wanted, 1e-13)


def test_third_derivatives_are_nan():
    r, noise = matrices((1.0, 1.0, 2.0, 3.0), np.float64)

    def f(t):
        return jnp.sum(noise[1] * our_exp(r + t * noise[0]))

    third = jax.jit(lambda t: (jax.grad(jax.hessian(f))(t), jax.jacfwd(jax.hessian(f))(t)))
    assert np.isnan(third(0.0)).all()


@pytest.mark.slow
def test_where_h_has_no_derivative():
    """The root at a zero eigenvalue: a value, NaN along what moves it, the rest right."""
    r = jnp.diag(jnp.array([0.0, 1.0, 4.0]))

    def root(r):
        return hermitian_function(jnp.sqrt, r)

    np.testing.assert_allclose(root(r), np.diag([0.0, 1.0, 2.0]), atol=1e-15)
    assert np.isnan(jax.grad(lambda r: root(r)[0, 0])(r)).all()
    e = jnp.zeros((3, 3)).at[1, 2].set(1.0).at[2, 1].set(1.0)
    _, moved = jax.jvp(root, (r,), (e,))
    np.testing.assert_allclose(moved[1, 2], 1 / 3, rtol=1e-14)


def test_where_h_has_one_derivative():
    """x^(3/2) at zero: gradients are right, second derivatives NaN along what moves the zero."""
    r = jnp.diag(jnp.array([0.0, 1.0, 4.0]))

    def along(e):
        def f(t):
            return jnp.sum(hermitian_function(lambda x: x**1.5, r + t * (e + e.T)))

        return jax.jit(lambda t: (jax.grad(f)(t), jax.hessian(f)(t), jax.grad(jax.grad(f))(t)))(0.0)

    places = np.eye(9).reshape(3, 3, 3, 3)
    # h[x, y] = (h(x) - h(y)) / (x - y); the sum over the matrix counts both triangles, twice.
    slope, *second = along(places[1, 2])
    np.testing.assert_allclose(slope, 2 * 7 / 3, rtol=1e-13)
    assert np.isfinite(second).all()
    for e, wanted in ((places[0, 0], 0.0), (places[0, 1], 2 * 1.0)):
        slope, *second = along(e)
        np.testing.assert_allclose(slope, wanted, rtol=1e-13)
        assert np.isnan(second).all()


def test_vmap_and_float32():
    rs = np.stack([matrices(lam, np.float32)[0] for lam in REPEATED])
    one = jax.jit(jax.value_and_grad(lambda r: jnp.sum(our_exp(r) ** 2)))
    many = jax.vmap(one)(rs)
    for i, r in enumerate(rs):
        value, gradient = one(r)
        np.testing.assert_allclose(many[0][i], value, rtol=1e-5)
        np.testing.assert_allclose(many[1][i], gradient, rtol=1e-4, atol=1e-3)
        # d sum(exp(R)^2) = 2 exp(2 R).
        wanted = 2 * scipy.linalg.expm(2 * r.astype(float))
        gf.assert_close(gradient, wanted, 1e-4)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128], ids=["real", "complex"])
def test_vmap_of_both_derivatives(dtype):
    """Of matrices that repeat in different ways: as one after the other."""
    noise = matrices(REPEATED[0], dtype)[1]
    rs = np.stack([matrices(lam, dtype)[0] for lam in REPEATED])

    def f(r, t):
        moved = r + t[0].astype(r.dtype) * noise[0] + t[1].astype(r.dtype) * noise[1]
        return jnp.sum(noise[3].conj() * our_exp(moved)).real

    def both(r):
        of_t = functools.partial(f, r)
        return jax.grad(of_t)(jnp.zeros(2)), jax.hessian(of_t)(jnp.zeros(2))

    many, one = jax.jit(jax.vmap(both))(rs), jax.jit(both)
    for i, r in enumerate(rs):
        for found, wanted in zip(many, one(r), strict=True):
            gf.assert_close(found[i], wanted, 1e-13)


@pytest.mark.parametrize(
    ("h", "r", "error", "text"),
    [
        (np.eye(2), np.eye(2), TypeError, "expected a function of one real scalar"),
        (jnp.exp, np.eye(2, 3), ValueError, r"expected \(k, k\)"),
        (jnp.exp, np.ones((2, 2, 2)), ValueError, "vmap"),
        (jnp.exp, np.eye(2, dtype=int), TypeError, "R is of int64"),
        (jnp.exp, [[1.0]], TypeError, "R is of list"),
        (lambda x: x * jnp.ones(3), np.eye(2), TypeError, "expected a real scalar"),
        (lambda x: x.astype(complex), np.eye(2), TypeError, "complex128"),
    ],
)
def test_bad_arguments(h, r, error, text):
    with pytest.raises(error, match=text):
        hermitian_function(h, r)
