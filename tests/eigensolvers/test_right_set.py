"""The claim: what is reported as converged is the right set of eigenvalues, whatever the problem.

``info.status == CONVERGED`` implies that the k eigenvalues are the extreme ones, each as often as
it is there; that the vectors are M-orthonormal; and that the residuals, computed here, are within
the tolerance. `hard_spectra.is_claimed` asserts this wherever it is claimed. Where a test says
``assert run(...)`` the problem is easy enough that the claim has to be made; where it does not, an
honest "not converged" will do, and the test says why.

Spectra are exact or LAPACK's. Shapes are few, since each compiles a program of its own.
"""

import functools
import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import scipy.sparse.linalg

from jax_peig import Status, partial_eigh
from tests.support import hard_spectra as hard
from tests.support import spectra
from tests.support.hard_spectra import EPS, Problem, diagonal, is_claimed, turned

METHODS = ("chebyshev", "lobpcg", "davidson")
# The others take no preconditioner.
PRECONDITIONED = METHODS[1:]
# What is cheap is run for the first by default, for the second by `-m slow`; for the third only
# the tests of `every_method`.
_slow = [pytest.param(method, marks=pytest.mark.slow) for method in METHODS[1:]]
each_method = pytest.mark.parametrize("method", [METHODS[0], _slow[0]])
every_method = pytest.mark.parametrize("method", [METHODS[0], *_slow])


N, K = 61, 4
BLOCK = 6  # k + min(max(2, k // 2), 8)


@functools.cache
def program(method, k, which="smallest", batched=False, **options):
    """(A, M, v0, key, preconditioner) -> PartialEigh, compiled once for each shape."""

    def solve(A, M=None, v0=None, key=None, preconditioner=None):
        given = {} if preconditioner is None else {"preconditioner": preconditioner}
        given |= {"v0": v0, "key": key}
        return partial_eigh(A, M, k, which=which, method=method, **given, **options)

    return jax.jit(jax.vmap(solve) if batched else solve)


def solve(problem, method, k=K, which="smallest", *, v0=None, seed=0, T=None, **options):
    arrays = {"key": jax.random.key(seed)}
    arrays |= {} if v0 is None else {"v0": np.asarray(v0)}
    arrays |= {} if T is None else {"preconditioner": T}
    return program(method, k, which, **options)(problem.A, problem.M, **arrays)


def run(problem, method, k=K, which="smallest", *, accuracy=1e-8, **options):
    """Solve; whether the result claims convergence, and then it is right."""
    result = solve(problem, method, k, which, **options)
    tol = options.get("tol", hard.TOL)
    return is_claimed(result, problem, which, tol=tol, accuracy=accuracy)


