"""Batches of the iterative methods: each member does its own work on one CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_peig import partial_eigh
from jax_peig._core import batching

N = 80
COUPLINGS = jnp.array([0.01, 1.0, 50.0])


def chain(coupling, **options):
    potential = 100 * jnp.linspace(0.0, 1.0, N) ** 2

    def product(u):
        return potential * u + coupling * (2 * u - jnp.roll(u, 1) - jnp.roll(u, -1))

    return partial_eigh(product, k=3, n=N, **options)


OTHERS = [pytest.param(method, marks=pytest.mark.slow) for method in ("chebyshev", "davidson")]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lobpcg", *OTHERS])
def test_a_member_does_its_own_work(method):
    """Its results and its counts are those that it has alone."""

    def solve(coupling):
        w, _, info = chain(coupling, method=method)
        return w, info.steps, info.matvecs

    w, steps, matvecs = jax.jit(jax.vmap(solve))(COUPLINGS)
    alone = [jax.jit(solve)(c) for c in COUPLINGS]
    np.testing.assert_allclose(w, [found[0] for found in alone], rtol=1e-9)
    # Rounding may end an iteration a step sooner.
    np.testing.assert_allclose(steps, [found[1] for found in alone], rtol=0.1)
    np.testing.assert_allclose(matvecs, [found[2] for found in alone], rtol=0.1)
    assert max(matvecs.tolist()) > 1.5 * min(matvecs.tolist())


@pytest.mark.slow
def test_loops_are_not_batched():
    """Of the lowered program only what goes in and out is a batch of blocks."""

    def batched_blocks():
        jax.clear_caches()
        solve = jax.vmap(lambda c: chain(c, method="lobpcg").eigenvalues)
        return jax.jit(solve).lower(COUPLINGS).as_text().count(f"tensor<{COUPLINGS.size}x{N}x")

    alone = batched_blocks()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching.jax, "device_count", lambda: 2)
        together = batched_blocks()
    jax.clear_caches()
    assert together > 100
    assert alone < together / 10


@pytest.mark.slow
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)], ids=["first", "second", "both"])
def test_gradients_of_batches(axes):
    """Over one argument or both, and a batch of batches: as in a loop."""
    weights = jnp.linspace(0.5, 2.0, 2 * N).reshape(2, N)

    def slope(coupling, weight):
        def loss(c):
            x = chain(c, method="lobpcg").eigenvectors
            return jnp.sum(weight * jnp.sum(x**2, axis=1) ** 2)

        return jax.grad(loss)(coupling)

    given = [x if a == 0 else x[0] for x, a in zip((COUPLINGS[:2], weights), axes, strict=True)]
    found = jax.jit(jax.vmap(slope, axes))(*given)
    pairs = [[x[i] if a == 0 else x for x, a in zip(given, axes, strict=True)] for i in range(2)]
    np.testing.assert_allclose(found, [slope(*pair) for pair in pairs], rtol=1e-9)
    both = jax.jit(jax.vmap(jax.vmap(slope, (None, 0)), (0, None)))(COUPLINGS[:2], weights)
    wanted = [[slope(c, w) for w in weights] for c in COUPLINGS[:2]]
    np.testing.assert_allclose(both, wanted, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lobpcg", "chebyshev"])
def test_an_ill_posed_member_is_nan_alone(method):
    """The lowest vector of a repeated eigenvalue is no function of the matrix; the others' are."""
    apart = jnp.arange(1.0, N + 1)
    diagonals = jnp.stack([apart, apart.at[1].set(1.0), apart.at[1].set(1.5)])
    weights = jnp.linspace(0.5, 2.0, N)

    def overlap(d):
        turned = jnp.roll(d, 3)
        x = partial_eigh(lambda u: turned * u, k=2, n=N, method=method)[1]
        return (weights @ x[:, 0]) ** 2

    found = jax.jit(jax.vmap(jax.grad(overlap)))(diagonals)
    np.testing.assert_array_equal(np.isnan(found).any(axis=1), [False, True, False])
    for i in (0, 2):
        np.testing.assert_allclose(found[i], jax.grad(overlap)(diagonals[i]), rtol=1e-6, atol=1e-8)
