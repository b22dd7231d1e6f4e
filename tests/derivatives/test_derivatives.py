"""Derivatives of gauge-free losses against LAPACK's finite differences, orders one and two.

Every function is compiled once for each method and kind of pencil and serves all spectra.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jax_peig import Derivative
from tests.support import gauge_free as gf

T0 = np.zeros(2)
# Sizes of the clusters of the k = 6 wanted eigenvalues: at the start, inside, of k/2, k-1, k.
CLUSTERS = [(1,) * 6, (2, 1, 1, 1, 1), (1, 2, 1, 2), (3, 3), (1, 5), (5, 1), (6,), (1, 1, 1, 3)]
NESTINGS = list(itertools.product((jax.jacfwd, jax.jacrev), repeat=2))


@functools.cache
def gradient(**options):
    return gf.jitted(jax.grad, **options)


@functools.cache
def tangent(**options):
    return gf.jitted(jax.jacfwd, **options)


@functools.cache
def hessian(outer, inner, **options):
    return gf.jitted(lambda f: outer(inner(f)), **options)


@pytest.mark.parametrize("sizes", CLUSTERS, ids=str)
@pytest.mark.parametrize("generalized", [False, True], ids=["standard", "generalized"])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128], ids=["real", "complex"])
def test_gradient_dense(sizes, generalized, dtype):
    pencil = gf.make(sizes, seed=len(sizes), generalized=generalized, dtype=dtype)
    wanted = gf.gradient_fd(functools.partial(gf.reference, pencil), T0)
    gf.assert_close(gradient(method="dense")(pencil, T0), wanted, 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", CLUSTERS, ids=str)
def test_gradient_lobpcg(sizes):
    pencil = gf.make(sizes, seed=10 + len(sizes), n=gf.LARGE)
    wanted = gf.gradient_fd(functools.partial(gf.reference, pencil), T0)
    gf.assert_close(gradient(method="lobpcg")(pencil, T0), wanted, 1e-8)
    gf.assert_close(tangent(method="lobpcg")(pencil, T0), wanted, 1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("generalized", [False, True], ids=["standard", "generalized"])
def test_gradient_lobpcg_complex(generalized):
    for sizes in CLUSTERS:
        pencil = gf.make(sizes, seed=3, generalized=generalized, dtype=np.complex128, n=gf.LARGE)
        wanted = gf.gradient_fd(functools.partial(gf.reference, pencil), T0)
        gf.assert_close(gradient(method="lobpcg")(pencil, T0), wanted, 1e-8)


@pytest.mark.parametrize("solver", ["cg", "minres", "gmres"])
def test_gradient_of_the_largest(solver):
    """The complement's systems are negative definite there."""
    options = {"which": "largest", "method": "dense", "derivative": Derivative(solver=solver)}
    for sizes in [(3, 3), (1, 2, 1, 2)]:
        pencil = gf.make(sizes, seed=4, largest=True)
        wanted = gf.gradient_fd(lambda t, p=pencil: gf.reference(p, t, "largest"), T0)
        gf.assert_close(gradient(**options)(pencil, T0), wanted, 1e-8)


@pytest.mark.parametrize("split", [1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12, 0.0])
@pytest.mark.parametrize("method", ["dense", "lobpcg"])
def test_gradient_near_degeneracy(split, method):
    """No accuracy is lost between well separated and exactly repeated."""
    pencil = gf.make((1, 2, 3), seed=5, split=split, n=gf.LARGE)
    wanted = gf.gradient_fd(functools.partial(gf.reference, pencil), T0)
    # A cluster's width, up to sqrt(eps), is neglected beside the distances of the others.
    gf.assert_close(gradient(method=method)(pencil, T0), wanted, 1e-7)


def test_gradient_with_ill_conditioned_mass():
    pencil = gf.make((2, 1, 3), seed=6, condition=1e6)
    pencil = pencil._replace(m=pencil.m * np.array([1, 1e-2, 1e-2])[:, None, None])
    # The perturbations are smaller here than M's smallest eigenvalue; smaller steps, too.
    wanted = gf.gradient_fd(functools.partial(gf.reference, pencil), T0, h=1e-7)
    gf.assert_close(gradient(method="dense")(pencil, T0), wanted, 1e-4)


