"""partial_svd, norms and thresholding against LAPACK, at repeated and zero singular values."""

import functools

import gauge_free as gf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from jax.experimental.sparse import BCOO
from jax.tree_util import Partial

from jax_peig import (
    BlockProduct,
    ky_fan_norm,
    nuclear_norm,
    partial_svd,
    singular_value_threshold,
)

T0 = np.zeros(2)


def matrix(values, shape, dtype=np.float64, seed=0):
    """U diag(values) V^H with random U and V, and two directions."""
    rng = np.random.default_rng(seed)
    u, v = (gf.random_unitary(rng, side, dtype)[:, : len(values)] for side in shape)
    noise = rng.normal(size=(2, *shape)).astype(dtype)
    if np.issubdtype(dtype, np.complexfloating):
        noise = noise + 1j * rng.normal(size=noise.shape)
    return (u * np.asarray(values, float)) @ v.conj().T, noise


def along(a, noise, t):
    return a + t[0].astype(a.dtype) * noise[0] + t[1].astype(a.dtype) * noise[1]


def assert_close(found, wanted, rtol):
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=rtol * np.max(np.abs(wanted)))


# -- values ---------------------------------------------------------------------------------------


@functools.cache
def svd(k, **options):
    return jax.jit(lambda a: partial_svd(a, k, **options))


@pytest.mark.parametrize("dtype", [np.float64, np.complex128], ids=["real", "complex"])
@pytest.mark.parametrize(
    ("shape", "values", "k"),
    [
        ((8, 5), (3, 3, 2, 1, 1), 3),
        ((5, 8), (3, 3, 2, 1, 1), 5),
        ((6, 6), (3, 2, 1e-6, 1e-9, 0, 0), 6),
        ((6, 6), (3, 3, 1e-12, 0, 0, 0), 4),
        ((7, 6), (5, 1e-4, 0, 0, 0, 0), 5),
        ((7, 4), (0, 0, 0, 0), 3),
    ],
    ids=["tall", "wide", "tiny", "square", "low rank", "zero"],
)
def test_triplets(shape, values, k, dtype):
    a, _ = matrix(values, shape, dtype)
    u, s, vh = map(np.asarray, svd(k)(a)[:3])
    largest = max(values[0], 1)
    np.testing.assert_allclose(s, values[:k], atol=1e-14 * largest)
    for basis in (u, vh.conj().T):
        np.testing.assert_allclose(basis.conj().T @ basis, np.eye(k), atol=1e-13)
    np.testing.assert_allclose(a @ vh.conj().T, u * s, atol=1e-13 * largest)
    np.testing.assert_allclose(a.conj().T @ u, vh.conj().T * s, atol=1e-13 * largest)


@pytest.mark.parametrize(
    "shape", [(400, 300), pytest.param((300, 400), marks=pytest.mark.slow)], ids=["tall", "wide"]
)
def test_iterative(shape):
    values = np.r_[3.0, 3.0, 2.5, 2.0, np.linspace(1.5, 0, 40)]
    a, noise = matrix(values, shape)
    u, s, vh, info = svd(3)(a)
    assert info.method == "chebyshev"
    assert int(info.converged) == 3
    np.testing.assert_allclose(s, values[:3], atol=3e-10)
    np.testing.assert_allclose(a @ vh.T, u * s[None, :], atol=1e-9)
    gradient = jax.grad(lambda t: jnp.sum(partial_svd(along(a, noise, t), 3).s))(T0)
    # d s = u^T dA v, summed over the cluster and one more.
    np.testing.assert_allclose(gradient, [np.sum(e * (u @ vh)) for e in noise], rtol=1e-8)


def test_iterative_beyond_the_rank():
    """k = 5 of rank 3: k cuts 694 zeros of the dilation."""
    values = np.array([3.0, 3.0, 2.0])
    a, _ = matrix(values, (400, 300))
    u, s, vh, info = svd(5)(a)
    assert info.method == "chebyshev"
    assert int(info.status) == 0
    np.testing.assert_allclose(s, [*values, 0, 0], atol=1e-10)
    for basis in (u, vh.T):
        np.testing.assert_allclose(basis.T @ basis, np.eye(5), atol=1e-13)
    np.testing.assert_allclose(a @ vh.T, u * s[None, :], atol=1e-9)


