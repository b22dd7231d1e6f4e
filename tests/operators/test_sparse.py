"""SciPy matrices as operators: the product, its derivatives, and what is compiled anew."""

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from jax_peig import partial_eigh
from jax_peig._core.types import FLOATING
from jax_peig._operators import sparse
from jax_peig._operators.given import order_and_dtype
from jax_peig._operators.sparse import SparseOperator, from_scipy
from tests.support import spectra

# -- matrices -------------------------------------------------------------------------------------


def laplacian(edge):
    """The 5-point Laplacian of a square: five diagonals."""
    one = scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(edge, edge))
    return scipy.sparse.csr_array(scipy.sparse.kronsum(one, one))


def regular(n, width, m=None, seed=0):
    """The same number of entries in each row, anywhere."""
    rng = np.random.default_rng(seed)
    m = n if m is None else m
    columns = np.concatenate([rng.choice(m, width, replace=False) for _ in range(n)])
    rows = np.repeat(np.arange(n), width)
    return scipy.sparse.csr_array((rng.standard_normal(n * width), (rows, columns)), shape=(n, m))


def irregular(n, seed=0):
    """A few entries a row, some rows empty, and one row and column full."""
    rng = np.random.default_rng(seed)
    matrix = scipy.sparse.lil_array(scipy.sparse.random_array((n, n), density=3 / n, rng=rng))
    matrix[[2, n - 1], :] = 0.0
    matrix[:, 5] = rng.standard_normal((n, 1))
    matrix[7, :] = rng.standard_normal(n)
    return scipy.sparse.csr_array(matrix)


def ring(n):
    """Fifteen diagonals and two entries of the far corners."""
    offsets = np.arange(-7, 8)
    inner = scipy.sparse.diags_array(1.0 / (offsets + 8.5), offsets=offsets, shape=(n, n))
    corners = scipy.sparse.coo_array(([-1.0, -0.5], ([0, n - 1], [n - 1, 0])), shape=(n, n))
    return inner + corners


# Each with the layout that it is expected to get: diagonals or rows, with a list or without.
MATRICES = {
    "stencil": (laplacian(6), "diagonals"),
    "ring": (ring(40), "diagonals and a list"),
    "regular rows": (regular(40, 4), "rows"),
    "irregular rows": (irregular(40), "rows and a list"),
    "wide rows": (regular(20, 37, 60), "rows"),
    "tall": (regular(30, 3, 12), "rows"),
    "flat": (regular(12, 3, 30), "rows"),
    "tall diagonal": (scipy.sparse.eye_array(9, 4) * 3.0, "diagonals"),
    "flat diagonal": (scipy.sparse.eye_array(4, 9, k=3) * 3.0, "diagonals"),
    "one by one": (scipy.sparse.csr_array([[2.5]]), "diagonals"),
    "no entries": (scipy.sparse.csr_array((4, 6)), "diagonals"),
    "no rows": (scipy.sparse.csr_array((0, 3)), "diagonals"),
    "no columns": (scipy.sparse.csr_array((3, 0)), "diagonals"),
    "nothing": (scipy.sparse.csr_array((0, 0)), "diagonals"),
    "one row": (scipy.sparse.csr_array(np.eye(100)[:, [3]] * np.ones((1, 50))), "a list"),
}


def layout(operator):
    assert (operator.columns is None) == (operator.offsets is not None)
    main = "diagonals" if operator.columns is None else "rows"
    if not operator.listed.size:
        return main
    return f"{main} and a list" if operator.stored.size else "a list"