@pytest.mark.parametrize(
    ("outer", "inner", "dtype"),
    [
        (jax.jacfwd, jax.jacrev, np.complex128),
        *(
            pytest.param(*nesting, dtype, marks=pytest.mark.slow)
            for nesting in NESTINGS
            for dtype in (np.float64, np.complex128)
            if (*nesting, dtype) != (jax.jacfwd, jax.jacrev, np.complex128)
        ),
    ],
    ids=lambda x: x.__name__,
)
def test_hessian_dense(outer, inner, dtype):
    """Orders two at exact degeneracy, split by the perturbation, with a perturbed M."""
    for sizes in [(3, 3), (1, 2, 1, 2), (6,)]:
        pencil = gf.make(sizes, seed=7, dtype=dtype)
        wanted = gf.hessian_fd(functools.partial(gf.reference, pencil), T0)
        gf.assert_close(hessian(outer, inner, method="dense")(pencil, T0), wanted, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("outer", "inner"),
    [nesting for nesting in NESTINGS if nesting != (jax.jacfwd, jax.jacrev)],
    ids=lambda f: f.__name__,
)
def test_hessian_lobpcg(outer, inner):
    for sizes in [(3, 3), (1, 2, 1, 2), (6,)]:
        pencil = gf.make(sizes, seed=8, n=gf.LARGE)
        wanted = gf.hessian_fd(functools.partial(gf.reference, pencil), T0)
        gf.assert_close(hessian(outer, inner, method="lobpcg")(pencil, T0), wanted, 1e-6)


@pytest.mark.slow
def test_hessian_lobpcg_forward_over_reverse():
    pencil = gf.make((1, 2, 3), seed=9, n=gf.LARGE)
    wanted = gf.hessian_fd(functools.partial(gf.reference, pencil), T0)
    found = hessian(jax.jacfwd, jax.jacrev, method="lobpcg")(pencil, T0)
    gf.assert_close(found, wanted, 1e-6)


@pytest.mark.slow
def test_third_order():
    """Derivatives of any order: the Hessian's own derivative."""
    pencil = gf.make((2, 1, 3), seed=10)
    second = hessian(jax.jacfwd, jax.jacrev, method="dense")
    h = 1e-4
    e = np.array([h, 0.0])
    wanted = (second(pencil, T0 + e) - second(pencil, T0 - e)) / (2 * h)
    third = gf.jitted(lambda f: jax.jacfwd(jax.jacfwd(jax.jacrev(f))), method="dense")
    gf.assert_close(third(pencil, T0)[..., 0], wanted, 1e-5)


