"""The derivative's linear systems against LAPACK: every solver, and what may go wrong in each.

The reference is the spectral sum over all other eigenpairs of a pencil with prescribed ones.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_peig import Derivative, partial_eigh
from jax_peig._derivatives import refinement
from jax_peig._derivatives import solve as systems_solve
from jax_peig._derivatives.sylvester import Settings
from jax_peig._derivatives.systems import Guards, SystemData, Systems
from jax_peig._operators import mass_inverse
from jax_peig._operators.operator import as_operator
from jax_peig._problem.convergence import Ritz, Spectrum
from tests.support import spectra

N, K, G = 80, 6, 4
# The wanted values spread far beyond the gap, where a leak along them grows.
VALUES = np.concatenate([[1.0, 2.0, 2.0, 5.0, 9.0, 9.5], np.linspace(10.0, 40.0, N - K)])
TOL = 1e-10


def setting(made, *, sign=1, noise=0.0, guard_noise=0.0, upper=None, inverse=None, tol=TOL, seed=0):
    """(systems, exact complement): eigenvectors and guard vectors in error by the noises."""
    rng = np.random.default_rng(seed)
    values, vectors = sign * made.values, made.vectors
    order = np.argsort(values)
    values, vectors = sign * values[order], vectors[:, order]
    m = np.eye(N) if made.M is None else made.M
    rough = vectors[:, : K + G].copy()
    shape = rough.shape
    error = rng.standard_normal(shape).astype(rough.dtype)
    error *= np.where(np.arange(K + G) < K, noise, guard_noise)
    rough = rough + error - vectors[:, :K] @ (vectors[:, :K].conj().T @ m @ error)
    root = np.linalg.cholesky(rough.conj().T @ m @ rough)
    rough = rough @ np.linalg.inv(root).conj().T
    # Rayleigh-Ritz among the guard vectors.
    back = rough[:, K:]
    theta, c = np.linalg.eigh(sign * back.conj().T @ made.A @ back)
    back = back @ c
    r = np.linalg.norm(made.A @ back - m @ back * (sign * theta), axis=0)
    dtype = made.A.dtype
    fixed = SystemData(
        preconditioner=None,
        norms=(jnp.array(np.linalg.norm(made.A, 2)), jnp.array(np.linalg.norm(m, 2))),
        tol=jnp.array(tol),
        complement=None,
        spectrum=Spectrum(jnp.array(np.max(sign * values) if upper is None else upper), inverse),
        guards=Guards(
            jnp.asarray(sign * theta),
            jnp.asarray(back),
            jnp.asarray(r * np.linalg.norm(back, axis=0)),
        ),
        op_inv=None,
        sigma=None,
        refused=None,
    )
    x = rough[:, :K]
    systems = Systems(
        as_operator(made.A, N, dtype, "A"),
        None if made.M is None else as_operator(made.M, N, dtype, "M"),
        jnp.asarray(x),
        jnp.asarray(m @ x),
        jnp.asarray(values[:K]),
        fixed,
        sign,
    )
    return systems, (values, vectors)


def rhs_of(systems, seed=1, columns=None):
    rng = np.random.default_rng(seed)
    b = rng.standard_normal((N, K)).astype(systems.x.dtype)
    if columns is not None:
        b = b * np.isin(np.arange(K), columns)
    return systems.dual(systems.dual(jnp.asarray(b)))


def expected(exact, rhs):
    values, vectors = exact
    gaps = values[K:, None] - values[None, :K]
    return vectors[:, K:] @ ((vectors[:, K:].conj().T @ np.asarray(rhs)) / gaps)


@functools.cache
def solver(*names, max_steps=2000):
    @jax.jit
    def solve(systems, rhs):
        full = jnp.linalg.norm(rhs, axis=0)
        return systems_solve.solve(systems, rhs, full, names, max_steps)

    return solve


KINDS = {
    "real": {},
    "complex": {"dtype": np.complex128},
    "M": {"condition": 20.0},
    "M, complex": {"dtype": np.complex128, "condition": 20.0},
}


def lumped(made):
    """An inverse of M that is right to some 30 %, as row sums are for finite elements."""
    if made.M is None:
        return None
    rng = np.random.default_rng(3)
    root = np.linalg.cholesky(made.M)
    noise = spectra.hermitian(rng.standard_normal((N, N)).astype(made.A.dtype)) / N**0.5
    rough = np.linalg.inv(root @ (np.eye(N) + 0.1 * noise) @ root.conj().T)
    m = as_operator(made.M, N, made.A.dtype, "M")
    return mass_inverse.given_inverse(
        m, as_operator(spectra.hermitian(rough), N, made.A.dtype, "D")
    )


def spectrum_end(made, inverse, sign):
    if inverse is None:
        return None
    d = np.asarray(inverse(jnp.eye(N, dtype=made.A.dtype)))
    return 1.001 * np.max((sign * np.linalg.eigvals(d @ made.A)).real)


QUICK = {
    ("semi_iteration", "M, complex", 1),
    ("semi_iteration", "real", -1),
    ("minres", "complex", 1),
}
CASES = [
    pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
    for case in itertools.product(("semi_iteration", "cg", "minres", "gmres"), KINDS, (1, -1))
]


@pytest.mark.parametrize(("name", "kind", "sign"), CASES)
def test_every_solver(name, kind, sign):
    made = spectra.pencil(sign * VALUES, **KINDS[kind])
    inverse = lumped(made)
    end = spectrum_end(made, inverse, sign)
    systems, exact = setting(made, sign=sign, inverse=inverse, upper=end)
    rhs = rhs_of(systems)
    solution = solver(name)(systems, rhs)
    assert np.all(solution.converged)
    want = expected(exact, rhs)
    np.testing.assert_allclose(solution.z, want, rtol=0, atol=1e-7 * np.linalg.norm(want))
    assert np.all(solution.residuals <= 10 * TOL * np.linalg.norm(rhs, axis=0))


@pytest.mark.parametrize("sign", [1, -1], ids=["smallest", "largest"])
def test_wanted_values_below_zero_with_a_mass(sign):
    """There -lam_j M adds to the spectrum of D (A - lam_j M): its end is beyond that of D A."""
    made = spectra.pencil(sign * (VALUES - 100.0), condition=20.0)
    inverse = lumped(made)
    end = spectrum_end(made, inverse, sign)
    systems, exact = setting(made, sign=sign, inverse=inverse, upper=end)
    rhs = rhs_of(systems)
    solution = solver("semi_iteration")(systems, rhs)
    assert np.all(solution.converged)
    want = expected(exact, rhs)
    np.testing.assert_allclose(solution.z, want, rtol=0, atol=1e-7 * np.linalg.norm(want))


@pytest.mark.parametrize("guard_noise", [0.0, 1e-8, 1e-5, 1e-3, 1e-2, 1e-1, 1.0])
def test_guard_vectors_of_any_accuracy(guard_noise):
    """They save steps as far as they are accurate, and cost no digit however wrong they are.

    Where they show nothing of the gap, MINRES has to help.
    """
    made = spectra.pencil(VALUES)
    systems, exact = setting(made, guard_noise=guard_noise)
    rhs = rhs_of(systems)
    names = ("semi_iteration", "minres") if guard_noise == 1 else ("semi_iteration",)
    solution = solver(*names)(systems, rhs)
    assert np.all(solution.converged)
    want = expected(exact, rhs)
    np.testing.assert_allclose(solution.z, want, rtol=0, atol=1e-8 * np.linalg.norm(want))


def test_guard_vectors_save_steps():
    made = spectra.pencil(VALUES)
    counts = []
    for guard_noise in (1e-9, 1.0):
        systems, _ = setting(made, guard_noise=guard_noise)
        counts.append(int(solver("semi_iteration")(systems, rhs_of(systems)).matvecs))
    assert counts[0] < 0.75 * counts[1]


@pytest.mark.parametrize("noise", [1e-9, 1e-7, 1e-5])
def test_inexact_eigenvectors_do_not_leak(noise):
    """What leaks along them would grow without bound: lam_j - lam_1 is 17 times the gap."""
    made = spectra.pencil(VALUES)
    systems, exact = setting(made, noise=noise, tol=0.1 * noise)
    rhs = rhs_of(systems)
    solution = solver("semi_iteration")(systems, rhs)
    assert np.all(solution.converged)
    want = expected(exact, rhs)
    error = np.linalg.norm(np.asarray(solution.z) - want) / np.linalg.norm(want)
    assert error <= 300 * noise


@pytest.mark.parametrize("factor", [0.3, 0.7, 0.95, 3.0])
def test_a_wrong_end_of_the_spectrum(factor):
    """Too low an end lets the polynomial grow: seen by the residual, and MINRES takes over."""
    made = spectra.pencil(VALUES)
    systems, exact = setting(made, upper=factor * 40.0)
    rhs = rhs_of(systems)
    solution = solver("semi_iteration", "minres")(systems, rhs)
    assert np.all(solution.converged)
    want = expected(exact, rhs)
    np.testing.assert_allclose(solution.z, want, rtol=0, atol=1e-8 * np.linalg.norm(want))
    alone = solver("semi_iteration")(systems, rhs)
    assert np.all(np.isfinite(alone.z))
    right = np.linalg.norm(np.asarray(alone.z) - want, axis=0) <= 1e-6 * np.linalg.norm(want)
    assert np.all(right | ~np.asarray(alone.converged))


def test_columns_that_are_zero_cost_nothing():
    """Panels of three for k = 6: the other panel is left out, and no column costs nothing."""
    made = spectra.pencil(VALUES)
    systems, exact = setting(made)
    counts = {}
    for columns in ((), (5,), (1, 4, 5), tuple(range(K))):
        rhs = rhs_of(systems, columns=columns)
        solution = solver("semi_iteration")(systems, rhs)
        counts[len(columns)] = int(solution.matvecs)
        want = expected(exact, rhs)
        np.testing.assert_allclose(solution.z, want, rtol=0, atol=1e-8)
    assert counts[0] == 0
    assert counts[1] == counts[3] < counts[6]
    # The slowest system alone takes as many products as its panel, two thirds of all.
    assert counts[1] < 0.75 * counts[6]


@pytest.mark.parametrize(
    "name", ["semi_iteration", *(pytest.param(n, marks=pytest.mark.slow) for n in ("cg", "minres"))]
)
def test_copies_are_one_solve(name):
    """Columns of several right-hand sides, and NaN in one, which is its own affair."""
    made = spectra.pencil(VALUES)
    systems, exact = setting(made)
    many = [rhs_of(systems, seed=s) for s in range(3)]
    many[1] = many[1].at[:, 2].set(jnp.nan)
    solution = solver(name)(systems, jnp.concatenate(many, axis=1))
    for i, rhs in enumerate(many):
        z = np.asarray(solution.z)[:, i * K : (i + 1) * K]
        want = expected(exact, np.nan_to_num(rhs))
        bad = np.isnan(np.asarray(rhs)).any(axis=0)
        np.testing.assert_allclose(z[:, ~bad], want[:, ~bad], rtol=0, atol=1e-7)
        converged = np.asarray(solution.converged)[i * K : (i + 1) * K]
        np.testing.assert_array_equal(converged, ~bad)


@pytest.mark.slow
def test_many_tangents_are_one_solve():
    """jacfwd: as many columns, no more products of blocks in the compiled program's loops."""
    made = spectra.pencil(VALUES)
    directions = jnp.asarray(np.random.default_rng(0).standard_normal((5, N)))

    def vectors(d):
        x = partial_eigh(made.A + jnp.diag(d), k=K, method="lobpcg").eigenvectors
        return jnp.sum(x**2, axis=1)

    def push(t):
        return jax.jvp(vectors, (jnp.zeros(N),), (t,))[1]

    together = jax.jit(jax.vmap(push))(directions)
    alone = jnp.stack([jax.jit(push)(t) for t in directions])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-7)


