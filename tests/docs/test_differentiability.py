"""The section "Differentiability" of functions whose derivatives no other test looks at.

Those of the eigenpairs are tested in tests/derivatives, tests/api and tests/singular.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from jax.test_util import check_grads

from jax_peig import bounds, operators, partial_eigh, preconditioners, project_gauge

V = jnp.arange(1.0, 7.0)
A = jnp.diag(V) + 0.1
S = operators.from_scipy(scipy.sparse.csr_array(np.asarray(A)))
STRINGS = scipy.sparse.csr_array(5 * np.eye(6) - np.ones((6, 6)) / 2)
MULTIGRID = preconditioners.multigrid(
    [(STRINGS, scipy.sparse.eye_array(6, 3)), (STRINGS[:3, :3], None)]
)
PAIRS = partial_eigh(jnp.diag(jnp.array([1.0, 1.0, 2.0, 3.0, 5.0])), k=2)

SMOOTH = {
    "weyl_bounds": (lambda w, e: tuple(bounds.weyl_bounds(w, e)), (V, 0.1 * V)),
    "interlacing": (lambda w: bounds.interlacing(w).upper[:-1], (V,)),
    "kato_temple": (lambda r, gap: bounds.kato_temple(V, r, gap), (0.1 * V, V)),
    "jacobi": (lambda d, s: preconditioners.jacobi(d, s) @ V, (V, 0.5)),
    "block_jacobi": (lambda v: preconditioners.block_jacobi(A, size=2) @ v, (V,)),
    "polynomial": (
        lambda *given: preconditioners.polynomial(given[0], 4, *given[1:]) @ V,
        (A, 2.0, 8.0),
    ),
    "multigrid": (lambda v: MULTIGRID @ v, (V,)),
    "fourier": (lambda s, offset: preconditioners.fourier(s, offset) @ V, (V, 0.5)),
    "teter": (preconditioners.teter, (V, 2.0)),
    "from_scipy": (lambda values, x: S.with_values(values) @ x, (S.values, V)),
    "project_gauge": (
        lambda x, cotangent: project_gauge(PAIRS._replace(eigenvectors=x), cotangent),
        (PAIRS.eigenvectors, jnp.arange(10.0).reshape(5, 2)),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMOOTH)
def test_both_modes_and_two_orders(name):
    f, at = SMOOTH[name]
    check_grads(jax.jit(f), at, order=2, modes=("fwd", "rev"), rtol=1e-4)


CONSTANT = {
    "interlacing, an infinite bound": (lambda w: bounds.interlacing(w).upper[-1], V),
    "kato_temple in w": (lambda w: jnp.sum(bounds.kato_temple(w, 0.1 * V, V)), V),
    "kato_temple without a gap": (lambda gap: jnp.sum(bounds.kato_temple(V, 0.1 * V, gap)), 0 * V),
    "block_jacobi": (lambda a: jnp.sum(preconditioners.block_jacobi(a, size=2) @ V), A),
}


@pytest.mark.parametrize("name", CONSTANT)
def test_a_derivative_that_is_zero(name):
    f, at = CONSTANT[name]
    np.testing.assert_array_equal(jax.grad(f)(at), 0)


def test_a_symbol_is_made_on_the_host():
    with pytest.raises(TypeError, match="not traced"):
        jax.grad(lambda h: jnp.sum(preconditioners.laplacian_symbol(4, h)))(1.0)
