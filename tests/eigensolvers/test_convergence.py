"""The rules that end an iteration: no progress, and a complete set."""

import jax.numpy as jnp
import numpy as np
import pytest

from jax_peig import Status, partial_eigh
from jax_peig._eigensolvers import completeness
from jax_peig._eigensolvers.completeness import complement_shows
from jax_peig._problem.convergence import (
    PROGRESS,
    STAGNATION,
    Lengths,
    Progress,
    StoppingRule,
    relative_residuals,
)

EPS = np.finfo(np.float64).eps
LOW, HIGH = STAGNATION * EPS / 2, STAGNATION * EPS * 2


def follow(progress: Progress, *measured, **options) -> Progress:
    for value in measured:
        progress = progress.after(jnp.asarray(value), **options)
    return progress


# -- progress --------------------------------------------------------------------------------------


def test_one_measure_makes_progress_by_a_tenth():
    begin = Progress.begin(jnp.zeros(()), jnp.array(0))
    assert np.isinf(begin.best)
    after = follow(begin, 1.0, 0.95, 0.91)
    assert (float(after.best), int(after.since)) == (1.0, 2)
    after = follow(after, 0.99 * PROGRESS)
    assert (float(after.best), int(after.since)) == (0.99 * PROGRESS, 0)
    # NaN is no progress.
    assert int(follow(after, np.nan, np.nan).since) == 2


def test_measures_that_share_a_counter():
    """The counter begins again where any of them makes progress; each has its own best."""
    after = follow(Progress.begin(jnp.zeros(2), jnp.array(0)), [1.0, 1.0], [2.0, 0.5], [2.0, 0.5])
    np.testing.assert_array_equal(after.best, [1.0, 0.5])
    assert int(after.since) == 1


def test_measures_with_their_own_counters():
    """Only steps that are spent on a measure count; one may be called better without a fall."""
    begin = Progress.begin(jnp.zeros(2), jnp.zeros(2, int))
    spent = jnp.array([1, 0])
    after = follow(begin, [1.0, 1.0], [1.0, 1.0], [1.0, 1.0], spent=spent)
    np.testing.assert_array_equal(after.since, [2, 0])
    after = follow(after, [3.0, 1.0], better=jnp.array([True, False]), spent=spent)
    np.testing.assert_array_equal(after.since, [0, 0])
    np.testing.assert_array_equal(after.best, [3.0, 1.0])


@pytest.mark.parametrize(("level", "stalled"), [(LOW, True), (HIGH, False)])
def test_it_stalls_at_rounding_alone(level, stalled):
    after = follow(Progress.begin(jnp.zeros(()), jnp.array(0)), *[level] * 4)
    assert not bool(after.stalled(4, after.best))
    assert bool(after.stalled(3, after.best)) is stalled


# -- residuals -------------------------------------------------------------------------------------


def test_relative_residuals():
    norms = jnp.array(2.0), jnp.array(0.5)
    lengths = Lengths(jnp.array([3.0, 0.0, 0.0]), jnp.array([1.5, 1.0, 0.0]))
    found = relative_residuals(lengths, jnp.array([-4.0, 1.0, 1.0]), norms)
    np.testing.assert_allclose(found[0], 3.0 / ((2 + 4 * 0.5) * 1.5), rtol=4 * EPS)
    assert found[1] < EPS
    assert np.isinf(found[2])  # a dropped direction is no eigenvector


def test_residuals_relative_to_the_eigenvalue():
    """||r|| / (|lam| ||M|| ||x||), which no residual of lam = 0 is small beside."""
    norms = jnp.array(2.0), jnp.array(0.5)
    lengths = Lengths(jnp.array([3e-3, 3e-5, 1e-9]), jnp.array([1.5, 1.0, 1.0]))
    values = jnp.array([-4.0, 1e-3, 0.0])
    rule = StoppingRule(3, False, 1e-2, 100, to_eigenvalue=True)
    relative = relative_residuals(lengths, values, norms)
    measured = rule.measured(relative, values, norms)
    np.testing.assert_allclose(measured[:2], [1e-3, 3e-5 / 5e-4], rtol=1e-12)
    assert np.isinf(measured[2])
    assert float(rule.slowest(relative, measured)) == float(relative[1])
    norm = rule._replace(to_eigenvalue=False)
    np.testing.assert_array_equal(norm.measured(relative, values, norms), relative)
    assert float(norm.slowest(relative, relative)) == float(relative[0])


