"""ShiftInvert: the right set with few solves, stiff and singular pencils, honest bounds."""

import functools
import gzip
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg

from jax_peig import BlockProduct, ShiftInvert, Status, operators, partial_eigh
from jax_peig._cli.matrix_market import AS_SPARSE_ARRAYS
from jax_peig._eigensolvers.shift_invert import _counted
from jax_peig._eigensolvers.shift_invert_basis import Basis
from jax_peig._eigensolvers.shift_invert_iteration import (
    Chain,
    Iteration,
    Leftover,
    Order,
)
from jax_peig._problem.convergence import Inverted, Ritz
from tests.benchmarks import problems
from tests.support import gauge_free, spectra

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
N, K = 90, 7
# Solves of ours over the fewest with which ARPACK finds the right set from every start.
SOLVES = 1.3


@functools.cache
def solver(method=None, sigma=None):
    """(A, M, key) -> PartialEigh, compiled once."""
    method = ShiftInvert() if method is None else method
    return jax.jit(lambda a, m, key: partial_eigh(a, m, K, sigma=sigma, method=method, key=key))


SPECTRA = {
    "simple": np.arange(1.0, N + 1),
    "pairs": np.repeat(np.arange(1.0, N / 2 + 1), 2),
    "six rigid motions": np.r_[np.zeros(6), np.linspace(1, 50, N - 6)],
    "twelve copies, cut": np.r_[np.full(12, 1.0), np.arange(2.0, N - 10)],
    "stiff": np.r_[np.arange(1.0, 10), np.logspace(2, 10, N - 9)],
    "indefinite": np.arange(N) - 30.5,
    "three values, cut": np.repeat([1.0, 2.0, 3.0], [6, 30, N - 36]),
}


@pytest.mark.slow
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("sigma", [None, 1.2], ids=["smallest", "nearest"])
def test_the_right_set(spectrum, sigma):
    """From three starts, with all copies, and within the bounds."""
    pencil = spectra.pencil(SPECTRA[spectrum])
    exact = scipy.linalg.eigvalsh(pencil.A)
    order = np.arange(N) if sigma is None else np.argsort(np.abs(exact - sigma), kind="stable")
    wanted = np.sort(exact[order[:K]])
    rounding = N * np.finfo(float).eps * np.abs(exact).max()
    for seed in range(3):
        w, x, info = solver(sigma=sigma)(pencil.A, None, jax.random.key(seed))
        assert int(info.status) == Status.CONVERGED
        np.testing.assert_allclose(np.sort(w), wanted, rtol=1e-12, atol=rounding)
        errors = np.min(np.abs(np.asarray(w)[:, None] - exact[None, :]), axis=1)
        assert np.all(errors <= np.asarray(info.error_bounds) + rounding)
        np.testing.assert_allclose(x.T @ x, np.eye(K), atol=1e-12)


@pytest.mark.slow
def test_close_eigenvalues_behind_the_wanted_ones():
    """A spacing of a hundredth of the pole's distance: the check has to tell them apart."""
    d = np.r_[1 + 0.01 * np.arange(200), np.linspace(10, 100, 300)]
    w, _, info = partial_eigh(d, k=6, method=ShiftInvert())
    assert int(info.status) == Status.CONVERGED
    np.testing.assert_allclose(w, d[:6], rtol=1e-12)


