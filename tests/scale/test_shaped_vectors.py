"""Vectors of several axes on a mesh: a grid whose rows are on several devices stays there."""

import pytest

from tests.core.test_devices import run_on_four_devices

GRID = """
    import jax, jax.numpy as jnp, numpy as np
    jax.config.update("jax_enable_x64", True)
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    from jax_peig import BlockProduct, partial_eigh

    rows, columns = 32, 20
    n = rows * columns
    mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.AXES,))

    def product(potential, block):
        turned = sum(jnp.roll(block, s, axis) for s in (1, -1) for axis in (0, 1))
        return potential[:, :, None] * block + 4 * block - turned

    def solved(potential):
        a = BlockProduct(jax.tree_util.Partial(product, potential))
        like = jax.ShapeDtypeStruct(potential.shape, potential.dtype)
        w, x, info = partial_eigh(a, k=3, like=like, method="METHOD", tol=1e-8)
        return jnp.sum(w) + jnp.sum(x**4), (x, info.converged)

    well = np.add.outer(np.linspace(-1, 2, rows) ** 2, np.linspace(-1, 1.7, columns) ** 2)
    alone = jax.jit(jax.value_and_grad(solved, has_aux=True))(well)
    spread = jax.device_put(well, NamedSharding(mesh, P("x", None)))
    if "AXES" == "Explicit":
        jax.set_mesh(mesh)
    compiled = jax.jit(jax.value_and_grad(solved, has_aux=True)).lower(spread).compile()
    (value, (x, converged)), slope = compiled(spread)
    assert int(converged) == 3
    np.testing.assert_allclose(value, alone[0][0], rtol=1e-8)
    size = np.max(np.abs(alone[1]))
    np.testing.assert_allclose(slope, alone[1], atol=1e-6 * size)
    for found in (x, slope, solved(spread)[1][0]):
        assert found.sharding.spec[0] == "x", found.sharding
        assert not any(found.sharding.spec[1:]), found.sharding
    assert "all-gather" not in compiled.as_text()
    print("ok")
"""


@pytest.mark.slow
@pytest.mark.parametrize("axes", ["Auto", "Explicit"])
@pytest.mark.parametrize("method", ["chebyshev", "lobpcg"])
def test_a_grid_stays_on_its_devices(axes, method):
    """Values and gradients are those of one device, and nothing is gathered."""
    run_on_four_devices(GRID.replace("AXES", axes).replace("METHOD", method))