def test_near_the_count_of_deflated_cg():
    """CG on the exactly deflated systems, column by column, in NumPy."""
    made = spectra.pencil(VALUES)
    systems, (values, vectors) = setting(made, guard_noise=1e-6)
    rhs = np.asarray(rhs_of(systems))
    rest = vectors[:, K + G :]
    total = 0
    for j in range(K):
        b = rest @ (rest.T @ rhs[:, j])
        x, r = np.zeros(N), b
        p, rho = r, r @ r
        while np.sqrt(rho) > TOL * np.linalg.norm(rhs[:, j]):
            q = made.A @ p - values[j] * p
            step = rho / (p @ q)
            x, r = x + step * p, r - step * q
            rho, old = r @ r, rho
            p = r + rho / old * p
            total += 1
    # CG ends within the number of distinct eigenvalues, which at n = 80 is soon.
    assert int(solver("semi_iteration")(systems, jnp.asarray(rhs)).matvecs) <= 2.5 * total


# -- through the front door ------------------------------------------------------------------------


def density(result):
    weights = jnp.sin(jnp.arange(1.0, N + 1))
    return jnp.sum(weights * jnp.sum(jnp.abs(result.eigenvectors) ** 2, axis=1) ** 2)


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("chebyshev", "auto"),
        ("dense", "auto"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ("lobpcg", "auto"),
                ("davidson", "auto"),
                ("chebyshev", "semi_iteration"),
                ("lobpcg", "cg"),
                ("davidson", "minres"),
            ]
        ),
    ],
)
def test_gradients_agree(method, name):
    made = spectra.pencil(VALUES)

    def loss(a, **options):
        return density(partial_eigh(a, k=K, **options))

    got = jax.grad(loss)(made.A, method=method, derivative=Derivative(solver=name))
    want = jax.grad(loss)(made.A, method="dense")
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-7 * np.max(np.abs(want)))


