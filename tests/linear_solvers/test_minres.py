"""MINRES against SciPy's and against direct solves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg

from jax_peig._linear_solvers import minres
from tests.support import spectra

N, B = 30, 4
EPS = np.finfo(np.float64).eps
MAX_STEPS = 400


@functools.cache
def solver(preconditioned=False, max_steps=MAX_STEPS):
    """(A, shifts, B, atol, T) -> solutions of (A - shift_j) z_j = b_j."""

    def solve(a, shifts, b, atol, t):
        def product(block, index):
            return a @ block - block * shifts[index].astype(a.dtype)[None, :]

        precondition = (lambda block: t @ block) if preconditioned else None
        return minres.solve(product, b, atol, max_steps, precondition).x

    return jax.jit(solve)


def solve(a, b, *, shifts=None, tol=1e-12, t=None, max_steps=MAX_STEPS):
    """Solve to a residual of ``tol`` times the right-hand side's norm."""
    shifts = np.zeros(b.shape[1]) if shifts is None else np.asarray(shifts)
    atol = tol * np.linalg.norm(b, axis=0)
    run = solver(t is not None, max_steps)
    return np.asarray(run(a, shifts, b, atol, np.eye(len(a)) if t is None else t))


def matrix(values, seed=0, dtype=np.float64):
    return spectra.pencil(values, dtype=dtype, seed=seed).A


def rhs(seed=1, dtype=np.float64):
    rng = np.random.default_rng(seed)
    b = rng.standard_normal((N, B))
    return b + 1j * rng.standard_normal((N, B)) if np.issubdtype(dtype, complex) else b


