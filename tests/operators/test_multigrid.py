"""preconditioners.multigrid: symmetric, positive definite, and close to the inverse at every size.

T A is self-adjoint in the inner product of A. With Galerkin's coarse matrices, A_{l+1} =
P_l^H A_l P_l, its eigenvalues are at most one, so that the smallest bounds the condition number.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pyamg
import pytest
import scipy.linalg
import scipy.sparse

from jax_peig import partial_eigh
from jax_peig.operators import from_scipy
from jax_peig.preconditioners import multigrid
from jax_peig.preconditioners.multigrid_setup import spectral_radius
from tests.benchmarks import problems
from tests.support import finite_elements
from tests.support.compilations import compilations
from tests.support.finite_elements import laplacian

COARSE = 20  # coarsening to here gives three levels or more


def matrix(t, dtype=np.float64):
    """T as a matrix."""
    found = jax.jit(lambda t, block: t @ block)(t, np.eye(t.n, dtype=dtype))
    assert found.dtype == dtype
    return np.asarray(found)


def by_blocks(A, size):
    """A in BSR format."""
    return scipy.sparse.bsr_array(A, blocksize=(size, size))


def turned(A, seed=0):
    """U^H A U for a diagonal unitary U, complex; and the vector U^H 1 that takes the place of 1."""
    phases = np.exp(2j * np.pi * np.random.default_rng(seed).random(A.shape[0]))
    u = scipy.sparse.diags_array(phases)
    return scipy.sparse.csr_array(u.conj() @ A @ u), phases.conj()[:, None]


def grid(*shape):
    return laplacian(*shape), None


def stiffer(edge):
    """A hundred times as stiff along one axis."""
    one = laplacian(edge)
    return scipy.sparse.csr_array(scipy.sparse.kronsum(100 * one, one))


def brick(*shape):
    A, motions = finite_elements.brick(*shape)
    return by_blocks(A, 3), motions


# name -> (A, near_nullspace), and a bound on the condition number of T A: there is no theorem with
# a number, so it is twice what it is, or less
CASES = {
    "10 x 10": (lambda: grid(10, 10), 2),
    "15 x 15": (lambda: grid(15, 15), 2),
    "22 x 22": (lambda: grid(22, 22), 2),
    "5 x 6 x 7": (lambda: grid(5, 6, 7), 2.5),
    "finite elements": (lambda: (problems.make("P3", "small").matrix, None), 2),
    "contrast 1e6": (lambda: (finite_elements.rough(16), None), 20),
    "stiffer along one axis": (lambda: (stiffer(14), None), 2.5),
    "elasticity": (lambda: brick(5, 3, 2), 4),
    "complex": (lambda: turned(laplacian(11, 12)), 2),
}


@pytest.mark.parametrize("name", CASES)
def test_positive_definite_and_close_to_the_inverse(name):
    make, bound = CASES[name]
    A, vectors = make()
    t = multigrid(A, near_nullspace=vectors, max_coarse=COARSE)
    assert len(t.leaves[0]) >= 1
    found = matrix(t, A.dtype)
    size = np.linalg.norm(found, 2)
    assert np.abs(found - found.conj().T).max() <= 1e-12 * size
    root = np.linalg.cholesky(A.toarray())
    spectrum = np.linalg.eigvalsh(root.conj().T @ found @ root)  # of T A
    assert spectrum[0] >= 1 / bound
    assert spectrum[-1] <= 1 + 1e-9
    assert np.linalg.eigvalsh(found)[0] > 0


def test_rigid_motions_help():
    A, motions = brick(5, 3, 2)
    root = np.linalg.cholesky(A.toarray())

    def smallest(vectors):
        found = matrix(multigrid(A, near_nullspace=vectors, max_coarse=COARSE))
        return np.linalg.eigvalsh(root.T @ found @ root)[0]

    assert smallest(motions) > smallest(None)


SINGULAR = {
    "Neumann": (lambda: (finite_elements.neumann(11, 12), np.ones((132, 1))), 2),
    "free brick": (lambda: finite_elements.free_brick(4, 3, 2), 8),
}


@pytest.mark.parametrize("name", SINGULAR)
def test_singular(name):
    """T is definite, and T A is well-conditioned off the null space."""
    make, bound = SINGULAR[name]
    A, null = make()
    block = null.shape[1] // 2 or 1  # three unknowns a node where there are six motions
    t = multigrid(by_blocks(A, block), near_nullspace=null, max_coarse=2 * COARSE)
    found = matrix(t)
    assert np.linalg.eigvalsh(found)[0] > 0
    lam, u = np.linalg.eigh(A.toarray())
    c = null.shape[1]
    root = u[:, c:] * np.sqrt(lam[c:])
    spectrum = np.linalg.eigvalsh(root.T @ found @ root)  # of T A but for its zeros
    assert spectrum[0] >= 1 / bound
    assert spectrum[-1] <= 1 + 1e-9


def test_coarse_matrices_that_are_not_galerkins():
    """T is positive definite whatever the coarse correction."""
    S = scipy.sparse.csr_matrix(laplacian(12, 12))
    made = pyamg.smoothed_aggregation_solver(S, max_coarse=COARSE)
    levels = [(level.A * 0.1**i, getattr(level, "P", None)) for i, level in enumerate(made.levels)]
    assert len(levels) > 2
    found = matrix(multigrid(levels))
    assert np.linalg.eigvalsh(found)[0] > 0
    assert np.abs(found - found.T).max() <= 1e-12 * np.linalg.norm(found, 2)


@pytest.mark.parametrize("A", [laplacian(400), laplacian(20, 21), finite_elements.rough(20)])
def test_the_radius_is_found_safely(A):
    """The smoother is convergent below 1.35 rho."""
    inverse = 1 / A.diagonal()
    root = np.sqrt(inverse)
    exact = np.linalg.eigvalsh(root[:, None] * A.toarray() * root)[-1]
    found = spectral_radius(A, inverse)
    assert exact / 1.2 <= found <= exact * (1 + 1e-12)


def test_a_small_matrix_is_inverted():
    A = laplacian(9)
    np.testing.assert_allclose(matrix(multigrid(A)) @ A.toarray(), np.eye(9), atol=1e-12)


# -- forms of S, dtypes, transformations ----------------------------------------------------------


def test_all_forms_of_the_levels():
    """A hierarchy of PyAMG, the pairs of its levels, another format, SciPy's old matrices."""
    S = laplacian(12, 12)
    hierarchy = pyamg.ruge_stuben_solver(scipy.sparse.csr_matrix(S), max_coarse=COARSE)
    pairs = [(level.A, getattr(level, "P", None)) for level in hierarchy.levels]
    others = [(A.tocsc(), None if P is None else P.tocoo()) for A, P in pairs]
    expected = matrix(multigrid(hierarchy))
    for form in (pairs, others, tuple(pairs)):
        np.testing.assert_allclose(matrix(multigrid(form)), expected, rtol=0, atol=1e-13)


