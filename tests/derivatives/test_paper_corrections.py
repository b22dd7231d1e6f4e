"""The three places where Kasim (arXiv:2011.04366) is wrong as printed.

Its eqs 2.9-2.12 and 2.3-2.6 are written out here in NumPy with every correction as a switch. With
all corrections they agree with finite differences and with partial_eigh; with any one undone, not.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from tests.support import gauge_free as gf

SIZES = (2, 1, 3)
T0 = np.zeros(2)


def exact_derivatives(pencil):
    """Cotangents (lb, Xb) of the loss at LAPACK's pairs, by JAX; the clusters' mask."""
    k = pencil.groups.shape[0]
    lam, x = scipy.linalg.eigh(pencil.a[0], pencil.m[0])
    lam, x = lam[:k], x[:, :k]
    lb, xb = jax.grad(lambda w, v: gf.from_pairs(pencil, w, v, jnp), (0, 1))(lam, x)
    d = (pencil.groups @ pencil.groups.T).astype(bool)
    return lam, x, np.asarray(lb), np.asarray(xb), d


def reverse(pencil, *, sign=True, block=True, shift=True):
    """A-bar and M-bar by eqs 2.9-2.12; each flag is one correction.

    ``sign``: - X L Lbar X^T in 2.10; ``block``: D o instead of I o in 2.10 and 2.11;
    ``shift``: A Y - M Y L = ... in 2.12 instead of A Y - M Y E, E the eigenvalues of the whole
    spectrum, read here as those of the first k columns in descending order, since A Y - M Y E with
    the printed E has no other reading of its shape.
    """
    a, m = pencil.a[0], pencil.m[0]
    lam, x, lb, xb, d = exact_derivatives(pencil)
    k = lam.size
    eye = np.eye(k, dtype=bool)
    inside = d if block else eye
    # 2.12: A Y - M Y L = Xb - M X [D o (X^T Xb)], column by column, minimum norm.
    rhs = xb - m @ x @ np.where(d, x.T @ xb, 0)
    shifts = lam if shift else lam[::-1]
    y = np.stack(
        [np.linalg.lstsq(a - s * m, r, rcond=1e-10)[0] for s, r in zip(shifts, rhs.T, strict=True)],
        axis=1,
    )
    v = y - x @ np.where(inside, x.T @ m @ y, 0)  # 2.11
    a_bar = x @ np.diag(lb) @ x.T - v @ x.T  # 2.9
    m_bar = (
        (-1 if sign else 1) * x @ np.diag(lam * lb) @ x.T
        - x @ np.where(inside, x.T @ xb, 0) @ x.T / 2
        + v @ np.diag(lam) @ x.T
    )  # 2.10
    return a_bar, m_bar


def gradient(pencil, **flags):
    a_bar, m_bar = reverse(pencil, **flags)
    return np.array(
        [np.sum(a_bar * pencil.a[1 + i]) + np.sum(m_bar * pencil.m[1 + i]) for i in range(2)]
    )


@functools.cache
def case():
    pencil = gf.make(SIZES, seed=21)
    wanted = gf.gradient_fd(functools.partial(gf.reference, pencil), T0)
    return pencil, wanted


def test_the_corrected_formulas_are_right():
    pencil, wanted = case()
    np.testing.assert_allclose(gradient(pencil), wanted, rtol=1e-7)


def test_partial_eigh_is_right():
    pencil, wanted = case()
    np.testing.assert_allclose(gf.jitted(jax.grad)(pencil, T0), wanted, rtol=1e-8)


def test_eigenvalues_alone_and_mass():
    """Without Xb the cotangent of M is - X L Lbar X^T, and no linear system is solved."""
    pencil, _ = case()
    a, m = pencil.a[0], pencil.m[0]
    lam, x = scipy.linalg.eigh(a, m)
    lam, x = lam[: gf.K], x[:, : gf.K]

    def squares(m):
        return jnp.sum(gf.partial_eigh(a, m, gf.K).eigenvalues ** 2)

    found = jax.jit(jax.grad(squares))(m)
    np.testing.assert_allclose(found, -x @ np.diag(2 * lam**2) @ x.T, atol=1e-9)


@pytest.mark.parametrize("undone", ["sign", "block", "shift"])
def test_each_correction_is_needed(undone):
    """With the printed formula the gradient is wrong by far more than rounding."""
    pencil, wanted = case()
    found = gradient(pencil, **{undone: False})
    assert np.max(np.abs(found - wanted)) > 1e-3 * np.max(np.abs(wanted))


def test_forward_rule_needs_the_block():
    """2.4: with I o instead of D o, X' breaks X^T M X = I inside a cluster."""
    pencil, _ = case()
    m, m_dot = pencil.m[0], pencil.m[1]
    result = gf.partial_eigh(pencil.a[0], m, gf.K)
    x = np.asarray(result.eigenvectors)

    def vectors(m):
        return gf.partial_eigh(pencil.a[0], m, gf.K).eigenvectors

    _, x_dot = jax.jvp(vectors, (m,), (m_dot,))

    def drift(x_dot):
        return np.abs(x_dot.T @ m @ x + x.T @ m @ x_dot + x.T @ m_dot @ x).max()

    assert drift(np.asarray(x_dot)) < 1e-10
    m_s = x.T @ m_dot @ x
    d = np.asarray(result.info.clusters)[:, None] == np.asarray(result.info.clusters)[None, :]
    off_diagonal = np.where(d & ~np.eye(gf.K, dtype=bool), m_s, 0)
    assert drift(np.asarray(x_dot) + x @ off_diagonal / 2) > 1e-3
