"""`jax_peig.minres` against SciPy's, LAPACK's and finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg

from jax_peig import MinresStatus, minres
from tests.support import spectra

N = 40
INDEFINITE = np.concatenate([-np.linspace(1, 5, 13), np.linspace(0.5, 9, N - 13)])
SPECTRA = {
    "definite": np.linspace(1, 10, N),
    "negative": -np.linspace(1, 10, N),
    "indefinite": INDEFINITE,
    "few values": np.repeat([-2.0, 1.0, 3.0, 5.0], N // 4),
    "tiny": 1e-150 * INDEFINITE,
    "huge": 1e150 * INDEFINITE,
}
DTYPES = (np.float64, np.complex128)


def matrix(values, dtype=np.float64, seed=0):
    return spectra.pencil(values, dtype=dtype, seed=seed).A


def vector(seed=1, dtype=np.float64, n=N):
    rng = np.random.default_rng(seed)
    b = rng.standard_normal(n)
    return b + 1j * rng.standard_normal(n) if np.issubdtype(dtype, np.complexfloating) else b


# -- solutions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("dtype", [np.float64, pytest.param(np.complex128, marks=pytest.mark.slow)])
def test_against_lapack(spectrum, dtype):
    a, b = matrix(SPECTRA[spectrum], dtype), vector(dtype=dtype)
    x, info = minres(a, b, tol=1e-12)
    assert bool(info.converged), info.message
    residual = np.linalg.norm(b - a @ np.asarray(x))
    np.testing.assert_allclose(info.residual_norm, residual, rtol=0.1, atol=1e-13)
    assert residual <= 1e-12 * np.linalg.norm(b)
    expected = np.linalg.solve(a, b)
    np.testing.assert_allclose(x, expected, rtol=0, atol=1e-10 * np.linalg.norm(expected))


@pytest.mark.parametrize("spectrum", ["definite", "indefinite", "few values"])
def test_against_scipy(spectrum):
    """The same solution, and no more steps than SciPy's for the same residual."""
    a, b = matrix(SPECTRA[spectrum]), vector()
    x, info = minres(a, b, tol=1e-10)
    count = []
    theirs, failed = scipy.sparse.linalg.minres(a, b, rtol=1e-14, callback=count.append)
    assert failed == 0
    np.testing.assert_allclose(x, theirs, rtol=0, atol=1e-8 * np.linalg.norm(theirs))
    reached = [np.linalg.norm(b - a @ z) for z in count]
    needed = 1 + next(i for i, r in enumerate(reached) if r <= 1e-10 * np.linalg.norm(b))
    assert int(info.steps) <= needed + 2


