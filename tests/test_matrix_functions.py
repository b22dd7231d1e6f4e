"""hermitian_function and what is built on it: against closed forms and LAPACK's finite differences.

Everything at exact repetition, orders one and two.
"""

import functools

import gauge_free as gf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize

from jax_peig import (
    density,
    eigenspace,
    hermitian_function,
    partial_eigh,
    projector_apply,
    spectral_apply,
    spectral_sum,
)
from jax_peig._matrix_function import divided_differences, second_divided_differences

REPEATED = [(1.0, 1.0, 2.0, 3.0), (1.0,) * 4, (0.0, 0.0, 1.0, 1.0), (1.0, 1 + 1e-9, 1 + 1e-5, 3.0)]
T0 = np.zeros(2)


def assert_close(found, wanted, rtol):
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=rtol * np.max(np.abs(wanted)))


# -- hermitian_function ---------------------------------------------------------------------------


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
            assert_close(found, wanted, 2e-14)


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
    assert_close(gradient, gf.gradient_fd(reference, T0), 1e-9)
    assert_close(hessian, gf.hessian_fd(reference, T0), 1e-6)


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
        assert_close(found, wanted, 1e-13)


def test_third_derivatives_are_nan():
    r, noise = matrices((1.0, 1.0, 2.0, 3.0), np.float64)

    def f(t):
        return jnp.sum(noise[1] * our_exp(r + t * noise[0]))

    third = jax.jit(lambda t: (jax.grad(jax.hessian(f))(t), jax.jacfwd(jax.hessian(f))(t)))
    assert np.isnan(third(0.0)).all()


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
        assert_close(gradient, wanted, 1e-4)


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


# -- sums, densities, products -------------------------------------------------------------------


def occupied(x):
    return 1 / (1 + jnp.exp((x - 1.3) / 0.4))


@functools.cache
def spectral(transform):
    """(pencil, t) -> derivatives of a sum of all four functions."""

    def loss(pencil, t):
        a, m = gf.matrices(pencil, t.astype(pencil.a.dtype))
        y, z = pencil.vectors
        space = eigenspace(a, m, gf.K)
        total = spectral_sum(occupied, a, m, gf.K)
        total = total + jnp.abs(z) @ density(occupied, space)
        total = total + (y.conj() @ spectral_apply(occupied, space, z)).real
        return total + (y.conj() @ projector_apply(space, m @ z)).real

    return jax.jit(lambda pencil, t: transform(functools.partial(loss, pencil))(t))


def spectral_reference(pencil, t):
    a, m = gf.matrices(pencil, np.asarray(t))
    w, x = (v[..., : gf.K] for v in scipy.linalg.eigh(a, m))
    y, z = pencil.vectors
    h = 1 / (1 + np.exp((w - 1.3) / 0.4))
    total = h.sum() + np.abs(z) @ (np.abs(x) ** 2 @ h)
    total += (y.conj() @ ((x * h) @ (x.conj().T @ z))).real
    return total + (y.conj() @ (x @ (x.conj().T @ (m @ z)))).real


@pytest.mark.parametrize(
    "dtype",
    [np.float64, pytest.param(np.complex128, marks=pytest.mark.slow)],
    ids=["real", "complex"],
)
def test_spectral_functions(dtype):
    for sizes in [(6,), (3, 3), (1, 2, 1, 2)]:
        pencil = gf.make(sizes, seed=3, dtype=dtype)
        f = functools.partial(spectral_reference, pencil)
        np.testing.assert_allclose(spectral(itself)(pencil, T0), f(T0), rtol=1e-11)
        assert_close(spectral(jax.grad)(pencil, T0), gf.gradient_fd(f, T0), 1e-9)


def itself(f):
    return f


def test_spectral_functions_twice():
    for sizes in [(6,), (1, 2, 1, 2)]:
        pencil = gf.make(sizes, seed=3)
        wanted = gf.hessian_fd(functools.partial(spectral_reference, pencil), T0)
        assert_close(spectral(jax.hessian)(pencil, T0), wanted, 1e-6)


