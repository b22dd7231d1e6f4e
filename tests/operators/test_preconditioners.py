"""jax_peig.preconditioners: each is the matrix it is said to be, positive definite, and helps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from jax.experimental.sparse import BCOO
from jax.tree_util import Partial

from jax_peig import BlockProduct, partial_eigh
from jax_peig._operators.operator import as_operator
from jax_peig.preconditioners import (
    block_jacobi,
    fourier,
    jacobi,
    laplacian_symbol,
    polynomial,
    teter,
)
from tests.support import spectra

REAL, COMPLEX = np.float64, np.complex128
GRID = (3, 4)
N = 12


def random(*shape, dtype=REAL, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    if np.issubdtype(dtype, np.complexfloating):
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def hermitian(n=N, dtype=REAL, seed=0):
    """A Hermitian matrix, indefinite, with entries and eigenvalues of order one."""
    return spectra.hermitian(random(n, n, dtype=dtype, seed=seed)) / np.sqrt(n)


def matrix(t, dtype=REAL, n=N):
    """T as a matrix."""
    found = jax.jit(lambda block: t @ block)(np.eye(n, dtype=dtype))
    assert (found.shape, found.dtype) == ((n, n), dtype)
    return np.asarray(found)


def absolute_inverse(h):
    w, u = np.linalg.eigh(h)
    return u / np.abs(w) @ u.conj().T


def dft(shape):
    """The unitary matrix of fftn on C-ordered grid functions."""
    waves = [np.fft.fft(np.eye(n)) / np.sqrt(n) for n in shape]
    return functools.reduce(np.kron, waves)


def exact_polynomial(t, degree, a, b):
    """p(t) = (1 - q(t)) / t from the definition of q by Chebyshev polynomials."""
    value = np.polynomial.chebyshev.Chebyshev.basis(degree + 1)
    return (1 - value((a + b - 2 * t) / (b - a)) / value((a + b) / (b - a))) / t


DIAGONAL = random(N, seed=1)
SYMBOL = np.abs(random(*GRID, seed=2)) + 0.1
EVEN = np.asarray(laplacian_symbol(GRID, 0.5))
LOWER, UPPER = 0.3, 4.0


def spread(dtype):
    """A matrix with eigenvalues 0.1 to UPPER, for the polynomials."""
    return spectra.pencil(np.linspace(0.1, UPPER, N), dtype=dtype).A


def cut(h, size):
    """The diagonal blocks of h alone."""
    group = np.arange(len(h)) // size
    return np.where(group[:, None] == group[None, :], h, 0)


# name -> dtype -> (preconditioner, dense matrix); the arrays are of double precision
CASES = {
    "jacobi": lambda d: (jacobi(DIAGONAL), np.diag(1 / np.abs(DIAGONAL))),
    "jacobi, shift": lambda d: (jacobi(DIAGONAL, 0.2), np.diag(1 / np.abs(DIAGONAL - 0.2))),
    "jacobi, shifts": lambda d: (
        jacobi(DIAGONAL.astype(d), 2 * DIAGONAL + 1),
        np.diag(1 / np.abs(DIAGONAL + 1)),
    ),
    "blocks, indefinite": lambda d: (
        block_jacobi(hermitian(dtype=d), size=4),
        absolute_inverse(cut(hermitian(dtype=d), 4)),
    ),
    "blocks, the last smaller": lambda d: (
        block_jacobi(spread(d), size=5),
        np.linalg.inv(cut(spread(d), 5)),
    ),
    "polynomial": lambda d: (
        polynomial(spread(d), 4, LOWER, UPPER),
        spectra.hermitian(on_spectrum(spread(d), lambda t: exact_polynomial(t, 4, LOWER, UPPER))),
    ),
    "polynomial, odd, shift": lambda d: (
        polynomial(spread(d), 3, LOWER, UPPER, shift=-0.5),
        on_spectrum(spread(d) + 0.5 * np.eye(N), lambda t: exact_polynomial(t, 3, 0.8, 4.5)),
    ),
    "fourier, even": lambda d: (fourier(EVEN, 0.7), on_grid(1 / (EVEN + 0.7))),
    "fourier": lambda d: (
        fourier(SYMBOL),
        on_grid(1 / SYMBOL) if np.issubdtype(d, np.complexfloating) else on_grid(1 / SYMBOL).real,
    ),
}


def on_spectrum(h, function):
    w, u = np.linalg.eigh(h)
    return u * function(w) @ u.conj().T


def on_grid(symbol):
    waves = dft(GRID)
    return waves.conj().T * symbol.reshape(-1) @ waves


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
def test_is_the_dense_matrix_and_positive_definite(case, dtype):
    t, expected = CASES[case](dtype)
    found = matrix(t, dtype)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_allclose(found, found.conj().T, rtol=0, atol=1e-13 * np.abs(expected).max())
    assert np.linalg.eigvalsh(found).min() > 0


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
@pytest.mark.parametrize("case", ["jacobi", "blocks, indefinite", "polynomial", "fourier"])
def test_single_precision(case, dtype):
    """Of arrays of either precision, but for the operator of the polynomial, which is A's."""
    t, expected = CASES[case](dtype)
    np.testing.assert_allclose(
        matrix(t, dtype), expected, rtol=0, atol=2e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize("case", ["jacobi", "blocks, the last smaller", "polynomial", "fourier"])
def test_vectors_and_blocks(case):
    """By ``@`` and by a call; linear, so that its transpose is itself."""
    t, expected = CASES[case](REAL)
    v = random(N, seed=7)
    for way in (t @ v, t(jnp.asarray(v)), t(v[:, None])[:, 0]):
        assert way.shape == (N,)
        np.testing.assert_allclose(way, expected @ v, rtol=0, atol=1e-12 * np.abs(expected).max())
    (back,) = jax.vjp(t, v)[1](jnp.asarray(v))
    np.testing.assert_allclose(back, expected @ v, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_batches():
    d, v = np.abs(random(3, N, seed=5)) + 1, random(3, N, seed=6)
    np.testing.assert_allclose(jax.vmap(lambda d, v: jacobi(d) @ v)(d, v), v / d, rtol=1e-14)


# -- safeguards -----------------------------------------------------------------------------------


def test_jacobi_of_zeros():
    """An entry at the shift is taken from below; a zero diagonal is the identity."""
    found = np.diagonal(matrix(jacobi(np.array([1.0, 0.0, -4.0]), shift=0.0), n=3))
    np.testing.assert_allclose(found, [1, 1 / (400 * np.finfo(float).eps), 0.25], rtol=1e-12)
    np.testing.assert_array_equal(matrix(jacobi(np.zeros(3)), n=3), np.eye(3))
    np.testing.assert_array_equal(matrix(block_jacobi(np.zeros((2, 2, 2))), n=4), np.eye(4))


@pytest.mark.parametrize("degree", [1, 2, 5, 8])
def test_where_the_polynomial_is_positive(degree):
    """Everywhere for an even degree, below lower + upper for an odd one."""
    t = np.linspace(-6, 9, 3001)
    value = np.asarray(polynomial(jnp.asarray(t), degree, LOWER, UPPER) @ np.ones_like(t))
    if degree % 2:
        beyond = t > LOWER + UPPER
        np.testing.assert_array_equal(value > 0, ~beyond)
    else:
        assert value.min() > 0
    below = (t >= 0) & (t < LOWER)
    assert np.all(np.diff(value[below]) < 0)
    ratio = np.arccosh((UPPER + LOWER) / (UPPER - LOWER))
    largest = (degree + 1) * np.tanh((degree + 1) * ratio) / np.sqrt(LOWER * UPPER)
    np.testing.assert_allclose(value[t == 0], largest, rtol=1e-12)
    inside = (t >= LOWER) & (t <= UPPER)
    error = np.abs(1 - t * value)[inside].max()
    np.testing.assert_allclose(error, 1 / np.cosh((degree + 1) * ratio), rtol=1e-4)


def test_blocks_of_every_kind_of_matrix():
    """Explicit blocks, an array, SciPy's and JAX's sparse matrices."""
    a = np.where(np.abs(hermitian(seed=3)) > 0.1, hermitian(seed=3), 0)
    (expected,) = block_jacobi(a, size=5).leaves  # (3, 5, 5)
    coo, entries = scipy.sparse.coo_array(a), int((a != 0).sum())
    padded = BCOO.fromdense(jnp.asarray(a), nse=entries + 3)
    for given in (coo, coo.tocsr(), scipy.sparse.csc_matrix(a), padded):
        np.testing.assert_allclose(block_jacobi(given, size=5).leaves[0], expected, atol=1e-13)
    blocks = np.stack([a[i : i + 4, i : i + 4] for i in range(0, N, 4)])
    (same,) = block_jacobi(blocks).leaves
    np.testing.assert_allclose(same, block_jacobi(a, size=4).leaves[0], atol=1e-13)
    (whole,) = block_jacobi(a, size=99).leaves
    np.testing.assert_allclose(whole[0], absolute_inverse(a), rtol=1e-9)
    (ones,) = block_jacobi(a + 2 * np.eye(N), size=1).leaves
    np.testing.assert_allclose(ones[:, 0, 0], jacobi(np.diagonal(a) + 2).leaves[0], rtol=1e-14)


def test_polynomials_of_every_form_of_operator():
    a = spread(REAL)
    tilted = a + np.triu(np.ones((N, N)), 1) - np.tril(np.ones((N, N)), -1)
    forms = (
        tilted,  # of which the Hermitian part is taken
        scipy.sparse.csr_array(a),
        BCOO.fromdense(jnp.asarray(a)),
        lambda v: jnp.asarray(a) @ v,
        BlockProduct(lambda block: jnp.asarray(a) @ block),
        BlockProduct(Partial(jnp.matmul, jnp.asarray(a))),
        Partial(jnp.matmul, jnp.asarray(a)),
    )
    made = [polynomial(form, 4, LOWER, UPPER) for form in forms]
    found = jax.jit(lambda block: [t @ block for t in made])(np.eye(N))
    for one in found:
        np.testing.assert_allclose(one, CASES["polynomial"](REAL)[1], rtol=0, atol=1e-12)


def test_symbols():
    """Of the stencil as of its circulant matrix, of the derivative as of its waves; Teter's K."""
    circulant = (2 * np.eye(6) - np.roll(np.eye(6), 1, 0) - np.roll(np.eye(6), -1, 0)) / 0.5**2
    stencil = np.asarray(laplacian_symbol((6,), 0.5, "finite difference"))
    waves = dft((6,))
    np.testing.assert_allclose(waves @ circulant @ waves.conj().T, np.diag(stencil), atol=1e-13)
    k = 2 * np.pi * np.array([0, 1, -2, -1]) / (4 * 0.3)
    expected = (2 * np.pi * np.array([0, 1, -1]) / (3 * 0.5))[:, None] ** 2 + k[None, :] ** 2
    np.testing.assert_allclose(laplacian_symbol(GRID, (0.5, 0.3)), expected, rtol=1e-14)
    fine = laplacian_symbol(64, 0.01, "finite difference")[:4]
    np.testing.assert_allclose(fine, laplacian_symbol(64, 0.01)[:4], rtol=0.01)
    x = np.array([0.0, 0.3, 1.0, 1e3])
    above = 27 + 18 * x + 12 * x**2 + 8 * x**3
    np.testing.assert_allclose(1 / teter(2 * x, 2.0), above / (above + 16 * x**4), rtol=1e-14)


# -- what is refused ------------------------------------------------------------------------------

BAD = {
    "jacobi of a matrix": (
        lambda: jacobi(np.eye(3)),
        ValueError,
        ["diagonal has shape (3, 3)", "(n,), as jnp.diagonal(A)"],
    ),
    "jacobi of a list": (lambda: jacobi([1.0, 2.0]), TypeError, ["is a list", "expected an array"]),
    "jacobi of integers": (lambda: jacobi(np.arange(3)), TypeError, ["int64", ".astype(float)"]),
    "jacobi of NaN": (lambda: jacobi(np.array([1, np.nan])), ValueError, ["NaN or inf"]),
    "jacobi of nothing": (lambda: jacobi(np.zeros(0)), ValueError, ["shape (0,)"]),
    "jacobi, shift": (lambda: jacobi(np.ones(3), 1j), TypeError, ["shift is 1j", "real number"]),
    "jacobi, shifts": (
        lambda: jacobi(np.ones(3), np.ones(2)),
        ValueError,
        ["shift has shape (2,)", "expected (3,) or ()"],
    ),
    "blocks without size": (
        lambda: block_jacobi(np.eye(4)),
        TypeError,
        ["is a matrix, size is None", "size=..."],
    ),
    "sparse without size": (
        lambda: block_jacobi(scipy.sparse.eye_array(4)),
        TypeError,
        ["is a matrix, size is None"],
    ),
    "blocks not square": (
        lambda: block_jacobi(np.ones((2, 3, 4))),
        ValueError,
        ["shape (2, 3, 4)", "square blocks"],
    ),
    "blocks of no matrix": (
        lambda: block_jacobi(np.ones((2, 3)), size=2),
        ValueError,
        ["shape (2, 3)", "square matrix (n, n)"],
    ),
    "blocks with size": (
        lambda: block_jacobi(np.ones((2, 3, 3)), size=3),
        ValueError,
        ["shape (2, 3, 3)", "(n, n) with a size"],
    ),
    "size 0": (lambda: block_jacobi(np.eye(4), size=0), ValueError, ["size is 0", "at least 1"]),
    "blocks of NaN": (
        lambda: block_jacobi(np.full((1, 2, 2), np.nan)),
        ValueError,
        ["NaN or inf"],
    ),
    "degree 0": (lambda: polynomial(np.eye(3), 0, 1, 2), ValueError, ["degree is 0", "at least 1"]),
    "degree 2.0": (lambda: polynomial(np.eye(3), 2.0, 1, 2), ValueError, ["degree is 2.0"]),
    "no interval": (
        lambda: polynomial(np.eye(3), 2, 2.0, 1.0),
        ValueError,
        ["lower = 2.0, upper = 1.0", "shift < lower < upper"],
    ),
    "shift inside": (
        lambda: polynomial(np.eye(3), 2, 1.0, 2.0, shift=1.5),
        ValueError,
        ["shift = 1.5", "at or below the smallest"],
    ),
    "polynomial of text": (
        lambda: polynomial("A", 2, 1.0, 2.0),
        TypeError,
        ["polynomial: A is of type str", "expected an array"],
    ),
    "polynomial of the host's": (
        lambda: polynomial(scipy.sparse.linalg.aslinearoperator(np.eye(3)), 2, 1.0, 2.0),
        TypeError,
        ["LinearOperator", "a function of JAX arrays"],
    ),
    "upper inf": (lambda: polynomial(np.eye(3), 2, 1, np.inf), ValueError, ["upper is inf"]),
    "symbol zero": (
        lambda: fourier(laplacian_symbol(4)),
        ValueError,
        ["smallest symbol + offset is 0.0", "Give an offset"],
    ),
    "symbol of a shape": (lambda: fourier((4, 4)), TypeError, ["is a tuple", "(N1, ..., Nd)"]),
    "spacing 0": (lambda: laplacian_symbol(4, 0.0), ValueError, ["spacing is 0.0", "positive"]),
    "spacings": (lambda: laplacian_symbol((4, 4), (1, 1, 1)), ValueError, ["each of the 2 axes"]),
    "points": (lambda: laplacian_symbol((4, 0)), ValueError, ["shape is 0", "at least 1"]),
    "kind": (
        lambda: laplacian_symbol(4, kind="exact"),
        ValueError,
        ["kind='exact'", "'spectral' or 'finite difference'"],
    ),
    "negative energy": (lambda: teter(-np.ones(3), 1.0), ValueError, ["holds -1.0", "at least 0"]),
    "reference 0": (lambda: teter(np.ones(3), 0.0), ValueError, ["reference is 0.0", "positive"]),
    "another order": (
        lambda: jacobi(np.ones(3)) @ np.ones(4),
        ValueError,
        ["order 3 applied to shape (4,)", "(3,) or (3, b)"],
    ),
    "three axes": (lambda: jacobi(np.ones(3)) @ np.ones((3, 1, 1)), ValueError, ["(3,) or (3, b)"]),
    "integer vector": (lambda: jacobi(np.ones(3)) @ np.arange(3), TypeError, ["dtype int64"]),
    "real vectors": (
        lambda: block_jacobi(np.eye(4, dtype=complex), size=2) @ np.ones(4),
        TypeError,
        ["complex128 applied to float64", "give a complex dtype"],
    ),
    "partial_eigh, another order": (
        lambda: partial_eigh(jnp.eye(6), k=2, method="lobpcg", preconditioner=jacobi(np.ones(5))),
        ValueError,
        ["preconditioner applied to a block (6, 1)", "order 5 applied to shape (6, 1)"],
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_refused(what):
    call, error, words = BAD[what]
    with pytest.raises(error) as raised:
        call()
    for word in words:
        assert word in str(raised.value)


# -- in programs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_front_door(case):
    """Made under jit too; its static part is hashable, and the same for another of its shapes."""
    v = jnp.ones((N, 2))
    closed = jax.make_jaxpr(lambda v: CASES[case](REAL)[0] @ v)(v)
    assert closed.out_avals[0].shape == v.shape
    one, other = (as_operator(CASES[case](REAL)[0], N, v.dtype, "T") for _ in range(2))
    assert hash(one.product) == hash(other.product)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(one))


def test_made_of_traced_values():
    """What cannot be checked then is made positive; eigh has no derivative at repeated values."""
    found = jax.jit(lambda s, o: fourier(s, o).leaves[0])(np.array([0.0, 2.0, -4.0]), 0.0)
    np.testing.assert_allclose(found, [1 / (400 * np.finfo(float).eps), 0.5, 0.25])
    slope = jax.grad(lambda a: jnp.sum(block_jacobi(a, size=2) @ jnp.ones(4)))(jnp.eye(4))
    np.testing.assert_array_equal(slope, 0)
    made = jax.jit(lambda a, b: polynomial(spread(REAL), 4, a, b))(LOWER, UPPER)
    np.testing.assert_allclose(matrix(made), CASES["polynomial"](REAL)[1], rtol=0, atol=1e-12)


# -- in partial_eigh ------------------------------------------------------------------------------

EDGE, K = 12, 3
ORDER = EDGE**2
SPACING = 0.5


def springs(n):
    return 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)


def ladder():
    """A diagonal over three orders of magnitude, and a little coupling."""
    return np.diag(np.logspace(0, 3, ORDER)) + 0.3 * springs(ORDER)


def groups():
    """Groups of four, each with eigenvalues from about 1 to 1e3, weakly coupled."""
    factors = 1 + np.random.default_rng(4).random(ORDER // 4)
    inside = [spectra.pencil(f * np.logspace(0, 3, 4), seed=i).A for i, f in enumerate(factors)]
    return scipy.linalg.block_diag(*inside) + 0.1 * springs(ORDER)


def mesh():
    """A membrane, longer than wide."""
    one, eye = springs(EDGE), np.eye(EDGE)
    return np.kron(one, eye) + 1.3 * np.kron(eye, one)


def crystal():
    """-Laplace/2 + V on a periodic grid, V smooth, without symmetry."""
    x, y = np.meshgrid(*[np.arange(EDGE) * 2 * np.pi / EDGE] * 2, indexing="ij")
    potential = np.cos(x) + 0.7 * np.sin(y) + 0.3 * np.cos(x - 2 * y + 0.5)
    waves = dft((EDGE, EDGE))
    symbol = 0.5 * np.asarray(laplacian_symbol((EDGE, EDGE), SPACING)).reshape(-1)
    return (waves.conj().T * symbol @ waves).real + np.diag(potential.reshape(-1))


def kinetic():
    return 0.5 * laplacian_symbol((EDGE, EDGE), SPACING)


# name -> the problem, the preconditioner made of A, how many times fewer steps
PROBLEMS = {
    "jacobi": (ladder, lambda a: jacobi(jnp.diagonal(a), shift=0.5), 5.0),
    "block_jacobi": (groups, lambda a: block_jacobi(a, size=4), 5.0),
    "polynomial": (mesh, lambda a: polynomial(a, 8, 0.4, 9.5), 3.0),
    "fourier": (crystal, lambda a: fourier(kinetic(), 2.5), 2.0),
    "teter": (crystal, lambda a: fourier(teter(kinetic(), 0.5)), 2.0),
}
WEIGHTS = np.random.default_rng(8).random(ORDER)


@functools.cache
def solver():
    """(theta, A, which) -> gradient of a loss in theta of A + diag(theta), and the result.

    One program for all preconditioners, and none (``which`` of the last): they are branches of one.
    """

    def loss(theta, a, which):
        moved = a + jnp.diag(theta)
        made = [make(moved) for _, make, _ in PROBLEMS.values()]
        branches = [*(lambda block, t=t: t @ block for t in made), lambda block: block]
        preconditioner = BlockProduct(lambda block: jax.lax.switch(which, branches, block))
        result = partial_eigh(moved, k=K, method="lobpcg", preconditioner=preconditioner)
        density = jnp.sum(jnp.abs(result.eigenvectors) ** 2, axis=1)
        rough = jnp.sum(jnp.asarray(WEIGHTS) * density**2)
        return jnp.sum(result.eigenvalues) + rough, result

    return jax.jit(jax.grad(loss, has_aux=True))


def dense_gradient(a):
    """Of the same loss: x_j' = sum_{p > K} x_p (x_p^T diag(theta') x_j) / (l_j - l_p) and more."""
    lam, x = np.linalg.eigh(a)
    wanted, others = x[:, :K], x[:, K:]
    density = np.sum(wanted**2, axis=1)
    cotangent = 4 * (WEIGHTS * density)[:, None] * wanted  # (n, K)
    inner = (others.T @ cotangent) / (lam[None, :K] - lam[K:, None])  # (n - K, K)
    return density + np.sum((others @ inner) * wanted, axis=1), lam[:K]


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBLEMS)
def test_saves_steps_and_changes_neither_eigenvalues_nor_gradients(name):
    problem, _, factor = PROBLEMS[name]
    a, theta = problem(), jnp.zeros(ORDER)
    _, plain = solver()(theta, a, len(PROBLEMS))
    gradient, helped = solver()(theta, a, list(PROBLEMS).index(name))
    expected, lam = dense_gradient(a)
    assert helped.info.message == "all k pairs converged"
    np.testing.assert_allclose(helped.eigenvalues, lam, rtol=0, atol=1e-10 * np.abs(a).max())
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert plain.info.converged == K
    assert factor * int(helped.info.steps) <= int(plain.info.steps)