def test_vmap():
    batch = np.random.default_rng(0).normal(size=(3, 6, 4))
    u, s, vh = jax.jit(jax.vmap(lambda a: partial_svd(a, 2)[:3]))(batch)
    np.testing.assert_allclose(s, np.linalg.svd(batch, compute_uv=False)[:, :2], rtol=1e-13)
    np.testing.assert_allclose(np.einsum("bmk,bmn->bkn", u, batch), s[:, :, None] * vh, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
@pytest.mark.slow
def test_single_precision(dtype):
    a, _ = matrix((3, 3, 1, 0), (7, 5), dtype)
    u, s, vh, _ = partial_svd(a.astype(dtype), 4)
    assert (u.dtype, s.dtype, vh.dtype) == (dtype, np.float32, dtype)
    np.testing.assert_allclose(s, [3, 3, 1, 0], atol=3e-6)
    np.testing.assert_allclose(u.conj().T @ u, np.eye(4), atol=3e-6)


class WithProduct:
    """What lineax's operators have."""

    def __init__(self, matrix):
        self.matrix = matrix

    def mv(self, vector):
        return self.matrix @ vector


@pytest.mark.slow
def test_every_kind_of_operator():
    a, _ = matrix((4, 3, 2, 1), (7, 5))
    sparse = scipy.sparse.csr_array(a)
    wanted = np.linalg.svd(a, compute_uv=False)[:2]
    given = {
        "array": (a, None),
        "function": (lambda v: jnp.asarray(a) @ v, (7, 5)),
        "partial": (Partial(lambda m, v: m @ v, jnp.asarray(a)), (7, 5)),
        "block": (BlockProduct(lambda v: jnp.asarray(a) @ v), (7, 5)),
        "mv": (WithProduct(jnp.asarray(a)), (7, 5)),
        "bcoo": (BCOO.from_scipy_sparse(sparse), None),
        "scipy": (sparse, None),
    }
    for kind, (operator, shape) in given.items():
        u, s, vh, _ = partial_svd(operator, 2, shape=shape)
        np.testing.assert_allclose(s, wanted, rtol=1e-13, err_msg=kind)
        np.testing.assert_allclose(a @ vh.T, u * s[None, :], atol=1e-13, err_msg=kind)


def test_complex_functions_are_adjoined_not_transposed():
    """A closed-over parameter: the adjoint conjugates, and the gradient reaches it."""
    a, _ = matrix((3, 2, 1), (6, 4), np.complex128)

    def largest(phase):
        scale = jnp.exp(phase * 1j) * (1 + phase)
        return partial_svd(lambda v: scale * (jnp.asarray(a) @ v), 1, shape=(6, 4), dtype=complex).s

    value, slope = jax.jvp(largest, (0.3,), (1.0,))
    np.testing.assert_allclose(value, 1.3 * 3, rtol=1e-13)
    np.testing.assert_allclose(slope, 3, rtol=1e-12)


# -- derivatives ----------------------------------------------------------------------------------


def loss(u, s, vh, noise, xp):
    """Sums over the groups {1, 2} and {3}: smooth where those are apart."""
    y, z = noise[0][:, 0], noise[1][0]
    total = xp.sum(s[:2]) * xp.cos(s[2])
    for g in (slice(0, 2), slice(2, 3)):
        left, right = y.conj() @ u[:, g], vh[g] @ z
        total = total + (left @ right).real + xp.sum(xp.abs(left) ** 2) * xp.sum(s[g])
    return total


@functools.cache
def derivative(transform):
    def f(a, noise, t):
        return loss(*partial_svd(along(a, noise, t), 3)[:3], noise, jnp)

    return jax.jit(lambda a, noise, t: transform(functools.partial(f, a, noise))(t))


def reference(a, noise, t):
    u, s, vh = np.linalg.svd(along(a, noise, np.asarray(t)), full_matrices=False)
    return loss(u[:, :3], s[:3], vh[:3], noise, np)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((8, 5), np.float64),
        ((5, 8), np.complex128),
        pytest.param((5, 8), np.float64, marks=pytest.mark.slow),
        pytest.param((8, 5), np.complex128, marks=pytest.mark.slow),
    ],
)
def test_gradient_at_a_repeated_value(shape, dtype):
    a, noise = matrix((3, 3, 2, 1, 1), shape, dtype, seed=1)
    wanted = gf.gradient_fd(functools.partial(reference, a, noise), T0)
    assert_close(derivative(jax.grad)(a, noise, T0), wanted, 1e-9)


