"""Spectral functions of an eigenspace: against dense formulas and LAPACK's finite differences.

Everything at exact repetition, orders one and two.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize

from jax_peig import (
    density,
    eigenspace,
    hermitian_function,
    partial_eigh,
    projector_apply,
    spectral_apply,
    spectral_sum,
)
from tests.support import gauge_free as gf

T0 = np.zeros(2)


# -- sums, densities, products -------------------------------------------------------------------


def occupied(x):
    return 1 / (1 + jnp.exp((x - 1.3) / 0.4))


@functools.cache
def spectral(transform):
    """(pencil, t) -> derivatives of a sum of all four functions."""

    def loss(pencil, t):
        a, m = gf.matrices(pencil, t.astype(pencil.a.dtype))
        y, z = pencil.vectors
        space = eigenspace(a, m, gf.K)
        total = spectral_sum(occupied, a, m, gf.K)
        total = total + jnp.abs(z) @ density(occupied, space)
        total = total + (y.conj() @ spectral_apply(occupied, space, z)).real
        return total + (y.conj() @ projector_apply(space, m @ z)).real

    return jax.jit(lambda pencil, t: transform(functools.partial(loss, pencil))(t))


def spectral_reference(pencil, t):
    a, m = gf.matrices(pencil, np.asarray(t))
    w, x = (v[..., : gf.K] for v in scipy.linalg.eigh(a, m))
    y, z = pencil.vectors
    h = 1 / (1 + np.exp((w - 1.3) / 0.4))
    total = h.sum() + np.abs(z) @ (np.abs(x) ** 2 @ h)
    total += (y.conj() @ ((x * h) @ (x.conj().T @ z))).real
    return total + (y.conj() @ (x @ (x.conj().T @ (m @ z)))).real


@pytest.mark.parametrize(
    "dtype",
    [np.float64, pytest.param(np.complex128, marks=pytest.mark.slow)],
    ids=["real", "complex"],
)
def test_spectral_functions(dtype):
    for sizes in [(6,), (3, 3), (1, 2, 1, 2)]:
        pencil = gf.make(sizes, seed=3, dtype=dtype)
        f = functools.partial(spectral_reference, pencil)
        np.testing.assert_allclose(spectral(itself)(pencil, T0), f(T0), rtol=1e-11)
        gf.assert_close(spectral(jax.grad)(pencil, T0), gf.gradient_fd(f, T0), 1e-9)


def itself(f):
    return f


@pytest.mark.slow
def test_spectral_functions_twice():
    for sizes in [(6,), (1, 2, 1, 2)]:
        pencil = gf.make(sizes, seed=3)
        wanted = gf.hessian_fd(functools.partial(spectral_reference, pencil), T0)
        gf.assert_close(spectral(jax.hessian)(pencil, T0), wanted, 1e-6)


@pytest.mark.slow
def test_complex_spectral_functions_twice():
    for sizes in [(6,), (1, 2, 1, 2)]:
        pencil = gf.make(sizes, seed=3, dtype=np.complex128)
        wanted = gf.hessian_fd(functools.partial(spectral_reference, pencil), T0)
        gf.assert_close(spectral(jax.hessian)(pencil, T0), wanted, 1e-6)


def boltzmann(x):
    return jnp.exp(-x)


@functools.cache
def each(transform):
    """(A, E, vectors) -> derivatives of all four functions along E."""

    def values(a, e, vectors, t):
        y, z = vectors
        space = eigenspace(a + t.astype(a.dtype) * e, k=gf.K)
        return jnp.stack(
            [
                spectral_sum(boltzmann, a + t.astype(a.dtype) * e, k=gf.K),
                jnp.abs(z) @ density(boltzmann, space),
                (y.conj() @ spectral_apply(boltzmann, space, z)).real,
                (y.conj() @ projector_apply(space, z)).real,
            ]
        )

    return jax.jit(lambda *given: transform(functools.partial(values, *given))(jnp.zeros(())))


def daleckii_krein(w, n, h, slope, curvature):
    """Derivatives of H(A) along N (in A's eigenbasis), H = h on the first K of w and 0 beyond.

    First D1 o N, second 2 sum_m D2_imj N_im N_mj, by divided differences from their recursion.
    """
    size = len(w)
    value = np.where(np.arange(size) < gf.K, h(w), 0.0)
    same = np.abs(w[:, None] - w[None, :]) < 1e-8
    occupied = np.where(np.arange(size) < gf.K, 1.0, 0.0)
    apart = np.where(same, 1, w[:, None] - w[None, :])
    one = np.where(same, occupied * slope(w), (value[:, None] - value[None, :]) / apart)
    two = np.empty((size,) * 3)
    for i, m, j in np.ndindex(two.shape):
        if not same[i, j]:
            two[i, m, j] = (one[i, m] - one[m, j]) / apart[i, j]
        elif not same[i, m]:
            two[i, m, j] = (one[i, j] - one[j, m]) / apart[i, m]
        else:
            two[i, m, j] = occupied[i] * curvature(w[i]) / 2
    return one * n, 2 * np.einsum("imj,im,mj->ij", two, n, n)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(6,), (1, 2, 1, 2)], ids=str)
@pytest.mark.parametrize(
    "dtype",
    [pytest.param(np.float64, marks=pytest.mark.slow), np.complex128],
    ids=["real", "complex"],
)
def test_dense_formula(dtype, sizes):
    """Daleckii and Krein's for the whole matrix, all 24 eigenvalues, to rounding."""
    pencil = gf.make(sizes, seed=13, generalized=False, dtype=dtype)
    (y, z), e = pencil.vectors, pencil.a[1]
    w, u = np.linalg.eigh(pencil.a[0])
    n = u.conj().T @ e @ u

    def decay(x):
        return np.exp(-x)

    smooth = daleckii_krein(w, n, decay, lambda x: -decay(x), decay)
    sharp = daleckii_krein(w, n, np.ones_like, np.zeros_like, np.zeros_like)
    for order, transform in enumerate((jax.jacrev, jax.hessian)):
        f, p = (u @ parts[order] @ u.conj().T for parts in (smooth, sharp))
        wanted = [
            np.trace(f).real,
            np.abs(z) @ np.diagonal(f).real,
            (y.conj() @ f @ z).real,
            (y.conj() @ p @ z).real,
        ]
        found = each(transform)(pencil.a[0], e, pencil.vectors)
        np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-11)


