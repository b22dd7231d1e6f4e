"""No start hides a wanted pair from the methods; `test_right_set` says what is claimed."""

import jax
import numpy as np
import pytest

from jax_peig import Status, partial_eigh
from tests.support import hard_spectra as hard
from tests.support import spectra
from tests.support.hard_spectra import Problem, diagonal, grid, is_claimed
from tests.support.right_set import K, N, each_method, every_method, member, program, run, solve

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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("inverse", [False, True], ids=["folded", "OPinv"])
@pytest.mark.parametrize("tol", [1e-3, pytest.param(1e-5, marks=pytest.mark.slow)])
def test_no_start_hides_an_interior_pair_from_a_loose_tolerance(tol, inverse):
    """The twelve nearest are copies; the guess is of the next ones, whose residuals are zero."""
    n, k, sigma = 400, 12, 50.3
    values = np.r_[np.full(k, 50.25), 2.75 + 5 * np.arange(n - k)]
    nearest = np.argsort(np.abs(values - sigma))
    options = {"which": "nearest", "sigma": sigma, "tol": tol}
    options |= (
        {"method": "chebyshev"}
        if not inverse
        else {
            "method": "shift_invert",
            "OPinv": 1 / (values - sigma),
        }
    )
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
