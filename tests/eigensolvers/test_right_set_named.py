"""The right set of matrices with a name, at any scale, and with preconditioners that mislead."""

import itertools

import jax
import numpy as np
import pytest

from jax_peig import Status
from tests.support import hard_spectra as hard
from tests.support import spectra
from tests.support.hard_spectra import Problem, diagonal, is_claimed, turned
from tests.support.right_set import (
    PRECONDITIONED,
    K,
    N,
    each_method,
    every_method,
    member,
    program,
    run,
    solve,
)

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


# -- preconditioners ------------------------------------------------------------------------------


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
