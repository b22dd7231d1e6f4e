"""A product that is not linear is named as such; one that is never is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_peig import BlockProduct, PartialEighError, Status, partial_eigh, partial_svd
from jax_peig._operators.operator import as_operator
from jax_peig._operators.probe import linearity_error, probe
from tests.support import linear_families, spectra
from tests.support.linear_families import FAMILIES

N, K = 20, 2
METHODS = ("dense", "chebyshev", "lobpcg", "davidson")
B = spectra.hermitian(np.random.default_rng(0).standard_normal((N, N)))
C = B + 1j * (np.triu(B, 1) - np.tril(B, -1))
WRONG = {
    "affine": (lambda u: B @ u + 1.0, float),
    "a square": (lambda u: u**2, float),
    "a constant": (lambda u: jnp.ones(N), float),
    "an absolute value": (lambda u: jnp.abs(B @ u), float),
    "a conjugate": (lambda u: C @ u.conj(), complex),
    "a real part": (lambda u: C @ u.real.astype(complex), complex),
}
TEXTS = {Status.A_NOT_LINEAR: "product with A is not linear", Status.M_NOT_LINEAR: "with M is not"}


def check_named(result, status):
    info = result.info
    assert Status(int(info.status)) == status
    assert np.all(np.isnan(result.eigenvalues))
    assert np.all(np.isnan(result.eigenvectors))
    assert int(info.converged) == 0
    told = info.linearity_error if status == Status.A_NOT_LINEAR else info.linearity_error_M
    assert float(told) > 1e-3
    with pytest.raises(PartialEighError, match=TEXTS[status]):
        info.raise_if_failed()


# Every case by a method that forms the matrix and by one that probes; two cases by all methods.
CASES = [(case, "dense") for case in WRONG]
CASES += [pytest.param(case, "lobpcg", marks=pytest.mark.slow) for case in WRONG]
CASES += [(case, method) for case in ("affine", "a conjugate") for method in METHODS[1::2]]


@pytest.mark.parametrize(("case", "method"), CASES)
def test_a_wrong_product_is_named(case, method):
    product, dtype = WRONG[case]
    options = {"k": K, "n": N, "dtype": dtype, "method": method}
    check_named(partial_eigh(product, **options), Status.A_NOT_LINEAR)
    if method in ("dense", "lobpcg"):
        full = B if dtype is float else C
        found = partial_eigh(lambda u: full @ u, product, **options)
        check_named(found, Status.M_NOT_LINEAR)


@pytest.mark.parametrize("method", ["dense", "chebyshev"])
def test_under_jit_and_vmap(method):
    """Of a batch with A u + c the members with c = 0 alone are solved."""

    @jax.jit
    @jax.vmap
    def solve(c):
        return partial_eigh(lambda u: B @ u + c, k=K, n=N, method=method)

    result = solve(jnp.array([0.0, 1.0, 0.0, 1e-3]))
    expected = [Status.CONVERGED, Status.A_NOT_LINEAR, Status.CONVERGED, Status.A_NOT_LINEAR]
    assert [Status(int(s)) for s in result.info.status] == expected
    wanted = np.linalg.eigvalsh(B)[:K]
    np.testing.assert_allclose(result.eigenvalues[::2], np.stack([wanted] * 2), rtol=1e-9)
    assert np.all(np.isnan(result.eigenvalues[1::2]))


def test_a_product_of_blocks_and_a_rectangular_one():
    """A block product that mixes in a constant; a rectangular product, by its dilation."""
    result = partial_eigh(BlockProduct(lambda v: B @ v + 1.0), k=K, n=N)
    check_named(result, Status.A_NOT_LINEAR)
    rectangular = partial_svd(lambda u: B[:7] @ u + 1.0, K, shape=(7, N))
    assert int(rectangular.info.status) in (Status.A_NOT_LINEAR, Status.A_NOT_HERMITIAN)
    assert np.all(np.isnan(rectangular.s))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dense", "lobpcg", "davidson"])
def test_what_it_costs(method):
    """One matvec where A is a product, none where it is an array.

    Steps are counted alike where there is only one: their number depends on rounding.
    """
    given = {"k": K, "n": N, "method": method, "max_steps": 1}
    product = partial_eigh(lambda u: jnp.asarray(B) @ u, **given).info
    array = partial_eigh(B, **given).info
    assert float(product.linearity_error) < 1e-13
    assert float(array.linearity_error) == 0
    assert int(product.matvecs) == int(array.matvecs) + 1


@pytest.mark.slow
def test_linear_is_told_from_hermitian():
    """A product that is linear and not Hermitian keeps its status."""
    for method in METHODS:
        info = partial_eigh(lambda u: u - jnp.roll(u, 1), k=K, n=N, method=method).info
        assert int(info.status) == Status.A_NOT_HERMITIAN
        assert float(info.linearity_error) < 1e-13


# -- no false alarm --------------------------------------------------------------------------------


def drawn_errors(family, dtype, count):
    """The probe's linearity and hermiticity errors of drawn products, (count,) each, and ours."""
    draw, apply = FAMILIES[family]
    n = linear_families.N

    @jax.jit
    @jax.vmap
    def errors(key):
        keys = jax.random.split(key)
        parameters = draw(keys[0], dtype)
        operator = as_operator(lambda u: apply(parameters, u), n, dtype, "A")
        pair = jax.random.normal(keys[1], (n, 2), dtype)
        probed = probe(operator, pair)
        return probed.linearity_error, probed.hermiticity_error, linearity_error(operator, pair)

    return errors(jax.random.split(jax.random.key(count), count))


