"""The preconditioner that "lobpcg" makes itself, against LAPACK and against having none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_peig import Status, partial_eigh
from jax_peig._eigensolvers.lobpcg_directions import MOST, Plan, Polynomial
from jax_peig._operators.operator import as_operator
from jax_peig._operators.probe import probe
from jax_peig._problem import iterative
from tests.support import spectra

N = 400
CHAIN = 2 * np.eye(N) - np.eye(N, k=1) - np.eye(N, k=-1)
EXACT = 2 - 2 * np.cos(np.pi * np.arange(1, N + 1) / (N + 1))


def chain(u):
    return 2 * u - jnp.pad(u[1:], (0, 1)) - jnp.pad(u[:-1], (1, 0))


def elements(u):
    """The consistent mass of linear elements on the chain."""
    return u - chain(u) / 6


def nothing(u):
    return u


def test_positive_definite_wherever_it_begins():
    """Eigenvalues below the shift and beyond the end included; close to 1 / t on the interval."""
    values = np.linspace(-1.0, 4.0, 60)
    operator = as_operator(jnp.asarray(values), 60, np.float64, "A")
    made = Polynomial.within(operator, 1, None, (-1.0, 3.0), jnp.array(True))

    def polynomial(shift, degree):
        plan = Plan(shift, jnp.array(0.1), 3.0 - shift, degree)
        return jnp.diagonal(made(jnp.eye(60), plan))

    shifts, degrees = np.meshgrid([-0.5, 0.0, 0.3, 2.0], [0, 2, 8, 16])
    found = jax.vmap(polynomial)(shifts.ravel(), degrees.ravel())
    for shift, degree, p in zip(shifts.ravel(), degrees.ravel(), found, strict=True):
        assert np.all(p > 0)
        t = values - shift
        inside = (t >= 0.1) & (t <= 3.0 - shift)
        most = 1 / np.cosh((degree + 1) * np.arccosh((3.1 - shift) / (2.9 - shift)))
        assert np.max(np.abs(1 - t * p)[inside]) <= most * (1 + 1e-10)


def test_degree_by_the_gap():
    """From none to `MOST`, even ones, wherever the spectrum begins."""
    made = Polynomial(nothing, 1, None, jnp.array(100.0), jnp.array(True))

    def degree(high, first):
        return int(made.plan(jnp.array([first, first + high]), jnp.array(first + 100.0)).degree)

    for first in (0.0, 1000.0, -1000.0):
        degrees = [degree(h, first) for h in (90.0, 10.0, 4.0, 1.2, 1e-3, 0.0)]
        assert degrees == [0, 2, 4, 8, MOST, MOST]


@pytest.mark.slow
def test_a_quarter_of_the_steps():
    plain, own = (
        partial_eigh(chain, k=4, n=N, method="lobpcg", tol=1e-8, preconditioner=t)
        for t in (nothing, None)
    )
    for result in (plain, own):
        np.testing.assert_allclose(result.eigenvalues, EXACT[:4], atol=1e-12)
    assert 4 * own.info.steps < plain.info.steps
    assert int(own.info.matvecs) < 1.2 * int(plain.info.matvecs)


@pytest.mark.slow
def test_with_finite_elements():
    """Row sums resemble this M: T has products with A, and few with M."""
    exact = np.sort(EXACT / (1 - EXACT / 6))[:4]
    plain, own = (
        partial_eigh(chain, elements, 4, n=N, method="lobpcg", tol=1e-8, preconditioner=t)
        for t in (nothing, None)
    )
    for result in (plain, own):
        np.testing.assert_allclose(result.eigenvalues, exact, atol=1e-12)
    assert 4 * own.info.steps < plain.info.steps
    assert 4 * own.info.matvecs_M < plain.info.matvecs_M


@pytest.mark.slow
def test_with_a_mass_that_nothing_resembles():
    """T is a number: no product more than without it, but for rounding and the probes."""
    pencil = spectra.pencil(np.linspace(1.0, 50.0, 120), condition=1000.0, seed=3)
    keys = jax.random.split(jax.random.key(0), 8)

    def solve(t):
        def one(key):
            options = {"method": "lobpcg", "preconditioner": t, "key": key}
            return partial_eigh(pencil.A, pencil.M, 4, **options)

        return jax.jit(jax.vmap(one))(keys)

    plain, own = solve(nothing), solve(None)
    np.testing.assert_allclose(own.eigenvalues, np.stack([pencil.values[:4]] * 8), rtol=1e-9)
    for name in ("steps", "matvecs"):
        spent, more = (int(np.sum(getattr(r.info, name))) for r in (plain, own))
        assert abs(more - spent) <= 0.1 * spent


@pytest.mark.slow
@pytest.mark.parametrize(
    ("far", "mass", "solved"),
    [
        (1.05, None, False),
        (1.3, None, False),
        (3.0, None, False),
        (100.0, None, False),
        (3.0, 1.0 + np.arange(N) % 3, False),
        (3.0, 1.0 + np.arange(N) % 3, True),
    ],
    ids=["1.05", "1.3", "3.0", "100.0", "3.0, M", "3.0, M_solve"],
)
def test_an_eigenvalue_beyond_the_end(far, mass, solved, monkeypatch):
    """Lanczos saw the end of the spectrum too low: T R shows it, and the steps are few still.

    A start whose first W has little of that vector learns the end late, and takes some steps more.
    """
    values = np.append(np.linspace(0.0, 1.0, N - 1), far)
    a = values if mass is None else values * mass
    keys = jax.random.split(jax.random.key(0), 16)

    def solve(max_steps):  # which is new to the compiler
        def one(key):
            options = {"method": "lobpcg", "tol": 1e-8, "max_steps": max_steps, "key": key}
            if solved:
                options["M_solve"] = lambda u: u / mass
            return partial_eigh(a, mass, 4, **options)

        result = jax.jit(jax.vmap(one))(keys)
        assert set(result.info.status.tolist()) == {int(Status.CONVERGED)}
        np.testing.assert_allclose(result.eigenvalues, np.tile(values[:4], (16, 1)), atol=1e-10)
        return np.asarray(result.info.steps)

    seen = solve(1000)
    low, high = jnp.array(0.0), jnp.array(1.0)
    monkeypatch.setattr(iterative, "spectral_interval", lambda *_: (low, high))
    monkeypatch.setattr(
        iterative, "probe", lambda *given: probe(*given)._replace(interval=(low, high))
    )
    missed = solve(1001)
    assert np.mean(missed) <= 1.2 * np.mean(seen)
    assert np.max(missed) <= 2 * np.max(seen)