DEFINITE = np.linspace(1.0, 10.0, N)
INDEFINITE = np.concatenate([-np.linspace(1.0, 5.0, N // 3), np.linspace(0.5, 9.0, N - N // 3)])
SPECTRA = {
    "definite": DEFINITE,
    "negative": -DEFINITE,
    "indefinite": INDEFINITE,
    "one negative": np.concatenate([[-3.0], DEFINITE[1:]]),
    "few values": np.repeat([-2.0, 1.0, 5.0], N // 3),
    "one value": np.full(N, 3.0),
    "tiny": 1e-100 * INDEFINITE,
    "huge": 1e100 * INDEFINITE,
}


def theirs(a, column, t=None, tol=1e-12):
    """SciPy's solution of one system; its tolerance is of another norm, so ask for more."""
    x, info = scipy.sparse.linalg.minres(a, column, rtol=tol / 100, maxiter=5 * N, M=t)
    assert info in (0, 5 * N)
    return x


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_against_a_direct_solve(spectrum, dtype):
    a, b = matrix(SPECTRA[spectrum], dtype=dtype), rhs(dtype=dtype)
    z = solve(a, b)
    assert z.dtype == dtype
    expected = np.linalg.solve(a, b)
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(z, expected, rtol=0, atol=1e-10 * scale)
    residual = np.linalg.norm(b - a @ z, axis=0)
    assert np.all(residual <= 2e-12 * np.linalg.norm(b, axis=0))


@pytest.mark.parametrize("spectrum", ["definite", "indefinite", "one negative", "few values"])
def test_against_scipy(spectrum):
    a, b = matrix(SPECTRA[spectrum]), rhs()
    z = solve(a, b)
    for j in range(B):
        np.testing.assert_allclose(z[:, j], theirs(a, b[:, j]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("steps", [1, 2, 5, 9])
def test_every_iterate_has_the_smallest_residual(steps):
    """After j steps: least squares over the Krylov space, by NumPy."""
    a, b = matrix(INDEFINITE), rhs()
    z = solve(a, b, max_steps=steps)
    for j in range(B):
        basis = np.stack([np.linalg.matrix_power(a / 9, i) @ b[:, j] for i in range(steps)], axis=1)
        basis, _ = np.linalg.qr(basis)
        coefficients = np.linalg.lstsq(a @ basis, b[:, j], rcond=None)[0]
        best = np.linalg.norm(b[:, j] - a @ basis @ coefficients)
        ours = np.linalg.norm(b[:, j] - a @ z[:, j])
        np.testing.assert_allclose(ours, best, rtol=1e-8)


def test_different_shifts():
    """One operator for each right-hand side, in the interior of the spectrum too."""
    a, b = matrix(DEFINITE), rhs()
    shifts = np.array([0.0, 2.05, -4.0, 9.0])
    z = solve(a, b, shifts=shifts)
    for j in range(B):
        shifted = a - shifts[j] * np.eye(N)
        np.testing.assert_allclose(z[:, j], np.linalg.solve(shifted, b[:, j]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("kernel", [1, 3])
def test_singular_consistent(kernel, dtype):
    """A right-hand side in the range: the solution of least norm, as the pseudo-inverse gives."""
    values = INDEFINITE.copy()
    values[5 : 5 + kernel] = 0
    pencil = spectra.pencil(values, dtype=dtype, seed=2)
    b = pencil.A @ rhs(dtype=dtype)
    z = solve(pencil.A, b)
    expected = np.linalg.pinv(pencil.A, rcond=1e-10, hermitian=True) @ b
    np.testing.assert_allclose(z, expected, rtol=0, atol=1e-9)
    if dtype == np.float64:
        x = theirs(pencil.A, b[:, 0])
        np.testing.assert_allclose(pencil.A @ z[:, 0], pencil.A @ x, rtol=0, atol=1e-9)


def test_singular_inconsistent_ends_and_shows():
    """No solution: the loop ends, and the true residual tells, as it always has to be asked."""
    values = INDEFINITE.copy()
    values[5] = 0
    a, b = matrix(values, seed=2), rhs()
    z = solve(a, b)
    least = np.linalg.norm(b - a @ (np.linalg.pinv(a, rcond=1e-10) @ b), axis=0)
    assert np.all(least > 1e-2)
    assert not np.any(np.linalg.norm(b - a @ z, axis=0) < 0.99 * least)


@pytest.mark.parametrize("condition", [1e4, 1e6])
def test_ill_conditioned(condition):
    """Rounding costs each residual at most eps cond ||A|| ||z||, and the median SciPy's limit.

    The bound is that of Sleijpen, van der Vorst and Modersitzki (2000). How much of it a system
    loses is a draw, here as in SciPy: single ratios spread from 0.1 to 6, medians are near 1.
    """
    half, tol = N // 2, 1e-9
    values = np.concatenate(
        [np.logspace(-np.log10(condition), 0, half), -np.linspace(0.1, 1, half)]
    )
    ratios = []
    for seed in range(12):
        a, b = matrix(values, seed=seed), rhs(seed)
        asked = tol * np.linalg.norm(b, axis=0)
        residual = np.linalg.norm(b - a @ solve(a, b, tol=tol), axis=0)
        lost = EPS * condition * np.linalg.norm(np.linalg.solve(a, b), axis=0)  # ||A|| = 1
        assert np.all(residual <= asked + lost)
        limit = [
            scipy.sparse.linalg.minres(a, column, rtol=1e-16, maxiter=MAX_STEPS)[0]
            for column in b.T
        ]
        theirs = np.linalg.norm(b - a @ np.stack(limit, axis=1), axis=0)
        ratios.append(residual / np.maximum(asked, theirs))
    assert np.median(ratios) <= 2


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_preconditioned(dtype):
    """With an inverse of |A|, the spectrum is {-1, 1}: two steps."""
    values = INDEFINITE * np.logspace(0, 3, N)
    pencil = spectra.pencil(values, dtype=dtype, seed=4)
    absolute = spectra.hermitian((pencil.vectors / np.abs(pencil.values)) @ pencil.vectors.conj().T)
    b = rhs(dtype=dtype)
    expected = np.linalg.solve(pencil.A, b)
    z = solve(pencil.A, b, t=absolute)
    np.testing.assert_allclose(z, expected, rtol=0, atol=1e-9)
    quick = solve(pencil.A, b, t=absolute, max_steps=2)
    np.testing.assert_allclose(quick, expected, rtol=0, atol=1e-9)
    slow = solve(pencil.A, b, max_steps=2)
    assert np.max(np.abs(slow - expected)) > 1e-2


def test_preconditioned_against_scipy():
    a, b = matrix(INDEFINITE), rhs()
    t = matrix(np.linspace(0.2, 2.0, N), seed=5)
    z = solve(a, b, t=t)
    for j in range(B):
        np.testing.assert_allclose(z[:, j], theirs(a, b[:, j], t), rtol=0, atol=1e-10)
        np.testing.assert_allclose(z[:, j], np.linalg.solve(a, b[:, j]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_zero_right_hand_sides(spectrum):
    """Zero columns give exactly zero, and their neighbours what they give alone."""
    a, b = matrix(SPECTRA[spectrum]), rhs()
    b[:, [0, 2]] = 0
    z = solve(a, b)
    np.testing.assert_array_equal(z[:, [0, 2]], 0)
    expected = np.linalg.solve(a, b)
    np.testing.assert_allclose(z, expected, rtol=0, atol=1e-10 * np.max(np.abs(expected)))
    np.testing.assert_array_equal(solve(a, 0 * b), 0)


def test_columns_that_are_done_stand_still():
    """Easy, hard and loose columns in one block: each as alone."""
    values = np.concatenate([np.logspace(-3, 0, N // 2), -np.linspace(0.1, 1, N // 2)])
    pencil = spectra.pencil(values, seed=6)
    b = rhs()
    b[:, 0] = pencil.vectors[:, 3]  # an eigenvector: one step
    b[:, 1] = pencil.vectors[:, 3] + pencil.vectors[:, 20]  # two
    atol = np.array([1e-12, 1e-12, 1e-3, 1e-9]) * np.linalg.norm(b, axis=0)
    run = solver()
    together = np.asarray(run(pencil.A, np.zeros(B), b, atol, np.eye(N)))
    for j in range(B):
        alone = np.zeros_like(b)
        alone[:, j] = b[:, j]
        z = np.asarray(run(pencil.A, np.zeros(B), alone, atol, np.eye(N)))
        np.testing.assert_allclose(together[:, j], z[:, j], rtol=0, atol=1e-10)
    np.testing.assert_allclose(
        together[:, 0], pencil.vectors[:, 3] / pencil.values[3], rtol=0, atol=1e-9
    )
    residual = np.linalg.norm(b - pencil.A @ together, axis=0)
    assert np.all(residual <= 3 * atol)
    assert residual[2] > 1e-6, "the loose column has done more than it was asked for"


def test_columns_of_different_size():
    """Tolerances are each column's own: 1e-150 beside 1e150."""
    a = matrix(INDEFINITE)
    b = rhs()
    sizes = np.array([1e-150, 1.0, 1e150, 1e-8])
    z = solve(a, b * sizes) / sizes
    np.testing.assert_allclose(z, np.linalg.solve(a, b), rtol=0, atol=1e-10)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_ends(wrong):
    """NaN in one column ends that column; NaN in A ends the loop."""
    a, b = matrix(INDEFINITE), rhs()
    b[3, 1] = wrong
    z = solve(a, b)
    fine = [0, 2, 3]
    expected = np.linalg.solve(a, b[:, fine])
    np.testing.assert_allclose(z[:, fine], expected, rtol=0, atol=1e-10)
    broken = a.copy()
    broken[2, 2] = wrong
    solve(broken, rhs())


def test_the_zero_matrix_ends():
    z = solve(np.zeros((N, N)), rhs())
    assert np.all(np.isfinite(z))


def test_single_precision():
    a, b = matrix(INDEFINITE, dtype=np.float32), rhs().astype(np.float32)
    atol = (1e-5 * np.linalg.norm(b, axis=0)).astype(np.float32)
    z = solver()(a, np.zeros(B, np.float32), b, atol, np.eye(N, dtype=np.float32))
    assert z.dtype == jnp.float32
    expected = np.linalg.solve(a.astype(float), b.astype(float))
    np.testing.assert_allclose(z, expected, rtol=0, atol=2e-3)


def test_steps_are_bounded_and_counted():
    """One block product a step for all columns, and no more than max_steps."""
    count = []

    def host(block):
        count.append(1)
        return np.asarray(a) @ np.asarray(block)

    a, b = matrix(INDEFINITE), rhs()

    def product(block, _):
        return jax.pure_callback(host, jax.ShapeDtypeStruct(block.shape, block.dtype), block)

    atol = jnp.asarray(1e-12 * np.linalg.norm(b, axis=0))
    run = jax.jit(lambda b: minres.solve(product, b, atol, 7).x)
    jax.block_until_ready(run(b))
    assert len(count) == 7


def test_under_vmap():
    """A batch of systems, as many steps as each needs."""
    matrices = np.stack([matrix(SPECTRA[name]) for name in ("definite", "indefinite", "one value")])
    b = np.stack([rhs(seed) for seed in range(3)])
    atol = 1e-12 * np.linalg.norm(b, axis=1)
    batched = jax.jit(jax.vmap(solver(), (0, None, 0, 0, None)))
    z = batched(matrices, np.zeros(B), b, atol, np.eye(N))
    np.testing.assert_allclose(z, np.linalg.solve(matrices, b), rtol=0, atol=1e-10)


def test_against_a_direct_solver_for_many_draws():
    """Random symmetric systems, shifted to any inertia."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        a = spectra.hermitian(rng.standard_normal((N, N))) + rng.uniform(-8, 8) * np.eye(N)
        b = rng.standard_normal((N, B))
        z = solve(a, b, tol=1e-10)
        condition = np.linalg.cond(a)
        expected = scipy.linalg.solve(a, b, assume_a="sym")
        bound = 1e-9 * condition * np.linalg.norm(expected)
        np.testing.assert_allclose(z, expected, rtol=0, atol=bound)
