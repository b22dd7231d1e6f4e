"""eigenspace: losses of (R, X) that no rotation of the whole space changes, orders one and two.

The reference is LAPACK: the same loss of sorted pairs, differentiated by finite differences. It
weighs the pairs of a cluster differently once the parameters split it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jax_peig import Derivative, derivative_report, eigenspace, partial_eigh
from tests.support import gauge_free as gf

T0 = np.zeros(2)
CLUSTERS = [(6,), (3, 3), (1, 2, 1, 2), (1,) * 6]


def invariant(pencil, r, x):
    """tr R^3 + Re y^H X R^2 X^H z + |X^H y|^2 Re z^H X R X^H y; for NumPy and JAX."""
    p, q = (x.conj().T @ v for v in pencil.vectors)
    first = (r @ r @ r).trace() + p.conj() @ r @ r @ q
    return first.real + (p.conj() @ p).real * (q.conj() @ r @ p).real


def reference(pencil, t, which="smallest"):
    a, m = gf.matrices(pencil, np.asarray(t))
    lam, x = scipy.linalg.eigh(a, m)
    if which == "largest":
        lam, x = lam[::-1], x[:, ::-1]
    return invariant(pencil, np.diag(lam[: gf.K]).astype(x.dtype), x[:, : gf.K])


@functools.cache
def compiled(*transforms, **options):
    def loss(pencil, t):
        a, m = gf.matrices(pencil, t.astype(pencil.a.dtype))
        r, x, _ = eigenspace(a, m, gf.K, **options)
        return invariant(pencil, r, x)

    def run(pencil, t):
        f = functools.partial(loss, pencil)
        for transform in reversed(transforms):
            f = transform(f)
        return f(t)

    return jax.jit(run)


@pytest.mark.parametrize(
    ("generalized", "dtype"),
    [
        (True, np.float64),
        (False, np.complex128),
        pytest.param(True, np.complex128, marks=pytest.mark.slow),
        pytest.param(False, np.float64, marks=pytest.mark.slow),
    ],
)
def test_gradient(generalized, dtype):
    for sizes in CLUSTERS:
        pencil = gf.make(sizes, seed=len(sizes), generalized=generalized, dtype=dtype)
        f = functools.partial(reference, pencil)
        np.testing.assert_allclose(compiled(method="dense")(pencil, T0), f(T0), rtol=1e-11)
        wanted = gf.gradient_fd(f, T0)
        gf.assert_close(compiled(jax.grad, method="dense")(pencil, T0), wanted, 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (jax.jacfwd, jax.jacrev),
        (jax.jacrev, jax.jacrev),
        pytest.param(jax.jacfwd, jax.jacfwd, marks=pytest.mark.slow),
        pytest.param(jax.jacrev, jax.jacfwd, marks=pytest.mark.slow),
    ],
    ids=lambda f: f.__name__,
)
def test_hessian(outer, inner):
    for sizes in [(6,), (1, 2, 1, 2)]:
        pencil = gf.make(sizes, seed=7)
        wanted = gf.hessian_fd(functools.partial(reference, pencil), T0)
        gf.assert_close(compiled(outer, inner, method="dense")(pencil, T0), wanted, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("outer", [jax.jacfwd, jax.jacrev], ids=lambda f: f.__name__)
def test_hessian_complex(outer):
    for sizes in [(6,), (1, 2, 1, 2)]:
        pencil = gf.make(sizes, seed=7, dtype=np.complex128)
        wanted = gf.hessian_fd(functools.partial(reference, pencil), T0)
        gf.assert_close(compiled(outer, jax.jacrev, method="dense")(pencil, T0), wanted, 1e-6)


@pytest.mark.slow
def test_jvp_of_grad():
    pencil = gf.make((2, 1, 3), seed=9, dtype=np.complex128)
    e = np.array([0.6, -0.8])

    def along(gradient):
        return lambda t: jax.jvp(gradient, (t,), (jnp.asarray(e),))[1]

    wanted = gf.hessian_fd(functools.partial(reference, pencil), T0) @ e
    gf.assert_close(compiled(along, jax.grad, method="dense")(pencil, T0), wanted, 1e-6)


def test_iterative_and_largest():
    pencil = gf.make((1, 2, 3), seed=4, n=gf.LARGE, largest=True, generalized=False)
    options = {"method": "chebyshev", "which": "largest"}
    wanted = gf.gradient_fd(lambda t: reference(pencil, t, "largest"), T0)
    gf.assert_close(compiled(jax.grad, **options)(pencil, T0), wanted, 1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"method": "dense"},
        {"method": "chebyshev"},
        {"method": "chebyshev", "derivative": Derivative(solver="minres")},
    ],
    ids=["dense", "chebyshev", "minres"],
)
def test_interior(options):
    """The threefold eigenvalue in the middle, with one below and two above."""
    pencil = gf.make((1, 3, 2), seed=14, generalized=False)
    sigma = float(np.linalg.eigvalsh(pencil.a[0])[1]) + 0.1

    def by_lapack(t):
        lam, x = np.linalg.eigh(gf.matrices(pencil, np.asarray(t))[0])
        near = np.argsort(np.abs(lam - sigma))[:3]
        return invariant(pencil, np.diag(lam[near]), x[:, near])

    def ours(t):
        a, _ = gf.matrices(pencil, t)
        space = eigenspace(a, k=3, which="nearest", sigma=sigma, **options)
        return invariant(pencil, *space[:2])

    gradient, hessian = jax.jit(lambda t: (jax.grad(ours)(t), jax.hessian(ours)(t)))(T0)
    gf.assert_close(gradient, gf.gradient_fd(by_lapack, T0), 1e-7)
    gf.assert_close(hessian, gf.hessian_fd(by_lapack, T0), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"method": "davidson"},
        {"method": "lobpcg", "tol": 1e-6, "derivative": Derivative(refine=True)},
    ],
    ids=["davidson", "refined"],
)
def test_methods(options):
    pencil = gf.make((1, 2, 3), seed=4, n=gf.LARGE)
    wanted = gf.gradient_fd(functools.partial(reference, pencil), T0)
    gf.assert_close(compiled(jax.grad, **options)(pencil, T0), wanted, 1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("power", [0, 2])
def test_third_derivatives(power):
    """At a pair that splits; by reverse mode alone they are refused, by the others right.

    Of v^T X R^p X^T v; without R by `partial_eigh`.
    """
    rng = np.random.default_rng(1)
    start, v = np.diag([1.0, 2.0, 2.0, 3.0, 5.0]), np.arange(1.0, 6.0)
    towards = rng.normal(size=(5, 5))
    towards = towards + towards.T

    def ours(t):
        if power == 0:
            x = partial_eigh(start + t * towards, k=3).eigenvectors
            return v @ x @ x.T @ v
        r, x, _ = eigenspace(start + t * towards, k=3)
        return v @ x @ r @ r @ x.T @ v

    def lapack(t):
        w, x = np.linalg.eigh(start + t * towards)
        return np.sum((w ** (power // 2) * (v @ x))[:3] ** 2)

    def difference(h):
        return (lapack(2 * h) - 2 * lapack(h) + 2 * lapack(-h) - lapack(-2 * h)) / (2 * h**3)

    wanted = (4 * difference(1e-3) - difference(2e-3)) / 3
    rev, fwd = jax.jacrev, jax.jacfwd
    for first, second, third in [(fwd, rev, rev), (rev, fwd, rev), (fwd, fwd, fwd)]:
        np.testing.assert_allclose(jax.jit(first(second(third(ours))))(0.0), wanted, rtol=1e-5)
    assert np.isnan(jax.jit(rev(rev(rev(ours))))(0.0))


@pytest.mark.parametrize("split", [1e-2, 1e-5, 1e-7, 1e-9, 1e-12])
def test_near_degeneracy_costs_no_accuracy(split):
    pencil = gf.make((6,), seed=5, split=split)
    f = functools.partial(reference, pencil)
    gf.assert_close(compiled(jax.grad, method="dense")(pencil, T0), gf.gradient_fd(f, T0), 1e-9)
    hessian = compiled(jax.jacfwd, jax.jacrev, method="dense")
    gf.assert_close(hessian(pencil, T0), gf.hessian_fd(f, T0), 1e-6)


def test_rule_is_that_of_the_space():
    """R' = G, X' = -X M'_s/2 + Z: X^H M X stays I, X stays in its gauge; R is diag(w)."""
    pencil = gf.make((2, 1, 3), seed=6)
    dots = pencil.a[1], pencil.m[1]

    def space(a, m):
        return eigenspace(a, m, gf.K)

    (r, x, info), (r_dot, x_dot, _) = jax.jvp(space, (pencil.a[0], pencil.m[0]), dots)
    w = partial_eigh(pencil.a[0], pencil.m[0], gf.K).eigenvalues
    np.testing.assert_array_equal(r, np.diag(w))
    m_s = x.T @ dots[1] @ x
    np.testing.assert_allclose(x.T @ pencil.m[0] @ x_dot, -m_s / 2, atol=1e-11)
    g = x.T @ dots[0] @ x - (r @ m_s + m_s @ r) / 2
    np.testing.assert_allclose(r_dot, g, atol=1e-11)
    np.testing.assert_array_equal(info.clusters, [0, 0, 1, 2, 2, 2])