@pytest.mark.slow
@pytest.mark.parametrize("tol", [1e-4, pytest.param(1e-7, marks=pytest.mark.slow)])
def test_refinement_squares_the_error(tol):
    made = spectra.pencil(VALUES)

    def gradient(**options):
        return np.asarray(
            jax.grad(lambda a: density(partial_eigh(a, k=K, method="lobpcg", **options)))(made.A)
        )

    exact = np.asarray(jax.grad(lambda a: density(partial_eigh(a, k=K, method="dense")))(made.A))
    size = np.linalg.norm(exact)
    plain = np.linalg.norm(gradient(tol=tol) - exact) / size
    refined = gradient(tol=tol, derivative=Derivative(refine=True))
    error = np.linalg.norm(refined - exact) / size
    assert plain < 1e3 * tol
    assert error <= max(30 * plain**2, 1e-9)
    assert error < plain / 10


@pytest.mark.slow
@pytest.mark.parametrize(
    "which",
    [*(pytest.param(w, marks=pytest.mark.slow) for w in ("smallest", "nearest")), "largest"],
)
def test_refined_pairs(which):
    """Better residuals, and still orthonormal and in order."""
    made = spectra.pencil(VALUES, condition=30.0)
    method = "chebyshev" if which == "nearest" else "lobpcg"
    options = {"which": which, "method": method, "tol": 1e-5}
    options |= {"sigma": 20.3} if which == "nearest" else {}
    plain = partial_eigh(made.A, made.M, K, **options)
    refined = partial_eigh(made.A, made.M, K, derivative=Derivative(refine=True), **options)
    x, w = np.asarray(refined.eigenvectors), np.asarray(refined.eigenvalues)
    np.testing.assert_allclose(x.T @ made.M @ x, np.eye(K), atol=1e-12)
    assert np.max(refined.info.residual_norms) < np.max(plain.info.residual_norms) / 100
    place = {"smallest": w, "largest": -w, "nearest": np.abs(w - 20.3)}[which]
    assert np.all(np.diff(place) >= -1e-9)
    errors = np.min(np.abs(w[:, None] - made.values[None, :]), axis=1)
    assert np.max(errors) < 1e-8