def test_columns_and_dtypes():
    space = eigenspace(jnp.diag(jnp.arange(1.0, 6.0)), k=2)
    b = jnp.ones((5, 3), complex)
    for found in (projector_apply(space, b), spectral_apply(lambda w: w / w, space, b)):
        assert found.dtype == complex
        np.testing.assert_allclose(found[:, 0], [1, 1, 0, 0, 0], atol=1e-14)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda s: density(jnp.exp, s[:2]), TypeError, "expected the Eigenspace"),
        (lambda s: projector_apply(s, jnp.ones(4)), ValueError, "with n = 5"),
        (lambda s: projector_apply(s, jnp.arange(5)), TypeError, "b is of int64"),
        (lambda s: spectral_apply(jnp.exp, s, [1.0]), TypeError, "b is of list"),
        (lambda s: spectral_sum(jnp.exp, jnp.eye(3), k=1, foo=1), TypeError, "unknown option"),
    ],
)
def test_bad_arguments_of_spectral_functions(call, error, text):
    with pytest.raises(error, match=text):
        call(eigenspace(jnp.eye(5), k=5))


# -- worked example: Fermi-Dirac occupations at a fixed number of particles -----------------------


TEMPERATURE, PARTICLES = 0.3, 2.5


def fermi(mu):
    return lambda e: jax.nn.sigmoid((mu - e) / TEMPERATURE)


def chemical_potential(r):
    """Mu with tr f(R) = PARTICLES, by bisection; its derivative by the implicit function theorem.

    ``custom_root`` differentiates the particle number, in mu and, through R, in what R depends on.
    """

    def excess(mu):
        return jnp.trace(hermitian_function(fermi(mu), r)).real - PARTICLES

    def bisect(f, _):
        w = jnp.diagonal(jax.lax.stop_gradient(r)).real

        def number(mu):
            return jnp.sum(jax.nn.sigmoid((mu - w) / TEMPERATURE)) - PARTICLES

        def halve(_, ends):
            low, high = ends
            middle = (low + high) / 2
            below = number(middle) < 0
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        ends = jnp.min(w) - 20 * TEMPERATURE, jnp.max(w) + 20 * TEMPERATURE
        return jax.lax.fori_loop(0, 60, halve, ends)[0]

    def tangent_solve(g, y):
        return y / g(jnp.ones_like(y))

    return jax.lax.custom_root(excess, jnp.zeros(()), bisect, tangent_solve)


def smeared(pencil, t):
    """A weighted sum of the density of PARTICLES electrons in six levels."""
    a, _ = gf.matrices(pencil, t)
    space = eigenspace(a, k=gf.K)
    return pencil.vectors[0] @ density(fermi(chemical_potential(space.rayleigh)), space)


def smeared_separately(pencil, t):
    """The same from separate (w, X)."""
    a, _ = gf.matrices(pencil, t)
    w, x, _ = partial_eigh(a, k=gf.K)
    return pencil.vectors[0] @ (x**2 @ fermi(chemical_potential(jnp.diag(w)))(w))


def smeared_reference(pencil, t):
    a, _ = gf.matrices(pencil, np.asarray(t))
    w, x = (v[..., : gf.K] for v in np.linalg.eigh(a))

    def occupations(mu):
        return 1 / (1 + np.exp((w - mu) / TEMPERATURE))

    mu = scipy.optimize.brentq(lambda mu: occupations(mu).sum() - PARTICLES, -20, 20, xtol=1e-15)
    return pencil.vectors[0] @ (x**2 @ occupations(mu))


@pytest.mark.slow
def test_fermi_dirac_occupations():
    pencil = gf.make((2, 3, 1), seed=21, generalized=False)
    f = functools.partial(smeared_reference, pencil)
    ours = functools.partial(smeared, pencil)
    value, gradient, hessian = jax.jit(
        lambda t: (ours(t), jax.grad(ours)(t), jax.hessian(ours)(t))
    )(T0)
    np.testing.assert_allclose(value, f(T0), rtol=1e-12)
    wanted = gf.gradient_fd(f, T0, h=2e-3)
    gf.assert_close(gradient, wanted, 1e-9)
    gf.assert_close(hessian, gf.hessian_fd(f, T0), 1e-6)
    # Separate tangents lose h' between two members of a cluster.
    separate = functools.partial(smeared_separately, pencil)
    forward, reverse = jax.jit(lambda t: (jax.jacfwd(separate)(t), jax.grad(separate)(t)))(T0)
    assert np.max(np.abs(forward - wanted)) > 0.02 * np.max(np.abs(wanted))
    assert np.isnan(reverse).all()