def test_gradient_of_a_low_rank_matrix():
    """Three triplets of a matrix of rank three, whose other singular values are one zero."""
    a, noise = matrix((3, 3, 2), (8, 5), seed=2)
    wanted = gf.gradient_fd(functools.partial(reference, a, noise), T0)
    assert_close(derivative(jax.grad)(a, noise, T0), wanted, 1e-9)


def test_hessian_at_a_repeated_value():
    """Of what the pair shares alone; see partial_eigh about weights that differ."""
    a, noise = matrix((3, 3, 2, 1, 1), (8, 5), seed=1)

    def f(t):
        u, s, vh, _ = partial_svd(along(a, noise, t), 3)
        return jnp.sum(s[:2]) * s[2] + (noise[0][:, 0] @ u[:, :2]) @ (vh[:2] @ noise[1][0])

    def by_lapack(t):
        u, s, vh = np.linalg.svd(along(a, noise, np.asarray(t)), full_matrices=False)
        return np.sum(s[:2]) * s[2] + (noise[0][:, 0] @ u[:, :2]) @ (vh[:2] @ noise[1][0])

    assert_close(jax.jit(jax.hessian(f))(T0), gf.hessian_fd(by_lapack, T0), 1e-6)


@pytest.mark.parametrize("dtype", [np.complex128], ids=["complex"])
def test_slope_of_a_singular_value(dtype):
    """d s = Re u^H dA v (Strang, lecture 16)."""
    a, noise = matrix((4, 3, 2, 1), (6, 4), dtype)
    (u, s, vh), (_, s_dot, _) = jax.jvp(lambda a: partial_svd(a, 4)[:3], (a,), (noise[0],))
    wanted = [(u[:, i].conj() @ noise[0] @ vh[i].conj()).real for i in range(4)]
    np.testing.assert_allclose(s_dot, wanted, rtol=1e-11)
    np.testing.assert_allclose(s, [4, 3, 2, 1], rtol=1e-13)


class TestZeroSingularValues:
    A = jnp.ones((5, 5))  # JAX issue 2311: singular values 5, 0, 0, 0, 0

    def test_the_rest_is_right(self):
        def rest(a, k):
            u, s, vh, _ = partial_svd(a, k)
            return s[0] ** 2 + jnp.sum((vh[:1] @ jnp.arange(5.0)) ** 2) + jnp.sum(u[:, 0] ** 4)

        found = jax.grad(rest)(self.A, 5)
        noise = np.random.default_rng(0).normal(size=(5, 5))

        def by_lapack(t):
            u, s, vh = np.linalg.svd(np.ones((5, 5)) + t[0] * noise)
            return s[0] ** 2 + (vh[0] @ np.arange(5)) ** 2 + np.sum(u[:, 0] ** 4)

        np.testing.assert_allclose(
            np.sum(found * noise), gf.gradient_fd(by_lapack, np.zeros(1))[0], rtol=1e-9
        )

    def test_jax_itself(self):
        """If this fails, JAX has mended it."""

        def first(a):
            return jnp.sum(jnp.linalg.svd(a, full_matrices=False)[0][:, 0] ** 4)

        assert np.isnan(jax.grad(first)(jnp.diag(jnp.array([5.0, 0.0, 0.0])))).any()

    @pytest.mark.parametrize("part", [lambda r: r.s[1], lambda r: r.U[0, 2], lambda r: r.Vh[2, 0]])
    def test_what_has_no_derivative(self, part):
        assert np.isnan(jax.grad(lambda a: part(partial_svd(a, 5)))(self.A)).all()


def test_what_separate_triplets_cannot_carry():
    """A linear function of the truncated SVD, where it has a gradient: NaN, not a wrong one."""
    a, noise = matrix((3, 3, 1), (6, 5))

    def truncated(a):
        u, s, vh, _ = partial_svd(a, 2)
        return jnp.sum(noise[0] * ((u * s[None, :]) @ vh))

    assert np.isnan(jax.grad(truncated)(a)).all()


