"""Energy and specific heat of the Ising model by derivatives through a tensor network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.singular.test_space import difference
from tests.support import trg

# The first matrices have the ranks 2, 4 and 4: no k is above them, and none cuts a multiplet.
RANKS, MORE = (2, 4, 4, 12), 8
BETA = 0.3  # the critical point is at 0.44
# s_13 / s_1 of the fourth step.
TRUNCATION = 1.8e-4


def derivatives(split):
    """The first and the second derivative of ln Z for a site in beta."""

    def value(beta):
        return trg.log_partition_function(beta, RANKS, split, MORE)

    def both(beta):
        return jax.jvp(lambda b: jax.jvp(value, (b,), (1.0,))[1], (beta,), (1.0,))

    return map(float, jax.jit(both)(BETA))


@pytest.mark.slow
def test_energy_and_specific_heat():
    """Exact beside differences of the same network, and Onsager's within the truncation."""
    first, second = derivatives(trg.by_space)
    network = jax.jit(lambda b: trg.log_partition_function(b, RANKS, trg.by_jnp, MORE))
    for found, order, tolerance in ((first, 1, 1e-10), (second, 2, 1e-4)):
        by_differences = difference(lambda t: float(network(BETA + t)), order)
        np.testing.assert_allclose(found, by_differences, rtol=tolerance)
    energy = jax.grad(trg.onsager)
    np.testing.assert_allclose(first, energy(BETA), rtol=TRUNCATION)
    np.testing.assert_allclose(second, jax.grad(energy)(BETA), rtol=TRUNCATION)


@pytest.mark.slow
def test_a_broadened_derivative_is_wrong():
    """By 5e-6 in the energy: x/(x^2 + 1e-12) is no derivative beside small singular values."""
    broadened, _ = derivatives(trg.by_broadened)
    network = jax.jit(lambda b: trg.log_partition_function(b, RANKS, trg.by_jnp, MORE))
    exact = difference(lambda t: float(network(BETA + t)), 1)
    assert abs(broadened - exact) > 1e-6


def test_onsager_in_the_limits():
    """2 cosh^2 beta at high temperature, to the order of beta^4, and exp(2 beta) at low."""
    beta = 0.02
    free = np.log(2) + 2 * np.log(np.cosh(beta))
    np.testing.assert_allclose(trg.onsager(beta), free + beta**4, atol=3 * beta**6)
    np.testing.assert_allclose(trg.onsager(2.0), 4.0 + np.exp(-16.0), atol=1e-10)
    assert jnp.isfinite(trg.onsager(0.3))
