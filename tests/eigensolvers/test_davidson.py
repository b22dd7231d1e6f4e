"""The generalised Davidson method: right sets from few products, whatever the start."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_peig import BlockProduct
from jax_peig._core import blocks
from jax_peig._core.monitor import Monitor
from jax_peig._eigensolvers import davidson
from jax_peig._operators.operator import as_operator
from jax_peig._problem.convergence import StoppingRule, block_width, residuals
from jax_peig._problem.iterative import Pencil
from tests.benchmarks import problems
from tests.support import spectra

# One shape for most tests: what is compiled once serves them all.
N, K = 60, 4
EPS = np.finfo(np.float64).eps
TOL = EPS ** (2 / 3)
KEY = jax.random.key(8)


@functools.cache
def program(n, k, dtype=np.float64, *, largest=False, tol=TOL, basis=None, most=3000, rows=0):
    """(A, M, T, start, worthwhile) -> Ritz, compiled once for each shape and kind."""
    rule = StoppingRule(k, largest, tol, most, Monitor(rows))
    basis = davidson.default_basis(n, k, dtype) if basis is None else basis

    def operator(x, name):
        return None if x is None else as_operator(x, n, dtype, name)

    def solve(a, m, t, start, worthwhile=True):
        norms = tuple(
            jnp.array(1.0, a.real.dtype) if x is None else jnp.linalg.norm(x, 2) for x in (a, m)
        )
        pencil = Pencil(operator(a, "A"), operator(m, "M"), norms, jnp.asarray(worthwhile))
        return davidson.solve(pencil, operator(t, "T"), start, rule, KEY, basis)

    return jax.jit(solve)


def random_start(n, k, seed=0, dtype=np.float64):
    return blocks.random_block(jax.random.key(seed), n, davidson.block_width(n, k), dtype)


def solve(pencil, k=K, *, start=None, seed=0, t=None, **options):
    """Solve from a random start; the flag is given so that every call is of one form."""
    n, dtype = pencil.A.shape[0], pencil.A.dtype.type
    start = random_start(n, k, seed, dtype) if start is None else jnp.asarray(start, dtype)
    m = None if pencil.M is None else jnp.asarray(pencil.M)
    t = None if t is None else jnp.asarray(t, dtype)
    return program(n, k, dtype, **options)(jnp.asarray(pencil.A), m, t, start, True)


def check(ritz, pencil, k=K, *, largest=False, tol=TOL, eps=EPS):
    """The k wanted pairs: values, M-orthonormality, fresh products, residuals."""
    values = pencil.values[::-1] if largest else pencil.values
    scale = np.max(np.abs(values))
    w, x = np.asarray(ritz.values), np.asarray(ritz.vectors).astype(np.complex128)
    mass = pencil.mass.astype(np.complex128)
    condition = np.linalg.cond(mass)
    # The error of a value is of second order in the residual where the gap allows.
    np.testing.assert_allclose(w[:k], values[:k], rtol=0, atol=(tol + 100 * eps) * scale)
    x, w = x[:, :k], w[:k]
    np.testing.assert_allclose(x.conj().T @ mass @ x, np.eye(k), atol=100 * eps * condition)
    ax, mx = pencil.A @ x, mass @ x
    norm_a, norm_m = np.linalg.norm(pencil.A, 2), np.linalg.norm(mass, 2)
    lengths = np.linalg.norm(x, axis=0)
    rounding = 100 * eps * max(lengths)
    np.testing.assert_allclose(np.asarray(ritz.AX)[:, :k], ax, rtol=0, atol=rounding * norm_a)
    np.testing.assert_allclose(np.asarray(ritz.MX)[:, :k], mx, rtol=0, atol=rounding * norm_m)
    r = np.linalg.norm(ax - mx * w, axis=0)
    assert np.all(r <= (tol + 100 * eps) * (norm_a + np.abs(w) * norm_m) * lengths)
    assert bool(ritz.finite)
    assert bool(ritz.definite)


# -- the right set -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", [*spectra.CLUSTERS, "cut"])
@pytest.mark.parametrize("condition", [None, 1e2])
def test_exact_clusters(where, condition):
    pencil = spectra.pencil(spectra.clustered(N, K, where), condition=condition, seed=1)
    for seed in range(3):
        ritz = solve(pencil, seed=seed)
        check(ritz, pencil)
        gap = pencil.values[K] - pencil.values[K - 1]
        np.testing.assert_allclose(ritz.values[K] - ritz.values[K - 1], gap, rtol=0, atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("separation", [1e-3, 1e-6, 1e-9, 1e-12])
@pytest.mark.parametrize("where", ["start", "all", "cut"])
def test_close_pairs(where, separation):
    pencil = spectra.pencil(spectra.clustered(N, K, where, separation=separation), seed=3)
    check(solve(pencil), pencil)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["complex, M, largest", "float32"])
def test_other_kinds(kind):
    values = spectra.clustered(N, K, "all but one")
    if kind == "float32":
        pencil = spectra.pencil(values, dtype=np.float32, seed=2)
        tol, eps = 2.4e-5, float(np.finfo(np.float32).eps)
        check(solve(pencil, tol=tol), pencil, tol=tol, eps=eps)
    else:
        pencil = spectra.pencil(-values, dtype=np.complex128, condition=1e2, seed=2)
        check(solve(pencil, largest=True), pencil, largest=True)


# Repeated up to twelve times, and clusters that k cuts: without the completeness check a trial like
# the first went wrong from 30 of 30 random starts.
REPEATED = {
    "twelve among the wanted": np.r_[1.0, np.full(12, 2.0), np.linspace(3, 60, 107)],
    "twelve, cut": np.r_[1.0, 1.2, 1.4, 1.6, np.full(12, 2.0), np.linspace(3, 60, 104)],
    "triples": np.r_[np.repeat(np.arange(1.0, 7.0), 3), np.linspace(7, 60, 102)],
    "copies far from all others": np.r_[np.repeat([1.0, 2.0], 7), np.linspace(50, 60, 106)],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REPEATED)
def test_repeated_eigenvalues_from_random_starts(name):
    k = 14
    pencil = spectra.pencil(REPEATED[name], seed=4)
    for seed in range(16):
        values = solve(pencil, k, seed=seed, tol=1e-8, basis=40).values
        np.testing.assert_allclose(values[:k], REPEATED[name][:k], rtol=0, atol=1e-7)


@pytest.mark.parametrize("spectrum", ["none", "start", "all", "cut", "wide gap"])
def test_starts_that_are_blind(spectrum):
    """Diagonal, so that unit vectors are exact and what they do not span is out of sight."""
    values = np.r_[1.0, 2.0, 3.0, 3.5, 4.0, 1e3 + np.arange(N - 5.0)]
    values = values if spectrum == "wide gap" else spectra.clustered(N, K, spectrum)
    pencil = spectra.Pencil(np.diag(values), None, np.sort(values), np.eye(N))
    eye = np.eye(N)
    blind = np.random.default_rng(0).standard_normal((N, K))
    blind[:K] = 0
    given = {
        "orthogonal to the wanted": blind,
        "the next ones": eye[:, K : 2 * K],
        "the largest": eye[:, -K:],
        "one of the wanted left out": eye[:, [0, 1, 2, 4]],
        "nearly, but one": eye[:, [1, 2, 3, 4]] + 1e-9 * blind,
        "four times the same": eye[:, [30] * K],
        "zero": np.zeros((N, K)),
        "exact": eye[:, :K],
    }
    for name, v0 in given.items():
        for seed in range(3):
            start = np.array(random_start(N, K, seed))
            start[:, :K] = v0
            try:
                check(solve(pencil, start=start), pencil)
            except AssertionError as error:
                raise AssertionError(f"{name}, seed {seed}") from error


# -- invariant subspaces, small orders ---------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero", "identity", "low rank", "one among zeros", "reflection"])
def test_spaces_that_are_soon_exhausted(name):
    values = {
        "zero": np.zeros(N),
        "identity": np.ones(N),
        "low rank": np.r_[0.5, 0.5, np.ones(N - 4), 3.0, 4.0],
        "one among zeros": np.r_[-1.0, np.zeros(N - 1)],
        "reflection": np.r_[-np.ones(2), np.ones(N - 2)],
    }[name]
    for matrix in (np.diag(values), spectra.pencil(values, seed=5).A):
        pencil = spectra.Pencil(matrix, None, values, np.eye(N))
        ritz = solve(pencil)
        check(ritz, pencil)
        assert int(ritz.matvecs) < N


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "k", "basis"),
    [
        (1, 1, 8),
        (9, 2, 4),
        *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in [(3, 1, 20), (5, 5, 20)]),
    ],
)
def test_small_orders(n, k, basis):
    """A basis wider than the space, and one that is too narrow and is made wider."""
    pencil = spectra.pencil(np.arange(1.0, n + 1), condition=4.0, seed=6)
    check(solve(pencil, k, basis=basis), pencil, k)


def test_a_narrow_basis():
    pencil = spectra.pencil(spectra.clustered(N, K, "inside"), condition=10.0, seed=7)
    usual, narrow = solve(pencil), solve(pencil, basis=12)
    check(narrow, pencil)
    assert int(narrow.matvecs) > int(usual.matvecs)


# -- preconditioners, counts, ends -------------------------------------------------------------


def test_a_preconditioner_saves_products():
    pencil = spectra.stiff(N, K)
    shifted = spectra.hermitian(np.linalg.inv(pencil.A))
    plain, helped = solve(pencil), solve(pencil, t=shifted)
    check(plain, pencil)
    check(helped, pencil)
    assert 2 * int(helped.matvecs) < int(plain.matvecs)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_the_scale_of_a_preconditioner_does_not_matter(scale):
    pencil = spectra.pencil(spectra.clustered(N, K, "inside"), seed=8)
    check(solve(pencil, t=scale * np.eye(N)), pencil)


def test_the_count_of_products_is_exact():
    counted = 0

    def report(_, columns):
        nonlocal counted
        counted += columns

    scale = jnp.arange(1.0, N + 1)

    def product(v):
        jax.debug.callback(functools.partial(report, columns=v.shape[1]), v[0, 0])
        return scale[:, None] * v

    a = as_operator(BlockProduct(product), N, np.float64, "A")
    norms = jnp.array(float(N)), jnp.array(1.0)
    rule = StoppingRule(K, False, TOL, 1000, Monitor(300))
    pencil = Pencil(a, None, norms, jnp.array(True))
    ritz = davidson.solve(pencil, None, random_start(N, K), rule, KEY, 24)
    jax.block_until_ready(ritz)
    jax.effects_barrier()
    assert counted == int(ritz.matvecs) == int(ritz.steps)
    assert int(ritz.matvecs_M) == 0
    np.testing.assert_allclose(ritz.values[:K], np.arange(1.0, K + 1))
    # The history: infinite until the start is in the basis, then down to the tolerance.
    history = np.asarray(ritz.history)
    assert np.all(np.isinf(history[1 : davidson.block_width(N, K)]))
    assert np.all(history[int(ritz.steps)] <= TOL)
    assert np.all(np.isnan(history[int(ritz.steps) + 1 :]))


def test_it_stops_at_the_bound():
    pencil = spectra.stiff(N, K)
    ritz = solve(pencil, most=40)
    width = davidson.block_width(N, K)
    assert 40 <= int(ritz.matvecs) <= 40 + 2 * width
    assert not bool(ritz.stagnated)
    np.testing.assert_allclose(ritz.AX, pencil.A @ np.asarray(ritz.vectors), atol=1e-9)


def test_it_gives_up_at_rounding():
    pencil = spectra.pencil(spectra.clustered(N, K, "start"), seed=9)
    ritz = solve(pencil, tol=1e-18, most=20_000)
    assert bool(ritz.stagnated)
    assert int(ritz.matvecs) < 20_000
    assert np.max(np.linalg.norm(residuals(ritz)[:, :K], axis=0)) < 1e-12 * N


def test_nan_and_an_indefinite_mass():
    pencil = spectra.pencil(np.arange(1.0, N + 1), condition=10.0, seed=10)
    broken = pencil._replace(A=np.where(np.eye(N) > 0, np.nan, pencil.A))
    ritz = solve(broken)
    assert not bool(ritz.finite)
    indefinite = pencil._replace(M=pencil.M - 0.5 * np.eye(N))
    assert not bool(solve(indefinite).definite)


def test_nothing_is_computed_where_it_is_not_worthwhile():
    ritz = program(N, K)(jnp.eye(N), None, None, random_start(N, K), False)
    assert int(ritz.matvecs) == 0


@pytest.mark.slow
def test_vmap():
    made = [
        spectra.pencil(spectra.clustered(N, K, where), condition=10.0, seed=11)
        for where in ("none", "all", "cut")
    ]
    a, m = (jnp.stack([jnp.asarray(p[i]) for p in made]) for i in range(2))
    run = program(N, K)
    batch = jax.vmap(lambda a, m: run(a, m, None, random_start(N, K)))(a, m)
    for i, pencil in enumerate(made):
        check(jax.tree.map(lambda leaf, i=i: leaf[i], batch), pencil)


# -- what it is for ----------------------------------------------------------------------------

# Products of PRIMME's PRIMME_DEFAULT_MIN_MATVECS preset at a relative residual of 1e-8.
PRIMME = {"P1": 1194, "P2": 407, "P3": 749}


@pytest.mark.slow
@pytest.mark.parametrize("name", PRIMME)
def test_products_against_primme(name):
    problem = problems.make(name)
    n, k = problem.n, problem.k
    a = BlockProduct(jax.tree_util.Partial(problem.product, jnp.asarray(problem.theta)))
    a = as_operator(a, n, np.float64, "A")
    m = problem.mass_product
    m = None if m is None else as_operator(BlockProduct(m), n, np.float64, "M")
    norms = jnp.array(problem.norm), jnp.array(problem.mass_norm)
    largest = np.abs(problem.wanted[:k]).max()
    tol = 1e-8 * problem.norm / (problem.norm + largest * problem.mass_norm)
    rule = StoppingRule(k, False, tol, 5000)
    pencil, size = Pencil(a, m, norms, jnp.array(True)), davidson.default_basis(n, k, np.float64)
    run = jax.jit(lambda x: davidson.solve(pencil, None, x, rule, KEY, size))
    ritz = run(random_start(n, k))
    np.testing.assert_allclose(ritz.values[:k], problem.wanted[:k], rtol=1e-8)
    lengths = np.linalg.norm(ritz.vectors[:, :k], axis=0)
    relative = np.linalg.norm(residuals(ritz)[:, :k], axis=0) / lengths / problem.norm
    assert np.max(relative) <= 1e-8
    assert int(ritz.matvecs) <= 1.3 * PRIMME[name]


@pytest.mark.parametrize(("dtype", "most"), [(np.float64, 64), (np.complex64, 56)])
def test_the_basis_stays_where_lapack_takes_one_thread(dtype, most):
    sizes = np.array([davidson.default_basis(10_000, k, dtype) for k in range(1, 40)])
    widths = np.array([block_width(10_000, k) for k in range(1, 40)])
    assert np.all((sizes <= most) == (2 * widths <= most))
    assert np.all(sizes >= 2 * widths)