class TestIllPosed:
    """NaN for what a rotation of the space changes, and for a space that k cuts."""

    PENCIL = gf.make((2, 2, 2), seed=8)
    LOSSES = {
        "entry of R": lambda r, x: r[0, 1] + r[0, 0],
        "entry of X": lambda r, x: x[3, 1],
        "one vector": lambda r, x: x[3, 0] ** 2,
        "weights by position": lambda r, x: jnp.sum(jnp.arange(6.0) * jnp.diagonal(r)),
        "a cluster of it": lambda r, x: jnp.sum(x[3, :2] ** 2),
    }

    def gradient(self, loss, k=6, **options):
        def f(t):
            a, m = gf.matrices(self.PENCIL, t)
            return loss(*eigenspace(a, m, k, **options)[:2])

        return jax.grad(f)(T0)

    @pytest.mark.parametrize("name", LOSSES)
    def test_gauge(self, name):
        assert np.isnan(self.gradient(self.LOSSES[name])).all()

    def test_ignored(self):
        free = Derivative(on_gauge="ignore")
        found = self.gradient(self.LOSSES["a cluster of it"], derivative=free)
        assert np.isfinite(found).all()

    def test_a_cut_cluster(self):
        assert np.isnan(self.gradient(lambda r, x: jnp.sum((x[3] @ x.T) ** 2), k=5)).all()
        assert np.isfinite(self.gradient(lambda r, x: jnp.trace(r), k=5)).all()

    @pytest.mark.parametrize(("power", "refused"), [(1, True), (2, False)])
    def test_a_kink_at_the_cut(self, power, refused):
        """h(w) = w - w_k has no weight at the cut pair but a slope; its square has none."""
        q = gf.random_unitary(np.random.default_rng(0), 8, np.float64)
        a = jnp.asarray((q * np.array([1, 1.5, 2, 2, 3, 4, 5, 6])) @ q.T)

        def loss(a):
            r, x, _ = eigenspace(a, k=3)
            h = jnp.linalg.matrix_power(r - 2.0 * jnp.eye(3), power)
            return jnp.sum((x[3] @ h @ x.T) * jnp.arange(8.0))

        assert np.isnan(jax.grad(loss)(a)).all() == refused

    def test_curvature_at_a_cut(self):
        def f(t):
            a, m = gf.matrices(self.PENCIL, t)
            return jnp.trace(eigenspace(a, m, 5).rayleigh)

        assert np.isnan(jax.hessian(f)(T0)).all()

    def test_zero_is_a_cluster_like_any_other(self):
        """R = 0 at a double eigenvalue 0, whose square has a Hessian."""
        e = jnp.ones((4, 4))
        a = jnp.diag(jnp.array([0.0, 0.0, 1.0, 2.0]))

        def squares(t):
            return jnp.sum(eigenspace(a + t * e, k=2).rayleigh ** 2)

        # w = 0, 2 t + O(t^2): the second derivative of w^2 at 0 is 8.
        np.testing.assert_allclose(jax.hessian(squares)(0.0), 8.0, rtol=1e-12)