@pytest.mark.slow
def test_six_ones_of_a_matrix_of_norm_1e9():
    """The bounds are as small as the errors deserve; those of residual and norm were 2 to 7 %."""
    d = np.r_[np.ones(6), 1e9 * np.linspace(0.1, 1, N - 6)]
    w, _, info = partial_eigh(scipy.sparse.diags_array(d), k=6, method=ShiftInvert())
    assert int(info.status) == Status.CONVERGED
    np.testing.assert_allclose(w, 1, rtol=1e-13)
    assert np.all(info.error_bounds < 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("form", [scipy.sparse.csr_array, np.asarray])
def test_degrees_of_freedom_without_mass(form):
    """The finite eigenvalues, as LAPACK has them after static condensation; vectors solve A x."""
    free = np.arange(N) % 3 != 0
    spring = np.linspace(1, 2, N + 1)
    a = np.diag(spring[1:] + spring[:-1]) - np.diag(spring[1:-1], 1) - np.diag(spring[1:-1], -1)
    inner = np.linalg.solve(a[np.ix_(~free, ~free)], a[np.ix_(~free, free)])
    exact = scipy.linalg.eigvalsh(a[np.ix_(free, free)] - a[np.ix_(free, ~free)] @ inner)
    m = np.diag(free.astype(float))
    w, x, info = partial_eigh(form(a), form(m), K, sigma=0.0, method=ShiftInvert())
    assert int(info.status) == Status.CONVERGED
    np.testing.assert_allclose(w, exact[:K], rtol=1e-12)
    np.testing.assert_allclose(a @ x, m @ x @ np.diag(w), atol=1e-11)
    np.testing.assert_allclose(x.T @ m @ x, np.eye(K), atol=1e-12)


def test_a_full_mass_of_lower_rank():
    """Five infinite eigenvalues: the others as LAPACK has them of M x = A x / lam."""
    a = spectra.pencil(np.arange(1.0, N + 1)).A
    m = spectra.pencil(np.r_[np.zeros(5), np.linspace(1, 2, N - 5)], seed=1).A
    w, _, info = partial_eigh(a, m, K, sigma=0.0, method=ShiftInvert())
    assert int(info.status) == Status.CONVERGED
    exact = 1 / scipy.linalg.eigh(m, a, eigvals_only=True)[::-1][:K]
    np.testing.assert_allclose(w, exact, rtol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [None, 0.5])
def test_an_indefinite_mass_is_seen(sigma):
    """One negative eigenvalue of 800: no eigenvalue of such a pencil is told."""
    n = 800
    m = scipy.sparse.lil_array(scipy.sparse.eye_array(n))
    m[3, 4] = m[4, 3] = 2.0
    a = scipy.sparse.diags_array(np.arange(1.0, n + 1))
    for seed in range(3):
        key = jax.random.key(seed)
        found = partial_eigh(a, m.tocsr(), 4, sigma=sigma, method=ShiftInvert(), key=key)
        assert int(found.info.status) == Status.M_NOT_POSITIVE_DEFINITE
        assert np.all(np.isnan(found.eigenvalues))


@pytest.mark.slow
def test_gradients_without_mass(monkeypatch):
    """Density of the lowest pair and its value, against differences of the condensed pencil.

    By the shift-inverted systems alone: MINRES after them would mend a wrong solution.
    """
    monkeypatch.setattr(ShiftInvert, "derivative_solvers", lambda *_: ("shift-invert",))
    n = 30
    free = np.arange(n) % 3 != 0
    c = np.linspace(0.5, 1.5, n)

    def stiffness(t, xp):
        spring = xp.linspace(1.0, 2.0, n + 1) + t * xp.sin(xp.arange(n + 1.0))
        inside = xp.diag(spring[1:-1], 1)
        return xp.diag(spring[1:] + spring[:-1]) - inside - inside.T

    def reference(t):
        a = stiffness(t[0], np)
        inner = -np.linalg.solve(a[np.ix_(~free, ~free)], a[np.ix_(~free, free)])
        w, y = scipy.linalg.eigh(a[np.ix_(free, free)] + a[np.ix_(free, ~free)] @ inner)
        x = np.zeros((n, 2))
        x[free], x[~free] = y[:, :2], inner @ y[:, :2]
        return np.sum(w[:2]) + np.sum(c * np.sum(x**2, axis=1) ** 2)

    def loss(t):
        mass = jnp.diag(free.astype(float))
        w, x, _ = partial_eigh(stiffness(t, jnp), mass, 2, sigma=0.0, method=ShiftInvert())
        return jnp.sum(w) + jnp.sum(c * jnp.sum(x**2, axis=1) ** 2)

    slope = float(jax.grad(loss)(0.1))
    expected = gauge_free.gradient_fd(reference, np.array([0.1]))[0]
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


@pytest.mark.slow
def test_the_pole_is_the_methods_and_sigma_the_question():
    """The four nearest to 20.2, from a pole at 20.9 and through a solve of the caller's."""
    d = np.arange(1.0, N + 1)
    method = ShiftInvert(shift=20.9)
    for OPinv in (None, 1 / (d - 20.9)):
        w, _, info = partial_eigh(d, k=4, sigma=20.2, method=method, OPinv=OPinv)
        assert int(info.status) == Status.CONVERGED
        assert float(info.pole) == 20.9
        np.testing.assert_allclose(w, [20, 21, 19, 22], rtol=1e-13)


def test_a_pole_inside_the_spectrum_shows_no_smallest():
    """A caller's solve does not tell its inertia: the pairs are found, and not called complete."""
    d = np.arange(1.0, N + 1)
    found = partial_eigh(d, k=3, method=ShiftInvert(shift=10.5), OPinv=1 / (d - 10.5))
    assert int(found.info.status) != Status.CONVERGED


def test_a_wrong_solve_is_noticed():
    """The residuals are those of A, not of what OPinv inverts."""
    a = spectra.pencil(np.arange(1.0, N + 1)).A
    wrong = np.linalg.inv(a + 0.1 * np.diag(np.sin(np.arange(N))))
    found = partial_eigh(a, k=3, sigma=0.0, OPinv=wrong, method="shift_invert")
    assert int(found.info.status) != Status.CONVERGED


# -- the equations of the completeness check --


def test_the_limits_are_where_the_wanted_pairs_end():
    """lam = pole + 1 / nu: from both sides of sigma, or from the pole upwards."""
    pole, sigma, last = 1.0, 1.5, 2.0
    near = Order(pole, sigma, np.array(False)).limits(last)
    np.testing.assert_allclose(pole + 1 / np.asarray(near), [sigma + last, sigma - last])
    above = Order(pole, None, np.array(True)).limits(last)
    np.testing.assert_allclose(above, [1 / (last - pole), -np.inf])
    assert np.all(np.isnan(Order(9.0, sigma, np.array(False)).limits(last)))


def test_delta_relative_to_the_eigenvalue():
    """It is an error over |lam - pole|; over |lam| it is larger where lam is nearer to zero."""
    pole, lam = 2.0, np.array([0.5, 1.5, 10.0, -0.1])
    order = Order(pole, None, np.array(True), to_eigenvalue=True)
    measured = order.measured(np.full(4, 1e-6), 1 / (lam - pole))
    expected = 1e-6 * np.maximum(np.abs(lam - pole) / np.abs(lam), 1)
    np.testing.assert_allclose(measured, expected, rtol=1e-12)
    np.testing.assert_array_equal(order._replace(to_eigenvalue=False).measured(lam, lam), lam)


def test_the_sum_is_that_of_an_eigenvectors_components():
    """Components p_j u_1 of LAPACK's eigenvectors of a tridiagonal matrix: the sum is 1 / u_1^2."""
    rng = np.random.default_rng(0)
    alpha, beta = rng.standard_normal(6), rng.uniform(0.5, 2, 5)
    values, vectors = scipy.linalg.eigh_tridiagonal(alpha, beta)
    h = jnp.diag(jnp.asarray(alpha))
    for pair in ((0, 5), (2, 3)):
        limits = jnp.asarray(values[list(pair)])
        one = jnp.ones(2)
        chain = Chain(limits, one, 0 * one, one, jnp.zeros(()), one)
        for at in range(5):
            e = jnp.zeros((2, 6)).at[0, at].set(beta[at])
            basis = Basis(h, h, None, h, jnp.array(at + 1))
            chain = Iteration.extended(None, chain, basis, Leftover(h, h, e), at)
        np.testing.assert_allclose(chain.total, 1 / vectors[0, list(pair)] ** 2, rtol=1e-10)


# -- the proof by inertia --


@pytest.mark.slow
@pytest.mark.parametrize("form", [scipy.sparse.csr_array, np.asarray])
@pytest.mark.parametrize("sigma", [None, 12.2])
def test_inertia_proves_the_set(form, sigma):
    """All copies are counted; a cut cluster has no shift behind it."""
    values = np.r_[np.repeat([-3.0, -1.0, 2.0], 2), np.arange(7.0, N + 1)]
    a = spectra.pencil(values).A
    order = np.argsort(values if sigma is None else np.abs(values - sigma), kind="stable")
    places = values[order] if sigma is None else np.abs(values - sigma)[order]
    for k in range(3, 7):
        method = ShiftInvert(inertia=True)
        found = partial_eigh(form(a), k=k, sigma=sigma, method=method)
        assert int(found.info.status) == Status.CONVERGED
        cut = places[k] - places[k - 1] < 1e-9
        assert int(found.info.inertia) == (-1 if cut else k)


def test_inertia_shows_what_is_missing():
    """Of 1, 2, 3, ... the second was not found: three lie up to the second of the pairs."""
    factor = operators.shift_invert(np.arange(1.0, N + 1), 0.0, inertia=True)
    inverted = Inverted(0.0, None, jnp.full(3, 1e-12), 0, jnp.array(-1))
    found = Ritz(jnp.array([1.0, 3.0, 4.0]), *[None] * 9, complete=True, inverted=inverted)
    task = types.SimpleNamespace(rule=types.SimpleNamespace(k=2))
    for sigma in (None, 0.5):
        counted = _counted(found, task, Order(0.0, sigma, np.array(True)), factor)
        assert int(counted.inverted.counted) == 3
        assert not counted.complete


@pytest.mark.slow
def test_inertia_under_jit_and_differentiation():
    """It changes no value and no gradient, and costs a sparse matrix two factorisations."""
    pattern = operators.from_scipy(scipy.sparse.diags_array(np.arange(1.0, N + 1)))

    @functools.partial(jax.jit, static_argnums=1)
    def solve(values, inertia):
        def loss(values):
            method = ShiftInvert(inertia=inertia)
            found = partial_eigh(pattern.with_values(values), k=3, sigma=10.3, method=method)
            return jnp.sum(found.eigenvalues**2), found.info.inertia

        return jax.value_and_grad(loss, has_aux=True)(values)

    values = pattern.values + 0.01
    (plain, unknown), slope = solve(values, False)
    before = operators.factors.factorizations
    (value, count), gradient = solve(values, True)
    assert (int(unknown), int(count)) == (-1, 3)
    assert operators.factors.factorizations - before == 3
    np.testing.assert_allclose(value, plain, rtol=1e-12)
    np.testing.assert_allclose(gradient, slope, atol=1e-9)


# -- solves ----------------------------------------------------------------------------------------


def fewest_of_arpack(a, m, k, exact):
    """Solves of the loosest tolerance with which eigsh finds the right set from eight starts."""
    shifted = scipy.sparse.linalg.splu(scipy.sparse.csc_matrix(a))
    for tol in (1e-4, 1e-6, 1e-8, 1e-10, 0):
        counts = []
        for seed in range(8):
            solves = []

            def solve(x, solves=solves):
                solves.append(1)
                return shifted.solve(x)

            inverse = scipy.sparse.linalg.LinearOperator(a.shape, matvec=solve, dtype=float)
            v0 = np.random.default_rng(seed).standard_normal(a.shape[0])
            w = scipy.sparse.linalg.eigsh(a, k, m, sigma=0.0, OPinv=inverse, tol=tol, v0=v0)[0]
            if not np.allclose(np.sort(w), exact, rtol=1e-6):
                break
            counts.append(len(solves))
        else:
            return max(counts)
    raise AssertionError("eigsh found no right set")


@pytest.mark.parametrize("name", ["P1", pytest.param("P3", marks=pytest.mark.slow)])
def test_few_solves(name):
    """At most 1.3 times ARPACK's fewest, the completeness check included, with repeated pairs."""
    problem = problems.make(name)
    a, m = problem.matrix, problem.mass
    exact = problem.wanted[:8]
    fewest = fewest_of_arpack(a, m, 8, exact)
    before = operators.factors.factorizations
    for seed in range(2):
        w, _, info = partial_eigh(a, m, 8, sigma=0.0, key=jax.random.key(seed))
        assert int(info.status) == Status.CONVERGED
        assert info.method == "shift_invert"
        np.testing.assert_allclose(w, exact, rtol=1e-11)
        assert int(info.solves) <= SOLVES * fewest
    assert operators.factors.factorizations - before == 1


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the matrices are not at hand")
def test_bcsstk13():
    """Condition 1e10: some forty solves, in place of 478,000 matvecs that did not converge."""
    with gzip.open(DATA / "bcsstk13.mtx.gz") as file:
        a = scipy.sparse.csr_array(scipy.io.mmread(file, **AS_SPARSE_ARRAYS))
    exact = scipy.linalg.eigvalsh(a.toarray(), subset_by_index=[0, 5])
    for options in ({"sigma": 0.0}, {"method": ShiftInvert()}):
        w, _, info = partial_eigh(a, k=6, **options)
        assert int(info.status) == Status.CONVERGED
        assert int(info.solves) <= 50
        # LAPACK's own error is eps ||A||.
        norm = abs(a).sum(axis=0).max()
        np.testing.assert_allclose(w, exact, rtol=0, atol=10 * np.finfo(float).eps * norm)


@pytest.mark.slow
def test_products_with_the_mass_are_counted():
    """To the vector, the probe's among them."""
    d, mass, counts = jnp.arange(1.0, N + 1), jnp.linspace(1.0, 2.0, N), []

    def product(block):
        jax.debug.callback(lambda _: counts.append(block.shape[1]), block[0, 0])
        return mass[:, None] * block

    solve = 1 / (d - 10.3 * mass)
    M = BlockProduct(product)
    info = partial_eigh(d, M, 4, n=N, sigma=10.3, OPinv=solve, method="shift_invert").info
    assert int(info.status) == Status.CONVERGED
    jax.effects_barrier()
    assert int(info.matvecs_M) == sum(counts)


# -- refused ---------------------------------------------------------------------------------------

WRONG = {
    "products": (
        lambda: partial_eigh(lambda v: 2 * v, k=1, n=9, method=ShiftInvert()),
        "expected matrices",
    ),
    "largest": (
        lambda: partial_eigh(np.eye(9), k=1, which="largest", method=ShiftInvert()),
        "which='largest'",
    ),
    "OPinv and inertia": (
        lambda: partial_eigh(
            np.eye(9), k=1, sigma=0.0, OPinv=np.eye(9), method=ShiftInvert(inertia=True)
        ),
        "expected matrices alone",
    ),
    "OPinv without shift": (
        lambda: partial_eigh(np.eye(9), k=1, OPinv=np.eye(9), method=ShiftInvert()),
        "expected ShiftInvert\\(shift",
    ),
}


def test_wrong_options():
    with pytest.raises(TypeError, match="shift is '0'; expected a real number"):
        ShiftInvert(shift="0")
    with pytest.raises(TypeError, match="inertia is 1; expected True or False"):
        ShiftInvert(inertia=1)
    with pytest.raises(ValueError, match="max_basis_size"):
        ShiftInvert(max_basis_size=0)


@pytest.mark.parametrize("case", WRONG)
def test_what_it_cannot_do(case):
    call, text = WRONG[case]
    with pytest.raises(ValueError, match=text):
        call()
