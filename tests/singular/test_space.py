"""singular_space, low_rank, singular_apply, singular_sum: derivatives against LAPACK's values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jax_peig import (
    BlockProduct,
    derivative_report,
    low_rank,
    partial_svd,
    singular_apply,
    singular_space,
    singular_sum,
)
from tests.support.rectangular import matrix

WEIGHTS = np.array([1.0, -0.7, 0.4, 0.9, -1.1, 0.6, 0.8])


def ours(a, k, **options):
    """Functions of the space, stacked: values of which none depends on a basis."""
    space = singular_space(a, k, **options)
    m, n = a.shape
    y, z = probes(m, n, space.left.dtype)
    truncated = space.left @ space.core @ space.right.conj().T
    return jnp.stack([
        jnp.sum(jnp.abs(truncated - 0.3) ** 4),
        jnp.abs(z.conj() @ singular_apply(lambda s: 1 / s, space, y, sides="VU")),  # least squares
        (y @ singular_apply(None, space, z)).real,  # polar factor
        (y @ singular_apply(jnp.log, space, y, sides="UU")).real,
        (z @ singular_apply(lambda s: 1 / s, space, z, sides="VV")).real,  # whitening
        (y @ singular_apply(None, space, y, sides="UU")).real,
        jnp.trace(space.core @ space.core @ space.core).real,
    ])  # fmt: skip


def by_lapack(a, k):
    u, s, vh = np.linalg.svd(a, full_matrices=False)
    u, s, v = u[:, :k], s[:k], vh[:k].conj().T
    y, z = probes(*a.shape)
    return np.stack([
        np.sum(np.abs((u * s) @ v.conj().T - 0.3) ** 4),
        np.abs(z.conj() @ (v @ ((u.conj().T @ y) / s))),
        (y @ (u @ (v.conj().T @ z))).real,
        (y @ (u @ (np.log(s) * (u.conj().T @ y)))).real,
        (z @ (v @ ((v.conj().T @ z) / s))).real,
        (y @ (u @ (u.conj().T @ y))).real,
        np.sum(s**3),
    ])  # fmt: skip


def probes(m, n, dtype=np.float64):
    rng = np.random.default_rng(7)
    return rng.normal(size=m).astype(dtype), rng.normal(size=n).astype(dtype)


def difference(f, order):
    """A derivative at zero by central differences of sixth order."""
    weights, h = {
        1: (np.array([-1, 9, -45, 0, 45, -9, 1]) / 60, 2e-3),
        2: (np.array([2, -27, 270, -490, 270, -27, 2]) / 180, 2e-2),
    }[order]
    return sum(w * f(j * h) for j, w in zip(range(-3, 4), weights, strict=True)) / h**order


def second(f):
    """The second derivative of a scalar function by all four nestings of the two modes."""

    def forward(g):
        return lambda t: jax.jvp(g, (t,), (1.0,))[1]

    return [outer(inner(f)) for outer in (forward, jax.grad) for inner in (forward, jax.grad)]


def assert_derivatives(f, reference, rtol=1e-6):
    """First and second derivatives of a stacked function of t, in both modes and all nestings."""
    w = WEIGHTS[: len(reference(0.0))]
    whole = lambda t: jnp.sum(w * f(t))  # noqa: E731

    @jax.jit  # one program compiles faster than six
    def found(t):
        return jax.jvp(f, (t,), (1.0,)), jax.grad(whole)(t), [g(t) for g in second(whole)]

    (value, forward), reverse, nested = found(0.0)
    first, curved = difference(reference, 1), difference(reference, 2)
    np.testing.assert_allclose(value, reference(0.0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(forward, first, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(reverse, w @ first, rtol=rtol, atol=rtol)
    for curvature in nested:
        np.testing.assert_allclose(curvature, w @ curved, rtol=10 * rtol, atol=10 * rtol)


CASES = {
    "tall": ((6, 5), (3, 2, 2, 1, 0.5), 3),
    "wide": ((5, 6), (3, 2, 2, 1, 0.5), 3),
    "square": ((5, 5), (3, 2, 2, 1, 0.5), 3),
    "flat": ((6, 5), (2, 2, 2, 1, 1), 3),
    "flat to the end": ((6, 4), (2, 2, 2, 2), 4),
    "square and whole": ((4, 4), (3, 2, 2, 1), 4),
}
REAL, COMPLEX = np.float64, np.complex128


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("tall", REAL),
        ("wide", COMPLEX),
        ("square", REAL),
        ("flat", COMPLEX),
        ("flat to the end", REAL),
        ("square and whole", COMPLEX),
    ],
)
def test_both_orders_at_repeated_values(name, dtype):
    shape, values, k = CASES[name]
    a, noise = matrix(values, shape, dtype)
    e = 0.1 * noise[0]
    assert_derivatives(lambda t: ours(a + t * e, k), lambda t: by_lapack(a + t * e, k))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["chebyshev", "lobpcg", "davidson"])
def test_matrix_free(method):
    """A function of a block, large enough to iterate; the adjoint comes from JAX."""
    values = np.r_[3.0, 3.0, 2.5, np.linspace(1.5, 0.1, 40)]
    a, noise = matrix(values, (300, 200))
    y, z = probes(300, 200)

    def value(t):
        product = BlockProduct(lambda v: jnp.asarray(a) @ v + t * (jnp.asarray(noise[0]) @ v))
        space = singular_space(product, 3, shape=a.shape, method=method)
        x = singular_apply(lambda s: 1 / s, space, y, sides="VU")
        return jnp.sum(x * z) + jnp.sum(singular_apply(lambda s: s, space, z) * y)

    def reference(t):
        u, s, vh = np.linalg.svd(a + t * noise[0], full_matrices=False)
        u, s, vh = u[:, :3], s[:3], vh[:3]
        return z @ (vh.T @ ((u.T @ y) / s)) + y @ (u @ (s * (vh @ z)))

    scale = 1 / np.linalg.norm(noise[0], 2)
    slope = jax.jit(jax.grad(lambda t: value(scale * t)))(0.0)
    wanted = difference(lambda t: reference(scale * t), 1)
    np.testing.assert_allclose(slope, wanted, rtol=1e-7)


def test_the_commonest_loss_is_refused_and_named():
    """Separate triplets cannot carry (U * s) @ Vh; the report says which function can."""
    a, noise = map(jnp.asarray, matrix((3, 2, 2, 1, 0.5), (6, 5)))
    weights = noise[1]

    def separate(a):
        u, s, vh, _ = partial_svd(a, 3)
        return jnp.sum(weights * ((u * s[None, :]) @ vh))

    assert np.isnan(jax.grad(separate)(a)).all()
    (problem,) = derivative_report(separate, a).calls[0].problems
    assert "low_rank" in problem
    assert "singular_space" in problem
    assert np.isfinite(jax.grad(lambda a: jnp.sum(weights * low_rank(a, 3).X))(a)).all()


def test_a_second_derivative_of_separate_values_is_refused():
    a, noise = matrix((3, 2, 2, 1, 0.5), (6, 5))
    curved = jax.grad(jax.grad(lambda t: jnp.sum(partial_svd(a + t * noise[0], 3).s ** 3)))(0.0)
    assert np.isnan(curved)
    assert "singular_sum" in partial_svd.__doc__


@pytest.mark.slow
def test_sums_of_functions():
    a, noise = matrix((3, 2, 2, 1, 0.5), (6, 5))
    e = 0.1 * noise[0]

    def f(t):
        return jnp.stack([singular_sum(jnp.exp, a + t * e, 3)])

    def reference(t):
        return np.array([np.sum(np.exp(np.linalg.svd(a + t * e)[1][:3]))])

    assert_derivatives(f, reference)


@functools.cache
def truncation(k, **options):
    return jax.jit(jax.value_and_grad(lambda a, w: jnp.sum(w * low_rank(a, k, **options).X)))


@pytest.mark.slow
@pytest.mark.parametrize("k", [2, 4])
def test_a_cut_multiplet_has_no_derivative(k):
    """k = 2 cuts the pair 2, 2, and k = 4 the pair 1, 1; both modes."""
    a, noise = matrix((3, 2, 2, 1, 1), (6, 5))
    value, slope = truncation(k)(a, noise[1])
    assert np.isfinite(value)
    assert np.isnan(slope).all()
    assert np.isnan(jax.jvp(lambda a: low_rank(a, k).X, (a,), (noise[0],))[1]).all()


@pytest.mark.slow
def test_the_report_names_a_smaller_k():
    a, noise = matrix((3, 2, 2, 1, 1), (6, 5))
    report = derivative_report(lambda a: jnp.sum(jnp.asarray(noise[1]) * low_rank(a, 4).X), a)
    (problem,) = report.calls[0].problems
    assert "cluster of singular values that k cuts" in problem
    assert problem.endswith("of the smaller ones the largest is k = 3")


@pytest.mark.parametrize("scale", [1e-10, 1e10, 1e100])
def test_scales(scale):
    """The truncation is homogeneous of degree one: its derivative does not know the norm."""
    a, noise = matrix((3, 2, 2, 1, 0.5), (6, 5))
    _, slope = truncation(3)(scale * a, noise[1])
    _, wanted = truncation(3)(a, noise[1])
    np.testing.assert_allclose(slope, wanted, rtol=1e-11, atol=1e-11)


def test_batches():
    a, noise = matrix((3, 2, 2, 1, 0.5), (6, 5))
    b, _ = matrix((3, 3, 1, 1, 0.5), (6, 5), seed=1)
    _, slopes = jax.vmap(truncation(2), (0, None))(jnp.stack([a, b]), noise[1])
    assert np.isnan(slopes[0]).all()  # k = 2 cuts its pair
    np.testing.assert_allclose(slopes[1], truncation(2)(b, noise[1])[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("product", [False, True], ids=["array", "product"])
def test_the_result(product):
    a, _ = matrix((3, 2, 2, 1, 0.5), (6, 5))
    given = BlockProduct(Partial(jnp.matmul, jnp.asarray(a))) if product else a
    space = singular_space(given, 3, shape=(6, 5))
    np.testing.assert_allclose(jnp.diagonal(space.core), [3, 2, 2], rtol=1e-14)
    for half in (space.left, space.right):
        np.testing.assert_allclose(half.T @ half, np.eye(3), atol=1e-14)
    assert not space.info.cut
    assert "singular value" in repr(space)
    assert "LowRank: k = 3" in repr(low_rank(a, 3))