def draw(shape, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    if np.issubdtype(dtype, np.complexfloating):
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def csr(matrix):
    """The canonical form, to which values refer."""
    matrix = scipy.sparse.csr_array(matrix, copy=True)
    matrix.sum_duplicates()
    return matrix


# -- the product ----------------------------------------------------------------------------------


@jax.jit
def matvecs(operator, block, above):
    """A X, A x, A itself, and A^T Y by JAX's transposition."""
    (pulled,) = jax.linear_transpose(lambda x: operator @ x, block)(above)
    return operator @ block, operator @ block[:, 0], operator.todense(), pulled


@pytest.mark.parametrize("name", MATRICES)
def test_products(name):
    """With vectors and blocks, of the matrix and of its transpose."""
    matrix, expected = MATRICES[name]
    operator, dense = from_scipy(matrix), matrix.toarray()
    assert layout(operator) == expected
    assert (operator.shape, operator.ndim, operator.nnz) == (matrix.shape, 2, matrix.nnz)
    for made, by in ((operator, dense), (operator.T, dense.T)):
        assert made.shape == by.shape
        block, above = draw((by.shape[1], 2)), draw((by.shape[0], 2))
        of_block, of_vector, itself, pulled = matvecs(made, block, above)
        np.testing.assert_array_equal(itself, by)
        np.testing.assert_allclose(of_block, by @ block, rtol=0, atol=1e-13)
        np.testing.assert_allclose(of_vector, by @ block[:, 0], rtol=0, atol=1e-13)
        np.testing.assert_allclose(pulled, by.T @ above, rtol=0, atol=1e-13)


FORMATS = ("csr", "csc", "coo", "dia", "bsr", "lil", "dok")


@pytest.mark.parametrize("kind", [scipy.sparse.csr_array, scipy.sparse.csr_matrix])
@pytest.mark.parametrize("form", FORMATS)
def test_every_format(form, kind):
    matrix = kind(irregular(12)).asformat(form)
    before = matrix.copy()
    operator = from_scipy(matrix)
    np.testing.assert_array_equal(operator.todense(), matrix.toarray())
    np.testing.assert_array_equal(operator.values, csr(matrix).data)
    assert type(matrix) is type(before)
    assert (matrix != before).nnz == 0


@jax.jit
def with_all_dtypes(operator, blocks):
    return [operator @ block for block in blocks]


@pytest.mark.parametrize("dtype", FLOATING)
def test_dtypes(dtype):
    """The operator's, the vectors' and the larger one; complex entries and their adjoint."""
    matrix = irregular(30).astype(dtype)
    matrix.data = draw(matrix.nnz, dtype)
    operator, dense = from_scipy(matrix), matrix.toarray()
    assert layout(operator) == "rows and a list"
    assert operator.dtype == dtype
    np.testing.assert_array_equal(operator.todense(), dense)
    np.testing.assert_array_equal(operator.H.todense(), dense.conj().T)
    blocks = [draw((30, 2), other) for other in FLOATING]
    for block, got in zip(blocks, with_all_dtypes(operator, blocks), strict=True):
        assert got.dtype == np.promote_types(dtype, block.dtype)
        single = got.dtype in (np.float32, np.complex64)
        np.testing.assert_allclose(got, dense @ block, rtol=0, atol=2e-5 if single else 1e-12)


def test_duplicates_are_summed_and_zeros_stay():
    rows, columns, data = [1, 0, 1, 2, 1], [2, 0, 2, 1, 0], [1.0, 2.0, 4.0, 0.0, -1.0]
    matrix = scipy.sparse.coo_array((data, (rows, columns)), shape=(3, 3))
    operator = from_scipy(matrix)
    np.testing.assert_array_equal(operator.values, [2.0, -1.0, 5.0, 0.0])
    np.testing.assert_array_equal(operator.todense(), matrix.toarray())
    changed = operator.with_values(np.array([1.0, 2.0, 3.0, 4.0]))
    np.testing.assert_array_equal(changed.todense(), [[1, 0, 0], [2, 0, 3], [0, 4, 0]])
    unsorted = scipy.sparse.csr_array((np.array([1.0, 2.0]), [2, 0], [0, 2, 2, 2]), shape=(3, 3))
    np.testing.assert_array_equal(from_scipy(unsorted).values, [2.0, 1.0])
    assert unsorted.indices.tolist() == [2, 0]  # not ours to change


def test_nan_stays_where_it_is_used():
    """At least in a product by rows: the zeros between the entries touch what the row touches."""
    matrix = regular(40, 4) + scipy.sparse.coo_array(([1.0], ([3], [11])), shape=(40, 40))
    x = np.ones(40)
    x[0] = np.nan
    np.testing.assert_array_equal(np.isnan(from_scipy(matrix) @ x), np.isnan(matrix @ x))


def test_without_double_precision():
    """As in ``jnp.asarray``, double becomes single."""
    with jax.enable_x64(False):
        operator = from_scipy(laplacian(4))
        assert operator.dtype == np.float32
        assert (operator @ np.ones(16)).dtype == np.float32


def test_repr_is_short():
    assert repr(from_scipy(ring(40))) == (
        "SparseOperator(shape=(40, 40), nnz=546, dtype=float64, layout='15 diagonals, 2 listed')"
    )
    assert "4 a row" in repr(from_scipy(regular(40, 4)))


# -- derivatives and transformations --------------------------------------------------------------

LAYOUTS = ("stencil", "ring", "tall", "irregular rows", "wide rows")


@pytest.mark.parametrize("name", LAYOUTS)
def test_derivatives_in_values(name):
    """Of y = A(v) X: forward dy = A(dv) X; reverse g_i = y'_r x_c; and in X; under jit too."""
    matrix = csr(MATRICES[name][0])
    operator, (n, m) = from_scipy(matrix), matrix.shape
    rows, columns = matrix.tocoo().coords
    values, moved = draw((2, matrix.nnz), seed=1)
    x, dx, cotangent = draw((m, 2)), draw((m, 2), seed=2), draw((n, 2), seed=3)

    def product(v, x):
        return operator.with_values(v) @ x

    def dense(v):
        return scipy.sparse.csr_array((v, (rows, columns)), shape=(n, m)).toarray()

    @jax.jit
    def derivatives(v, x, dv, dx, cotangent):
        y, slope = jax.jvp(product, (v, x), (dv, dx))
        return y, slope, *jax.vjp(product, v, x)[1](cotangent)

    y, slope, by_values, by_x = derivatives(values, x, moved, dx, cotangent)
    np.testing.assert_allclose(y, dense(values) @ x, rtol=0, atol=1e-12)
    np.testing.assert_allclose(slope, dense(moved) @ x + dense(values) @ dx, rtol=0, atol=1e-12)
    expected = np.sum(cotangent[rows] * x[columns], axis=1)
    np.testing.assert_allclose(by_values, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(by_x, dense(values).T @ cotangent, rtol=0, atol=1e-12)


def test_values_return():
    operator = from_scipy(irregular(20))
    values = draw(operator.nnz)
    np.testing.assert_array_equal(operator.with_values(values).values, values)
    slopes = jax.grad(lambda v: jnp.vdot(values, operator.with_values(v).values))(values)
    np.testing.assert_array_equal(slopes, values)


def test_second_derivative_in_complex_values():
    """Of |A(v) x|^2 along a line, a parabola, against its coefficients."""
    operator = from_scipy(irregular(20).astype(complex))
    v, d, x = draw(operator.nnz, complex), draw(operator.nnz, complex, 1), draw(20, complex, 2)

    def along(t):
        values = v + t.astype(complex) * d
        return jnp.sum(jnp.abs(operator.with_values(values) @ x) ** 2)

    got = jax.jit(jax.grad(jax.grad(along)))(0.3)
    expected = 2 * np.linalg.norm(operator.with_values(d).todense() @ x) ** 2
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("name", LAYOUTS[:4])
def test_vmap(name):
    """Over vectors as rows and as columns, over values, and over whole operators."""
    matrix = csr(MATRICES[name][0])
    vectors, batch = draw((3, matrix.shape[1])), draw((3, matrix.nnz))

    @jax.jit
    def batched(operator, vectors, batch):
        rows = jax.vmap(lambda x: operator @ x)(vectors)
        columns = jax.vmap(lambda x: operator @ x, in_axes=1, out_axes=1)(vectors.T)
        made = jax.vmap(operator.with_values)(batch)
        assert isinstance(made, SparseOperator)
        return rows, columns, jax.vmap(lambda a, x: a @ x)(made, vectors)

    rows, columns, pairs = batched(from_scipy(matrix), vectors, batch)
    for found in (rows, columns.T):
        np.testing.assert_allclose(found, vectors @ matrix.toarray().T, rtol=0, atol=1e-12)
    for values, x, got in zip(batch, vectors, pairs, strict=True):
        changed = scipy.sparse.csr_array((values, matrix.indices, matrix.indptr), matrix.shape)
        np.testing.assert_allclose(got, changed @ x, rtol=0, atol=1e-12)


def test_inside_a_loop():
    """As solvers use it: ten products in one compiled loop, with the operator as an argument."""

    @jax.jit
    def power(operator, x):
        return jax.lax.fori_loop(0, 10, lambda _, x: operator @ x / 8.0, x)

    for name in ("stencil", "irregular rows"):
        matrix = csr(MATRICES[name][0])
        x = draw((matrix.shape[1], 2))
        expected = np.linalg.matrix_power(matrix.toarray() / 8.0, 10) @ x
        got = power(from_scipy(matrix), x)
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12 * np.abs(expected).max())


# -- compiling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYOUTS[:4])
def test_compiles_once_for_a_pattern(name):
    """Converted anew, with other values, or with a pattern of the same arrangement."""
    matrix, count = csr(MATRICES[name][0]), 0

    @jax.jit
    def product(operator, x):
        nonlocal count
        count += 1  # when traced
        return operator @ x

    def check(other, operator):
        x = np.ones(matrix.shape[1])
        np.testing.assert_allclose(product(operator, x), other @ x, rtol=0, atol=1e-12)

    first, again = from_scipy(matrix), from_scipy(matrix * 2.0)
    assert jax.tree.structure(first) == jax.tree.structure(again)
    assert hash(jax.tree.structure(first)) == hash(jax.tree.structure(again))
    check(matrix, first)
    check(matrix * 2.0, again)
    check(matrix * 3.0, first.with_values(3.0 * matrix.data))
    assert count == 1
    if name == "tall":  # another pattern of the same shape: indices are data
        other = regular(30, 3, 12, seed=9)
        check(other, from_scipy(other))
        assert count == 1
    if name == "stencil":  # other diagonals are another program
        check(matrix[:, ::-1], from_scipy(matrix[:, ::-1]))
        assert count == 2


def test_pattern_is_no_constant_of_the_program():
    operator = from_scipy(regular(400, 4))
    traced = jax.make_jaxpr(lambda a, x: a @ x)(operator, np.ones(400))
    assert all(np.size(constant) < 10 for constant in traced.consts)


# -- errors ---------------------------------------------------------------------------------------

STENCIL = laplacian(3)

ERRORS = {
    "dense": (lambda: from_scipy(np.eye(3)), TypeError, ["S is of type ndarray", "csr_array(S)"]),
    "integer": (
        lambda: from_scipy(STENCIL.astype(int)),
        TypeError,
        ["S has dtype int64", "float32, float64", ".astype(float)"],
    ),
    "one axis": (
        lambda: from_scipy(scipy.sparse.coo_array(np.ones(3))),
        ValueError,
        ["S has shape (3,)", "(n, m)"],
    ),
    "vector too long": (
        lambda: from_scipy(STENCIL) @ np.ones(10),
        ValueError,
        ["shape (9, 9)", "x (10,)", "expected (9,) or (9, b)", "jax.vmap"],
    ),
    "three axes": (lambda: from_scipy(STENCIL) @ np.ones((9, 1, 1)), ValueError, ["(9, 1, 1)"]),
    "integer vector": (
        lambda: from_scipy(STENCIL) @ np.ones(9, int),
        TypeError,
        ["x has dtype int64", ".astype(float)"],
    ),
    "values": (
        lambda: from_scipy(STENCIL).with_values(np.ones(4)),
        ValueError,
        ["shape (4,)", "expected (33,)", "by rows"],
    ),
    "integer values": (
        lambda: from_scipy(STENCIL).with_values(np.ones(33, int)),
        TypeError,
        ["values has dtype int64"],
    ),
    "transposed inside jit": (
        lambda: jax.jit(lambda a: a.T.values)(from_scipy(STENCIL)),
        TypeError,
        ["the pattern is traced", "outside jit"],
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_to_do(name):
    call, kind, texts = ERRORS[name]
    with pytest.raises(kind) as caught:
        call()
    for text in texts:
        assert text in str(caught.value)


def test_too_large_for_the_indices(monkeypatch):
    monkeypatch.setattr(sparse, "MAX_PLACES", 50)
    with pytest.raises(ValueError, match="33 entries and needs 45 places"):
        from_scipy(STENCIL)


# -- partial_eigh ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["dense", "lobpcg"])
def test_partial_eigh_needs_no_order(method):
    """It is read from the operator, as from a SciPy matrix, which goes the same way."""
    matrix = laplacian(6)
    expected = np.linalg.eigvalsh(matrix.toarray())[:4]
    for made in (matrix, from_scipy(matrix)):
        result = partial_eigh(made, k=4, method=method)
        np.testing.assert_allclose(result.eigenvalues, expected, rtol=0, atol=1e-9)


def test_order_and_dtype():
    for dtype in FLOATING:
        made = from_scipy(laplacian(3).astype(dtype))
        assert order_and_dtype(made, "A") == (9, dtype)
    with pytest.raises(ValueError, match=r"A has shape \(30, 12\); expected a square"):
        partial_eigh(from_scipy(MATRICES["tall"][0]), k=2)


def test_a_real_mass_beside_a_complex_matrix():
    matrix = from_scipy(laplacian(3).astype(complex))
    result = partial_eigh(matrix, from_scipy(2.0 * laplacian(3)), k=2)
    assert result.eigenvectors.dtype == np.complex128
    np.testing.assert_allclose(result.eigenvalues, 0.5, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "dtype"),
    [
        ("dense", complex),
        pytest.param("lobpcg", float, marks=pytest.mark.slow),
        pytest.param("lobpcg", complex, marks=pytest.mark.slow),
    ],
)
def test_gradient_of_eigenpairs_in_values(method, dtype):
    """Against the dense matrix's, whose Hermitian part is taken, and finite differences."""
    rng = np.random.default_rng(4)
    dense = np.where(rng.random((30, 30)) < 0.15, draw((30, 30), dtype), 0)
    dense = dense + dense.conj().T + np.diag(np.linspace(1.0, 40.0, 30))
    matrix = csr(dense)
    rows, columns = matrix.tocoo().coords
    operator, weights = from_scipy(matrix), np.linspace(1.0, 2.0, 30)[:, None]
    direction = spectra.hermitian(draw((30, 30), dtype, 5))[rows, columns]

    def loss(a, **options):
        w, x, _ = partial_eigh(a, k=3, tol=1e-12, **options)
        return jnp.sum(jnp.sin(w)) + jnp.sum(weights * jnp.abs(x) ** 2)

    def by_values(values):
        return loss(operator.with_values(values), method=method)

    value = jax.jit(jax.value_and_grad(by_values))
    entries = value(matrix.data)[1]
    expected = jax.grad(loss)(jnp.asarray(dense))
    # JAX's gradient of a real loss is the conjugate of that in the pairing Re sum(conj(g) dA).
    full = scipy.sparse.csr_array((np.asarray(entries), (rows, columns)), shape=(30, 30)).toarray()
    got = spectra.hermitian(full)[rows, columns]
    np.testing.assert_allclose(got, np.asarray(expected)[rows, columns], rtol=0, atol=1e-6)
    slope = np.sum(entries * direction).real
    step = 1e-5
    ahead, behind = (value(matrix.data + s * step * direction)[0] for s in (1, -1))
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=0, atol=1e-6)


def test_partial_eigh_compiles_once_for_a_pattern():
    """Called eagerly with other values: for SciPy matrices and for operators."""
    seen = []

    def listen(event, _, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    matrix = laplacian(6)
    operator = from_scipy(matrix)
    changed = operator.with_values(matrix.data * 2.0)
    partial_eigh(operator, k=2).eigenvalues.block_until_ready()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        partial_eigh(changed, k=2).eigenvalues.block_until_ready()
        partial_eigh(matrix * 3.0, k=2).eigenvalues.block_until_ready()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not seen