@pytest.mark.slow
def test_report():
    pencil = gf.make((2, 2, 2), seed=8, generalized=False, dtype=np.complex128)

    def loss(t, vector):
        a, _ = gf.matrices(pencil, t.astype(complex))
        r, x, _ = eigenspace(a, k=gf.K)
        return invariant(pencil, r, x) + vector * r[0, 5].real

    report = derivative_report(loss, jnp.asarray(T0), 0.0)
    assert report.verdict == "The gradient is well-posed."
    assert report.error < 1e-9
    assert report.calls[0].gauge < 1e-12
    assert "arbitrary choice" in derivative_report(loss, jnp.asarray(T0), 1.0).verdict


def test_vmap_is_a_loop():
    pencil = gf.make((3, 3), seed=2)
    ts = 0.01 * np.arange(6.0).reshape(3, 2)
    one = compiled(jax.grad, method="dense")
    many = jax.jit(jax.vmap(one, in_axes=(None, 0)))(pencil, ts)
    np.testing.assert_allclose(many, [one(pencil, t) for t in ts], rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"k": 2, "metod": "dense"}, TypeError, "unknown option 'metod'; expected"),
        ({"k": 9}, ValueError, "expected 1 <= k <= n"),
        ({}, TypeError, "k is missing"),
        ({"k": 1, "whole": True}, TypeError, "whole"),
    ],
)
def test_bad_arguments(options, error, text):
    with pytest.raises(error, match=text):
        eigenspace(np.eye(3), **options)
