"""What every iterative method takes: helpers, history, all dtypes, any guess and any scale.

Right means what LAPACK says, or the prescribed spectrum.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jax_peig import Status, partial_eigh
from tests.support import spectra

N, K = 60, 4
METHODS = ("chebyshev", "lobpcg", "davidson")
VALUES = np.concatenate([[1.0, 2.0, 2.0, 3.0], np.arange(4.0, N)])
_others = [pytest.param(method, marks=pytest.mark.slow) for method in METHODS[1:]]
by_method = pytest.mark.parametrize("method", [METHODS[0], *_others])


# -- helpers ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pencil():
    return spectra.pencil(VALUES, condition=1e3)


def cholesky_solve(factor, v):
    return jax.scipy.linalg.cho_solve((factor, True), v)


def forms_of_solve(m):
    """M^{-1} in the forms that A is taken in."""
    factor = jnp.asarray(np.linalg.cholesky(m))
    return {
        "array": np.linalg.inv(m),
        "function of a vector": functools.partial(cholesky_solve, factor),
        "pytree": jax.tree_util.Partial(cholesky_solve, factor),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "form",
    [
        *(pytest.param(f, marks=pytest.mark.slow) for f in ("array", "function of a vector")),
        "pytree",
    ],
)
def test_a_solve_with_the_mass(pencil, form):
    """An approximate inverse of this M, full and of condition 1000, takes many products with it."""
    solve = forms_of_solve(pencil.M)[form]
    result = partial_eigh(pencil.A, pencil.M, K, method="chebyshev", M_solve=solve)
    assert int(result.info.status) == Status.CONVERGED
    np.testing.assert_allclose(result.eigenvalues, VALUES[:K], rtol=0, atol=1e-8)
    x = np.asarray(result.eigenvectors)
    np.testing.assert_allclose(x.T @ pencil.M @ x, np.eye(K), atol=1e-10)
    without = partial_eigh(pencil.A, pencil.M, K, method="chebyshev")
    spent, more = (int(r.info.matvecs + r.info.matvecs_M) for r in (result, without))
    assert spent < more / 2
    assert int(result.info.matvecs_M) < int(without.info.matvecs_M) / 50
    # With it the filter is that of the standard problem.
    standard = partial_eigh(spectra.pencil(VALUES).A, k=K, method="chebyshev")
    assert int(result.info.matvecs) <= 1.1 * int(standard.info.matvecs)


@pytest.mark.slow
def test_a_rough_solve_with_the_mass(pencil):
    """D, in place of M^{-1}, decides the pace alone: here it is the solve of a perturbed M."""
    rng = np.random.default_rng(0)
    root = np.linalg.cholesky(pencil.M)
    noise = spectra.hermitian(rng.standard_normal((N, N)) / N**0.5)
    rough = np.linalg.inv(root @ (np.eye(N) + 0.05 * noise) @ root.T)
    result = partial_eigh(
        pencil.A, pencil.M, K, method="chebyshev", M_solve=spectra.hermitian(rough)
    )
    assert int(result.info.status) == Status.CONVERGED
    np.testing.assert_allclose(result.eigenvalues, VALUES[:K], rtol=0, atol=1e-8)


def test_helpers_have_no_derivative(pencil):
    """Values move with A and M alone: d sum(w) = sum_j x_j^H (dA - w_j dM) x_j, by LAPACK."""

    def loss(t, helper_scale):
        m = t * pencil.M
        solve = helper_scale * np.linalg.inv(pencil.M)
        w, _, _ = partial_eigh(pencil.A, m, K, method="chebyshev", M_solve=solve)
        return jnp.sum(w)

    by_mass, by_helper = jax.grad(loss, (0, 1))(1.0, 1.0)
    np.testing.assert_allclose(by_mass, -np.sum(VALUES[:K]), rtol=1e-8)
    assert by_helper == 0


def test_an_indefinite_solve_is_noticed(pencil):
    wrong = np.linalg.inv(pencil.M) @ np.diag(np.where(np.arange(N) % 2, -1.0, 1.0))
    result = partial_eigh(
        pencil.A, pencil.M, K, method="chebyshev", M_solve=spectra.hermitian(wrong), max_steps=5
    )
    assert not bool(result.info.preconditioner_definite)
    assert int(result.info.status) != Status.CONVERGED


@pytest.mark.slow
def test_both_helpers_are_looked_at(pencil):
    """A definite preconditioner does not hide an indefinite M_solve."""
    result = partial_eigh(
        pencil.A, pencil.M, K, method="chebyshev", preconditioner=np.eye(N), M_solve=-np.eye(N),
        max_steps=5,
    )  # fmt: skip
    assert not bool(result.info.preconditioner_definite)


# -- history and progress --------------------------------------------------------------------------


@by_method
def test_history(method):
    """Row j holds the relative residuals after j steps; NaN behind the last one.

    A step of Davidson's method is a product; before the first, and while the start is multiplied,
    there are none.
    """
    problem = spectra.pencil(VALUES)
    result = partial_eigh(problem.A, k=K, method=method, history=True, max_steps=500)
    history, steps = np.asarray(result.info.history), int(result.info.steps)
    assert history.shape == (501, K)
    assert np.all(np.isnan(history[steps + 1 :]))
    assert not np.any(np.isnan(history[1 : steps + 1]))
    tol = np.finfo(float).eps ** (2 / 3)
    assert np.all(history[steps] <= tol)
    assert np.max(history[max(steps // 3, 1)]) > 10 * np.max(history[steps])
    # The last row is what the residuals are.
    x, w = np.asarray(result.eigenvectors), np.asarray(result.eigenvalues)
    r = np.linalg.norm(problem.A @ x - x * w, axis=0)
    np.testing.assert_allclose(history[steps], r / (VALUES[-1] + w), rtol=0.5, atol=1e-13)


@by_method
def test_history_from_a_guess_that_is_none(method):
    """The steps that it took to find that out come first."""
    problem = spectra.pencil(VALUES)
    v0 = np.random.default_rng(0).standard_normal((VALUES.size, K))
    info = partial_eigh(problem.A, k=K, method=method, v0=v0, history=True, max_steps=500).info
    history, steps = np.asarray(info.history), int(info.steps)
    assert int(info.status) == Status.CONVERGED
    assert not np.any(np.isnan(history[1 : steps + 1]))
    assert np.all(history[steps] <= np.finfo(float).eps ** (2 / 3))
    assert np.all(np.isnan(history[steps + 1 :]))


@by_method
def test_no_history_unless_asked(method):
    assert partial_eigh(np.diag(VALUES), k=K, method=method).info.history is None


@by_method
def test_history_and_progress_change_nothing(method, capfd):
    """The same numbers; a line of words on the error stream, ended, and only if asked for."""
    problem = spectra.pencil(VALUES)
    plain = partial_eigh(problem.A, k=K, method=method, tol=1e-9)
    jax.effects_barrier()
    assert capfd.readouterr() == ("", "")
    shown = partial_eigh(problem.A, k=K, method=method, tol=1e-9, history=True, progress=True)
    jax.effects_barrier()
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert f"step {int(shown.info.steps)}, " in err
    assert f"{K}/{K} converged" in err
    np.testing.assert_allclose(shown.eigenvalues, plain.eigenvalues, rtol=0, atol=1e-10)
    # Another program rounds otherwise, which may decide whether a last step is needed.
    assert abs(int(shown.info.steps) - int(plain.info.steps)) <= 1


# -- dtypes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "condition"),
    [
        (np.float32, None),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((np.complex64, None), (np.float32, 10.0), (np.complex64, 10.0))
        ),
    ],
)
@by_method
def test_single_precision(method, condition, dtype):
    """To the tolerance of float32; the bounds hold. Without M_solve the filter does for M too."""
    problem = spectra.pencil(VALUES, dtype=dtype, condition=condition)
    m = problem.M
    result = partial_eigh(problem.A, m, K, method=method)
    assert int(result.info.status) == Status.CONVERGED, result.info.message
    assert result.eigenvectors.dtype == dtype
    # What the pencil is in single precision.
    exact = scipy.linalg.eigh(
        problem.A.astype(complex), None if m is None else m.astype(complex), eigvals_only=True
    )
    np.testing.assert_allclose(result.eigenvalues, exact[:K], rtol=0, atol=1e-3)
    x = np.asarray(result.eigenvectors)
    mx = x if m is None else m @ x
    np.testing.assert_allclose(x.conj().T @ mx, np.eye(K), atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.complex64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("inverse", [False, True], ids=["folded", "OPinv"])
def test_interior_in_single_precision(dtype, inverse):
    problem, sigma = spectra.pencil(VALUES, dtype=dtype), 20.3
    shifted = np.linalg.inv(problem.A - sigma * np.eye(N)).astype(dtype) if inverse else None
    method = "shift_invert" if inverse else "chebyshev"
    result = partial_eigh(problem.A, k=K, sigma=sigma, method=method, OPinv=shifted)
    assert int(result.info.status) == Status.CONVERGED
    np.testing.assert_allclose(result.eigenvalues, [20, 21, 19, 22], rtol=0, atol=1e-3)


# -- guesses ---------------------------------------------------------------------------------------

D = jnp.arange(1.0, N + 1)


@pytest.mark.parametrize("bad", [np.nan, pytest.param(-np.inf, marks=pytest.mark.slow)])
@by_method
def test_a_guess_that_is_not_finite(method, bad):
    """Its columns count as zero."""
    guess = jnp.eye(N)[:, 10 : 10 + K].at[3, 1].set(bad)
    result = partial_eigh(D, k=K, method=method, v0=guess)
    assert int(result.info.status) == Status.CONVERGED
    np.testing.assert_allclose(result.eigenvalues, np.arange(1, K + 1), rtol=0, atol=1e-8)


@pytest.mark.parametrize("method", ["chebyshev", pytest.param("davidson", marks=pytest.mark.slow)])
@pytest.mark.parametrize("k", [3, 5])
def test_a_guess_where_little_else_is_left(method, k):
    """Up to k = n: a completeness check has no complement to look in."""
    d = jnp.arange(1.0, 6.0)
    for guess in (jnp.eye(5)[:, :k], jnp.eye(5)[:, 5 - k :]):
        result = partial_eigh(d, k=k, method=method, v0=guess)
        assert int(result.info.status) == Status.CONVERGED
        np.testing.assert_allclose(result.eigenvalues, d[:k], rtol=0, atol=1e-12)


@pytest.mark.parametrize("most", [1, 5])
@by_method
def test_a_guess_of_other_eigenvectors_and_few_steps(method, most):
    """No more steps than allowed, and no claim.

    A step of Davidson's method is a product; those with the start, and with what is returned, are
    always made.
    """
    result = partial_eigh(D, k=K, method=method, v0=jnp.eye(N)[:, 30 : 30 + K], max_steps=most)
    assert int(result.info.steps) <= (most + 2 * 6 if method == "davidson" else most)
    right = np.allclose(result.eigenvalues, np.arange(1, K + 1), atol=1e-8)
    assert int(result.info.status) in (Status.MAX_STEPS, Status.NOT_SHOWN_COMPLETE) or right


# -- scale -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("inverse", [False, True], ids=["folded", "OPinv"])
@pytest.mark.parametrize(
    "exponent", [-498, *(pytest.param(e, marks=pytest.mark.slow) for e in (-20, 20, 498))]
)
def test_interior_scales(exponent, inverse):
    """Up to 1e+-150 times A: the same, times that."""
    c, sigma = 2.0**exponent, 20.3
    solve = 1 / (c * (D - sigma)) if inverse else None
    method = "shift_invert" if inverse else "chebyshev"
    result = partial_eigh(c * D, k=K, sigma=c * sigma, method=method, OPinv=solve)
    assert int(result.info.status) == Status.CONVERGED
    np.testing.assert_allclose(result.eigenvalues / c, [20, 21, 19, 22], rtol=0, atol=1e-8)
