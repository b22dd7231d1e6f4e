"""A family of gauge-free losses of eigenpairs, in NumPy and in JAX, for the derivative tests.

A pencil that depends on two parameters t,

    A(t) = A0 + t0 E0 + t1 E1 + t0 t1 E2,      M(t) = M0 + t0 F0 + t1 F1,

with random Hermitian E and F, which split every cluster that (A0, M0) has. The loss sees the pairs
only through sums over the groups g of a partition of the first k indices,

    s_g = sum lam_j,   q_g = sum |y^H x_j|^2,   r_g = Re sum (y^H x_j) (x_j^H z),
    L   = sum_g a_g s_g + b_g q_g^2 + c_g s_g r_g + s_g^2 q_g,

so that it is smooth wherever the groups are separated, whatever is degenerate inside.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from jax_peig import partial_eigh

N, K = 24, 6
LARGE = 60  # large enough that LOBPCG has to iterate


class Pencil(NamedTuple):
    """Arrays alone, so that one compiled function serves every spectrum of the same shape."""

    a: np.ndarray  # (4, n, n): A0, E0, E1, E2
    m: np.ndarray | None  # (3, n, n): M0, F0, F1
    groups: np.ndarray  # (k, k): column g marks the pairs of group g
    vectors: np.ndarray  # (2, n): y, z
    weights: np.ndarray  # (3, k): a, b, c


def random_hermitian(rng, n, dtype):
    x = rng.normal(size=(n, n))
    if np.issubdtype(dtype, np.complexfloating):
        x = x + 1j * rng.normal(size=(n, n))
    return ((x + x.conj().T) / 2).astype(dtype)


def random_unitary(rng, n, dtype):
    x = rng.normal(size=(n, n))
    if np.issubdtype(dtype, np.complexfloating):
        x = x + 1j * rng.normal(size=(n, n))
    q, r = np.linalg.qr(x)
    return (q * (np.diagonal(r) / np.abs(np.diagonal(r)))).astype(dtype)


def mass_factor(rng, n, dtype, condition):
    """L with M0 = L L^H of the given condition number."""
    u = random_unitary(rng, n, dtype)
    return u * np.sqrt(np.geomspace(1, 1 / condition, n))[None, :].astype(dtype)


def make(
    sizes,
    *,
    seed=0,
    generalized=True,
    dtype=np.float64,
    n=N,
    split=0.0,
    spacing=0.5,
    condition=20.0,
    largest=False,
):
    """A pencil whose k wanted eigenvalues form groups of the given sizes.

    ``split`` is the distance of neighbours inside a group; groups are ``spacing`` apart or more.
    """
    rng = np.random.default_rng(seed)
    k = sum(sizes)
    lam, at = [], 1.0
    for size in sizes:
        lam += [at + split * j for j in range(size)]
        at = lam[-1] + spacing * rng.uniform(1.0, 1.5)
    rest = at + np.sort(rng.uniform(0, 6, size=n - k))
    lam = np.concatenate([lam, rest])
    lam = -lam if largest else lam
    u = random_unitary(rng, n, dtype)
    a0 = (u * lam.astype(dtype)) @ u.conj().T
    noise = [random_hermitian(rng, n, dtype) / 4 for _ in range(5)]
    mass = None
    if generalized:
        factor = mass_factor(rng, n, dtype, condition)
        a0 = factor @ a0 @ factor.conj().T
        scale = 1 / condition
        mass = np.stack([factor @ factor.conj().T, scale * noise[3], scale * noise[4]])
    a = np.stack([(a0 + a0.conj().T) / 2, *noise[:3]])
    groups = np.zeros((k, k))
    first = 0
    for g, size in enumerate(sizes):
        groups[first : first + size, g] = 1
        first += size
    vectors = rng.normal(size=(2, n)) + (
        1j * rng.normal(size=(2, n)) if np.issubdtype(dtype, np.complexfloating) else 0
    )
    return Pencil(a, mass, groups, vectors.astype(dtype), rng.normal(size=(3, k)))


def matrices(pencil, t):
    """A(t), M(t); works for NumPy and for JAX arrays."""
    a = pencil.a[0] + t[0] * pencil.a[1] + t[1] * pencil.a[2] + t[0] * t[1] * pencil.a[3]
    if pencil.m is None:
        return a, None
    return a, pencil.m[0] + t[0] * pencil.m[1] + t[1] * pencil.m[2]


def from_pairs(pencil, lam, x, xp):
    """L from eigenpairs, with xp = numpy or jax.numpy."""
    py = pencil.vectors[0].conj() @ x
    pz = pencil.vectors[1].conj() @ x
    s = lam @ pencil.groups
    q = xp.abs(py) ** 2 @ pencil.groups
    r = (py * pz.conj()).real @ pencil.groups
    a, b, c = pencil.weights
    return xp.sum(a * s + b * q**2 + c * s * r + s**2 * q)


def reference(pencil, t, which="smallest"):
    """L by LAPACK, no JAX."""
    a, m = matrices(pencil, np.asarray(t))
    k = pencil.groups.shape[0]
    lam, x = scipy.linalg.eigh(a, m)
    if which == "largest":
        lam, x = lam[::-1], x[:, ::-1]
    return from_pairs(pencil, lam[:k], x[:, :k], np)


def loss(pencil, t, **options):
    """L by partial_eigh; differentiable in t."""
    real = t.astype(pencil.a.dtype)
    a, m = matrices(pencil, real)
    k = pencil.groups.shape[0]
    lam, x, _ = partial_eigh(a, m, k, **options)
    return from_pairs(pencil, lam, x, jnp)


def gradient_fd(f, t, h=5e-4):
    """Central differences of sixth order."""
    c = np.array([-1, 9, -45, 0, 45, -9, 1]) / 60
    t = np.asarray(t, float)
    out = np.zeros_like(t)
    for i in range(t.size):
        e = np.zeros_like(t)
        e[i] = h
        out[i] = sum(w * f(t + j * e) for j, w in zip(range(-3, 4), c, strict=True)) / h
    return out


def hessian_fd(f, t, h=3e-3):
    """Central differences of sixth order, twice."""
    return np.stack(
        [gradient_fd(lambda s, i=i: gradient_fd(f, s, h)[i], t, h) for i in range(np.size(t))]
    )


def jitted(transform=lambda f: f, **options):
    """``transform`` of t -> L, compiled as a function of (pencil, t)."""
    return jax.jit(lambda pencil, t: transform(lambda s: loss(pencil, s, **options))(t))


def assert_close(found, wanted, rtol):
    """Errors beside the largest entry."""
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=rtol * np.max(np.abs(wanted)))
