"""Solves with A - sigma M: right, made once, and honest where they cannot be had."""

import concurrent.futures

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse

from jax_peig import Status, operators, partial_eigh
from jax_peig._factorizations import sparse
from jax_peig._factorizations.store import FIRST_STEP
from tests.support import spectra

N = 40
SIGMA = 7.3
VALUES = np.arange(1.0, N + 1)
FORMS = ("array", "scipy", "operator", "bcoo")


@pytest.fixture(autouse=True)
def empty_store():
    """Every test makes its own factors."""
    operators.factors.clear()
    yield
    operators.factors.clear()


def in_form(matrix, form):
    if matrix is None or form == "array":
        return matrix
    made = scipy.sparse.csr_array(matrix)
    if form == "scipy":
        return made
    if form == "operator":
        return operators.from_scipy(made)
    return jax.experimental.sparse.BCOO.from_scipy_sparse(made)


def chain(n, ends=2.0):
    """A chain of springs, free where ``ends`` is one."""
    diagonal = np.r_[ends, np.full(n - 2, 2.0), ends]
    return scipy.sparse.diags_array(
        [-np.ones(n - 1), diagonal, -np.ones(n - 1)], offsets=[-1, 0, 1]
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("mass", [False, True])
def test_it_solves(form, dtype, mass):
    """For vectors and blocks, as NumPy does."""
    pencil = spectra.pencil(VALUES, dtype=dtype, condition=10.0 if mass else None)
    inverse = operators.shift_invert(in_form(pencil.A, form), SIGMA, in_form(pencil.M, form))
    assert float(inverse.pole) == SIGMA
    b = spectra.pencil(VALUES, dtype=dtype, seed=1).A[:, :3]
    expected = np.linalg.solve(pencil.A - SIGMA * pencil.mass, b)
    scale = np.linalg.cond(pencil.A - SIGMA * pencil.mass) * np.linalg.norm(expected)
    for given, right in ((b, expected), (b[:, 0], expected[:, 0])):
        found = inverse @ jnp.asarray(given)
        assert found.shape == right.shape
        np.testing.assert_allclose(found, right, rtol=0, atol=100 * np.finfo(dtype).eps * scale)


def test_a_diagonal_is_divided_by():
    """Under vmap too, which sparse matrices refuse."""
    d = jnp.arange(1.0, 6)
    found = jax.vmap(lambda s: operators.shift_invert(d, s, 2 * d) @ jnp.ones(5))(
        jnp.array([0.1, 3])
    )
    expected = [1 / (np.asarray(d) * (1 - 2 * s)) for s in (0.1, 3)]
    np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.parametrize("form", ["array", "scipy"])
def test_a_singular_shift_moves_downwards(form):
    """By the documented amount: the least eigenvalue is rounding, not zero, for LU."""
    a = chain(N, ends=1.0)
    inverse = operators.shift_invert(in_form(a.toarray(), form), 0.0, inertia=True)
    np.testing.assert_allclose(inverse.pole, -FIRST_STEP * 4, rtol=1e-12)
    assert int(inverse.negative) == 0
    found = inverse @ jnp.ones(N)  # an eigenvector
    np.testing.assert_allclose(found * FIRST_STEP * 4, 1, rtol=N * np.finfo(float).eps / FIRST_STEP)


@pytest.mark.parametrize("form", ["array", "scipy"])
def test_a_definite_one_lies_below_the_spectrum(form):
    """Wherever that begins."""
    a = chain(N).toarray() - 3.0 * np.eye(N)
    inverse = operators.shift_invert(in_form(a, form), definite=True)
    assert float(inverse.pole) < scipy.linalg.eigvalsh(a)[0]
    assert int(inverse.negative) == 0


@pytest.mark.parametrize("form", ["array", "scipy"])
@pytest.mark.parametrize("sigma", [0.5, 1.9, 3.3])
def test_the_inertia_counts(form, sigma):
    """The eigenvalues below, or it says that they are not known."""
    a = chain(N).toarray()
    count = int(np.sum(scipy.linalg.eigvalsh(a) < sigma))
    negative = int(operators.shift_invert(in_form(a, form), sigma, inertia=True).negative)
    assert negative in ({count} if form == "array" else {count, -1})


@pytest.mark.slow
@pytest.mark.parametrize("form", ["array", "scipy"])
def test_an_interval_is_counted(form):
    """Whatever repeats, as LAPACK does, with M; and every pair of the interval is found then."""
    values = np.repeat(np.arange(1.0, N / 2 + 1), 2)
    pencil = spectra.pencil(values, condition=10.0)
    a, m = (in_form(x, form) for x in (pencil.A, pencil.M))
    assert operators.count_between(a, 0.0, 100.0, m) == N
    assert operators.count_between(a, 2.5, 2.6, m) == 0
    count = operators.count_between(a, 2.5, 5.5, m)
    assert count == 6
    w = partial_eigh(a, m, count, sigma=4.0, method="shift_invert").eigenvalues
    np.testing.assert_allclose(np.sort(w), [3, 3, 4, 4, 5, 5], rtol=1e-12)


def test_no_count_without_inertia():
    """Row pivoting tells none; ends out of order have no interval."""
    a = np.kron(np.diag(np.arange(1.0, 6)), [[0.0, 1.0], [1.0, 0.0]])
    with pytest.raises(ValueError, match=r"do not tell its inertia.*Move the end"):
        operators.count_between(scipy.sparse.csr_array(a), 0.0, 2.5)
    with pytest.raises(ValueError, match="expected a < b"):
        operators.count_between(a, 2.5, 0.0)


@pytest.mark.parametrize("form", [np.asarray, np.diag, lambda d: scipy.sparse.diags_array(d)])
def test_a_count_at_an_eigenvalue_is_not_told(form):
    """Between 2 and 3 there are two below; at 3 rounding would decide."""
    factor = operators.shift_invert(form(np.arange(1.0, 9.0)), 0.5, inertia=True)
    assert int(factor.count_below(jnp.asarray(2.5))) == 2
    assert int(factor.count_below(jnp.asarray(3.0))) == -1


def test_a_factor_without_inertia_does_not_count():
    with pytest.raises(ValueError, match=r"made without inertia; expected that of shift_invert"):
        operators.shift_invert(np.arange(1.0, 9.0), 0.5).count_below(jnp.asarray(2.5))


def test_rows_are_pivoted_where_the_diagonal_fails():
    """A zero diagonal: the solve is right, and the inertia is not known."""
    a = np.kron(np.diag(np.arange(1.0, 6)), [[0.0, 1.0], [1.0, 0.0]])
    inverse = operators.shift_invert(scipy.sparse.csr_array(a), 0.0, inertia=True)
    np.testing.assert_allclose(a @ (inverse @ jnp.ones(10)), 1, rtol=1e-13)
    assert int(inverse.negative) == -1


# -- once ------------------------------------------------------------------------------------------


def made():
    return operators.factors.factorizations


@pytest.mark.slow
@pytest.mark.parametrize("second", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_value_gradient_and_second_derivatives_share_one_factor(second):
    """The entries are hashed: three programs find the same factor, and other entries do not."""
    matrix = operators.from_scipy(chain(N))
    c = jnp.linspace(0.5, 1.5, N)

    def loss(values):
        w, x, _ = partial_eigh(matrix.with_values(values), k=3, sigma=0.1, method="shift_invert")
        return jnp.sum(w) + jnp.sum(c * jnp.sum(x**2, axis=1) ** 2)

    before, values = made(), matrix.values
    jax.jit(loss)(values)
    slope = jax.jit(jax.grad(loss))(values)
    if second:
        jax.jit(lambda v, d: jax.jvp(jax.grad(loss), (v,), (d,))[1])(values, slope)
    assert made() - before == 1
    jax.jit(loss)(1.5 * values)
    assert made() - before == 2


def test_a_dropped_factor_is_made_again():
    """By the solve that misses it."""
    a = chain(N)
    inverse = operators.shift_invert(a, 0.1)
    first = inverse @ jnp.ones(N)
    before = made()
    operators.factors.clear()
    np.testing.assert_array_equal(inverse @ jnp.ones(N), first)
    assert made() - before == 1


def test_the_store_is_bounded():
    """The factor used last stays, however large it is."""
    operators.shift_invert(chain(N), 0.1)
    size = operators.factors.nbytes
    assert size > 0
    bound = operators.factors.max_bytes
    try:
        operators.factors.max_bytes = int(2.5 * size)
        inverses = [operators.shift_invert(chain(N), s) for s in (0.2, 0.3, 0.4)]
        assert len(operators.factors) == 2
        before = made()
        assert np.all(np.isfinite(inverses[-1] @ jnp.ones(N)))
        assert made() == before
    finally:
        operators.factors.max_bytes = bound


def test_threads_share_a_factor():
    """Eight at once: one factorisation."""
    a, before = chain(400), made()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: operators.shift_invert(a, 0.1) @ jnp.ones(400), range(8)))
    assert made() - before == 1
    for x in found[1:]:
        np.testing.assert_array_equal(x, found[0])


