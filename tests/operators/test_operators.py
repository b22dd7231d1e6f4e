"""Whatever form A, M and a preconditioner come in: the same operator."""

import functools

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from jax.experimental.sparse import BCOO
from jax.tree_util import Partial

from jax_peig import BlockProduct, partial_eigh
from jax_peig._operators.operator import Operator, as_operator
from tests.support import spectra
from tests.support.operator_forms import (
    FLOAT,
    FORMS,
    PENCIL,
    SECOND,
    Coordinates,
    K,
    Lineax,
    N,
    closure,
)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_multiplies(form):
    """As an operator on blocks of any width, whatever width it was traced for."""
    matrix = PENCIL.A
    operator = as_operator(FORMS[form](matrix), N, FLOAT, "A", widths=(1, K, 7))
    assert isinstance(operator, Operator)
    rng = np.random.default_rng(0)
    for width in (1, 2, K, 7, 17):
        block = rng.standard_normal((N, width))
        got = operator(jnp.asarray(block))
        assert got.dtype == FLOAT
        np.testing.assert_allclose(got, matrix @ block, rtol=0, atol=1e-12)


# One of each way through the front door: every other one is a program of its own to compile.
KINDS = (
    "array",
    "NumPy",
    "BCOO",
    "SciPy csr_array",
    "@",
    ".mv",
    "closure",
    "Partial",
    "pytree with integer leaves",
    "pytree with other leaves",
    "BlockProduct of a function",
    "BlockProduct of a pytree",
    "Operator of a function",
)


@pytest.mark.parametrize("form", KINDS)
def test_every_form_gives_the_same_pairs(form):
    """As A and as M; n comes from the matrices, or is given."""
    make = FORMS[form]
    result = partial_eigh(make(PENCIL.A), make(PENCIL.M), K, n=N, method="dense")
    expected, _ = spectra.reference(PENCIL.A, PENCIL.M)
    np.testing.assert_allclose(result.eigenvalues, expected[:K], rtol=1e-11)
    x = np.asarray(result.eigenvectors)
    np.testing.assert_allclose(spectra.projector(x, PENCIL.M), PENCIL.projector(0, K), atol=1e-11)
    np.testing.assert_allclose(x.T @ PENCIL.M @ x, np.eye(K), atol=1e-12)
    assert result.info.message == "all k pairs converged"
    np.testing.assert_allclose(result.info.MX, PENCIL.M @ x, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["array", "closure"])
def test_forms_as_preconditioner(form):
    """One preconditioner in several forms: one course of the iteration."""
    pencil = spectra.stiff(36, 6)
    given = FORMS[form](spectra.hermitian(np.linalg.inv(pencil.A)))
    result = partial_eigh(pencil.A, k=6, method="lobpcg", preconditioner=given)
    plain = partial_eigh(pencil.A, k=6, method="lobpcg", preconditioner=np.ones(36))
    np.testing.assert_allclose(result.eigenvalues, pencil.values[:6], rtol=1e-10)
    assert 4 * int(result.info.steps) < int(plain.info.steps)


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray])
def test_a_vector_is_a_diagonal_matrix(make):
    a, m = np.linspace(2.0, 9.0, N)[::-1], 1 + np.arange(N) / N
    result = partial_eigh(make(a), make(m), K)
    expected = np.sort(a / m)[:K]
    np.testing.assert_allclose(result.eigenvalues, expected, rtol=1e-12)
    full = partial_eigh(make(np.diag(a)), make(np.diag(m)), K)
    np.testing.assert_allclose(result.eigenvalues, full.eigenvalues, rtol=1e-12)
    np.testing.assert_allclose(
        np.abs(result.eigenvectors), np.abs(full.eigenvectors), rtol=0, atol=1e-12
    )


def test_forms_may_be_mixed():
    result = partial_eigh(closure(PENCIL.A), scipy.sparse.csr_array(PENCIL.M), K, method="dense")
    np.testing.assert_allclose(result.eigenvalues, PENCIL.values[:K], rtol=1e-11)


def test_complex_operators_by_their_product():
    pencil = spectra.pencil(np.arange(1.0, N + 1), dtype=complex, condition=10.0, seed=3)
    a, m = BlockProduct(closure(pencil.A)), FORMS["BCOO"](pencil.M)
    result = partial_eigh(a, m, K, method="dense")
    assert result.eigenvectors.dtype == np.complex128
    np.testing.assert_allclose(result.eigenvalues, pencil.values[:K], rtol=1e-11)
    vector = closure(pencil.A)
    result = partial_eigh(vector, k=K, n=N, dtype=complex, method="dense")
    np.testing.assert_allclose(result.eigenvalues, np.linalg.eigvalsh(pencil.A)[:K], rtol=1e-11)


