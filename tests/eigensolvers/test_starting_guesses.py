"""Guesses and preconditioners save work where they are good, and do no harm where they are not."""

import jax
import numpy as np
import pytest

from jax_peig import Status
from tests.support import spectra
from tests.support.eigenpairs import K, N, check, cluster_groups, solve
from tests.support.hard_spectra import UNFINISHED


@pytest.mark.slow
@pytest.mark.parametrize("condition", [None, pytest.param(1e2, marks=pytest.mark.slow)])
def test_a_preconditioner_saves_steps(condition):
    pencil = spectra.stiff(N, K, condition)
    plain = solve(pencil, method="lobpcg", preconditioner=np.ones(N))
    inverse = spectra.hermitian(np.linalg.inv(pencil.A))
    helped = solve(pencil, method="lobpcg", preconditioner=inverse)
    check(plain, pencil, K)
    check(helped, pencil, K)
    assert 4 * int(helped.info.steps) < int(plain.info.steps)
    assert 4 * int(helped.info.matvecs) < int(plain.info.matvecs)


def test_a_useless_preconditioner_gives_no_wrong_answer():
    """Zero, negative, wildly scaled or with NaN: bounded, and either right or not converged."""
    pencil = spectra.pencil(spectra.clustered(N, K, "inside"), seed=15)
    rng = np.random.default_rng(0)
    spread = spectra.hermitian(np.diag(np.logspace(-8, 8, N)))
    noise = spectra.hermitian(rng.standard_normal((N, N)))
    for t in (np.zeros((N, N)), -np.eye(N), 1e12 * np.eye(N), spread, noise):
        result = solve(pencil, method="lobpcg", preconditioner=t, max_steps=300)
        definite = np.all(np.linalg.eigvalsh(t) > 0)
        assert bool(result.info.preconditioner_definite) == definite
        if int(result.info.status) == Status.CONVERGED:
            check(result, pencil, K)
        elif definite:
            assert int(result.info.status) in UNFINISHED
        else:
            assert int(result.info.status) == Status.PRECONDITIONER_NOT_POSITIVE_DEFINITE
    for t in (-np.eye(N), 1e12 * np.eye(N)):  # only a factor, which has no effect
        result = solve(pencil, method="lobpcg", preconditioner=t, max_steps=300)
        check(result, pencil, K)


GUESSES = {
    "random": lambda p, g: g,
    "rank one": lambda p, g: np.outer(g[:, 0], np.ones(K)),
    "rank three": lambda p, g: g[:, :3] @ np.arange(1.0, 19).reshape(3, 6) ** 2,
    "a zero column": lambda p, g: g * (np.arange(K) != 2),
    "zero": lambda p, g: 0 * g,
    "badly scaled": lambda p, g: g * 10.0 ** (40 * np.arange(K) - 100),
    "one column huge": lambda p, g: g * np.where(np.arange(K) == 3, 1e200, 1.0),
    "orthogonal to the wanted": lambda p, g: p.vectors[:, K:] @ (p.vectors[:, K:].T @ g),
    "unwanted eigenvectors": lambda p, g: p.vectors[:, 10 : 10 + K],
    "the largest eigenvectors": lambda p, g: p.vectors[:, -K:],
    "twice the same wanted": lambda p, g: p.vectors[:, [0, 0, 1, 1, 2, 2]],
    "wanted and unwanted": lambda p, g: p.vectors[:, [0, 1, 20, 21, 22, 23]],
    "the answer": lambda p, g: p.vectors[:, :K],
    "unit vectors": lambda p, g: np.eye(N)[:, :K],
}


@pytest.mark.parametrize("where", ["none", "half", "all but one", "all"])
@pytest.mark.parametrize("guess", GUESSES)
def test_no_starting_guess_does_harm(guess, where):
    pencil = spectra.pencil(spectra.clustered(N, K, where), condition=None, seed=16)
    v0 = GUESSES[guess](pencil, np.random.default_rng(1).standard_normal((N, K)))
    check(solve(pencil, method="lobpcg", v0=v0), pencil, K, groups=cluster_groups(where))