# -- where it cannot be had ------------------------------------------------------------------------


def test_vmap_over_the_entries_says_what_to_do():
    """Over right-hand sides it is fine."""
    matrix = operators.from_scipy(chain(N))
    inverse = operators.shift_invert(matrix, 0.1)
    blocks = jax.vmap(lambda s: inverse @ (s * jnp.ones(N)))(jnp.array([1.0, 2]))
    np.testing.assert_allclose(blocks[1], 2 * blocks[0], rtol=1e-13)
    with pytest.raises(NotImplementedError, match=r"2 sparse matrices.*jax.lax.map.*OPinv"):
        jax.vmap(lambda s: operators.shift_invert(matrix.with_values(s * matrix.values), 0.1).pole)(
            jnp.array([1.0, 2])
        )
    poles = jax.lax.map(
        lambda s: operators.shift_invert(matrix.with_values(s * matrix.values), 0.1).pole,
        jnp.array([1.0, 2]),
    )
    np.testing.assert_array_equal(poles, 0.1)


def test_an_accelerator_gets_no_host_code(monkeypatch):
    """An error before anything is traced."""
    monkeypatch.setattr(sparse.jax, "default_backend", lambda: "gpu")
    with pytest.raises(ValueError, match=r"JAX runs on gpu.*Give OPinv"):
        operators.shift_invert(chain(N), 0.1)


