"""A worked example of physics: second derivatives of the transverse-field Ising chain.

    H(h) = -sum_i Z_i Z_{i+1} - h sum_i X_i,    periodic, V = dH/dh = -sum_i X_i,

in the sector of states that are even under the flip of all spins, which holds the ground state: a
state is its amplitudes with the last spin up, and the product is a sum of flips. The fidelity
susceptibility and the energy's second derivative,

    chi = -1/2 d^2/dh'^2 log <psi(h)|psi(h')>^2  at h' = h  = sum_m V_m0^2 / (E_m - E_0)^2,
    d^2 E_0 / dh^2                                    = -2 sum_m V_m0^2 / (E_m - E_0),

are compared with all eigenvectors of all 2^spins states, and with free fermions (Pfeuty 1970).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jax_peig import partial_eigh

FIELDS = (0.8, 1.0, 1.5)


def bonds(spins, states):
    """sum_i Z_i Z_{i+1} of the given states, whose bits are the spins."""
    z = 1 - 2 * ((states[:, None] >> np.arange(spins)) & 1)
    return np.sum(z * np.roll(z, 1, axis=1), axis=1).astype(float)


def hamiltonian(spins, zz, h, psi):
    """H psi in the even sector, where flipping the last spin is flipping all the others."""
    cube = psi.reshape((2,) * (spins - 1))
    flips = sum((jnp.flip(cube, axis) for axis in range(spins - 1)), jnp.zeros_like(cube))
    return -zz * psi - h * (flips.reshape(-1) + psi[::-1])


@functools.cache
def second_derivative(spins, method):
    """(h, share) -> second derivative in h of the energy (share 1) or -log |overlap| (share 0)."""
    zz = jnp.asarray(bonds(spins, np.arange(2 ** (spins - 1))))

    def energy_or_overlap(h, share):
        product = Partial(functools.partial(hamiltonian, spins), zz, h)
        w, X, _ = partial_eigh(product, k=1, n=zz.size, method=method)
        psi = X[:, 0]
        overlap = jax.lax.stop_gradient(psi) @ psi
        return share * w[0] - (1 - share) * jnp.log(overlap**2) / 2

    return jax.jit(jax.grad(jax.grad(energy_or_overlap)))


def curvatures(spins, method, h):
    """(2,): d^2 E_0 / dh^2 and chi, by partial_eigh."""
    second = second_derivative(spins, method)
    return np.array([second(jnp.asarray(h), jnp.asarray(share)) for share in (1.0, 0.0)])


def free_fermions(spins, h):
    """The same, from the momenta (2m - 1) pi / spins of the even sector."""
    k = np.arange(1, spins, 2) * np.pi / spins
    energies = np.sqrt(1 + h**2 - 2 * h * np.cos(k))
    turn = np.sin(k) ** 2
    return np.array([-2 * np.sum(turn / energies**3), np.sum(turn / energies**4) / 4])


def diagonalised(spins, h):
    """The same, from all eigenvectors of the matrix of all states, even and odd."""
    states = np.arange(2**spins)
    V = np.zeros((states.size, states.size))
    for i in range(spins):
        V[states, states ^ (1 << i)] = -1.0
    E, X = np.linalg.eigh(np.diag(-bonds(spins, states)) + h * V)
    elements, gaps = X[:, 1:].T @ (V @ X[:, 0]), E[1:] - E[0]
    return np.array([-2 * np.sum(elements**2 / gaps), np.sum(elements**2 / gaps**2)])


@pytest.mark.parametrize("h", FIELDS)
def test_two_references_agree(h):
    np.testing.assert_allclose(diagonalised(8, h), free_fermions(8, h), rtol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("h", FIELDS)
def test_ten_spins(h):
    found = curvatures(10, "chebyshev", h)
    np.testing.assert_allclose(found, free_fermions(10, h), rtol=1e-8)
    if h == 1.0:  # at the transition; a matrix of order 1024
        np.testing.assert_allclose(found, diagonalised(10, h), rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["chebyshev", "lobpcg"])
@pytest.mark.parametrize("h", FIELDS)
def test_twelve_spins(h, method):
    np.testing.assert_allclose(curvatures(12, method, h), free_fermions(12, h), rtol=1e-8)
