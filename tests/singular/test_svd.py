"""partial_svd against LAPACK, at repeated and zero singular values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from jax.experimental.sparse import BCOO
from jax.tree_util import Partial

from jax_peig import BlockProduct, partial_eigh, partial_svd
from tests.support import gauge_free as gf
from tests.support.rectangular import along, matrix

T0 = np.zeros(2)


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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_products_are_counted():
    """Those of the dilation's eigenpairs, and k more for the two-sided projection."""
    a = np.random.default_rng(0).normal(size=(7, 5))
    h = jnp.block([[jnp.zeros((7, 7)), a], [a.T, jnp.zeros((5, 5))]])
    product = BlockProduct(Partial(jnp.matmul, h))
    own = partial_eigh(product, k=2, n=12, which="largest").info.matvecs
    assert int(partial_svd(a, 2).info.matvecs) == int(own) + 2


def test_half_of_the_tolerance_is_zero():
    """s and -s are one cluster where 2 s is at most ``degeneracy_tol``."""
    a = jnp.diag(jnp.array([3.0, 0.3, 0.2]))
    for i, finite in ((1, True), (2, False)):
        slope = jax.grad(lambda a, i=i: partial_svd(a, 3, degeneracy_tol=0.5).s[i])(a)
        assert np.isfinite(slope).all() == finite


@pytest.mark.slow
def test_iterative_complex_function():
    """A function of one vector, wide: values to 1e-10 s_1, and the gradient of a projector."""
    values = np.r_[3.0, 3.0, 2.5, 2.0, np.linspace(1.5, 0, 40)]
    a, noise = matrix(values, (300, 400), np.complex128)
    y = noise[1][:, 0]

    def projected(t):
        def product(v):
            return jnp.asarray(a) @ v + t.astype(a.dtype) * (jnp.asarray(noise[0]) @ v)

        u, s, _, info = partial_svd(product, 3, shape=a.shape, dtype=complex)
        return jnp.sum(jnp.abs(y.conj() @ u) ** 2), (s, info.converged)

    slope, (s, converged) = jax.jit(jax.grad(projected, has_aux=True))(0.0)
    assert int(converged) == 3
    np.testing.assert_allclose(s, values[:3], atol=1e-10 * 3)

    def by_lapack(t):
        u = np.linalg.svd(a + t[0] * noise[0], full_matrices=False)[0][:, :3]
        return np.sum(np.abs(y.conj() @ u) ** 2)

    wanted = gf.gradient_fd(by_lapack, np.zeros(1), h=1e-5)
    np.testing.assert_allclose(slope, wanted[0], rtol=1e-6)


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


class WithMatmul:
    """An object that knows `@` alone."""

    def __init__(self, matrix):
        self.matrix = matrix

    def __matmul__(self, block):
        return self.matrix @ block


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
        "@": (WithMatmul(jnp.asarray(a)), (7, 5)),
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
    gf.assert_close(derivative(jax.grad)(a, noise, T0), wanted, 1e-9)


def test_gradient_of_a_low_rank_matrix():
    """Three triplets of a matrix of rank three, whose other singular values are one zero."""
    a, noise = matrix((3, 3, 2), (8, 5), seed=2)
    wanted = gf.gradient_fd(functools.partial(reference, a, noise), T0)
    gf.assert_close(derivative(jax.grad)(a, noise, T0), wanted, 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((8, 5), np.float64), pytest.param((5, 8), np.complex128, marks=pytest.mark.slow)],
    ids=["tall real", "wide complex"],
)
def test_hessian_at_a_repeated_value(shape, dtype):
    """Of what the pair shares alone; see partial_eigh about weights that differ."""
    a, noise = matrix((3, 3, 2, 1, 1), shape, dtype, seed=1)
    y, z = noise[0][:, 0].conj(), noise[1][0]

    def f(t):
        u, s, vh, _ = partial_svd(along(a, noise, t), 3)
        return jnp.sum(s[:2]) * s[2] + ((y @ u[:, :2]) @ (vh[:2] @ z)).real

    def by_lapack(t):
        u, s, vh = np.linalg.svd(along(a, noise, np.asarray(t)), full_matrices=False)
        return np.sum(s[:2]) * s[2] + ((y @ u[:, :2]) @ (vh[:2] @ z)).real

    gf.assert_close(jax.jit(jax.hessian(f))(T0), gf.hessian_fd(by_lapack, T0), 1e-6)


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

    @pytest.mark.slow
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

    # All entries of a vector: LAPACK may choose one of which some are zero.
    @pytest.mark.parametrize(
        "part",
        [
            lambda r: r.s[1],
            lambda r: jnp.arange(1.0, 6.0) @ r.U[:, 2],
            lambda r: r.Vh[2] @ jnp.arange(1.0, 6.0),
        ],
    )
    def test_what_has_no_derivative(self, part):
        assert np.isnan(jax.grad(lambda a: part(partial_svd(a, 5)))(self.A)).all()


@pytest.mark.slow
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
        (lambda a: partial_svd("a", 1), TypeError, "A is of type str; expected an array"),
        (lambda a: partial_svd(lambda v: a @ v, 1, shape=5), TypeError, "two integers"),
        (lambda a: partial_svd(a, None), TypeError, "partial_svd: k is None"),
    ],
)
def test_bad_arguments(call, error, text):
    with pytest.raises(error, match=text):
        call(np.ones((8, 5)))
