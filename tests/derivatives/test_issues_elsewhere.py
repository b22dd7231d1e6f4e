"""What users of other packages reported: the same programs, with partial_eigh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_peig import partial_eigh


class TestJax669:
    """JAX issue 669, open since 2019: gradients of eigh at repeated eigenvalues are NaN."""

    def test_eigenvalues_of_a_complex_matrix_under_jit(self):
        x = jnp.eye(3, dtype=complex)
        g = jax.jit(jax.grad(lambda a: jnp.sum(partial_eigh(a, k=3).eigenvalues)))(x)
        np.testing.assert_allclose(g, np.eye(3), atol=1e-14)

    @pytest.mark.parametrize("noise", [1e-6, 1e-8, 1e-15, 0.0])
    def test_a_matrix_function(self, noise):
        """tr(B exp(A)) through vectors of equal eigenvalues; a raw entry is no function of A."""
        rng = np.random.default_rng(42)
        a = np.diag(1 + noise * rng.normal(size=3))
        b = np.asarray([[1.0, 0.5, 0.2], [0.5, -1.0, 0.3], [0.2, 0.3, 2.0]])

        def by_vectors(a):
            w, x, _ = partial_eigh(a, k=3)
            mean = jnp.mean(w)
            return jnp.exp(mean) * jnp.sum((x @ x.T) * b)

        def exact(a):
            return jnp.exp(jnp.trace(a) / 3) * jnp.sum(jnp.eye(3) * b)

        wanted = jax.grad(exact)(jnp.asarray(a))
        np.testing.assert_allclose(jax.grad(by_vectors)(a), wanted, atol=1e-7)
        raw = jax.grad(lambda a: jnp.sum(b * partial_eigh(a, k=3).eigenvectors ** 3))
        if noise < 1e-8:
            # Turned, since a gauge-dependent loss may be stationary in the gauge by symmetry.
            turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
            assert np.isnan(raw(turn @ a @ turn.T)).all()

    def test_eigh_itself(self):
        """The reason for this package: if this fails, JAX has mended it."""
        g = jax.grad(lambda a: jnp.sum(jnp.linalg.eigh(a)[1][:, :2] ** 2 * 2.0))(
            jnp.diag(jnp.array([1.0, 1.0, 2.0]))
        )
        ours = jax.grad(lambda a: jnp.sum(partial_eigh(a, k=2).eigenvectors ** 2 * 2.0))(
            jnp.diag(jnp.array([1.0, 1.0, 2.0]))
        )
        assert np.isnan(g).any()
        np.testing.assert_allclose(ours, 0, atol=1e-14)


class TestJax4646:
    """The vector of a simple eigenvalue, beside a repeated one."""

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_simple_vector_is_finite_degenerate_ones_are_not(self, dtype):
        matrix = jnp.diag(jnp.array([4.0, 1.0, 1.0], dtype))
        entries = jax.jit(jax.jacrev(lambda m: partial_eigh(m, k=3).eigenvectors))(matrix)
        assert np.isfinite(entries[:, 2]).all()  # of lam = 4
        # Entry i of a degenerate vector turns into entry i of the other one, and is ill-posed
        # exactly where that is not zero.
        x = np.asarray(partial_eigh(matrix, k=3).eigenvectors)
        found = np.isnan(entries[:, :2]).all(axis=(2, 3))
        np.testing.assert_array_equal(found, np.abs(x[:, 1::-1]) > 1e-6)
        np.testing.assert_array_equal(np.isnan(entries[:, :2]).any(axis=(2, 3)), found)
        # x = e_0 moves along e_i by M'_{i0} / (4 - 1), half from each of M_{0i}, M_{i0}.
        wanted = np.zeros((3, 3, 3))
        wanted[1, 0, 1] = wanted[1, 1, 0] = wanted[2, 0, 2] = wanted[2, 2, 0] = 1 / 6
        sign = np.sign(x[0, 2])
        np.testing.assert_allclose(sign * entries[:, 2], wanted, atol=1e-6)

    def test_the_largest_alone(self):
        matrix = jnp.diag(jnp.array([4.0, 1.0, 1.0]))
        options = {"k": 1, "which": "largest"}
        g = jax.grad(lambda m: partial_eigh(m, **options).eigenvectors[1, 0] ** 2)(matrix)
        np.testing.assert_allclose(g, 0, atol=1e-14)


class TestJax10527:
    """A rank-one matrix: all eigenvectors but one belong to the repeated eigenvalue zero."""

    x = np.array([1.0, 2.0, 3.0])

    def test_all_vectors_are_ill_posed(self):
        def entries(x):
            return partial_eigh(x[:, None] * x[None, :], k=3).eigenvectors @ x

        assert np.isnan(jax.jacrev(entries)(self.x)).all()

    def test_the_vector_of_the_largest_is_well_posed(self):
        def projection(x):
            u = partial_eigh(x[:, None] * x[None, :], k=1, which="largest").eigenvectors[:, 0]
            return u * (u @ x)  # x itself

        np.testing.assert_allclose(jax.jacrev(projection)(self.x), np.eye(3), atol=1e-12)
        np.testing.assert_allclose(jax.jacfwd(projection)(self.x), np.eye(3), atol=1e-12)


class TestPyTorch47599:
    """The loss of PyTorch issue 47599, by the author of the paper: finite and wrong there."""

    def loss(self, a, mat, p2):
        p, _ = jnp.linalg.qr(mat)
        b = jnp.concatenate([a[:2], a[1:2], a[2:], a[2:]])
        matrix = p.T @ jnp.diag(b) @ p
        u = partial_eigh(matrix, k=3).eigenvectors[:, 1:3]
        return jnp.einsum("rc,rc->", p2 @ u, u)

    def exact(self, a, mat, p2):
        """U spans rows 1 and 2 of P whatever a is."""
        p, _ = jnp.linalg.qr(mat)
        return jnp.trace(p[1:3] @ p2 @ p[1:3].T)

    def test_gradient(self):
        rng = np.random.default_rng(126)
        arguments = (np.array([0.5, 1.0, 2.0]), rng.normal(size=(5, 5)), rng.normal(size=(5, 5)))
        found = jax.grad(self.loss, argnums=(0, 1, 2))(*arguments)
        wanted = jax.grad(self.exact, argnums=(0, 1, 2))(*arguments)
        for f, w in zip(found, wanted, strict=True):
            np.testing.assert_allclose(f, w, atol=1e-11)

    def test_hessian(self):
        rng = np.random.default_rng(126)
        a, mat, p2 = np.array([0.5, 1.0, 2.0]), rng.normal(size=(5, 5)), rng.normal(size=(5, 5))
        direction = rng.normal(size=(5, 5))

        def along(loss):
            return jax.grad(jax.grad(lambda t: loss(a, mat + t * direction, p2)))(0.0)

        np.testing.assert_allclose(along(self.loss), along(self.exact), rtol=1e-9)