METHODS = ["dense", "chebyshev", "lobpcg", "davidson", "shift_invert"]
STIFF = np.r_[np.arange(1.0, 13.0), np.linspace(1e4, 4e4, 48)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "mass", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["identity", "mass"]
)
@pytest.mark.parametrize("method", METHODS)
def test_tol_relative_to_the_eigenvalue(method, mass):
    """Values of one are right to tol; those of the default to tol ||A|| = 0.4, and with M alike."""
    tol = 1e-5
    m = np.linspace(1.0, 2.0, STIFF.size) if mass else np.ones(STIFF.size)
    pencil = (np.diag(STIFF * m), np.diag(m) if mass else None)
    given = {"k": 4, "method": method, "tol": tol}
    loose = partial_eigh(*pencil, **given)
    tight = partial_eigh(*pencil, **given, tol_relative_to="eigenvalue")
    np.testing.assert_allclose(tight.eigenvalues, STIFF[:4], rtol=2 * tol)
    for found, scale in ((loose, STIFF[-1] * np.max(m)), (tight, loose.eigenvalues * np.max(m))):
        assert int(found.info.status) == Status.CONVERGED
        lengths = np.linalg.norm(found.eigenvectors, axis=0)
        assert np.all(found.info.residual_norms <= 1.1 * tol * scale * lengths)
    assert np.all(tight.info.rounding > EPS * STIFF[-1] / 4 / np.max(m) ** 0.5)


@pytest.mark.parametrize("method", METHODS[:4])
def test_zero_does_not_converge_relative_to_itself(method):
    """The value is right to rounding all the same, and the status is honest."""
    d = np.r_[0.0, np.arange(1.0, 60.0)]
    given = {"k": 2, "method": method, "tol_relative_to": "eigenvalue"}
    w, _, info = partial_eigh(np.diag(d), **given)
    assert int(info.status) == Status.STAGNATED
    assert int(info.converged) == 1
    np.testing.assert_allclose(w, [0, 1], atol=1e-9)


# -- completeness ----------------------------------------------------------------------------------

RULE = StoppingRule(2, False, 1e-10, 100)
UNIT = jnp.ones(4)


def test_guard_vectors_show_that_the_set_is_complete():
    theta = jnp.array([1.0, 2.0, 3.0, 4.0])
    converged = jnp.array([1e-11, 1e-11, 1e-3, 1e-3])
    apart = Lengths(jnp.array([0, 0, 0.99, 3.0]) * completeness.SEPARATION, UNIT)
    done = completeness.settled(theta, apart, converged, RULE)
    np.testing.assert_array_equal(done, [True, True, True, False])
    assert bool(completeness.guards_show_complete(done, RULE))
    # One more has to show it where one column began as a guess.
    assert not bool(completeness.guards_show_complete(done, RULE._replace(guessed=1)))
    np.testing.assert_allclose(
        completeness.separation_ratio(theta, apart, RULE), 0.099, rtol=4 * EPS
    )
    # A copy of the second value, on its way and converged.
    theta = jnp.array([1.0, 2.0, 2.0, 4.0])
    done = completeness.settled(theta, apart, converged, RULE)
    assert not bool(completeness.guards_show_complete(done, RULE))
    assert np.isinf(completeness.separation_ratio(theta, apart, RULE))
    done = completeness.settled(theta, apart, converged.at[2].set(1e-11), RULE)
    assert bool(completeness.guards_show_complete(done, RULE))


def test_a_guard_vector_converges_however_loose_the_tolerance_is():
    loose = RULE._replace(tol=1e-2)
    theta = jnp.array([1.0, 2.0, 2.0, 2.0])
    lengths = Lengths(UNIT, UNIT)
    relative = jnp.array([1e-3, 1e-3, 1e-3, EPS**0.5 / 4])
    done = completeness.settled(theta, lengths, relative, loose)
    np.testing.assert_array_equal(done, [True, True, False, True])


@pytest.mark.parametrize(
    ("distance", "bound", "converged", "complete", "missed"),
    [
        (1.0, 1e-3, False, True, False),  # |u^H x| <= 1e-3 and >= 1e-2
        (1.0, 2e-2, False, False, False),  # <= 2e-2 and >= 1e-2: both hold
        (-1e-6, 1e-9, True, False, True),  # below the k-th value
        (-1e-14, 1e-9, True, True, False),  # a copy of the k-th
        (1e-14, 1e-9, False, False, False),  # one on its way
        (1.0, 0.0, False, False, False),  # a dropped direction
    ],
)
def test_random_vectors_in_the_complement(distance, bound, converged, complete, missed):
    found = complement_shows(
        jnp.array(distance), jnp.array(bound), 1e-2, jnp.array(1e-12), jnp.array(converged)
    )
    assert (bool(found.complete), bool(found.missed)) == (complete, missed)
    if distance == 1.0 and bound:
        np.testing.assert_allclose(found.shortfall, bound / 1e-2, rtol=4 * EPS)


@pytest.mark.parametrize("n", [10, 1000])
def test_the_least_component_is_rarely_undercut(n):
    """With a probability of 8 %, within four standard deviations of 4000 draws."""
    x = np.random.default_rng(0).standard_normal((n, 4000))
    component = np.abs(x[0]) / np.linalg.norm(x, axis=0)
    share = np.mean(component < completeness.least_component(n))
    assert abs(share - 0.08) <= 4 * (0.08 / 4000) ** 0.5
