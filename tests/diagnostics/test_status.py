"""Every way of going wrong has its status, ends, and never passes for an answer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_peig import Info, PartialEighError, Status, partial_eigh
from tests.support import spectra
from tests.support.small_pencils import GOOD, METHODS, SKEW, K, N, by_product, changed, rough


def indefinite(value):
    """Give M with one eigenvalue ``value`` and a positive diagonal."""
    values, q = np.linalg.eigh(GOOD.M)
    values[0] = value
    made = spectra.hermitian(q * values @ q.T)
    assert np.all(np.diag(made) > 0)
    return made


# A, M -> status: what only shows under way.
WRONG = {
    "NaN in A": (changed(GOOD.A, (3, 4), np.nan), GOOD.M, Status.NOT_FINITE),
    "inf in A": (changed(GOOD.A, (3, 3), np.inf), GOOD.M, Status.NOT_FINITE),
    "-inf in A": (changed(GOOD.A, (0, 0), -np.inf), GOOD.M, Status.NOT_FINITE),
    "NaN in M": (GOOD.A, changed(GOOD.M, (3, 4), np.nan), Status.NOT_FINITE),
    "inf in M": (GOOD.A, changed(GOOD.M, (5, 5), np.inf), Status.NOT_FINITE),
    "A all NaN": (np.full((N, N), np.nan), GOOD.M, Status.NOT_FINITE),
    "M negative": (GOOD.A, -GOOD.M, Status.M_NOT_POSITIVE_DEFINITE),
    "M zero": (GOOD.A, 0 * GOOD.M, Status.M_NOT_POSITIVE_DEFINITE),
    "M indefinite": (GOOD.A, indefinite(-0.5), Status.M_NOT_POSITIVE_DEFINITE),
    "M half negative": (
        GOOD.A,
        np.diag(np.where(np.arange(N) % 2, 1.0, -1.0)),
        Status.M_NOT_POSITIVE_DEFINITE,
    ),
}
# By their product, a matrix that is not Hermitian cannot be symmetrised.
NOT_HERMITIAN = {
    "A not Hermitian": (GOOD.A + SKEW, GOOD.M, Status.A_NOT_HERMITIAN),
    "A slightly so": (GOOD.A + 1e-4 * SKEW, GOOD.M, Status.A_NOT_HERMITIAN),
    "A triangular": (np.triu(GOOD.A), GOOD.M, Status.A_NOT_HERMITIAN),
    "M not Hermitian": (GOOD.A, GOOD.M + 0.1 * SKEW / N, Status.M_NOT_HERMITIAN),
    "neither": (GOOD.A + SKEW, GOOD.M + 0.1 * SKEW / N, Status.A_NOT_HERMITIAN),
}


def check_failed(result, status, *words):
    """The status, NaN for an ill-posed problem, and a message that says what to do."""
    info = result.info
    assert isinstance(info, Info)
    assert Status(int(info.status)) == status
    assert int(info.converged) == 0
    assert np.all(np.isnan(result.eigenvalues))
    assert np.all(np.isnan(result.eigenvectors))
    assert info.message == status.text
    with pytest.raises(PartialEighError) as caught:
        info.raise_if_failed()
    text = str(caught.value)
    for word in (status.name, status.text, f"0 of {K}", *words):
        assert word in text


WORDS = {
    Status.NOT_FINITE: ["NaN or inf", "check A, M and the preconditioner"],
    Status.M_NOT_POSITIVE_DEFINITE: ["positive definite", "sign", "without mass"],
    Status.A_NOT_HERMITIAN: ["A is not Hermitian", "info.hermiticity_error", "conjugation"],
    Status.M_NOT_HERMITIAN: ["M is not Hermitian", "info.hermiticity_error_M", "conjugation"],
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", WRONG | NOT_HERMITIAN)
def test_what_is_wrong_with_a_product(case, method):
    a, m, status = (WRONG | NOT_HERMITIAN)[case]
    result = partial_eigh(by_product(a), by_product(m), K, n=N, method=method)
    check_failed(result, status, *WORDS[status])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_an_array_under_jit(case, method):
    a, m, status = WRONG[case]
    check_failed(spectra.jitted(K, method)(a, m), status)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_wrong(method):
    for result in (
        partial_eigh(by_product(GOOD.A), by_product(GOOD.M), K, n=N, method=method),
        spectra.jitted(K, method)(GOOD.A, GOOD.M),
    ):
        assert int(result.info.status) == Status.CONVERGED
        assert result.info.message == "all k pairs converged"
        result.info.raise_if_failed()
        assert float(result.info.hermiticity_error) < 1e-14
        assert float(result.info.hermiticity_error_M) < 1e-14


def test_an_indefinite_mass_that_hides():
    """One small negative eigenvalue of 36, which a few random products do not show."""
    for value in (-1e-3, -1e-6):
        m = indefinite(value)
        result = partial_eigh(by_product(GOOD.A), by_product(m), K, n=N, method="lobpcg")
        check_failed(result, Status.M_NOT_POSITIVE_DEFINITE)


@pytest.mark.parametrize("distinct", [1, 2, 3, 5])
@pytest.mark.parametrize("scale", [1.0, 1e-8])
def test_masses_with_few_values(scale, distinct):
    """As lumped masses are; M = c I has one. A probe sees all there is after few products."""
    m = scale * np.diag(1.0 + np.arange(N) % distinct)
    result = partial_eigh(GOOD.A, m, K, method="lobpcg")
    result.info.raise_if_failed()
    expected, _ = spectra.reference(GOOD.A, m)
    np.testing.assert_allclose(result.eigenvalues, expected[:K], rtol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_a_problem_without_mass_somewhere(method):
    """A singular M: infinite eigenvalues, which are never among finite answers called converged."""
    m = changed(np.eye(N), (7, 7), 0.0)
    result = spectra.jitted(K, method, "largest")(GOOD.A, m)
    assert int(result.info.status) != Status.CONVERGED
    with pytest.raises(PartialEighError):
        result.info.raise_if_failed()


# What an iteration compiles for one status takes seconds.
DENSE_FIRST = [
    "dense",
    *(pytest.param(m, marks=pytest.mark.slow) for m in ("chebyshev", "lobpcg", "davidson")),
]


@pytest.mark.parametrize("method", DENSE_FIRST)
@pytest.mark.parametrize("diagonal", [True, False])
def test_a_zero_on_the_diagonal_behind_a_trace(method, diagonal):
    """A mass that is zero somewhere: eager calls refuse it, traced ones say so in ``info``.

    Of 60 different masses the few steps of a probe do not show the one that is zero.
    """
    n = 60
    mass = np.where(np.arange(n) == 30, 0.0, np.linspace(0.0, 1.0, n))
    mass[0] = 1.0
    mass = mass if diagonal else np.diag(mass)
    levels = np.arange(1.0, n + 1)
    result = jax.jit(lambda m: partial_eigh(levels, m, 2, method=method))(mass)
    assert int(result.info.status) == Status.M_NOT_POSITIVE_DEFINITE
    assert np.all(np.isnan(result.eigenvectors))


@pytest.mark.parametrize("method", DENSE_FIRST)
def test_a_singular_full_mass_behind_a_trace(method):
    """M = B B^T of rank n - 2: no zero on its diagonal, and no finite answer called converged."""
    b = np.random.default_rng(0).standard_normal((N, N - 2))
    for given in (lambda m: m, lambda m: lambda u: m @ u):
        result = jax.jit(lambda m, given=given: partial_eigh(GOOD.A, given(m), 2, method=method))(
            b @ b.T
        )
        assert int(result.info.status) != Status.CONVERGED


@pytest.mark.slow
def test_accurate_but_not_shown_to_be_complete():
    """Stopped where all pairs have converged, before the completeness check had its say."""
    options = {"k": K, "method": "davidson", "tol": 1e-6}
    full = partial_eigh(GOOD.A, history=True, **options)
    accurate = np.all(np.asarray(full.info.history) <= 1e-6, axis=1)
    first = int(np.argmax(accurate))
    assert 0 < first < int(full.info.steps)
    result = partial_eigh(GOOD.A, max_steps=first, **options)
    info = result.info
    assert int(info.converged) == K
    assert int(info.status) == Status.NOT_SHOWN_COMPLETE
    assert np.all(np.isfinite(result.eigenvalues))
    with pytest.raises(PartialEighError, match="NOT_SHOWN_COMPLETE: all k pairs reached the tol"):
        info.raise_if_failed()
    gradient = jax.grad(
        lambda a: partial_eigh(a, max_steps=first, **options).eigenvectors[0, 0] ** 2
    )(jnp.asarray(GOOD.A))
    assert np.all(np.isnan(gradient))  # as where pairs did not converge


def test_max_steps():
    result = rough(GOOD, 0, 1.0)
    info = result.info
    assert int(info.status) == Status.MAX_STEPS
    assert int(info.steps) == 1
    assert int(info.converged) < K
    assert np.all(np.isfinite(result.eigenvalues))
    x = np.asarray(result.eigenvectors)
    np.testing.assert_allclose(x.T @ GOOD.M @ x, np.eye(K), atol=1e-12)
    with pytest.raises(PartialEighError) as caught:
        info.raise_if_failed()
    for word in ("MAX_STEPS", "raise max_steps", "preconditioner", "steps: 1", "residual norm"):
        assert word in str(caught.value)


def test_stagnation():
    """A tolerance below rounding is reached by nobody, and that is said before max_steps."""
    pencil = spectra.pencil(spectra.clustered(N, K, "none"), seed=11)
    result = partial_eigh(pencil.A, k=K, method="lobpcg", tol=1e-20)
    assert int(result.info.status) == Status.STAGNATED
    assert int(result.info.steps) < 300
    np.testing.assert_allclose(result.eigenvalues, pencil.values[:K], rtol=1e-13)
    with pytest.raises(PartialEighError, match=r"STAGNATED.*loosen tol or work in float64"):
        result.info.raise_if_failed()


def test_slow_convergence_is_not_stagnation():
    """A chain of 1,000 that nothing preconditions: far from rounding, so go on to max_steps."""
    n = 1000

    def chain(v):
        zero = jnp.zeros(1)
        return 2 * v - jnp.concatenate([v[1:], zero]) - jnp.concatenate([zero, v[:-1]])

    nothing = np.ones(n)
    info = partial_eigh(
        chain, k=4, n=n, method="lobpcg", preconditioner=nothing, max_steps=400
    ).info
    assert int(info.status) in (Status.MAX_STEPS, Status.CONVERGED)
    if int(info.status) == Status.MAX_STEPS:
        assert int(info.steps) == 400


@pytest.mark.slow
def test_the_tolerance_is_what_stops():
    tol = 1e-4
    pencil = spectra.stiff(N, K)
    loose = partial_eigh(pencil.A, k=K, method="lobpcg", tol=tol)
    tight = partial_eigh(pencil.A, k=K, method="lobpcg")
    assert int(loose.info.status) == Status.CONVERGED
    assert int(loose.info.steps) < int(tight.info.steps)
    size = np.linalg.norm(pencil.A, 2) + np.abs(loose.eigenvalues)
    assert np.all(np.asarray(loose.info.residual_norms) <= tol * size)


# -- nothing hangs --------------------------------------------------------------------------------

NAN, INF = np.full((N, N), np.nan), np.full((N, N), np.inf)
ZERO, EYE = np.zeros((N, N)), np.eye(N)
GUESS = np.random.default_rng(0).standard_normal((N, K))
# A, M, preconditioner, v0
STRESS = {
    "A NaN": (NAN, EYE, EYE, GUESS),
    "A inf": (INF, EYE, EYE, GUESS),
    "A zero": (ZERO, EYE, EYE, GUESS),
    "A huge": (1e200 * GOOD.A, EYE, EYE, GUESS),
    "A tiny": (1e-200 * GOOD.A, EYE, EYE, GUESS),
    "M NaN": (GOOD.A, NAN, EYE, GUESS),
    "M inf": (GOOD.A, INF, EYE, GUESS),
    "M zero": (GOOD.A, ZERO, EYE, GUESS),
    "M negative": (GOOD.A, -EYE, EYE, GUESS),
    "M tiny": (GOOD.A, 1e-100 * EYE, EYE, GUESS),
    "preconditioner NaN": (GOOD.A, EYE, NAN, GUESS),
    "preconditioner inf": (GOOD.A, EYE, INF, GUESS),
    "preconditioner zero": (GOOD.A, EYE, ZERO, GUESS),
    "guess NaN": (GOOD.A, EYE, EYE, np.full((N, K), np.nan)),
    "guess inf": (GOOD.A, EYE, EYE, np.full((N, K), np.inf)),
    "guess zero": (GOOD.A, EYE, EYE, np.zeros((N, K))),
    "all zero": (ZERO, ZERO, ZERO, np.zeros((N, K))),
    "all NaN": (NAN, NAN, NAN, np.full((N, K), np.nan)),
}
MAX_STEPS = 250
UNFINISHED = [status for status in Status if status.has_pairs and status != Status.CONVERGED]


@functools.cache
def stressed():
    return jax.jit(
        lambda a, m, t, v0: partial_eigh(
            a, m, K, preconditioner=t, v0=v0, method="lobpcg", max_steps=MAX_STEPS
        )
    )


@pytest.mark.parametrize("case", STRESS)
def test_nothing_hangs_and_nothing_lies(case):
    """Every loop ends; what is called converged is right."""
    a, m, t, v0 = STRESS[case]
    result = stressed()(a, m, t, v0)
    info = result.info
    status = Status(int(info.status))
    assert int(info.steps) <= MAX_STEPS
    if status == Status.CONVERGED:
        expected, _ = spectra.reference(a, m)
        scale = np.max(np.abs(expected))
        np.testing.assert_allclose(result.eigenvalues, expected[:K], rtol=0, atol=1e-11 * scale)
    elif status not in UNFINISHED:
        assert np.all(np.isnan(result.eigenvalues))
    if case == "preconditioner zero":
        assert status == Status.PRECONDITIONER_NOT_POSITIVE_DEFINITE
        assert not info.preconditioner_definite
    wrong = {"A NaN", "A inf", "M NaN", "M inf", "preconditioner NaN", "preconditioner inf"}
    if case in wrong | {"all NaN"}:
        assert status == Status.NOT_FINITE
    if case in ("M zero", "M negative", "all zero"):
        assert status == Status.M_NOT_POSITIVE_DEFINITE
    # A guess that is no guess is replaced by random columns.
    if case in ("A zero", "A tiny", "A huge", "M tiny") or case.startswith("guess"):
        assert status == Status.CONVERGED
