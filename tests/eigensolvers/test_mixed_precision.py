"""Chebyshev(mixed_precision=True): a filter in float32, answers as exact as in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg as sla
import scipy.sparse as sp

from jax_peig import BlockProduct, Chebyshev, Status, partial_eigh
from jax_peig._operators.single_precision import in_single_precision

N = 600
RNG = np.random.default_rng(0)
SQUARES = np.linspace(1.0, 3.0, N) ** 2
_H = RNG.standard_normal((N, N)) + 1j * RNG.standard_normal((N, N))
HERMITIAN = _H + _H.conj().T
MASS = 1.0 + RNG.random(N)
CHAIN = sp.diags([-np.ones(N - 1), 2 * np.ones(N), -np.ones(N - 1)], [-1, 0, 1]).tocsr()
MIXED = Chebyshev(mixed_precision=True)


def laplacian(u):
    """Five points on a square grid of 24 by 24: repeated eigenvalues."""
    grid = u.reshape(24, 24)
    padded = jnp.pad(grid, 1)
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return (4 * grid - around).ravel()


_ONE = 2 - 2 * np.cos(np.pi * np.arange(1, 25) / 25)
LAPLACIAN = np.sort((_ONE[:, None] + _ONE[None, :]).ravel())


def circulant(u):
    """A convolution by FFT."""
    symbol = 2 - 2 * jnp.cos(jnp.linspace(0.0, 2 * jnp.pi, N, endpoint=False))
    return jnp.fft.ifft(symbol.astype(complex) * jnp.fft.fft(u)).real


def looped(u):
    """Loops and branches: SQUARES is summed in four parts."""

    def add(carry, part):
        return carry + part * u * SQUARES, None

    scanned, _ = jax.lax.scan(add, jnp.zeros_like(u), jnp.full(2, 0.25))
    counted = jax.lax.fori_loop(0, 1, lambda _, c: c + 0.25 * u * SQUARES, scanned)
    return jax.lax.cond(u[0] > 0, lambda: counted + 0.25 * u * SQUARES, lambda: counted * 4 / 3)


def hessian(u):
    """A Hessian-vector product through custom derivatives and a gather."""
    order = jnp.arange(N)[::-1]

    def loss(x):
        return jnp.sum(SQUARES * jax.nn.softplus(x[order]) + jax.nn.relu(x) ** 2)

    return jax.jvp(jax.grad(loss), (jnp.full(N, 0.5),), (u,))[1]


_SLOPE = float(1 / (1 + np.exp(-0.5)))
CURVATURES = np.sort(SQUARES[::-1] * _SLOPE * (1 - _SLOPE) + 2)

FORMS = {
    "sparse": (CHAIN, None, 2 - 2 * np.cos(np.pi * np.arange(1, N + 1) / (N + 1))),
    "diagonal": (jnp.asarray(SQUARES), None, SQUARES),
    "complex": (jnp.asarray(HERMITIAN), None, np.linalg.eigvalsh(HERMITIAN)),
    "mass": (
        jnp.asarray(HERMITIAN),
        jnp.asarray(MASS),
        sla.eigh(HERMITIAN, np.diag(MASS), eigvals_only=True),
    ),
    "circulant": (circulant, None, np.sort(2 - 2 * np.cos(2 * np.pi * np.arange(N) / N))),
    "loops": (looped, None, SQUARES),
    "hessian": (hessian, None, CURVATURES),
    "block": (BlockProduct(lambda v: SQUARES[:, None] * v), None, SQUARES),
}


@pytest.mark.parametrize("form", FORMS)
def test_as_exact_as_in_double_precision(form):
    """Far beyond single precision, for a few matvecs more."""
    a, m, exact = FORMS[form]
    wide, mixed = (
        partial_eigh(a, m, 3, n=N, which="largest", tol=1e-12, method=method)
        for method in (Chebyshev(), MIXED)
    )
    for result in (wide, mixed):
        assert result.info.status == Status.CONVERGED
        np.testing.assert_allclose(result.eigenvalues, exact[::-1][:3], rtol=1e-12)
    assert mixed.eigenvectors.dtype == wide.eigenvectors.dtype
    assert int(mixed.info.matvecs) <= 1.25 * int(wide.info.matvecs)


@pytest.mark.slow
def test_all_copies_from_every_start():
    """Repeated eigenvalues of a grid, from 16 starts under vmap; the products are single."""
    keys = jax.random.split(jax.random.key(3), 16)

    def one(key):
        return partial_eigh(laplacian, k=6, n=576, tol=1e-11, method=MIXED, key=key)

    result = jax.jit(jax.vmap(one))(keys)
    assert set(result.info.status.tolist()) == {int(Status.CONVERGED)}
    np.testing.assert_allclose(result.eigenvalues, np.tile(LAPLACIAN[:6], (16, 1)), atol=1e-13)


def test_the_gradient():
    def total(scale):
        return jnp.sum(partial_eigh(scale * SQUARES, k=3, method=MIXED).eigenvalues)

    assert jax.grad(total)(2.0) == pytest.approx(np.sum(SQUARES[:3]), rel=1e-12)


@pytest.mark.parametrize("good", [True, False])
def test_from_a_guess(good):
    near = partial_eigh(SQUARES, k=3).eigenvectors
    guess = near if good else RNG.standard_normal((N, 3))
    a = SQUARES + 0.01 * MASS
    result = partial_eigh(a, k=3, v0=jnp.asarray(guess), method=MIXED)
    assert result.info.status == Status.CONVERGED
    np.testing.assert_allclose(result.eigenvalues, np.sort(a)[:3], rtol=1e-12)


def dtypes(jaxpr):
    """Those of all values in a jaxpr and in the bodies of its equations."""
    found = {v.aval.dtype.name for e in jaxpr.eqns for v in (*e.invars, *e.outvars)}
    for equation in jaxpr.eqns:
        for parameter in equation.params.values():
            for body in parameter if isinstance(parameter, tuple) else (parameter,):
                if hasattr(body, "jaxpr"):
                    found |= dtypes(body.jaxpr)
    return found


@pytest.mark.parametrize("product", [looped, hessian, laplacian, circulant])
def test_no_product_in_double_precision(product):
    """Not even inside loops; the values are those of the product to single precision."""
    n = 576 if product is laplacian else N
    block = RNG.standard_normal((n, 3))

    def of_block(v):
        return jax.vmap(product, in_axes=1, out_axes=1)(v)

    narrow = in_single_precision(of_block, jnp.asarray(block))
    given = jnp.asarray(block, jnp.float32)
    assert not dtypes(jax.make_jaxpr(narrow)(given).jaxpr) & {"float64", "complex128"}
    exact = np.asarray(of_block(jnp.asarray(block)))
    np.testing.assert_allclose(narrow(given), exact, atol=1e-5 * np.max(np.abs(exact)))


def test_vectors_in_single_precision_stay_as_they_are():
    a = jnp.asarray(SQUARES, jnp.float32)
    assert in_single_precision(lambda v: a[:, None] * v, jnp.ones((N, 2), jnp.float32)) is None
    wide, mixed = (partial_eigh(a, k=2, method=method) for method in (Chebyshev(), MIXED))
    np.testing.assert_array_equal(wide.eigenvalues, mixed.eigenvalues)


def test_no_degree_overflows_single_precision():
    """All Ritz values of a random block lie in the bulk, and the polynomial is huge far below."""
    a = np.r_[np.linspace(0.0, 0.2, 10), np.linspace(0.9, 1.0, 19_990)]
    result = partial_eigh(a, k=2, method=MIXED)
    assert result.info.status == Status.CONVERGED
    np.testing.assert_allclose(result.eigenvalues, a[:2], atol=1e-13)


@pytest.mark.parametrize("scale", [1e60, 1e-60])
def test_numbers_that_single_precision_does_not_hold(scale):
    """No finite wrong answer."""
    result = partial_eigh(scale * SQUARES, k=2, method=MIXED)
    assert result.info.status != Status.CONVERGED
    assert np.all(np.isnan(result.eigenvalues))


def host(u):
    out = jax.ShapeDtypeStruct(u.shape, u.dtype)
    return jax.pure_callback(lambda x: SQUARES * x, out, u, vmap_method="sequential")


def bits(u):
    sign = jax.lax.bitcast_convert_type(u, jnp.int64) >> 63
    return jnp.where(sign == 0, u, u) * SQUARES


@pytest.mark.parametrize("product", [host, bits])
def test_products_that_cannot_be_read_so(product):
    with pytest.raises(TypeError, match=r"cannot be taken in float32 .* Leave mixed_precision out"):
        partial_eigh(product, k=2, n=N, method=MIXED)


def test_mistakes():
    with pytest.raises(TypeError, match=r"mixed_precision is 'float32'; expected True or False"):
        Chebyshev(mixed_precision="float32")
    with pytest.raises(ValueError, match="leave mixed_precision out"):
        partial_eigh(SQUARES, k=2, sigma=2.0, method=MIXED)
