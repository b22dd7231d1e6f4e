"""A closure compiles once: outside jit, time and again, with the derivatives.

Compilations are counted. Whether two functions are one program is tested in test_programs.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jax_peig import BlockProduct, Derivative, eigenspace, minres, partial_eigh, partial_svd
from jax_peig.preconditioners import jacobi
from tests.support.compilations import compilations

N, K = 8, 2
D = jnp.arange(1.0, N + 1)
THETA = jnp.asarray(np.random.default_rng(0).standard_normal(N))
W = jnp.asarray(np.random.default_rng(1).standard_normal((N, N)) / 3)
# 1.0 and 0.0 are numbers as all others are.
SWEEP = (0.7, 1.0, 2.5, 0.0)


def eigenvalues(A, M=None, **options):
    return partial_eigh(A, M, K, n=N, **options).eigenvalues


# -- all arguments that may be functions ----------------------------------------------------------

# (s, d) -> a result with fresh closures over the number s and the array d, and what is expected.
CALLS = {
    "A": (lambda s, d: eigenvalues(lambda u: d * u + s * u), lambda s, d: d[:K] + s),
    "A in jit": (
        lambda s, d: eigenvalues(jax.jit(lambda u: d * u + s * u)),
        lambda s, d: d[:K] + s,
    ),
    "A as a NumPy array": (
        lambda s, d: eigenvalues(lambda u: np.asarray(d) * u + s * u),
        lambda s, d: d[:K] + s,
    ),
    "BlockProduct": (
        lambda s, d: eigenvalues(BlockProduct(lambda v: d[:, None] * v + s * v)),
        lambda s, d: d[:K] + s,
    ),
    "Partial": (
        lambda s, d: eigenvalues(Partial(lambda c, u: d * u + c * u + s * u, s)),
        lambda s, d: d[:K] + 2 * s,
    ),
    "BlockProduct of a Partial": (
        lambda s, d: eigenvalues(BlockProduct(Partial(lambda c, v: c[:, None] * v + s * v, d))),
        lambda s, d: d[:K] + s,
    ),
    "M": (
        lambda s, d: eigenvalues(d, lambda u: (1 + s) * u),
        lambda s, d: d[:K] / (1 + s),
    ),
    "preconditioner": (
        lambda s, d: eigenvalues(
            lambda u: d * u + s * u, preconditioner=lambda u: u / (d + s), method="lobpcg"
        ),
        lambda s, d: d[:K] + s,
    ),
    "a preconditioner of the package": (
        lambda s, d: eigenvalues(
            lambda u: d * u + s * u, preconditioner=jacobi(d + s), method="lobpcg"
        ),
        lambda s, d: d[:K] + s,
    ),
    "M_solve": (
        lambda s, d: eigenvalues(
            d, lambda u: (1 + s) * u, M_solve=lambda u: u / (1 + s), method="chebyshev"
        ),
        lambda s, d: d[:K] / (1 + s),
    ),
    "OPinv": (
        lambda s, d: eigenvalues(
            lambda u: d * u + s * u,
            sigma=0.4,
            OPinv=lambda u: u / (d + s - 0.4),
            method="shift_invert",
        ),
        lambda s, d: d[:K] + s,
    ),
    "eigenspace": (
        lambda s, d: jnp.linalg.eigvalsh(eigenspace(lambda u: d * u + s * u, k=K, n=N).rayleigh),
        lambda s, d: d[:K] + s,
    ),
    "partial_svd": (
        lambda s, d: partial_svd(lambda u: d * u + s * u, K, shape=(N, N)).s,
        lambda s, d: d[::-1][:K] + s,
    ),
    "minres": (
        lambda s, d: minres(lambda u: (d + s) * u, d, M=lambda u: u / (d + s), tol=1e-12)[0],
        lambda s, d: d / (d + s),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_another_closure_compiles_nothing(name):
    call, expected = CALLS[name]
    call(1.3, D)
    for s in SWEEP:
        d = D + s / 8
        with compilations() as seen:
            result = call(s, d)
        assert not seen, s
        np.testing.assert_allclose(result, expected(s, d), rtol=1e-9)


@pytest.mark.parametrize("name", ["A", "A in jit", "BlockProduct", "partial_svd", "minres"])
def test_its_gradient_compiles_nothing(name):
    call, expected = CALLS[name]

    def gradient(f, s, d):
        return jax.grad(lambda d: jnp.sum(f(s, d)))(d)

    gradient(call, 1.3, D)
    for s in SWEEP:
        d = D + s / 8
        with compilations() as seen:
            result = gradient(call, s, d)
        assert not seen, s
        np.testing.assert_allclose(result, gradient(expected, s, d), rtol=0, atol=1e-8)


def test_the_derivative_s_preconditioner():
    def gradient(s):
        derivative = Derivative(preconditioner=lambda u: u / (D + s), solver="cg")

        def loss(d):
            result = partial_eigh(lambda u: d * u + s * u, k=K, n=N, derivative=derivative)
            return jnp.sum(D[:, None] * result.eigenvectors**2)

        return jax.grad(loss)(D)

    gradient(1.3)
    with compilations() as seen:
        gradient(0.7)
    assert not seen


# -- the Hessian of a network ---------------------------------------------------------------------


def energy(w, s):
    """Of a small network, with what functions JAX has rules for."""

    def value(x):
        hidden = jax.nn.softplus(w @ x) + jax.nn.relu(w @ x + s)
        return s * jax.scipy.special.logsumexp(hidden) + jnp.sum(jax.nn.silu(x) ** 2)

    return value


def softest(w, s):
    """The smallest eigenvalues of its Hessian, by Hessian-vector products."""

    def product(u):
        return jax.jvp(jax.grad(energy(w, s)), (THETA,), (u,))[1]

    return eigenvalues(product)


def test_hessian_vector_products_of_a_network():
    def expected(w, s):
        return jnp.linalg.eigh(jax.hessian(energy(w, s))(THETA))[0][:K]

    softest(W, 1.3)
    jax.grad(lambda w: jnp.sum(softest(w, 1.3)))(W)
    for s in SWEEP:
        w = W + s / 10
        with compilations() as seen:
            result = softest(w, s)
            gradient = jax.grad(lambda w, s=s: jnp.sum(softest(w, s)))(w)
        assert not seen, s
        np.testing.assert_allclose(result, expected(w, s), rtol=1e-9)
        direct = jax.grad(lambda w, s=s: jnp.sum(expected(w, s)))(w)
        np.testing.assert_allclose(gradient, direct, rtol=0, atol=1e-8)


def test_a_swept_number_that_is_differentiated():
    """As a tracer it is a leaf, and its derivative is that of the number."""

    def slope(s):
        return jax.grad(lambda s: jnp.sum(eigenvalues(lambda u: s * s * D * u)))(s)

    slope(1.3)
    for s in (0.7, 1.0, 2.5):
        with compilations() as seen:
            result = slope(s)
        assert not seen
        np.testing.assert_allclose(result, 2 * s * (1 + 2), rtol=1e-10)


def test_under_vmap_and_jit():
    def solve(s, d):
        return eigenvalues(lambda u: d * u + 0.5 * s * u)

    s = jnp.asarray(SWEEP)
    expected = D[None, :K] + 0.5 * s[:, None]
    np.testing.assert_allclose(jax.vmap(solve, in_axes=(0, None))(s, D), expected, rtol=1e-10)
    np.testing.assert_allclose(jax.jit(solve)(2.0, D), D[:K] + 1, rtol=1e-10)


# -- other programs -------------------------------------------------------------------------------


def ruled(factor):
    """The sine, with a rule that is off by a factor."""

    @jax.custom_jvp
    def f(x):
        return jnp.sin(x)

    @f.defjvp
    def rule(primals, tangents):
        return f(*primals), factor * jnp.cos(primals[0]) * tangents[0]

    return f


def slope_by_rule(factor):
    def smallest(x):
        f = ruled(factor)
        return eigenvalues(lambda u: f(x) * u)[0]

    w, gradient = jax.value_and_grad(smallest)(D / (2 * N))
    return jnp.stack([w, gradient[0]])


def on_host(f):
    return eigenvalues(
        lambda u: D * u + 0 * jax.pure_callback(f, u, u, vmap_method="sequential") + f(D) * u
    )


# (p) -> a result, two values of p, what is expected.
OTHERS = {
    "an integer": (
        lambda p: eigenvalues(lambda u: jnp.roll(D, p) ** p * u),
        (2, 3),
        lambda p: D[:K] ** p,
    ),
    "a shape": (
        lambda p: partial_eigh(lambda u: jnp.arange(1.0, p + 1) * u, k=K, n=p).eigenvalues[-1],
        (8, 9),
        lambda p: 2.0,
    ),
    "a primitive": (
        lambda p: eigenvalues(lambda u: p(D / N) * u),
        (jnp.exp, jnp.sinh),
        lambda p: p(D / N)[:K],
    ),
    "a constant in a rule": (
        slope_by_rule,
        (1.0, 3.0),
        lambda p: [np.sin(1 / 16), p * np.cos(1 / 16)],
    ),
    "a callback": (on_host, (np.exp, np.sinh), lambda p: D[:K] + p(D)[:K]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_program_compiles_and_is_right(name):
    call, (first, second), expected = OTHERS[name]
    for p in (first, second, first):
        np.testing.assert_allclose(call(p), expected(p), rtol=1e-9)
    with compilations() as seen:
        call(second)
    assert bool(seen) == (name == "a callback")