@pytest.mark.parametrize("kind", ["real", "M, complex"])
def test_refinement_moves_the_guard_vectors_along(kind):
    """They stay M-orthogonal to the pairs, and their products theirs, to rounding."""
    made = spectra.pencil(VALUES, **KINDS[kind])
    systems, _ = setting(made, noise=1e-4, guard_noise=1e-3, tol=1e-8)
    block = np.concatenate([systems.x, systems.data.guards.vectors], axis=1)
    m = np.eye(N) if made.M is None else made.M
    count = jnp.array(0)
    ritz = Ritz(
        values=jnp.concatenate([systems.lam, systems.data.guards.values]),
        vectors=jnp.asarray(block),
        AX=jnp.asarray(made.A @ block),
        MX=jnp.asarray(m @ block),
        steps=count,
        matvecs=count,
        matvecs_M=count,
        stagnated=jnp.array(False),
        finite=jnp.array(True),
        definite=jnp.array(True),
    )
    settings = Settings(("cg", "minres"), 500, 1, "nan")
    refined = refinement.refine(ritz, systems, settings, jnp.argsort)
    x, guards = np.split(np.asarray(refined.vectors), [K], axis=1)
    assert np.max(np.abs(x - block[:, :K])) > 1e-5
    assert np.max(np.abs(x.conj().T @ m @ guards)) < 1e-12
    np.testing.assert_allclose(made.A @ refined.vectors, refined.AX, atol=1e-11)
    np.testing.assert_allclose(m @ refined.vectors, refined.MX, atol=1e-12)


def test_the_semi_iteration_needs_an_interval():
    made = spectra.pencil(VALUES, condition=10.0)
    with pytest.raises(ValueError, match="solver='auto'"):
        partial_eigh(
            made.A, made.M, K, method="davidson", derivative=Derivative(solver="semi_iteration")
        )
