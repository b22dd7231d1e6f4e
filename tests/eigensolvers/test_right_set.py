"""The claim: what is reported as converged is the right set of eigenvalues, whatever the problem.

``info.status == CONVERGED`` implies that the k eigenvalues are the extreme ones, each as often as
it is there; that the vectors are M-orthonormal; and that the residuals, computed here, are within
the tolerance. `hard_spectra.is_claimed` asserts this wherever it is claimed. Where a test says
``assert run(...)`` the problem is easy enough that the claim has to be made; where it does not, an
honest "not converged" will do, and the test says why.

Spectra are exact or LAPACK's. Shapes are few, since each compiles a program of its own.
"""

import jax
import numpy as np
import pytest
import scipy.sparse.linalg

from jax_peig import Status
from tests.support import hard_spectra as hard
from tests.support.hard_spectra import diagonal, grid, is_claimed, turned
from tests.support.right_set import (
    BLOCK,
    K,
    N,
    each_method,
    every_method,
    member,
    program,
    run,
    solve,
)

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


# -- batches --------------------------------------------------------------------------------------

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