@pytest.mark.parametrize("where", ["none", "half", "all but one", "all"])
@pytest.mark.parametrize("columns", [slice(10, 18), slice(N - 8, N), slice(4, 12)])
def test_a_guess_that_fills_the_block_with_unwanted_eigenvectors(columns, where):
    """Nothing is out of the iteration's sight, however converged the guess looks."""
    pencil = spectra.pencil(spectra.clustered(N, K, where), seed=16)
    result = solve(pencil, method="lobpcg", v0=pencil.vectors[:, columns])
    check(result, pencil, K, groups=cluster_groups(where))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lobpcg", "chebyshev"])
def test_a_good_guess_saves_products(method):
    """From six starts; the filter with a check that shows that nothing is missing."""
    pencil = spectra.stiff(N, K)
    noise = np.random.default_rng(2).standard_normal((N, K))

    def spent(v0):
        results = [solve(pencil, method=method, v0=v0, key=jax.random.key(i)) for i in range(6)]
        for result in results:
            check(result, pencil, K)
        return sum(int(result.info.matvecs) for result in results)

    assert spent(pencil.vectors[:, :K] + 1e-6 * noise) < 0.6 * spent(noise)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("k", "step", "block"),
    [(6, 8, 9), pytest.param(2, 2, 4, marks=pytest.mark.slow)],
)
def test_how_many_columns_of_lobpcg_take_a_step(k, step, block):
    """Near k of a random block, all after a guess: the noise in it is what finds what it lacks."""
    pencil = spectra.stiff(N, K)
    for v0, columns in ((None, step), (pencil.vectors[:, :k], block)):
        options = {"method": "lobpcg", "preconditioner": np.ones(N), "v0": v0, "tol": 1e-14}
        fewer, more = (int(solve(pencil, k, max_steps=s, **options).info.matvecs) for s in (5, 6))
        assert more - fewer == columns


@pytest.mark.slow
@pytest.mark.parametrize("columns", [1, 20])
def test_guesses_of_other_widths(columns):
    pencil = spectra.pencil(spectra.clustered(N, K, "inside"), seed=17)
    v0 = np.random.default_rng(3).standard_normal((N, columns))
    check(solve(pencil, method="lobpcg", v0=v0), pencil, K, groups=cluster_groups("inside"))


def test_a_vector_is_a_guess_of_one_column():
    pencil = spectra.pencil(spectra.clustered(N, K, "inside"), seed=17)
    v0 = np.random.default_rng(3).standard_normal(N)
    one = solve(pencil, method="lobpcg", v0=v0)
    column = solve(pencil, method="lobpcg", v0=v0[:, None])
    np.testing.assert_array_equal(one.eigenvalues, column.eigenvalues)


def test_the_dense_method_has_no_use_for_a_guess():
    pencil = spectra.pencil(spectra.clustered(N, K, "inside"), seed=17)
    plain = solve(pencil, method="dense")
    guessed = solve(pencil, method="dense", v0=np.ones((N, K)))
    np.testing.assert_array_equal(plain.eigenvectors, guessed.eigenvectors)


@pytest.mark.slow
def test_the_key_decides_the_start_and_nothing_else():
    pencil = spectra.pencil(spectra.clustered(N, K, "inside"), seed=18)
    default = solve(pencil, method="lobpcg")
    again = solve(pencil, method="lobpcg")
    np.testing.assert_array_equal(default.eigenvectors, again.eigenvectors)
    for seed in range(1, 6):
        other = solve(pencil, method="lobpcg", key=jax.random.key(seed))
        check(other, pencil, K, groups=cluster_groups("inside"))
        assert not np.array_equal(default.eigenvectors, other.eigenvectors)