def test_it_is_the_same_every_time():
    """Whatever NumPy's global generator is at, which stays there."""
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    one, other = (multigrid(laplacian(12, 12), max_coarse=COARSE) for _ in range(2))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.complex128])
def test_precisions(dtype):
    """T is as precise as S, and T v is of the dtype of v; a real T serves complex vectors."""
    S = laplacian(8, 9)
    double, single = (multigrid(S.astype(t), max_coarse=COARSE) for t in (float, np.float32))
    expected = matrix(double)
    for t, precision in ((double, dtype), (single, np.float32)):
        close = 1e3 * np.finfo(precision).eps * np.abs(expected).max()
        np.testing.assert_allclose(matrix(t, dtype), expected, rtol=0, atol=close)
    kept = {leaf.dtype for leaf in jax.tree.leaves(single)}
    assert kept == {np.dtype(np.float32), np.dtype(np.int32)}


def test_vectors_batches_and_transposes():
    t = multigrid(laplacian(12, 12), max_coarse=COARSE)
    expected = matrix(t)
    v = np.random.default_rng(0).standard_normal((3, 144))
    close = {"rtol": 0, "atol": 1e-12 * np.abs(expected).max()}
    np.testing.assert_allclose(t @ v[0], expected @ v[0], **close)
    np.testing.assert_allclose(t(v.T), expected @ v.T, **close)
    np.testing.assert_allclose(jax.vmap(lambda v: t @ v)(v), v @ expected, **close)
    (back,) = jax.vjp(lambda v: t @ v, v[0])[1](jnp.asarray(v[1]))
    np.testing.assert_allclose(back, expected @ v[1], **close)