def test_columns_and_dtypes():
    space = eigenspace(jnp.diag(jnp.arange(1.0, 6.0)), k=2)
    b = jnp.ones((5, 3), complex)
    for found in (projector_apply(space, b), spectral_apply(lambda w: w / w, space, b)):
        assert found.dtype == complex
        np.testing.assert_allclose(found[:, 0], [1, 1, 0, 0, 0], atol=1e-14)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda s: density(jnp.exp, s[:2]), TypeError, "expected the Eigenspace"),
        (lambda s: projector_apply(s, jnp.ones(4)), ValueError, "with n = 5"),
        (lambda s: projector_apply(s, jnp.arange(5)), TypeError, "b is of int64"),
        (lambda s: spectral_apply(jnp.exp, s, [1.0]), TypeError, "b is of list"),
        (lambda s: spectral_sum(jnp.exp, jnp.eye(3), k=1, foo=1), TypeError, "unknown option"),
    ],
)
def test_bad_arguments_of_spectral_functions(call, error, text):
    with pytest.raises(error, match=text):
        call(eigenspace(jnp.eye(5), k=5))


# -- worked example: Fermi-Dirac occupations at a fixed number of particles -----------------------


TEMPERATURE, PARTICLES = 0.3, 2.5


def fermi(mu):
    return lambda e: jax.nn.sigmoid((mu - e) / TEMPERATURE)


def chemical_potential(r):
    """Mu with tr f(R) = PARTICLES, by bisection; its derivative by the implicit function theorem.

    ``custom_root`` differentiates the particle number, in mu and, through R, in what R depends on.
    """

    def excess(mu):
        return jnp.trace(hermitian_function(fermi(mu), r)).real - PARTICLES

    def bisect(f, _):
        w = jnp.diagonal(jax.lax.stop_gradient(r)).real

        def number(mu):
            return jnp.sum(jax.nn.sigmoid((mu - w) / TEMPERATURE)) - PARTICLES

        def halve(_, ends):
            low, high = ends
            middle = (low + high) / 2
            below = number(middle) < 0
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        ends = jnp.min(w) - 20 * TEMPERATURE, jnp.max(w) + 20 * TEMPERATURE
        return jax.lax.fori_loop(0, 60, halve, ends)[0]

    def tangent_solve(g, y):
        return y / g(jnp.ones_like(y))

    return jax.lax.custom_root(excess, jnp.zeros(()), bisect, tangent_solve)


def smeared(pencil, t):
    """A weighted sum of the density of PARTICLES electrons in six levels."""
    a, _ = gf.matrices(pencil, t)
    space = eigenspace(a, k=gf.K)
    return pencil.vectors[0] @ density(fermi(chemical_potential(space.rayleigh)), space)


def smeared_separately(pencil, t):
    """The same from separate (w, X)."""
    a, _ = gf.matrices(pencil, t)
    w, x, _ = partial_eigh(a, k=gf.K)
    return pencil.vectors[0] @ (x**2 @ fermi(chemical_potential(jnp.diag(w)))(w))


def smeared_reference(pencil, t):
    a, _ = gf.matrices(pencil, np.asarray(t))
    w, x = (v[..., : gf.K] for v in np.linalg.eigh(a))

    def occupations(mu):
        return 1 / (1 + np.exp((w - mu) / TEMPERATURE))

    mu = scipy.optimize.brentq(lambda mu: occupations(mu).sum() - PARTICLES, -20, 20, xtol=1e-15)
    return pencil.vectors[0] @ (x**2 @ occupations(mu))


def test_fermi_dirac_occupations():
    pencil = gf.make((2, 3, 1), seed=21, generalized=False)
    f = functools.partial(smeared_reference, pencil)
    ours = functools.partial(smeared, pencil)
    value, gradient, hessian = jax.jit(
        lambda t: (ours(t), jax.grad(ours)(t), jax.hessian(ours)(t))
    )(T0)
    np.testing.assert_allclose(value, f(T0), rtol=1e-12)
    wanted = gf.gradient_fd(f, T0, h=2e-3)
    assert_close(gradient, wanted, 1e-9)
    assert_close(hessian, gf.hessian_fd(f, T0), 1e-6)
    # Separate tangents lose h' between two members of a cluster.
    separate = functools.partial(smeared_separately, pencil)
    forward, reverse = jax.jit(lambda t: (jax.jacfwd(separate)(t), jax.grad(separate)(t)))(T0)
    assert np.max(np.abs(forward - wanted)) > 0.02 * np.max(np.abs(wanted))
    assert np.isnan(reverse).all()