def test_ill_conditioned():
    """Condition 1e8: the residual is reached, and the error is what the condition makes of it."""
    values = np.concatenate([[-1e-8, 1e-8], np.linspace(1, 2, N - 2)])
    a, b = matrix(values), vector()
    x, info = minres(a, b, tol=1e-6)
    assert bool(info.converged)
    expected = np.linalg.solve(a, b)
    error = np.linalg.norm(np.asarray(x) - expected)
    assert error <= 1e-6 * np.linalg.norm(b) / 1e-8
    assert np.linalg.norm(b - a @ np.asarray(x)) <= 1e-6 * np.linalg.norm(b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_singular_and_consistent(dtype):
    """The solution of least norm, as from the pseudoinverse."""
    made = spectra.pencil(np.concatenate([np.zeros(3), INDEFINITE[3:]]), dtype=dtype)
    b = made.A @ vector(dtype=dtype)
    x, info = minres(made.A, b, tol=1e-11)
    assert bool(info.converged), info.message
    expected = np.linalg.pinv(made.A, rcond=1e-10, hermitian=True) @ b
    np.testing.assert_allclose(x, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_inconsistent(size):
    """Said to be so; what is returned is a least-squares solution, and does not run away."""
    made = spectra.pencil(np.concatenate([np.zeros(2), INDEFINITE[2:]]))
    null = made.vectors[:, np.abs(made.values) < 1e-12]
    b = made.A @ vector() + size * null @ np.ones(2)
    x, info = minres(made.A, b, tol=1e-11, maxiter=2000)
    assert int(info.status) == MinresStatus.INCONSISTENT
    assert "range" in info.message
    assert int(info.steps) < 1000
    least = size * 2**0.5
    np.testing.assert_allclose(np.linalg.norm(b - made.A @ np.asarray(x)), least, rtol=1e-6)
    np.testing.assert_allclose(info.residual_norm, least, rtol=1e-6)


def test_zero():
    a = matrix(INDEFINITE)
    for guess in (None, vector()):
        x, info = minres(a, np.zeros(N), guess, atol=1e-12)
        np.testing.assert_allclose(x, 0, atol=1e-11)
        assert bool(info.converged)
    x, info = minres(np.zeros((N, N)), np.zeros(N))
    assert bool(info.converged)
    x, info = minres(np.zeros((N, N)), np.ones(N))
    assert int(info.status) == MinresStatus.INCONSISTENT


# -- what it takes ---------------------------------------------------------------------------------


def test_forms_of_the_operator():
    a, b = matrix(INDEFINITE), vector()
    expected = np.linalg.solve(a, b)

    class Mine:
        def __matmul__(self, x):
            return jnp.asarray(a) @ x

    for form in (a, jnp.asarray(a), lambda x: jnp.asarray(a) @ x, Mine()):
        x, _ = minres(form, b, tol=1e-12)
        np.testing.assert_allclose(x, expected, rtol=0, atol=1e-9)


def test_pytrees():
    """A block system with unknowns of two shapes."""
    a, b = matrix(INDEFINITE), vector()

    def cut(x):
        return {"u": x[:30].reshape(5, 6), "v": x[30:]}

    def product(tree):
        return cut(jnp.asarray(a) @ jnp.concatenate([tree["u"].ravel(), tree["v"]]))

    x, info = minres(product, cut(b), cut(np.ones(N)), tol=1e-12)
    assert bool(info.converged)
    expected = cut(np.linalg.solve(a, b))
    jax.tree.map(lambda got, want: np.testing.assert_allclose(got, want, atol=1e-9), x, expected)


def test_a_guess_saves_steps_and_changes_nothing_else():
    a, b = matrix(INDEFINITE), vector()
    exact = np.linalg.solve(a, b)
    cold = minres(a, b, tol=1e-10)[1]
    x, warm = minres(a, b, exact + 1e-6 * vector(2), tol=1e-10)
    assert int(warm.steps) < int(cold.steps)
    np.testing.assert_allclose(x, exact, rtol=0, atol=1e-8)
    assert int(minres(a, b, exact, tol=1e-10)[1].steps) == 0


def test_tolerances():
    """The residual to reach is the larger one of tol ||b|| and atol, as in jax.scipy."""
    a, b = matrix(INDEFINITE), 100 * vector()
    for options, target in (
        ({}, 1e-5 * np.linalg.norm(b)),
        ({"tol": 1e-2}, 1e-2 * np.linalg.norm(b)),
        ({"tol": 0.0, "atol": 1e-3}, 1e-3),
        ({"tol": 1e-9, "atol": 1e-1}, 1e-1),
    ):
        x, info = minres(a, b, **options)
        length = np.linalg.norm(b - a @ np.asarray(x))
        assert length <= target
        assert bool(info.converged)
        assert length > 1e-6 * target  # not solved much further


def test_a_preconditioner():
    """Diagonal scaling over eight decades: tens of steps in place of hundreds."""
    scale = np.logspace(0, 4, N)
    a = scale[:, None] * matrix(INDEFINITE) * scale[None, :]
    b = vector()
    helped = minres(a, b, tol=1e-10, M=lambda r: r / scale**2)[1]
    plain = minres(a, b, tol=1e-10)[1]
    assert bool(helped.converged)
    assert int(helped.steps) < int(plain.steps) / 2


def test_too_few_steps():
    x, info = minres(matrix(INDEFINITE), vector(), tol=1e-12, maxiter=3)
    assert int(info.status) == MinresStatus.MAX_STEPS
    assert int(info.steps) == 3
    assert "maxiter" in info.message
    assert np.all(np.isfinite(x))


def test_not_finite():
    _, info = minres(lambda x: x.at[0].set(jnp.nan), vector())
    assert int(info.status) == MinresStatus.NOT_FINITE


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_single_precision(dtype):
    a, b = matrix(INDEFINITE).astype(dtype), vector(dtype=dtype).astype(dtype)
    x, info = minres(a, b)
    assert x.dtype == dtype
    assert bool(info.converged)
    residual = np.linalg.norm(b.astype(complex) - a.astype(complex) @ np.asarray(x))
    assert residual <= 1.1e-5 * np.linalg.norm(b)


# -- transformations -------------------------------------------------------------------------------


def test_jit_and_vmap():
    a = np.stack([matrix(INDEFINITE, seed=s) for s in range(3)])
    b = np.stack([vector(s) for s in range(3)])
    x, info = jax.jit(jax.vmap(functools.partial(minres, tol=1e-12)))(a, b)
    assert np.all(info.converged)
    np.testing.assert_allclose(x, np.linalg.solve(a, b[:, :, None])[:, :, 0], atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spectrum", "dtype"),
    [
        pytest.param("definite", np.float64, marks=pytest.mark.slow),
        pytest.param("indefinite", np.float64, marks=pytest.mark.slow),
        ("indefinite", np.complex128),
    ],
)
def test_derivatives(spectrum, dtype):
    """Forward and reverse, in A and in b, against LAPACK's; the second by differences of these."""
    a, b = matrix(SPECTRA[spectrum], dtype), vector(dtype=dtype)
    da = matrix(INDEFINITE, dtype, seed=5)
    db, c = vector(7, dtype), vector(8, dtype)

    def loss(t, s, solve):
        x = solve(a + t * da, b + s * db)
        return jnp.vdot(c, x).real ** 2 + jnp.vdot(x, x).real

    def by_minres(t, s):
        return loss(t, s, lambda a, b: minres(a, b, tol=1e-13)[0])

    def by_lapack(t, s):
        return loss(t, s, jnp.linalg.solve)

    for order in (jax.grad, jax.jacfwd):
        got = order(by_minres, (0, 1))(0.0, 0.0)
        np.testing.assert_allclose(got, order(by_lapack, (0, 1))(0.0, 0.0), rtol=1e-9)
    got = jax.hessian(by_minres, (0, 1))(0.0, 0.0)
    np.testing.assert_allclose(got, jax.hessian(by_lapack, (0, 1))(0.0, 0.0), rtol=1e-7)


def test_a_guess_and_a_preconditioner_have_no_derivative():
    a, b = matrix(INDEFINITE), vector()

    def loss(guess, scale):
        return jnp.sum(minres(a, b, guess, tol=1e-12, M=lambda r: scale * r)[0] ** 2)

    by_guess, by_scale = jax.grad(loss, (0, 1))(np.ones(N), 2.0)
    assert np.all(by_guess == 0)
    assert by_scale == 0


# -- what it refuses -------------------------------------------------------------------------------

WRONG = {
    "an integer b": (lambda: minres(np.eye(3), np.arange(3)), TypeError, "floating"),
    "no b": (lambda: minres(np.eye(3), ()), ValueError, "no array"),
    "no operator": (lambda: minres(3.0, np.ones(3)), TypeError, "expected an array"),
    "a matrix of a pytree": (lambda: minres(np.eye(2), [np.ones(2)]), TypeError, "function"),
    "another guess": (lambda: minres(np.eye(3), np.ones(3), np.ones(2)), ValueError, "x0"),
    "complex guess": (lambda: minres(np.eye(3), np.ones(3), 1j * np.ones(3)), TypeError, "x0"),
    "negative tol": (lambda: minres(np.eye(3), np.ones(3), tol=-1.0), ValueError, "tol"),
    "no steps": (lambda: minres(np.eye(3), np.ones(3), maxiter=0), ValueError, "maxiter"),
    "another shape": (lambda: minres(np.ones((2, 3)), np.ones(3)), ValueError, "shape"),
    "complex A": (lambda: minres(lambda x: x.astype(complex), np.ones(3)), TypeError, "complex"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_arguments(case):
    call, error, words = WRONG[case]
    with pytest.raises(error, match=words):
        call()