def test_jax_8732():
    """The Frobenius norm by an SVD with a repeated value."""
    a = jnp.diag(jnp.array([1.0, 1.0, 2.0, 3.0]))

    def norm(svd):
        def f(a):
            u, s, vh = svd(a)[:3]
            return jnp.linalg.norm((u * s[None, :]) @ vh)

        return f

    ours = jax.grad(norm(lambda a: partial_svd(a, 4)))(a)
    np.testing.assert_allclose(ours, a / jnp.linalg.norm(a), atol=1e-14)
    assert np.isnan(jax.grad(norm(functools.partial(jnp.linalg.svd, full_matrices=False)))(a)).any()


# -- norms and thresholding -----------------------------------------------------------------------


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
    assert_close(found, gf.hessian_fd(by_lapack, T0), 1e-6)


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
    assert_close(found, gf.hessian_fd(by_lapack, T0), 1e-6)


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


@pytest.mark.parametrize("explicit", [True, False])
def test_what_the_nuclear_norm_leaves_out(explicit):
    a, _ = matrix((3, 2, 0.5, 0.4, 0.1), (8, 5), seed=6)
    given = a if explicit else (lambda v: jnp.asarray(a) @ v)
    found = nuclear_norm(given, 2, shape=(8, 5))
    exact = np.linalg.norm(a, ord="nuc")
    assert float(found.norm) < exact <= float(found.norm + found.left_out)
    assert float(found.left_out) < (1.2 if explicit else 6.1)


def threshold_reference(a, noise, t, level, weights):
    u, s, vh = np.linalg.svd(along(a, noise, np.asarray(t)), full_matrices=False)
    return np.sum(weights * np.sin(((u * np.maximum(s - level, 0)) @ vh).real))


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
    assert_close(gradient, gf.gradient_fd(by_lapack, T0), 1e-9)
    assert_close(hessian, gf.hessian_fd(by_lapack, T0), 1e-6)


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
    assert_close(reverse, wanted, 1e-9)
    assert_close(forward, wanted, 1e-9)
    assert np.isnan(twice).all()


@pytest.mark.slow
def test_slope_in_the_threshold():
    a, _ = matrix((3, 3, 2.5, 1), (6, 5), seed=9)
    u, _, vh = np.linalg.svd(a, full_matrices=False)
    slope = jax.jacfwd(lambda t: singular_value_threshold(a, t, 4).X)(2.0)
    np.testing.assert_allclose(slope, -u[:, :3] @ vh[:3], atol=1e-13)


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
            assert all(np.isnan(slope).all() for slope in slopes)
        for t in done:
            (_, found), _ = run(a, t, k)
            assert np.isfinite(found.X).all()
            assert bool(found.covered)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda a: partial_svd(a, 6), ValueError, "expected 1 <= k <= 5"),
        (lambda a: partial_svd(a, 2.5), TypeError, "expected a Python integer"),
        (lambda a: partial_svd(a, 2, which="smallest"), TypeError, "unknown option 'which'"),
        (lambda a: partial_svd(lambda v: a @ v, 2), ValueError, "shape is missing"),
        (lambda a: partial_svd(lambda v: a @ v, 2, shape=(5, 5)), ValueError, "returned"),
        (lambda a: partial_svd(a, 2, shape=(5, 8)), ValueError, r"expected \(8, 5\)"),
        (lambda a: partial_svd(a[0], 1), ValueError, r"expected \(m, n\)"),
        (lambda a: partial_svd(a.astype(int), 1), TypeError, "dtype int64"),
        (lambda a: partial_svd(a, 1, dtype=np.float32), TypeError, "a dtype that keeps it"),
        (lambda a: partial_svd("a", 1), TypeError, "A is 'a'"),
        (lambda a: partial_svd(lambda v: a @ v, 1, shape=5), TypeError, "two integers"),
        (lambda a: ky_fan_norm(a, 0), ValueError, "ky_fan_norm: k = 0"),
        (lambda a: partial_svd(a, None), TypeError, "partial_svd: k is None"),
        (lambda a: nuclear_norm(a, 9), ValueError, "nuclear_norm: rank = 9"),
        (lambda a: singular_value_threshold(a, 1j, 2), TypeError, "expected a real scalar"),
        (lambda a: singular_value_threshold(a, np.ones(2), 2), TypeError, "a real scalar"),
    ],
)
def test_bad_arguments(call, error, text):
    with pytest.raises(error, match=text):
        call(np.ones((8, 5)))