def member(batch, i):
    """One problem's result of a batch, in NumPy."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[i], batch)


# -- 1. repeated eigenvalues -------------------------------------------------------------------

# From which index on how many copies: from the first, across the K-th, behind it.
CLUSTERS = [
    *((0, size) for size in (2, 3, K, K + 1, BLOCK, BLOCK + 1, 20, N - 1, N)),
    *((K - 1, size) for size in (2, 3, 4, 20)),
    *((K // 2, size) for size in (2, 3, 12)),
    *((first, 20) for first in (K, K + 1, BLOCK)),
]


@pytest.mark.parametrize("made", [diagonal, turned], ids=["diagonal", "turned"])
@pytest.mark.parametrize(("first", "size"), CLUSTERS)
@every_method
def test_copies_within_beyond_and_across(method, first, size, made):
    """Up to k of them, more than k, more than the block; before, across and behind the k-th."""
    problem = made(hard.cluster(N, first, size))
    for seed in range(3):
        result = solve(problem, method, seed=seed)
        assert is_claimed(result, problem)
        values = problem.values
        assert bool(result.info.cut) == (values[K - 1] == values[K])
        same = np.asarray(result.info.clusters)
        np.testing.assert_array_equal(
            same[:, None] == same[None, :], values[:K, None] == values[None, :K]
        )


@pytest.mark.parametrize("separation", [1e-4, 1e-7, 1e-10, 1e-13])
@each_method
def test_twenty_close_together(method, separation):
    """The lowest four of twenty. Honest: their gaps ask for more steps than there are."""
    values = np.r_[1 + separation * np.arange(20), np.arange(2.0, N - 18)]
    claims = [run(make(values), method) for make in (diagonal, turned)]
    # Below the tolerance they are one cluster, which is easy.
    assert all(claims) or separation >= 1e-11


@each_method
def test_just_above_three_k(method):
    """n = 3 k + 1: X, the new and the old directions together are all of the space."""
    n = 3 * K + 1
    for first, size in [(0, 1), (0, 2), (0, K), (0, 5), (K - 1, 2), (K, 9), (0, n), (1, n - 1)]:
        for make in (diagonal, turned):
            for seed in range(3):
                assert run(make(hard.cluster(n, first, size)), method, seed=seed)


@each_method
def test_one_pair(method):
    for first, size in [(0, 1), (0, 2), (0, 3), (0, 4), (0, 20), (0, N), (1, 2), (1, 20)]:
        for make in (diagonal, turned):
            for seed in range(3):
                assert run(make(hard.cluster(N, first, size)), method, 1, seed=seed)


# -- 2. starts ---------------------------------------------------------------------------------

# Diagonal, so that unit vectors are exact eigenvectors, of residual zero.
STARTS_FROM = {
    "simple": np.arange(1.0, N + 1),
    "pairs": np.repeat(np.arange(1.0, 32), 2)[:N],
    "fourfold": hard.cluster(N, 0, 4),
    "twice fourfold": np.repeat(np.arange(1.0, 17), 4)[:N],
    "threefold, cut": hard.cluster(N, 2, 3),
    "twentyfold": hard.cluster(N, 0, 20),
    "narrow bulk": np.r_[1.0, 2.0, 3.0, 3.5, 4.0, np.full(N - 5, 100.0)],
    "wide gap": np.r_[1.0, 2.0, 3.0, 3.5, 4.0, 1e3 + np.arange(N - 5.0)],
}


def unit_vectors(*indices):
    return np.eye(N)[:, list(indices)]


def gaussian(seed, n=N):
    return np.random.default_rng(seed).standard_normal((n, K))


STARTS = {
    "orthogonal to the wanted": gaussian(0) * (np.arange(N) >= K)[:, None],
    "the next ones": unit_vectors(4, 5, 6, 7),
    "the largest ones": unit_vectors(57, 58, 59, 60),
    "one of the wanted left out": unit_vectors(0, 1, 2, 4),
    "the first left out": unit_vectors(1, 2, 3, 4),
    "some wanted, some not": unit_vectors(0, 20, 40, 60),
    "the wanted, nearly, but one": unit_vectors(0, 1, 2, 4) + 1e-9 * gaussian(1),
    "in the span of two": unit_vectors(5, 30) @ gaussian(2)[:2],
    "one vector, four times": np.outer(gaussian(3)[:, 0], np.ones(K)),
    "one eigenvector, four times": unit_vectors(30, 30, 30, 30),
    "a zero column": gaussian(4) * np.array([1.0, 0.0, 1.0, 1.0]),
    "zero": np.zeros((N, K)),
}


@pytest.mark.parametrize("spectrum", STARTS_FROM)
@pytest.mark.parametrize("start", STARTS)
@every_method
def test_no_start_hides_a_pair(method, start, spectrum):
    problem = diagonal(STARTS_FROM[spectrum])
    for seed in range(5):
        assert run(problem, method, v0=STARTS[start], seed=seed)


@pytest.mark.parametrize("start", STARTS)
@every_method
def test_no_start_hides_a_pair_in_single_precision(method, start):
    """Columns nearly dependent are dependent to its rounding, and the filter overflows sooner."""
    for spectrum in ("simple", "fourfold", "twentyfold"):
        problem = grid(np.float32(STARTS_FROM[spectrum]))
        for seed in range(10):
            result = solve(problem, method, v0=np.float32(STARTS[start]), seed=seed)
            assert int(result.info.status) == Status.CONVERGED
            np.testing.assert_allclose(result.eigenvalues, problem.values[:K], atol=1e-3)


@pytest.mark.parametrize("columns", [12, pytest.param(9, marks=pytest.mark.slow)])
@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-5])
@every_method
def test_no_start_hides_a_pair_from_a_loose_tolerance(method, tol, columns):
    """Twelve copies, and as good a guess as the tolerance asks for: of the next eigenvectors."""
    n, k, copies = 400, 12, 12
    keys = jax.random.split(jax.random.key(0), 4)
    v0 = np.eye(n)[:, copies : copies + columns]

    def one(key, values):
        return program(method, k, tol=tol)(values, v0=v0, key=key)

    for gap in (2.0, 19.0):
        if gap < 2 * tol * n:
            continue  # a residual that is small enough could belong to either
        values = np.r_[np.ones(copies), 1 + gap + np.arange(n - copies)]
        found = jax.vmap(one, (0, None))(keys, values)
        assert np.all(found.info.status == Status.CONVERGED)
        assert np.all(found.eigenvalues < 1 + gap / 2)


@pytest.mark.parametrize("inverse", [False, True], ids=["folded", "OPinv"])
@pytest.mark.parametrize("tol", [1e-3, pytest.param(1e-5, marks=pytest.mark.slow)])
def test_no_start_hides_an_interior_pair_from_a_loose_tolerance(tol, inverse):
    """The twelve nearest are copies; the guess is of the next ones, whose residuals are zero."""
    n, k, sigma = 400, 12, 50.3
    values = np.r_[np.full(k, 50.25), 2.75 + 5 * np.arange(n - k)]
    nearest = np.argsort(np.abs(values - sigma))
    options = {"which": "nearest", "sigma": sigma, "method": "chebyshev", "tol": tol}
    options |= {"OPinv": 1 / (values - sigma)} if inverse else {}
    v0 = np.eye(n)[:, nearest[k : 2 * k]]
    found = jax.jit(jax.vmap(lambda key: partial_eigh(values, k=k, v0=v0, key=key, **options)))(
        jax.random.split(jax.random.key(0), 4)
    )
    assert np.all(found.info.status == Status.CONVERGED)
    np.testing.assert_allclose(found.eigenvalues, 50.25, atol=1.2)


@pytest.mark.slow
@pytest.mark.parametrize("max_steps", [1, 2, 3, 10])
@pytest.mark.parametrize("start", STARTS)
@each_method
def test_no_start_hides_a_pair_from_few_steps(method, start, max_steps):
    """Honest: hardly any of these is solved within a few steps."""
    for values in STARTS_FROM.values():
        for seed in range(5):
            run(diagonal(values), method, v0=STARTS[start], seed=seed, max_steps=max_steps)


@pytest.mark.slow
@pytest.mark.parametrize("condition", [None, 1e2])
@pytest.mark.parametrize("spectrum", ["simple", "fourfold", "threefold, cut"])
@each_method
def test_no_start_hides_a_pair_of_a_full_matrix(method, spectrum, condition):
    """Eigenvectors as LAPACK has them: residuals of rounding rather than zero."""
    made = spectra.pencil(STARTS_FROM[spectrum], condition=condition, seed=1)
    problem = Problem(made.A, made.M, made.values)
    for start in STARTS.values():
        for seed in range(3):
            assert run(problem, method, v0=made.vectors @ start, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("guess", [None, (0, 1, 2, 4)], ids=["cold", "blind"])
@pytest.mark.parametrize("tol", [1e-4, 1e-6])
def test_no_start_of_many_ends_with_a_wrong_set(guess, tol):
    """A fourfold eigenvalue, the fifth near: narrow steps of LOBPCG missed 3 in 1000 once."""
    values = np.r_[np.ones(4), 1.5, 2.0, 3.0, np.linspace(4.0, 500.0, 233)]
    n, count = len(values), 2000
    v0 = None if guess is None else np.eye(n)[:, guess]

    def solve(key):
        return partial_eigh(values, k=4, v0=v0, key=key, tol=tol, method="lobpcg")

    result = jax.jit(jax.vmap(solve))(jax.random.split(jax.random.key(1), count))
    claimed = np.asarray(result.info.status) == Status.CONVERGED
    inside = np.sum(np.asarray(result.eigenvectors)[:, :4] ** 2, axis=(1, 2))
    assert np.sum(claimed) > 0.9 * count
    assert np.all(inside[claimed] > 3.5)


@pytest.mark.slow
@each_method
def test_a_warm_start_beside_a_large_multiple_of_the_identity(method):
    """A low-rank matrix and a guess of exact eigenvectors that lacks the fourth."""
    n = 400
    values = np.r_[1.0, 2.0, 3.0, 3.5, 4.0, np.full(n - 5, 100.0)]
    v0 = np.eye(n)[:, [0, 1, 2, 4]]
    for seed in range(10):
        assert run(diagonal(values), method, v0=v0, seed=seed)


# -- 3. the grids on which ARPACK misses copies ------------------------------------------------


def grid(values) -> Problem:
    """The spectrum of a grid as a diagonal operator (n,): copies as exact as can be."""
    return Problem(np.asarray(values), None, np.asarray(values))


@pytest.mark.parametrize(
    ("values", "k"), [(hard.square_laplacian(14), 8), (hard.oscillator(8), 10)], ids=["P1", "P2"]
)
def test_arpack_misses_copies(values, k):
    """Its residuals are below 1e-6, and not one of 20 starts gives the right set (SciPy 1.17)."""
    wrong = 0
    for seed in range(20):
        w, _ = scipy.sparse.linalg.eigsh(
            scipy.sparse.diags_array(values), k, which="SA", tol=1e-6,
            v0=np.random.default_rng(seed).standard_normal(values.size),
        )  # fmt: skip
        wrong += np.max(np.abs(np.sort(w) - values[:k])) > 1e-6 * values[-1]
    assert wrong >= 1


@every_method
def test_p1_from_many_starts(method):
    problem = grid(hard.square_laplacian(14))
    for seed in range(6):
        assert run(problem, method, 8, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("tol", [None, 1e-6])
@pytest.mark.parametrize(
    ("values", "k"), [(hard.square_laplacian(14), 8), (hard.oscillator(8), 10)], ids=["P1", "P2"]
)
@each_method
def test_grids_from_many_starts_at_any_tolerance(method, values, k, tol):
    """A missed copy would be an error of 1e-2 of the norm, whatever the tolerance."""
    options = {} if tol is None else {"tol": tol, "accuracy": max(1e-8, 2 * tol)}
    for seed in range(20 if tol is None else 10):
        assert run(grid(values), method, k, seed=seed, **options)


@pytest.mark.slow
@each_method
def test_p2_at_twelve_points(method):
    """ARPACK at tol=0 misses copies from one start in twenty here."""
    problem = grid(hard.oscillator(12))
    for seed in range(10):
        result = solve(problem, method, 10, seed=seed)
        assert int(result.info.status) == Status.CONVERGED
        np.testing.assert_allclose(result.eigenvalues, problem.values[:10], rtol=0, atol=1e-7)


# -- 4. and 6. drawn spectra, real and complex, with and without M -----------------------------

# (dtype, condition number of M, which)
KINDS = {
    "real": (np.float64, None, "smallest"),
    "real, M": (np.float64, 1e2, "smallest"),
    "complex, M, largest": (np.complex128, 10.0, "largest"),
}
MORE_KINDS = {
    "real, largest": (np.float64, None, "largest"),
    "complex": (np.complex128, None, "smallest"),
    "real, M, largest": (np.float64, 1e3, "largest"),
    "complex, M": (np.complex128, 30.0, "smallest"),
}


@st.composite
def repeated(draw):
    """Draw N integers, of either sign, each up to 12 times; the rest above and below."""
    distinct = draw(st.lists(st.integers(-20, 20), min_size=1, max_size=N, unique=True))
    counts = draw(st.lists(st.integers(1, 12), min_size=len(distinct), max_size=len(distinct)))
    values = np.repeat(np.array(distinct, float), counts)[:N]
    rest = N - values.size
    return np.concatenate([values, draw(st.sampled_from([21.0, -40.0])) + 0.3 * np.arange(rest)])


@st.composite
def nearly_repeated(draw):
    """Draw clusters of any distances inside."""
    values = np.sort(draw(repeated()))
    exponents = draw(st.lists(st.floats(-16.0, 0.0), min_size=2 * BLOCK, max_size=2 * BLOCK))
    shift = np.concatenate([10.0 ** np.array(exponents), np.zeros(N - 2 * BLOCK)])
    return values + shift + shift[::-1]


def check_kind(method, kind, values, seed, is_diagonal, **options):
    dtype, condition, which = kind
    if is_diagonal:
        problem = Problem(np.diag(values).astype(dtype), None, np.sort(values))
        m = np.logspace(0, -np.log10(condition or 1), N) if condition else None
        if m is not None:
            problem = Problem(problem.A * m[None, :].astype(dtype), np.diag(m).astype(dtype),
                              problem.values)  # fmt: skip
    else:
        problem = turned(values, dtype=dtype, condition=condition, seed=seed)
    return run(problem, method, which=which, seed=seed, **options)


@pytest.mark.parametrize("kind", ["real", "real, M"])
@each_method
@hypothesis.given(values=repeated(), seed=st.integers(0, 2**31), is_diagonal=st.booleans())
def test_drawn_spectra(method, kind, values, seed, is_diagonal):
    # The filter wants a rough inverse of M, which these have none of.
    beyond = method == "chebyshev" and kind.endswith("M")
    assert check_kind(method, KINDS[kind], values, seed, is_diagonal) or beyond


def test_late_guard_vectors_are_no_stagnation():
    """The wanted pairs are at rounding while a guard vector is on its way between eleven copies."""
    values = np.r_[[-14.0] * 4, 15.0, [2.0] * 11, 21 + 0.3 * np.arange(45)]
    problem = turned(values, dtype=np.complex128, condition=30.0, seed=0)
    for seed in range(8):
        assert run(problem, "chebyshev", seed=seed)


@pytest.mark.slow
@each_method
@hypothesis.settings(max_examples=5)
@hypothesis.given(values=repeated(), seed=st.integers(0, 2**31), is_diagonal=st.booleans())
def test_drawn_complex_spectra(method, values, seed, is_diagonal):
    assert check_kind(method, KINDS["complex, M, largest"], values, seed, is_diagonal)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MORE_KINDS)
@each_method
@hypothesis.settings(max_examples=6)
@hypothesis.given(values=repeated(), seed=st.integers(0, 2**31), is_diagonal=st.booleans())
def test_more_drawn_spectra(method, kind, values, seed, is_diagonal):
    beyond = method == "chebyshev" and kind == "real, M, largest"  # as above
    assert check_kind(method, MORE_KINDS[kind], values, seed, is_diagonal) or beyond


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@each_method
@hypothesis.settings(max_examples=6)
@hypothesis.given(values=nearly_repeated(), seed=st.integers(0, 2**31), is_diagonal=st.booleans())
def test_drawn_near_copies(method, kind, values, seed, is_diagonal):
    """Honest: a cluster with gaps of 1e-6 inside that k cuts takes very many steps."""
    check_kind(method, KINDS[kind], values, seed, is_diagonal, max_steps=300)


# Honest: without an inverse of M the steps grow as the root of its condition number. The filter,
# whose steps are long, is given up early.
def run_ill_conditioned(problem, method, **options):
    most = {"max_steps": 30} if method == "chebyshev" else {}
    run(problem, method, **most, **options)


@pytest.mark.slow
@pytest.mark.parametrize("condition", [1e4, 1e6])
@pytest.mark.parametrize(("first", "size"), [(0, 4), (2, 3)])
@each_method
def test_ill_conditioned_mass(method, first, size, condition):
    run_ill_conditioned(
        turned(hard.cluster(N, first, size), condition=condition, seed=first + size), method
    )


@pytest.mark.slow
@pytest.mark.parametrize("condition", [1e4, 1e6])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@each_method
def test_more_ill_conditioned_masses(method, dtype, condition):
    if dtype == np.complex128:
        problem = turned(-hard.cluster(N, 0, 4), dtype=dtype, condition=condition)
        run_ill_conditioned(problem, method, which="largest")
        return
    for first, size in [(0, 1), (0, 4), (2, 3), (0, 20)]:
        for seed in range(2):
            run_ill_conditioned(
                turned(hard.cluster(N, first, size), condition=condition), method, seed=seed
            )


# -- 5. matrices with a name -------------------------------------------------------------------

NAMED = {
    "W21+ beside others": hard.wilkinson_21_within(N),
    "W61+": hard.by_lapack(hard.wilkinson(N // 2)),
    "path": hard.path(N),
    "ring": hard.ring(N),
    "star": hard.bipartite(N, 1),
    "complete bipartite graph": hard.bipartite(N, 20),
    "low rank and the identity": hard.low_rank_plus_identity(N, [-0.5, -0.5, 1, 1, 2]),
    "low rank, wide": hard.low_rank_plus_identity(N, [-1e-3, 1e6, 1e6]),
    "zero": diagonal(np.zeros(N)),
    "identity": diagonal(np.ones(N)),
    "negative": turned(-np.repeat(np.arange(1.0, 32), 2)[:N]),
    "of both signs": turned(np.repeat(np.arange(-15.0, 16), 2)[:N]),
    "reflection": turned(np.r_[-np.ones(30), np.ones(31)]),
    "nearly the identity": diagonal(1 + 1e-10 * np.arange(N)),
    "one among zeros": diagonal(np.r_[1.0, np.zeros(N - 1)]),
    "minus one among zeros": diagonal(np.r_[-1.0, np.zeros(N - 1)]),
}
# A polynomial of bounded degree does not tell 0.999 from 1 in a spectrum that reaches to 1e6.
BEYOND = ("chebyshev", "low rank, wide", "smallest")
NAMED_WITH_MASS = {
    "Mikota's pair": hard.mikota(N),
    "free rod": hard.rod(N),
    "free rod, light": hard.rescaled(hard.rod(N), 1e-6),
    "A = M": Problem(hard.rod(N).M, hard.rod(N).M, np.ones(N)),
    "A = 0": Problem(np.zeros((N, N)), hard.rod(N).M, np.zeros(N)),
    "graded masses": Problem(
        np.diag(np.arange(1.0, N + 1) * np.logspace(0, -3, N)),
        np.diag(np.logspace(0, -3, N)),
        np.arange(1.0, N + 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("end", ["smallest", "largest"])
@pytest.mark.parametrize("name", NAMED)
@every_method
def test_named_matrices(method, name, end):
    """Both ends by the same program: the largest as the smallest of -A."""
    problem = NAMED[name] if end == "smallest" else NAMED[name].negated()
    for seed in range(2):
        assert run(problem, method, seed=seed) or (method, name, end) == BEYOND


@pytest.mark.parametrize("end", ["smallest", "largest"])
@pytest.mark.parametrize("name", NAMED_WITH_MASS)
@every_method
def test_named_pencils(method, name, end):
    problem = NAMED_WITH_MASS[name] if end == "smallest" else NAMED_WITH_MASS[name].negated()
    # The filter takes the row sums of a consistent mass for it, which the roughest modes are not.
    beyond = method == "chebyshev" and end == "largest" and name.startswith("free rod")
    for seed in range(2):
        assert run(problem, method, seed=seed) or beyond


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMED, *NAMED_WITH_MASS])
@each_method
def test_largest_of_named(method, name):
    for seed in range(2):
        assert run((NAMED | NAMED_WITH_MASS)[name], method, which="largest", seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["smallest", "largest"])
@pytest.mark.parametrize(
    "problem",
    [hard.by_lapack(hard.wilkinson(100)), hard.path(201), hard.ring(201), hard.bipartite(201, 70)],
    ids=["W201+", "path", "ring", "bipartite"],
)
@each_method
def test_named_matrices_of_order_201(method, problem, which):
    for seed in range(3):
        assert run(problem, method, 6, which, seed=seed)


GRADED = (np.logspace(-12, 0, N), 2.0 ** -np.arange(N))


@pytest.mark.parametrize("end", ["smallest", "largest"])
@each_method
def test_graded_spectra(method, end):
    """Right to the error bounds. The smallest are beside ||A|| what the tolerance lets pass.

    Honest for "smallest": the rounding of A x is 1e-16 ||A||, and so are most of them.
    """
    for make, values in itertools.product((diagonal, turned), GRADED):
        problem = make(values) if end == "smallest" else make(values).negated()
        result = solve(problem, method)
        claimed = is_claimed(result, problem)
        assert claimed or end == "smallest"
        error = np.abs(np.asarray(result.eigenvalues) - problem.values[:K])
        if claimed:
            assert np.all(error <= np.sqrt(K) * np.max(np.asarray(result.info.error_bounds)))


@pytest.mark.parametrize("exponent", [-498, 498])
@each_method
def test_scale(method, exponent):
    """2^+-498, 1e+-150, times A: the result scales with it.

    Squares of the eigenvalues are still numbers; beyond 1e154 they overflow, which may be reported
    as anything but converged.
    """
    c = 2.0**exponent
    for values in (hard.cluster(N, 0, 4), hard.cluster(N, 2, 3), -hard.cluster(N, 0, 2)):
        problem = turned(values)
        result = solve(problem._replace(A=c * problem.A), method)
        result = result._replace(eigenvalues=np.asarray(result.eigenvalues) / c)
        assert is_claimed(result, problem)


@pytest.mark.parametrize("exponents", [(-498, 0), (498, 0), (0, -300), (0, 300), (300, 300)])
@each_method
def test_scale_of_pencils(method, exponents):
    """The same for (c A, d M): eigenvalues c/d, vectors d^(-1/2)."""
    c, d = 2.0 ** np.array(exponents)
    problem = turned(hard.cluster(N, 0, 4), condition=1e2)
    result = solve(Problem(c * problem.A, d * problem.M, problem.values), method)
    result = result._replace(
        eigenvalues=np.asarray(result.eigenvalues) / c * d,
        eigenvectors=np.asarray(result.eigenvectors) * np.sqrt(d),
    )
    assert is_claimed(result, problem)


@pytest.mark.parametrize("value", [1e-300, 1e200, 1e300])
@each_method
def test_scales_beyond(method, value):
    """Squares of these are 0 or inf. Honest: right, or said not to be converged."""
    values = hard.cluster(N, 0, 2)
    result = solve(diagonal(values)._replace(A=value * np.diag(values)), method)
    if int(result.info.status) == Status.CONVERGED:
        result = result._replace(eigenvalues=np.asarray(result.eigenvalues) / value)
        assert is_claimed(result, diagonal(values))


# -- 7. batches --------------------------------------------------------------------------------

# From what is solved at once to what takes a hundred steps and more.
BATCH = [
    turned(values, condition=condition, seed=i)
    for i, (values, condition) in enumerate(
        [
            (np.zeros(N), 10.0),
            (hard.cluster(N, 0, 4), 1.0),
            (np.r_[np.ones(20), np.full(N - 20, 2.0)], 1e2),
            (np.r_[1.0, 1.0, 1.0, 1.1, 1.1, 1.2, 1e3 + np.arange(N - 6.0)], 1.0),
            (hard.path(N).values, 10.0),
            (-hard.cluster(N, N - 12, 12), 1e2),
        ]
    )
]


@pytest.mark.slow
@each_method
def test_a_batch_of_unequal_problems(method):
    a, m = (np.stack(parts) for parts in zip(*((p.A, p.M) for p in BATCH), strict=True))
    keys = jax.random.split(jax.random.key(0), len(BATCH))
    batch = program(method, K, batched=True)(a, m, key=keys)
    for i, problem in enumerate(BATCH):
        assert is_claimed(member(batch, i), problem), i


@pytest.mark.slow
@each_method
def test_a_batch_without_mass(method):
    problems = {(name, "smallest"): p for name, p in NAMED.items()}
    problems |= {(name, "largest"): p.negated() for name, p in NAMED.items()}
    keys = jax.random.split(jax.random.key(0), len(problems))
    a = np.stack([p.A for p in problems.values()])
    batch = program(method, K, batched=True)(a, key=keys)
    for i, (name, problem) in enumerate(problems.items()):
        assert is_claimed(member(batch, i), problem) or (method, *name) == BEYOND, name


@pytest.mark.slow
@each_method
def test_a_batch_of_starts(method):
    """One matrix, and every pair of a start and a key."""
    problem = diagonal(STARTS_FROM["pairs"])
    starts = np.stack(list(STARTS.values()))
    keys = jax.random.split(jax.random.key(0), len(starts))
    a = np.broadcast_to(problem.A, (len(starts), N, N))
    batch = program(method, K, batched=True)(a, v0=starts, key=keys)
    for i, name in enumerate(STARTS):
        assert is_claimed(member(batch, i), problem), name


# -- 8. error bounds ---------------------------------------------------------------------------

SMALL, FEW = 24, 3


def drawn_pencils(seed, count, mass):
    """Spectra with copies, masses of condition 1 to 1e6, starts from exact to random."""
    rng = np.random.default_rng(seed)
    made, starts = [], []
    for _ in range(count):
        values = rng.uniform(-10, 10, SMALL)
        values[rng.integers(0, SMALL, rng.integers(1, 9))] = values[0]
        condition = 10.0 ** rng.uniform(0, 6) if mass else None
        made.append(spectra.pencil(values, condition=condition, seed=rng.integers(2**31)))
        noise = 10.0 ** rng.uniform(-10, 1)
        first = rng.integers(0, 5)  # at times those of the wrong pairs
        exact = made[-1].vectors[:, first : first + FEW]
        starts.append(exact + noise * rng.standard_normal(exact.shape))
    return made, np.stack(starts)


@functools.cache
def drawn_results(method, seed, count, mass, **options):
    """Pencils, and what a few steps or a loose tolerance make of them, in NumPy."""
    made, starts = drawn_pencils(seed, count, mass)
    a = np.stack([p.A for p in made])
    m = np.stack([p.M for p in made]) if mass else None
    keys = jax.random.split(jax.random.key(seed), count)
    result = program(method, FEW, batched=True, **options)(a, m, v0=starts, key=keys)
    return made, jax.tree.map(np.asarray, result)


def lost(pencil) -> float:
    """What the making of a pencil has lost of its eigenvalues, and more."""
    return 100 * EPS * (1 if pencil.M is None else np.linalg.cond(pencil.M))


def check_bounds(*drawn, **options):
    """An eigenvalue lies within the bound of each computed one, in whatever state it is."""
    made, (w, _, info) = drawn_results(*drawn, **options)
    assert np.all(np.isin(info.status, [Status.CONVERGED, Status.MAX_STEPS, Status.STAGNATED]))
    assert np.all((info.converged == FEW) | (info.status != Status.CONVERGED))
    assert np.all(np.isfinite(info.error_bounds))
    for i, pencil in enumerate(made):
        distance = np.min(np.abs(pencil.values[:, None] - w[i][None, :]), axis=0)
        assert np.all(distance <= info.error_bounds[i] + lost(pencil)), i


def check_sets(method, seed, count, mass, *, tol, beyond=False, **options):
    """What is claimed is within the bounds of the pairs that were wanted: none is passed over.

    The residuals of M-orthonormal vectors are together at most sqrt(k) times the largest; pairs
    closer than the tolerance may be confused. Almost any vector meets a tolerance of
    cond(M)^(-1/2), since ||x|| is that large: such problems are looked at only with ``beyond``.
    """
    made, (w, _, info) = drawn_results(method, seed, count, mass, tol=tol, **options)
    wrong = []
    for i in np.flatnonzero(info.status == Status.CONVERGED):
        condition = 1 if made[i].M is None else np.linalg.cond(made[i].M)
        error = np.max(np.abs(w[i] - made[i].values[:FEW]))
        limit = np.sqrt(FEW) * np.max(info.error_bounds[i]) + lost(made[i])
        limit += tol * np.max(np.abs(made[i].values))
        if error > limit and (tol * np.sqrt(condition) > 0.1) == beyond:
            wrong.append((int(i), w[i], made[i].values[:FEW]))
    assert not wrong, f"WRONG SET claimed {len(wrong)} times, first {wrong[0]}"


# The two tests share what is computed.
HASTY = {"tol": 1e-3, "max_steps": 3}


@pytest.mark.slow
@each_method
def test_error_bounds_of_500_drawn_problems(method):
    check_bounds(method, 0, 512, True, **HASTY)


@pytest.mark.slow
@each_method
def test_sets_of_500_drawn_problems(method):
    check_sets(method, 0, 512, True, **HASTY)


@pytest.mark.slow
@each_method
def test_sets_at_a_tolerance_that_almost_any_vector_meets(method):
    """Starts beside wrong eigenvectors, M of condition 1e4 to 1e6, tol=1e-3."""
    check_sets(method, 0, 512, True, beyond=True, **HASTY)


@pytest.mark.slow
@pytest.mark.parametrize(("tol", "max_steps"), [(1e-5, 10), (1e-10, 1)])
@pytest.mark.parametrize("mass", [False, True], ids=["M = I", "M"])
@pytest.mark.parametrize("check", [check_bounds, check_sets], ids=["bounds", "sets"])
@each_method
def test_1000_drawn_problems(method, check, mass, tol, max_steps):
    check(method, 1 + max_steps, 256, mass, tol=tol, max_steps=max_steps)


# -- 9. preconditioners ------------------------------------------------------------------------


def without(vectors, left):
    """The identity, but for ``left`` along ``vectors``."""
    return np.eye(vectors.shape[0]) - (1 - left) * vectors @ vectors.T


def bad_preconditioners(made):
    rng = np.random.default_rng(0)
    q = spectra.unitary(rng, N)
    x = made.vectors
    lapack = np.linalg.inv(made.A + 1e3 * np.diag(np.arange(N) % 7))
    return {
        "nearly singular along the first": without(x[:, :1], 1e-12),
        "nearly singular along the wanted": without(x[:, :K], 1e-10),
        "singular along the wanted": without(x[:, :K], 0.0),
        "singular along the fourth": without(x[:, 3:4], 0.0),
        "seeing only what is not wanted": 1e8 * np.eye(N) - (1e8 - 1) * x[:, :K] @ x[:, :K].T,
        "scaled wildly": np.diag(np.logspace(-10, 10, N)),
        "scaled wildly, turned": spectra.hermitian(q * np.logspace(-8, 8, N) @ q.T),
        "an inverse of another matrix": spectra.hermitian(lapack),
        "the matrix in place of its inverse": made.A,
        "tiny": 1e-200 * np.eye(N),
        "huge": 1e200 * np.eye(N),
    }


# What a positive factor and a moderate one have to leave solvable.
HARMLESS = ("tiny", "huge", "the matrix in place of its inverse")
PRECONDITIONER_SPECTRA = {
    "fourfold": hard.cluster(N, 0, 4),
    "threefold, cut": hard.cluster(N, 2, 3),
    "simple": np.arange(1.0, N + 1),
}


@pytest.mark.parametrize("spectrum", PRECONDITIONER_SPECTRA)
@pytest.mark.slow
@pytest.mark.parametrize("method", PRECONDITIONED)
def test_bad_preconditioners(method, spectrum):
    """Honest where the preconditioner hides what is wanted."""
    made = spectra.pencil(PRECONDITIONER_SPECTRA[spectrum], seed=3)
    problem = Problem(made.A, None, made.values)
    for name, t in bad_preconditioners(made).items():
        # One of Davidson's steps is a single product.
        steps = 300 if method == "lobpcg" else 3000
        claimed = run(problem, method, T=t, max_steps=steps)
        assert claimed or name not in HARMLESS, name