def test_other_values_compile_nothing():
    apply = jax.jit(lambda t, v: t @ v)
    v = np.ones(144)
    one = apply(multigrid(laplacian(12, 12), max_coarse=COARSE), v)
    other = multigrid(2 * laplacian(12, 12), max_coarse=COARSE)
    with compilations() as seen:
        two = apply(other, v)
    assert not seen
    np.testing.assert_allclose(2 * two, one, rtol=1e-10)


# -- what is refused ------------------------------------------------------------------------------

SMALL = laplacian(4)
BAD = {
    "an indefinite matrix": (
        lambda: multigrid(SMALL - scipy.sparse.eye_array(4), max_coarse=10),
        ValueError,
        ["has the eigenvalue -0.6", "positive semi-definite", "Shift it"],
    ),
    "a negative diagonal": (
        lambda: multigrid([(SMALL - 3 * scipy.sparse.eye_array(4), SMALL), (SMALL, None)]),
        ValueError,
        ["A of level 0 has -1.0 on its diagonal", "Shift it"],
    ),
    "not Hermitian": (
        lambda: multigrid(scipy.sparse.triu(SMALL)),
        ValueError,
        ["S is not Hermitian", "(A + A.conj().T) / 2"],
    ),
    "NaN": (lambda: multigrid(SMALL * np.nan), ValueError, ["S holds NaN or inf"]),
    "levels of other orders": (
        lambda: multigrid([(SMALL, SMALL), (laplacian(5), None)]),
        ValueError,
        ["A of level 1 has order 5", "expected 4"],
    ),
    "P of another order": (
        lambda: multigrid([(SMALL, laplacian(5)), (SMALL, None)]),
        ValueError,
        ["P of level 0 has shape (5, 5)", "expected (4, m)"],
    ),
    "no P": (
        lambda: multigrid([(SMALL, None), (SMALL, None)]),
        TypeError,
        ["P of level 0 is of type NoneType", "expected a SciPy sparse matrix"],
    ),
    "a last P": (
        lambda: multigrid([(SMALL, SMALL)]),
        ValueError,
        ["P of level 0, the last", "expected None"],
    ),
    "no levels": (lambda: multigrid([]), ValueError, ["S holds no level", "expected a SciPy"]),
    "no pairs": (lambda: multigrid([SMALL]), TypeError, ["level 0 of S is no pair (A, P)"]),
    "levels of arrays": (
        lambda: multigrid([(np.eye(4), None)]),
        TypeError,
        ["A of level 0 is of type ndarray", "csr_array"],
    ),
    "levels and vectors": (
        lambda: multigrid([(SMALL, None)], near_nullspace=np.ones((4, 1))),
        ValueError,
        ["near_nullspace is given with levels", "expected None"],
    ),
    "vectors of another order": (
        lambda: multigrid(SMALL, near_nullspace=np.ones((5, 1))),
        ValueError,
        ["near_nullspace has shape (5, 1)", "expected (4, c)"],
    ),
    "vectors that are a list": (
        lambda: multigrid(SMALL, near_nullspace=[1.0]),
        TypeError,
        ["near_nullspace is a list", "expected an array (4, c)"],
    ),
    "complex vectors of a real matrix": (
        lambda: multigrid(SMALL, near_nullspace=np.ones((4, 1), complex)),
        TypeError,
        ["near_nullspace has dtype complex128", "expected real vectors"],
    ),
    "a coarsest level too large": (
        lambda: multigrid([(laplacian(5001), None)]),
        ValueError,
        ["has order 5001", "expected at most 5000", "more levels"],
    ),
    "real vectors": (
        lambda: multigrid(SMALL.astype(complex)) @ np.ones(4),
        TypeError,
        ["complex128 applied to float64", "give a complex dtype"],
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_refused(what):
    call, error, words = BAD[what]
    with pytest.raises(error) as raised:
        call()
    for word in words:
        assert word in str(raised.value)


def test_without_pyamg(monkeypatch):
    """A matrix is refused, and levels are taken."""
    monkeypatch.setitem(sys.modules, "pyamg", None)
    with pytest.raises(ImportError, match=r"pip install 'jax_peig\[multigrid\]'"):
        multigrid(SMALL)
    assert multigrid([(SMALL, None)]).n == 4


# -- in partial_eigh ------------------------------------------------------------------------------


def solve(A, M=None, *, k=4, **options):
    t = multigrid(A, max_coarse=60, **options)
    mass = None if M is None else from_scipy(scipy.sparse.csr_array(M))
    found = partial_eigh(from_scipy(A), mass, k, method="lobpcg", preconditioner=t, tol=1e-8)
    assert found.info.message == "all k pairs converged"
    return found


def close_to(found, exact, relative):
    """Relative to the largest eigenvalue that is wanted."""
    np.testing.assert_allclose(found.eigenvalues, exact, rtol=0, atol=relative * np.max(exact))


def steps(edge):
    """Those of the generalised problem of finite elements, after a look at the eigenvalues."""
    problem = problems.make("P3", edge)
    found = solve(problem.matrix, problem.mass, k=problem.k)
    close_to(found, problem.wanted[: problem.k], 1e-9)
    return int(found.info.steps)


@pytest.mark.slow
def test_steps_do_not_grow():
    assert steps(24) <= steps(12) + 2


@pytest.mark.slow
def test_steps_do_not_grow_over_two_orders_of_magnitude():
    counts = [steps(edge) for edge in (20, 80, 160)]
    assert max(counts) <= counts[0] + 3


@pytest.mark.slow
def test_singular_laplacian():
    """The first eigenvalue is zero."""
    shape = (15, 18)
    one, other = (2 - 2 * np.cos(np.pi * np.arange(m) / m) for m in shape)
    exact = np.sort(np.add.outer(one, other).ravel())[:4]
    close_to(solve(finite_elements.neumann(*shape)), exact, 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "relative"),
    [(lambda: brick(6, 3, 3), 1e-9), (lambda: (finite_elements.rough(24), None), 1e-3)],
    ids=["elasticity", "contrast"],
)
def test_against_lapack(make, relative):
    """A residual of 1e-8 ||A|| bounds the error by about its square over the gap."""
    A, vectors = make()
    exact = np.linalg.eigvalsh(A.toarray())
    close_to(solve(A, near_nullspace=vectors), exact[:4], relative)


@pytest.mark.slow
def test_gradient():
    """Of a loss of the vectors, against central differences of LAPACK's; T serves CG as well."""
    S, k = laplacian(9, 11), 3
    rng = np.random.default_rng(1)
    weights, direction = rng.random(99), rng.standard_normal(99)
    t, A = multigrid(S, max_coarse=COARSE), from_scipy(S)

    def loss(theta):
        def product(u):
            return A @ u + theta * u

        w, x, info = partial_eigh(product, k=k, n=99, method="lobpcg", preconditioner=t)
        return jnp.sum(w) + jnp.sum(jnp.asarray(weights) * jnp.sum(x**2, axis=1) ** 2), info

    def dense(h):
        w, x = np.linalg.eigh(S.toarray() + np.diag(h * direction))
        return w[:k].sum() + weights @ (x[:, :k] ** 2).sum(axis=1) ** 2

    gradient, info = jax.jit(jax.grad(loss, has_aux=True))(jnp.zeros(99))
    assert info.message == "all k pairs converged"
    h = 1e-4
    slope = (8 * (dense(h) - dense(-h)) - (dense(2 * h) - dense(-2 * h))) / (12 * h)
    np.testing.assert_allclose(gradient @ direction, slope, rtol=1e-7)
