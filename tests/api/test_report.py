"""derivative_report: is its estimate the error? The truth is LAPACK's gradient, by jnp.linalg.eigh.

The losses' vectors belong to simple eigenvalues, or whole clusters enter in closed form.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jax_peig
from jax_peig import Derivative, derivative_report, partial_eigh
from jax_peig._api.call_report import CAUSES
from tests.support import spectra

N, K = 60, 3
VALUES = np.concatenate([[1.0, 2.0, 2.5], np.linspace(3.2, 30.0, N - K)])
C = np.random.default_rng(0).standard_normal(N)


def density(w, x):
    rho = jnp.sum(jnp.abs(x) ** 2, axis=1)
    return jnp.sum(C * rho**2) + jnp.sum(w) / 10


def multiply(a, u):
    return a @ u


def loss(a, **options):
    w, x, _ = partial_eigh(Partial(multiply, a), k=K, n=N, dtype=a.dtype, **options)
    return density(w, x)


def exact_gradient(a):
    def by_lapack(a):
        w, x = jnp.linalg.eigh((a + a.conj().T) / 2)
        return density(w[:K], x[:, :K])

    return np.asarray(jax.grad(by_lapack)(a))


def hermitian_part(g):
    """What is seen of the cotangent of a Hermitian matrix."""
    g = np.asarray(g)
    return (g + g.conj().T) / 2


@pytest.mark.parametrize(
    ("method", "tol"),
    [
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (("lobpcg", 1e-3), ("chebyshev", 1e-6))
    ],
)
def test_the_estimate_is_the_error(method, tol):
    a = jnp.asarray(spectra.pencil(VALUES).A)
    report = derivative_report(functools.partial(loss, method=method, tol=tol), a)
    exact = hermitian_part(exact_gradient(a))
    error = np.linalg.norm(hermitian_part(report.gradient) - exact) / np.linalg.norm(exact)
    assert report.verdict == "The gradient is well-posed."
    assert error / 3 <= report.error <= 3 * error + 1e-10
    assert report.error <= report.error_of_eigenpairs + report.error_of_systems + 1e-15
    (call,) = report.calls
    assert (call.n, call.k, call.method) == (N, K, method)
    assert call.solvers == ("semi_iteration", "minres")
    np.testing.assert_allclose(call.gap, 0.7, rtol=0.1)
    assert np.all(call.residuals <= 10 * call.tolerance)
    assert 0 < call.steps < call.matvecs
    assert call.gauge < 1e-10
    assert f"{report.error:.1e}" in str(report)
    np.testing.assert_allclose(report.value, loss(a, method=method, tol=tol), rtol=1e-12)


@pytest.mark.slow
def test_the_part_of_the_systems():
    """Systems solved to 1e-3, eigenpairs to 1e-12: the first is all of the error."""
    a = jnp.asarray(spectra.pencil(VALUES).A)
    rough = Derivative(solver="cg", tol=1e-3)
    report = derivative_report(
        functools.partial(loss, method="lobpcg", tol=1e-12, derivative=rough), a
    )
    exact = hermitian_part(exact_gradient(a))
    error = np.linalg.norm(hermitian_part(report.gradient) - exact) / np.linalg.norm(exact)
    assert error / 3 <= report.error_of_systems <= 3 * error
    assert report.error_of_eigenpairs < 1e-2 * report.error_of_systems


@pytest.mark.slow
def test_several_calls_in_loops_and_under_jit():
    """The second call's matrix depends on the first one's vectors; both are reported."""
    made = jnp.asarray(spectra.pencil(VALUES).A)

    @jax.jit
    def twice(t):
        def step(d, _):
            x = partial_eigh(made + jnp.diag(t * d), k=K, method="lobpcg").eigenvectors
            return jnp.sum(x**2, axis=1), jnp.sum(C * x[:, 0] ** 4)

        return jnp.sum(jax.lax.scan(step, jnp.zeros(N), length=2)[1])

    report = derivative_report(twice, 1.5)
    assert len(report.calls) == 2
    np.testing.assert_allclose(report.gradient, jax.grad(twice)(1.5), rtol=1e-8)
    step = 1e-5
    by_difference = (twice(1.5 + step) - twice(1.5 - step)) / (2 * step)
    np.testing.assert_allclose(report.gradient, by_difference, rtol=1e-5)
    assert report.verdict == "The gradient is well-posed."


@pytest.mark.slow
def test_arguments_and_pytrees():
    made = jnp.asarray(spectra.pencil(VALUES).A)

    def f(c, p):
        w, x, _ = partial_eigh(made + jnp.diag(p["d"]), k=K)
        return c * jnp.sum(x[:, 0] ** 4) + w[0]

    args = 2.0, {"d": jnp.linspace(0.0, 0.1, N)}
    report = derivative_report(f, *args, argnums=(0, 1))
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-12),
        report.gradient,
        jax.grad(f, (0, 1))(*args),
    )
    one = derivative_report(f, *args, argnums=1)
    np.testing.assert_allclose(one.gradient["d"], report.gradient[1]["d"], rtol=1e-12)


# -- what is wrong ---------------------------------------------------------------------------------

PAIR = np.concatenate([[1.0, 2.0, 2.0], np.linspace(3.2, 30.0, N - K)])


def one_vector(a, **options):
    return C @ partial_eigh(a, k=K, **options).eigenvectors[:, 1]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dense", pytest.param("lobpcg", marks=pytest.mark.slow)])
def test_gauge_dependence_is_told(method):
    a = jnp.asarray(spectra.pencil(PAIR).A)
    report = derivative_report(functools.partial(one_vector, method=method), a)
    assert "arbitrary choice" in report.verdict
    assert report.calls[0].gauge > 1e-2
    assert np.all(np.isfinite(report.gradient))


@pytest.mark.slow
def test_each_cause_is_told_alone_with_its_remedy():
    """Smeared occupations do not depend on a choice: what they lack is the block of a cluster."""
    a = jnp.diag(jnp.array([1.0, 2.0, 2.0, 3.0, 5.0]))
    v = jnp.arange(1.0, 6.0)

    def smeared(a):
        w, x, _ = partial_eigh(a, k=3)
        return jnp.sum(jnp.exp(-w) * (v @ x) ** 2)

    def by_space(a):
        space = jax_peig.eigenspace(a, k=3)
        return v @ jax_peig.density(lambda w: jnp.exp(-w), space)

    report = derivative_report(smeared, a)
    assert report.calls[0].gauge < 1e-12
    assert report.calls[0].problems == (CAUSES["occupation"],)
    for word in ("not to be trusted", "weighs its eigenvalues differently", "eigenspace"):
        assert word in report.verdict
    assert "arbitrary choice" not in report.verdict
    assert derivative_report(by_space, a).verdict == "The gradient is well-posed."
    turned = derivative_report(lambda a: v @ partial_eigh(a, k=3).eigenvectors[:, 1], a)
    assert turned.calls[0].problems == (CAUSES["gauge"],)
    assert turned.calls[0].gauge > 1e-2
    cut = derivative_report(lambda a: (v @ partial_eigh(a, k=2).eigenvectors[:, 1]) ** 2, a)
    (problem,) = cut.calls[0].problems
    assert problem == CAUSES["cut"] + "; of the smaller ones the largest is k = 1"


def test_a_report_prints_its_lines_alone():
    report = derivative_report(lambda a: partial_eigh(a, k=2).eigenvalues[0], jnp.diag(VALUES))
    assert repr(report) == str(report)
    assert len(str(report).splitlines()) == 3
    assert f"call 0: {report.calls[0]!r}" in str(report)


@pytest.mark.slow
def test_a_cut_cluster_is_told():
    a = jnp.asarray(spectra.pencil(np.concatenate([[1.0, 2.0], np.full(3, 3.0), VALUES[5:]])).A)
    report = derivative_report(functools.partial(loss, method="lobpcg"), a)
    assert "cuts" in report.verdict
    assert np.isnan(report.error)
    assert "relative error" not in str(report)


@pytest.mark.slow
def test_lack_of_convergence_is_told():
    a = jnp.asarray(spectra.pencil(VALUES).A)
    few = functools.partial(loss, method="lobpcg", max_steps=3)
    assert "eigenpairs" in derivative_report(few, a).verdict
    few = functools.partial(
        loss, method="lobpcg", derivative=Derivative(solver="cg", tol=1e-12, max_steps=3)
    )
    assert "linear system" in derivative_report(few, a).verdict


def test_bad_questions():
    a = jnp.asarray(spectra.pencil(VALUES).A)
    with pytest.raises(ValueError, match="no call"):
        derivative_report(jnp.sum, a)
    with pytest.raises(TypeError, match="real scalar"):
        derivative_report(lambda a: partial_eigh(a, k=K).eigenvalues, a)
    with pytest.raises(ValueError, match="inside a transformation"):
        derivative_report(lambda b: jnp.sum(jax.vmap(loss)(b)), jnp.stack([a, a]))
    with pytest.raises(ValueError, match="inside a transformation"):
        derivative_report(lambda a: jnp.sum(jax.grad(loss)(a)), a)


def test_nothing_is_left_behind():
    """A failure inside leaves partial_eigh as it was."""
    with pytest.raises(ZeroDivisionError):
        derivative_report(lambda a: partial_eigh(a, k=2) and 1 / 0, jnp.eye(4))
    assert partial_eigh(jnp.eye(4), k=2).eigenvalues.shape == (2,)


DRAWN = 60


@pytest.mark.slow
@pytest.mark.parametrize(("method", "tol"), [("lobpcg", 1e-4), ("chebyshev", 1e-7)])
def test_drawn_problems(method, tol):
    """Random gaps: within three times of the truth for nine in ten."""
    ratios = []
    for seed in range(DRAWN):
        rng = np.random.default_rng(seed)
        values = np.sort(np.concatenate([rng.uniform(0, 3, K), rng.uniform(3.3, 30, N - K)]))
        a = jnp.asarray(spectra.pencil(values, seed=seed).A)
        report = derivative_report(functools.partial(loss, method=method, tol=tol), a)
        exact = hermitian_part(exact_gradient(a))
        error = np.linalg.norm(hermitian_part(report.gradient) - exact) / np.linalg.norm(exact)
        ratios.append(report.error / error)
    ratios = np.array(ratios)
    print(method, np.quantile(ratios, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]))
    assert np.mean((ratios > 1 / 3) & (ratios < 3)) > 0.9