def test_what_n_and_dtype_come_from():
    single = np.ones(N, np.float32)
    by_guess = partial_eigh(lambda v: 2 * v, k=1, v0=single)
    assert by_guess.eigenvectors.shape == (N, 1)
    assert by_guess.eigenvectors.dtype == np.float32
    by_default = partial_eigh(lambda v: 2 * v, k=1, n=N)
    assert by_default.eigenvectors.dtype == np.float64
    by_name = partial_eigh(lambda v: 2 * v, k=1, n=N, dtype=np.complex64)
    assert by_name.eigenvectors.dtype == np.complex64
    assert by_name.eigenvalues.dtype == np.float32


def test_a_block_product_is_traced_at_the_widths_it_is_used_for():
    widths = []

    def product(block):
        widths.append(block.shape)
        return PENCIL.A @ block

    operator = as_operator(BlockProduct(product), N, FLOAT, "A", widths=(5, 1, 3, 3))
    assert sorted(widths) == [(N, 1), (N, 3), (N, 5)]
    block = np.random.default_rng(0).standard_normal((N, 11))
    for width in range(1, 12):
        np.testing.assert_allclose(
            operator(jnp.asarray(block[:, :width])), PENCIL.A @ block[:, :width], atol=1e-12
        )
    assert len(widths) == 3


# -- closures over values that are traced themselves ----------------------------------------------


MASS = np.diag(np.linspace(0.5, 1.5, N))  # how the mass of the tests below depends on theta


def moving(form, theta, matrix, direction):
    """Give ``matrix + theta * direction`` in one of the forms that may hold a traced theta."""
    matrix, direction = jnp.asarray(matrix), jnp.asarray(direction)
    if form == "function":
        return lambda v: matrix @ v + theta * (direction @ v)
    if form == "block":
        return BlockProduct(lambda v: matrix @ v + theta * (direction @ v))
    if form == "Partial that closes over":
        return Partial(lambda c, v: c @ v + theta * (direction @ v), matrix)
    total = matrix + theta * direction
    if form == "BCOO":
        indices = np.indices((N, N)).reshape(2, -1).T
        return BCOO((total.reshape(-1), jnp.asarray(indices)), shape=(N, N))
    return {".mv": Lineax, "pytree": Coordinates.of}[form](total)


@pytest.mark.parametrize(
    ("form", "generalised"),
    [
        ("function", True),
        ("block", True),
        (".mv", False),
        ("Partial that closes over", False),
        ("pytree", False),
        ("BCOO", False),
    ],
)
def test_traced_values_inside_operators(form, generalised):
    """Under jit, vmap and grad: values against SciPy, slopes x^T (A' - lam M') x."""

    def eigenvalues(theta):
        a = moving(form, theta, PENCIL.A, SECOND.A)
        m = moving(form, theta, PENCIL.M, MASS) if generalised else None
        return partial_eigh(a, m, K, n=N, dtype=float, method="dense").eigenvalues

    def both(theta):
        w, pull = jax.vjp(eigenvalues, theta)
        (slopes,) = jax.vmap(pull)(jnp.eye(K))
        return w, slopes

    thetas = np.array([0.0, 0.3])
    values, slopes = jax.jit(jax.vmap(both))(thetas)
    for theta, w, slope in zip(thetas, values, slopes, strict=True):
        mass = PENCIL.M + theta * MASS if generalised else None
        expected, x = spectra.reference(PENCIL.A + theta * SECOND.A, mass)
        expected, x = expected[:K], x[:, :K]
        np.testing.assert_allclose(w, expected, rtol=1e-11)
        moved = SECOND.A @ x - (MASS @ x * expected if generalised else 0)
        np.testing.assert_allclose(slope, np.sum(x * moved, axis=0), rtol=1e-9)


def test_a_traced_preconditioner_and_guess():
    """Both may be traced; neither has a derivative."""
    inverse = jnp.asarray(spectra.hermitian(np.linalg.inv(PENCIL.A)))
    guess = jnp.asarray(np.random.default_rng(0).standard_normal((N, 2)))

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def value(scale, v0):
        result = partial_eigh(
            PENCIL.A,
            PENCIL.M,
            K,
            method="lobpcg",
            v0=v0,
            preconditioner=lambda v: scale * (inverse @ v),
        )
        return jnp.sum(result.eigenvalues)

    w, (by_scale, by_guess) = value(jnp.array(2.0), guess)
    np.testing.assert_allclose(w, np.sum(PENCIL.values[:K]), rtol=1e-11)
    assert by_scale == 0
    np.testing.assert_array_equal(by_guess, np.zeros((N, 2)))