def test_an_unreferenced_vertex_is_named():
    """Eagerly by an error; behind a trace nothing finite comes out."""
    a = scipy.sparse.block_diag([chain(5), scipy.sparse.csr_array((1, 1)), chain(5)], format="csr")
    m = scipy.sparse.block_diag([np.eye(5), scipy.sparse.csr_array((1, 1)), np.eye(5)])
    with pytest.raises(ValueError, match=r"degree of freedom 5 \(1 in all\)"):
        operators.shift_invert(a, 0.1, m)
    a = operators.from_scipy(chain(5))

    @jax.jit
    def hidden(values):
        return operators.shift_invert(a.with_values(values), 0.0, jnp.zeros(5)) @ jnp.ones(5)

    assert np.all(np.isnan(hidden(jnp.zeros_like(a.values))))


def test_wrong_shapes():
    inverse = operators.shift_invert(np.eye(5), 0.1)
    with pytest.raises(ValueError, match=r"the order is 5, x has shape \(4,\); expected \(5,\)"):
        inverse @ np.ones(4)
    with pytest.raises(TypeError, match="sigma is missing"):
        operators.shift_invert(np.eye(5))


def test_nan_is_told():
    """As with every operator."""
    a = operators.from_scipy(chain(N))
    values = a.values.at[3].set(jnp.nan)
    info = partial_eigh(a.with_values(values), k=2, sigma=0.1, method="shift_invert").info
    assert int(info.status) == Status.NOT_FINITE
