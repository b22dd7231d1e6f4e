"""Hermitian products that are linear, drawn from families that rounding treats differently.

Each family is a pair: ``draw(key, dtype)``, a pytree of arrays, and ``apply(parameters, u)``, the
product with u of order `N`.
"""

import jax
import jax.numpy as jnp

N = 64
SIDE = 8


def random(key, shape, dtype):
    return jax.random.normal(key, shape, dtype)


def real_of(dtype):
    return jnp.finfo(dtype).dtype


def hermitian(key, dtype):
    """A full matrix at a scale from 1e-6 to 1e6."""
    first, second = jax.random.split(key)
    a = random(first, (N, N), dtype)
    scale = 10 ** jax.random.uniform(second, (), real_of(dtype), -6, 6)
    return (a + a.conj().T) * scale.astype(dtype)


def laplacian(key, dtype):
    """A stencil with a potential up to a hundred times as large."""
    return 100 * jax.random.uniform(key, (SIDE, SIDE), real_of(dtype)).astype(dtype)


def apply_laplacian(potential, u):
    grid = u.reshape(SIDE, SIDE)
    around = sum(jnp.roll(grid, step, axis) for step in (1, -1) for axis in (0, 1))
    return ((4 + potential) * grid - around).reshape(-1)


def fourier(key, dtype):
    """A kinetic energy by FFTs, and a potential."""
    spread = 10 ** jax.random.uniform(key, (), real_of(dtype), 0, 3)
    return spread, jax.random.uniform(key, (N,), real_of(dtype))


def apply_fourier(parameters, u):
    spread, potential = parameters
    k = jnp.fft.fftfreq(N, 1 / N).astype(spread.dtype)
    full = jnp.fft.fft(u)
    bent = jnp.fft.ifft((spread * k**2).astype(full.dtype) * full)
    bent = bent if jnp.iscomplexobj(u) else bent.real
    return bent + potential.astype(u.dtype) * u


def graded(key, dtype):
    """D H D with D from 1e-3 to 1e3."""
    d = 10 ** jnp.linspace(-3, 3, N, dtype=real_of(dtype))
    return d.astype(dtype), hermitian(key, dtype)


def apply_graded(parameters, u):
    d, h = parameters
    return d * (h @ (d * u))


def low_rank(key, dtype):
    """B B^H of rank 3."""
    return random(key, (N, 3), dtype)


def inverse(key, dtype):
    """The inverse of a matrix with a condition number of some hundred, by its Cholesky factor."""
    b = random(key, (N, N), dtype)
    return jnp.linalg.cholesky(b @ b.conj().T / N + 0.02 * jnp.eye(N, dtype=dtype))


FAMILIES = {
    "full": (hermitian, lambda a, u: a @ u),
    "stencil": (laplacian, apply_laplacian),
    "FFT": (fourier, apply_fourier),
    "graded": (graded, apply_graded),
    "low rank": (low_rank, lambda b, u: b @ (b.conj().T @ u)),
    "inverse": (inverse, lambda c, u: jax.scipy.linalg.cho_solve((c, True), u)),
}
