"""Rectangular matrices with prescribed singular values, for the tests."""

import numpy as np

from tests.support import gauge_free as gf


def matrix(values, shape, dtype=np.float64, seed=0):
    """U diag(values) V^H with random U and V, and two directions."""
    rng = np.random.default_rng(seed)
    u, v = (gf.random_unitary(rng, side, dtype)[:, : len(values)] for side in shape)
    noise = rng.normal(size=(2, *shape)).astype(dtype)
    if np.issubdtype(dtype, np.complexfloating):
        noise = noise + 1j * rng.normal(size=noise.shape)
    return (u * np.asarray(values, float)) @ v.conj().T, noise


def along(a, noise, t):
    return a + t[0].astype(a.dtype) * noise[0] + t[1].astype(a.dtype) * noise[1]
