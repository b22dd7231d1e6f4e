"""Blocks of vectors: norms, projections, orthonormalisation, Rayleigh-Ritz."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given

from jax_peig._core import blocks, tolerances
from tests.support import spectra

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]
N, B = 40, 6
# Inner products over N terms and products of order B matrices round to no more than this many eps.
TERMS = N + B


def draw(dtype, seed: int, width: int = B, n: int = N) -> np.ndarray:
    rng = np.random.default_rng(seed)
    block = rng.standard_normal((n, width))
    if np.issubdtype(dtype, np.complexfloating):
        block = block + 1j * rng.standard_normal((n, width))
    return block.astype(dtype)


def mass_matrix(dtype, condition: float, seed: int = 0) -> np.ndarray:
    """Hermitian positive definite, of norm one."""
    u = spectra.unitary(np.random.default_rng(seed), N, np.issubdtype(dtype, np.complexfloating))
    mass = u * np.logspace(0, -np.log10(condition), N) @ u.conj().T
    return spectra.hermitian(mass).astype(dtype)


def gram_of(block, dual) -> np.ndarray:
    """V^H M V in double precision: the test adds no rounding to what is tested."""
    return np.asarray(block, np.complex128).conj().T @ np.asarray(dual, np.complex128)


# Compiled once for each shape and dtype, whatever hypothesis draws.
orthonormalize = jax.jit(blocks.orthonormalize)
orthonormalize_against = jax.jit(blocks.orthonormalize_against)
orthonormalizer = jax.jit(blocks.orthonormalizer)
rayleigh_ritz = jax.jit(blocks.rayleigh_ritz)


# -- columns and norms -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms(dtype):
    eps = np.finfo(dtype).eps
    block = draw(dtype, 0)
    exact = np.linalg.norm(block.astype(np.complex128), axis=0)
    np.testing.assert_allclose(blocks.column_norms(block), exact, rtol=TERMS * eps)
    size = jnp.asarray(exact.max(), np.finfo(dtype).dtype)
    np.testing.assert_allclose(blocks.scaled_norms(block, size), exact, rtol=TERMS * eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_squares_neither_overflow_nor_underflow(dtype):
    info = np.finfo(dtype)
    # XLA flushes what is below the smallest normal number: eps of the lower size.
    for size in (info.max / 100, info.tiny / info.eps):
        block = jnp.asarray(draw(dtype, 1) * size.astype(info.dtype) / 10)
        expected = np.linalg.norm(np.asarray(block) / size, axis=0)
        found = np.asarray(blocks.column_norms(block) / size)
        np.testing.assert_allclose(found, expected, rtol=TERMS * info.eps)
        unit = np.linalg.norm(np.asarray(blocks.unit_columns(block)), axis=0)
        np.testing.assert_allclose(unit, 1, rtol=TERMS * info.eps)


def test_unit_columns_drop_what_is_short():
    block = np.diag([1.0, 1e-3, 0.0, 2.0])
    np.testing.assert_array_equal(blocks.unit_columns(block), np.diag([1.0, 1.0, 0.0, 1.0]))
    dropped = blocks.unit_columns(block, least=1e-2)
    np.testing.assert_array_equal(dropped, np.diag([1.0, 0.0, 0.0, 1.0]))
    np.testing.assert_array_equal(blocks.nonzero_columns(dropped), [True, False, False, True])


def test_columns_are_scaled_and_replaced():
    block, other = jnp.ones((3, 2)), 2 * jnp.ones((3, 2))
    mask = jnp.array([True, False])
    np.testing.assert_array_equal(blocks.where_columns(mask, block, other)[0], [1, 2])
    np.testing.assert_array_equal(blocks.where_columns(mask, block)[0], [1, 0])
    np.testing.assert_array_equal(blocks.scale_columns(block, jnp.array([3.0, 4.0]))[0], [3, 4])


# -- projections -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_projection_twice_leaves_rounding(dtype):
    """Also of a column that is in the span but for eps^{1/2}: once leaves eps^{1/2} of it."""
    eps = float(np.finfo(dtype).eps)
    mass = mass_matrix(np.complex128, 10.0)
    mass = (mass if np.issubdtype(dtype, np.complexfloating) else mass.real).astype(dtype)
    v = draw(np.complex128, 2) if np.issubdtype(dtype, np.complexfloating) else draw(float, 2)
    lower = np.linalg.cholesky(gram_of(v, mass.astype(np.complex128) @ v))
    if not np.issubdtype(dtype, np.complexfloating):
        lower = lower.real
    basis = (v @ np.linalg.inv(lower).conj().T).astype(dtype)
    dual = mass @ basis
    close = basis[:, :2] + dtype(eps**0.5) * draw(dtype, 3, 2)
    left = blocks.project_out(close, basis, dual, passes=2)
    inside = gram_of(dual, left)
    # What is left has the size of eps^{1/2}, and the basis the rounding of its own making.
    size = np.linalg.norm(left, axis=0).max() * np.linalg.norm(dual, 2)
    assert np.abs(inside).max() <= 10 * TERMS * eps * size


# -- orthonormal blocks ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@given(power=st.floats(0, 1), dependent=st.integers(0, 3), seed=st.integers(0, 99))
def test_orthonormalize(dtype, power, dependent, seed):
    """Twice gives rounding, whatever the condition of the block, and drops dependent columns."""
    eps = float(np.finfo(dtype).eps)
    condition = 10.0
    mass = jnp.asarray(mass_matrix(dtype, condition))
    block = draw(dtype, seed)
    # A direction whose part is eps^{power} of the others': kept or dropped, never half.
    block[:, 1] = block[:, 0] + dtype(eps**power) * block[:, 1]
    for i in range(dependent):
        block[:, -1 - i] = block[:, 0]
    q, dual = jnp.asarray(block), mass @ block
    for _ in range(2):
        q, dual, negative = orthonormalize(q, dual)
        assert not bool(negative)
        dual = mass @ q
    alive = np.asarray(blocks.nonzero_columns(q))
    assert B - dependent - 1 <= alive.sum() <= B - dependent
    expected = np.diag(alive.astype(float))
    bound = 10 * TERMS * eps * condition
    np.testing.assert_allclose(gram_of(q, mass @ q), expected, rtol=0, atol=bound)
    assert np.all(np.diff(alive.astype(int)) <= 0)  # zero columns come last


@pytest.mark.parametrize("dtype", DTYPES)
def test_orthonormalize_keeps_the_span(dtype):
    eps = float(np.finfo(dtype).eps)
    block = draw(dtype, 5)
    q, dual, _ = blocks.orthonormalize(jnp.asarray(block), jnp.asarray(block))
    exact, _ = np.linalg.qr(block.astype(np.complex128))
    outside = np.asarray(q) - exact @ gram_of(exact, q)
    assert np.abs(outside).max() <= 10 * TERMS * eps * np.linalg.cond(block)
    np.testing.assert_allclose(dual, q, rtol=0, atol=TERMS * eps)


def test_orthonormalize_drops_short_columns_and_sees_a_negative_mass():
    block = jnp.asarray(np.diag([1.0, 1e-9, 2.0]))
    q, _, negative = blocks.orthonormalize(block, block, least=1e-6)
    np.testing.assert_array_equal(np.sort(blocks.nonzero_columns(q)), [False, True, True])
    assert not bool(negative)
    mass = jnp.asarray(np.diag([1.0, -1.0, 1.0]))
    assert bool(blocks.orthonormalize(block, mass @ block)[2])


@pytest.mark.parametrize("dtype", DTYPES)
@given(inside=st.integers(0, B), power=st.floats(0, 2), seed=st.integers(0, 99))
def test_orthonormalize_against(dtype, inside, power, seed):
    """Columns in the span of the basis, but for eps^{power}, are dropped or made orthogonal."""
    eps = float(np.finfo(dtype).eps)
    basis, _ = np.linalg.qr(draw(dtype, 7, 5))
    block = draw(dtype, seed)
    block[:, :inside] = basis[:, :1] + dtype(eps**power) * block[:, :inside]
    q = orthonormalize_against(jnp.asarray(block), jnp.asarray(basis))
    alive = np.asarray(blocks.nonzero_columns(q))
    assert alive.sum() >= B - inside
    assert np.all(np.diff(alive.astype(int)) <= 0)
    bound = 10 * TERMS * eps
    np.testing.assert_allclose(gram_of(q, q), np.diag(alive.astype(float)), rtol=0, atol=bound)
    assert np.abs(gram_of(basis, q)).max() <= bound


@pytest.mark.parametrize("dtype", DTYPES)
def test_inverse_root(dtype):
    eps = float(np.finfo(dtype).eps)
    error = 1e-3 * spectra.hermitian(draw(dtype, 8, B, B))
    g = (np.eye(B) + error).astype(dtype)
    g[2], g[:, 2] = 0, 0
    root, alive = blocks.inverse_root(jnp.asarray(g))
    expected = np.diag((np.arange(B) != 2).astype(float))
    np.testing.assert_array_equal(alive, np.diagonal(expected) > 0)
    # One Newton step leaves 3/4 of the error squared.
    bound = np.linalg.norm(error, 2) ** 2 + 10 * B * eps
    left = np.asarray(root) @ g @ np.asarray(root) - expected
    assert np.linalg.norm(left, 2) <= bound


def test_inverse_factor():
    g = spectra.hermitian(draw(complex, 9, B, B) + 20 * np.eye(B))
    (inverse,) = blocks.inverse_factor(jnp.asarray(g))
    rounding = 100 * B * np.finfo(float).eps * np.linalg.cond(g)
    np.testing.assert_allclose(inverse @ g @ inverse.conj().T, np.eye(B), atol=rounding)
    (broken,) = blocks.inverse_factor(jnp.asarray(-g))
    assert np.all(np.isnan(np.diagonal(broken)))


# -- Rayleigh-Ritz ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@given(values=st.lists(st.integers(-5, 5), min_size=B, max_size=B), seed=st.integers(0, 99))
def test_rayleigh_ritz_of_a_pencil(dtype, values, seed):
    """Against SciPy, with repeated values among them; C is M-orthonormal."""
    eps = float(np.finfo(dtype).eps)
    complex_ = np.issubdtype(dtype, np.complexfloating)
    u = spectra.unitary(np.random.default_rng(seed), B, complex_)
    w = spectra.unitary(np.random.default_rng(seed + 1), B, complex_)
    condition = 10.0
    root = w * np.logspace(0, -0.5, B) @ w.conj().T
    h = spectra.hermitian(root @ (u * np.array(values, float)) @ u.conj().T @ root).astype(dtype)
    g = spectra.hermitian(root @ root).astype(dtype)
    whitener, _ = orthonormalizer(jnp.asarray(g))
    theta, c = rayleigh_ritz(jnp.asarray(h), whitener=whitener)
    expected = scipy.linalg.eigh(
        h.astype(np.complex128), g.astype(np.complex128), eigvals_only=True
    )
    bound = 100 * B * eps * condition
    np.testing.assert_allclose(theta, expected, rtol=0, atol=bound * max(1, np.abs(values).max()))
    np.testing.assert_allclose(gram_of(c, g @ c), np.eye(B), rtol=0, atol=bound)
    np.testing.assert_allclose(
        gram_of(c, h @ c), np.diag(expected), rtol=0, atol=bound * max(1, np.abs(values).max())
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropped_directions_come_above_all_others(dtype):
    eps = float(np.finfo(dtype).eps)
    h = spectra.hermitian(draw(dtype, 10, B, B))
    alive = np.array([True, False, True, True, False, True])
    h[~alive], h[:, ~alive] = 0, 0
    theta, c = blocks.rayleigh_ritz(jnp.asarray(h), alive=jnp.asarray(alive))
    expected = np.linalg.eigvalsh(h[np.ix_(alive, alive)].astype(np.complex128))
    scale = np.abs(h).sum(axis=1).max()
    np.testing.assert_allclose(theta[:4], expected, rtol=0, atol=100 * B * eps * scale)
    assert np.all(np.asarray(theta[4:]) > scale)
    np.testing.assert_array_equal(c[~alive], 0)
    np.testing.assert_allclose(gram_of(c[:, :4], c[:, :4]), np.eye(4), atol=100 * B * eps)
    # All of them: zero is no eigenvalue of nothing.
    theta, c = blocks.rayleigh_ritz(jnp.zeros((B, B), dtype), alive=jnp.zeros(B, bool))
    assert np.all(np.asarray(theta) > 0)
    np.testing.assert_array_equal(c, 0)


@pytest.mark.parametrize("dtype", [np.float64, np.complex64])
def test_columns_are_put_behind_others_where_values_tie(dtype):
    """Columns 0 and 1 have the value 1, as 2 and 3 have, mixed by any rotation otherwise."""
    eps = float(np.finfo(dtype).eps)
    h = jnp.asarray(np.diag([1.0, 1.0, 1.0, 1.0, 2.0, 0.5]).astype(dtype))
    behind = jnp.where(jnp.arange(B) >= 2, eps**0.75, 0)
    theta, c = blocks.rayleigh_ritz(h, alive=jnp.ones(B, bool), behind=behind)
    np.testing.assert_allclose(theta, [0.5, 1, 1, 1, 1, 2], rtol=0, atol=10 * eps**0.75)
    first = np.abs(np.asarray(c[:2, 1:3])) ** 2
    np.testing.assert_allclose(np.sum(first), 2, rtol=0, atol=100 * B * eps)


@pytest.mark.parametrize("function", [blocks.eigh, blocks.svd, blocks.inverse_factor])
def test_a_batch_is_each_of_its_members(function):
    matrices = np.stack(
        [spectra.hermitian(draw(float, i, B, B) + 20 * np.eye(B)) for i in range(3)]
    )
    batch = jax.vmap(lambda a: function(a))(jnp.asarray(matrices))
    for i, matrix in enumerate(matrices):
        for whole, own in zip(batch, function(jnp.asarray(matrix)), strict=True):
            np.testing.assert_allclose(whole[i], own, rtol=0, atol=1e3 * B * tolerances.eps(float))


@given(st.lists(st.booleans(), min_size=5, max_size=5))
def test_leading(mask):
    np.testing.assert_array_equal(jax.jit(blocks.leading)(np.array(mask)), np.cumprod(mask) > 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_diagonal(dtype):
    matrix = draw(dtype, seed=8, n=B)
    matrix[0, 1] = np.nan  # beside the diagonal
    np.testing.assert_array_equal(blocks.diagonal(jnp.asarray(matrix)), np.diag(matrix).real)