def check_no_alarm(family, dtype, count):
    eps = np.finfo(dtype).eps
    for error in drawn_errors(family, dtype, count):
        assert np.all(np.isfinite(error))
        assert np.max(error) < 0.1 * eps**0.5  # a tenth of what is taken for a fault


@pytest.mark.parametrize("family", FAMILIES)
def test_no_false_alarm(family):
    check_no_alarm(family, np.float32, 20)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_false_alarm_of_1200(family, dtype):
    """1,200 linear problems in all."""
    check_no_alarm(family, np.dtype(dtype), 50)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_false_alarm_of_dense(family, dtype):
    """The method "dense" compares with the matrix that it formed."""
    draw, apply = FAMILIES[family]

    @jax.jit
    @jax.vmap
    def solve(key):
        parameters = draw(key, np.dtype(dtype))
        return partial_eigh(
            lambda u: apply(parameters, u), k=K, n=linear_families.N, dtype=dtype, method="dense"
        ).info

    info = solve(jax.random.split(jax.random.key(3), 50))
    assert np.max(info.linearity_error) < 0.1 * np.finfo(dtype).eps ** 0.5
    assert np.all(info.status == Status.CONVERGED)


# -- solves that are linear to their tolerance -----------------------------------------------------

MASS = np.diag(np.linspace(1.0, 3.0, N)) + 0.1 * B / np.linalg.norm(B, 2)


def loose_solve(matrix, tol):
    """A solve by conjugate gradients, linear to its tolerance."""
    return functools.partial(_cg, jnp.asarray(matrix), tol)


def _cg(matrix, tol, b):
    return jax.scipy.sparse.linalg.cg(lambda u: matrix @ u, b, tol=tol)[0]


def test_an_iterative_mass_solve_is_told_and_not_refused():
    wanted = spectra.reference(B, MASS)[0][:K]
    result = partial_eigh(B, MASS, K, M_solve=loose_solve(MASS, 1e-4), method="chebyshev", tol=1e-8)
    assert 1e-8 < float(result.info.linearity_error_helpers) < 1e-2
    assert int(result.info.status) == Status.CONVERGED
    np.testing.assert_allclose(result.eigenvalues, wanted, rtol=1e-10)


def test_an_iterative_preconditioner_is_told_and_not_refused():
    positive = B + 2 * np.linalg.norm(B, 2) * np.eye(N)
    result = partial_eigh(
        positive, k=K, preconditioner=loose_solve(positive, 1e-3), method="davidson"
    )
    assert 1e-8 < float(result.info.linearity_error_helpers) < 1e-1
    assert int(result.info.status) == Status.CONVERGED
    np.testing.assert_allclose(result.eigenvalues, np.linalg.eigvalsh(positive)[:K], rtol=1e-10)


def test_an_iterative_shift_invert_is_told():
    """OPinv by an inner iteration: told, and refused only where the residuals say so."""
    n = 60
    levels = np.arange(1.0, n + 1)

    def solve(b):
        x = b / (levels - 20.3)
        return x + 1e-7 * jnp.linalg.norm(x) * jnp.sign(x) / n**0.5

    result = partial_eigh(levels, k=3, sigma=20.3, OPinv=solve, method="shift_invert", tol=1e-5)
    assert 1e-8 < float(result.info.linearity_error_helpers) < 1e-5
    assert int(result.info.status) == Status.CONVERGED
    np.testing.assert_allclose(result.eigenvalues, [20.0, 21.0, 19.0], rtol=1e-9)
