"""The unit in which A is written changes no derivative but by its own power."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_peig import partial_eigh
from tests.support.gauge_free import random_unitary

N = 40
Q = random_unitary(np.random.default_rng(3), N, np.float64)
A = (Q * np.r_[1.0, 1.0, np.linspace(2.0, 5.0, N - 2)]) @ Q.T
MASS = np.linspace(1.0, 2.0, N)
Y = np.random.default_rng(4).normal(size=N)


ITERATIVE = [pytest.param(m, marks=pytest.mark.slow) for m in ("chebyshev", "lobpcg", "davidson")]


@pytest.mark.parametrize("method", ["dense", *ITERATIVE])
def test_the_norm_of_the_matrix(method):
    """Vectors do not know it: their gradient is in its inverse, to the accuracy of the systems.

    At a norm of 1e10 the gradient was wrong by 3e-5 to 7e-3 once, at 1e100 by 1e85: P had to remove
    a part of norm one from a solution of norm 1 / ||A||.
    """

    @jax.jit
    def gradient(a):
        def share(a):
            x = partial_eigh(a, k=2, method=method).eigenvectors
            return jnp.sum((Y @ x) ** 2)

        return jax.grad(share)(a)

    wanted = gradient(A)
    for scale in (1e-10, 1e10, 1e100):
        np.testing.assert_allclose(scale * gradient(scale * A), wanted, rtol=1e-7, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["chebyshev", "lobpcg"])
def test_the_norms_of_a_pencil(method):
    """With M as well, and for the second derivative."""

    @jax.jit
    def curvature(a, m):
        def share(t):
            x = partial_eigh(a * (1 + t * Y[:, None] * Y[None, :] / N), m, 2, method=method)
            return jnp.sum((Y @ x.eigenvectors) ** 2) * m[0]

        return jax.grad(jax.grad(share))(0.0)

    wanted = curvature(A, MASS)
    for of_a, of_m in ((1e10, 1.0), (1.0, 1e10), (1e10, 1e-10)):
        np.testing.assert_allclose(curvature(of_a * A, of_m * MASS), wanted, rtol=1e-6)