@pytest.mark.parametrize("sizes", [(3, 3), (1, 2, 1, 2)], ids=str)
@pytest.mark.parametrize("beyond", [0, 1])
def test_all_pairs_and_all_but_one(sizes, beyond):
    """k = n, where there is no complement, and k = n - 1."""
    pencil = gf.make(sizes, seed=17, n=gf.K + beyond)
    wanted = gf.gradient_fd(functools.partial(gf.reference, pencil), T0)
    gf.assert_close(gradient(method="dense")(pencil, T0), wanted, 1e-8)
    if beyond == 0:
        twice = hessian(jax.jacfwd, jax.jacrev, method="dense")(pencil, T0)
        gf.assert_close(twice, gf.hessian_fd(functools.partial(gf.reference, pencil), T0), 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dense", "lobpcg"])
def test_taylor_remainder(method):
    """L(t) - L(0) - g t - t H t / 2 falls with the cube of t."""
    pencil = gf.make((1, 2, 3), seed=11, n=gf.LARGE)
    g = gradient(method=method)(pencil, T0)
    h = hessian(jax.jacfwd, jax.jacrev, method=method)(pencil, T0)
    direction = np.array([0.6, -0.8])
    steps = 0.04 / 2.0 ** np.arange(4)

    def remainder(s):
        t = s * direction
        return abs(gf.reference(pencil, t) - gf.reference(pencil, T0) - g @ t - t @ h @ t / 2)

    rates = np.log2([remainder(s) / remainder(s / 2) for s in steps[:-1]])
    np.testing.assert_allclose(rates, 3, atol=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dense", "lobpcg"])
@pytest.mark.parametrize(
    "dtype",
    [pytest.param(np.float64, marks=pytest.mark.slow), np.complex128],
    ids=["real", "complex"],
)
def test_forward_and_reverse_are_adjoint(dtype, method):
    """<ct, push(t)> = <pull(ct), t> for arbitrary tangents and cotangents, gauge ignored."""
    options = {"method": method, "derivative": Derivative(on_gauge="ignore", tol=1e-13)}

    def pairs(a, m):
        return gf.partial_eigh(a, m, gf.K, **options)[:2]

    pencil = gf.make((2, 1, 3), seed=12, dtype=dtype)
    a, m = pencil.a[0], pencil.m[0]
    tangents = (pencil.a[1], pencil.m[1])
    rng = np.random.default_rng(0)
    ct_w = rng.normal(size=gf.K)
    ct_x = rng.normal(size=(gf.N, gf.K)).astype(dtype)
    if np.issubdtype(dtype, np.complexfloating):
        ct_x = ct_x + 1j * rng.normal(size=ct_x.shape)
    # Of the same pairs: another compilation may round to other vectors inside a cluster.
    _, push = jax.linearize(pairs, a, m)
    w_dot, x_dot = push(*tangents)
    a_bar, m_bar = jax.linear_transpose(push, a, m)((jnp.asarray(ct_w), jnp.asarray(ct_x)))
    # JAX pairs without conjugation, and takes the real part.
    left = np.sum(ct_w * w_dot) + np.sum(ct_x * x_dot).real
    right = np.sum(a_bar * tangents[0]).real + np.sum(m_bar * tangents[1]).real
    np.testing.assert_allclose(left, right, rtol=1e-11)
    # The gradient of a function of Hermitian arrays is Hermitian.
    np.testing.assert_allclose(a_bar, a_bar.conj().T, atol=1e-10)
    np.testing.assert_allclose(m_bar, m_bar.conj().T, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dense", "lobpcg"])
@pytest.mark.parametrize("generalized", [False, True], ids=["standard", "generalized"])
def test_projector_derivative_by_full_spectrum(generalized, method):
    """X' X^H + X X'^H of whole clusters against the sum over all states, in NumPy.

    P_c' = sum_{i in c, a not in c} x_a [x_a^H (A' - lam_i M') x_i / (lam_i - lam_a)] x_i^H + h.c.
           - sum_{i, j in c} x_i (x_i^H M' x_j) x_j^H
    """
    pencil = gf.make((2, 1, 3), seed=13, generalized=generalized)
    a, a_dot = pencil.a[0], pencil.a[1]
    m = np.eye(gf.N) if pencil.m is None else pencil.m[0]
    m_dot = np.zeros_like(m) if pencil.m is None else pencil.m[1]
    lam, x = gf.scipy.linalg.eigh(a, m)

    def push(a, m):
        return gf.partial_eigh(a, m if generalized else None, gf.K, method=method)[:2]

    (_, xs), (w_dot, x_dot) = jax.jvp(push, (a, m), (a_dot, m_dot))
    for c in (slice(0, 2), slice(2, 3), slice(3, 6)):
        inside = np.zeros(gf.N, bool)
        inside[c] = True
        wanted = np.zeros_like(a)
        for i in np.flatnonzero(inside):
            coupling = x.T @ (a_dot - lam[i] * m_dot) @ x[:, i]
            for b in np.flatnonzero(~inside):
                term = coupling[b] / (lam[i] - lam[b]) * np.outer(x[:, b], x[:, i])
                wanted += term + term.T
        wanted -= x[:, inside] @ (x[:, inside].T @ m_dot @ x[:, inside]) @ x[:, inside].T
        found = np.asarray(x_dot[:, c] @ xs[:, c].T)
        gf.assert_close(found + found.T, wanted, 1e-9)
        trace = np.trace(x[:, c].T @ a_dot @ x[:, c])
        trace -= np.sum(lam[c] * np.diagonal(x[:, c].T @ m_dot @ x[:, c]))
        np.testing.assert_allclose(np.sum(w_dot[c]), trace, rtol=1e-9, atol=1e-10)
    # The tangent keeps X^H M X = I.
    drift = x_dot.T @ m @ xs + xs.T @ m @ x_dot + xs.T @ m_dot @ xs
    np.testing.assert_allclose(drift, 0, atol=1e-10)


@pytest.mark.slow
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=6)
    .filter(lambda s: sum(s) >= 6)
    .map(lambda s: s if sum(s) == 6 else [*_fit(s)]),
    seed=st.integers(0, 10**6),
    split=st.sampled_from([0.0, 1e-14, 1e-9, 1e-6, 1e-3]),
    largest=st.booleans(),
)
@example(sizes=[6], seed=0, split=0.0, largest=False)
def test_gradient_of_drawn_spectra(sizes, seed, split, largest):
    which = "largest" if largest else "smallest"
    pencil = gf.make(sizes, seed=seed, split=split, largest=largest, spacing=0.8)
    wanted = gf.gradient_fd(lambda t: gf.reference(pencil, t, which), T0)
    gf.assert_close(gradient(method="dense", which=which)(pencil, T0), wanted, 1e-7)


def _fit(sizes, total=6):
    """The first sizes, the last cut short, that sum to ``total``."""
    for size in sizes:
        taken = min(size, total)
        if taken:
            yield taken
        total -= taken


@pytest.mark.slow
def test_float32():
    pencil = gf.make((1, 2, 3), seed=14, n=gf.LARGE)
    small = jax.tree.map(lambda v: np.asarray(v, np.float32), pencil)
    wanted = gf.gradient_fd(functools.partial(gf.reference, pencil), T0)
    for method in ("dense", "lobpcg"):
        found = gradient(method=method)(small, T0.astype(np.float32))
        assert found.dtype == np.float32
        gf.assert_close(found, wanted, 5e-3)
