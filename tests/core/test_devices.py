"""Arrays sharded over the devices of a mesh, four virtual ones, of Auto and of Explicit axes."""

import os
import subprocess
import sys
import textwrap

import pytest

SHARDED = """
    import jax, jax.numpy as jnp, numpy as np
    jax.config.update("jax_enable_x64", True)
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    from jax_peig import BlockProduct, partial_eigh
    import re

    n = 4096
    mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.AXES,))

    def product(v, block):
        # Local but for sums over the rows: what is gathered beyond is the package's.
        mean = jnp.sum(block, axis=0, keepdims=True) / n
        image = v[:, None] * (block - mean)
        return image - jnp.sum(image, axis=0, keepdims=True) / n

    def loss(v):
        a = BlockProduct(jax.tree_util.Partial(product, v))
        w, x, info = partial_eigh(a, k=2, n=n, method="METHOD", tol=1e-6)
        return jnp.sum(w) + jnp.sum(jnp.sum(x**2, axis=1) ** 2), info.converged

    v = (2 + 5 * jnp.linspace(-1, 1, n) ** 2).at[:3].set(jnp.array([0.2, 0.5, 0.8]))
    single = jax.jit(jax.value_and_grad(loss, has_aux=True))(v)
    spread = jax.device_put(v, NamedSharding(mesh, P("x")))
    compiled = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(spread).compile()
    several = compiled(spread)
    assert int(several[0][1]) == 2
    np.testing.assert_allclose(several[0][0], single[0][0], rtol=1e-8)
    np.testing.assert_allclose(several[1], single[1], atol=1e-6 * abs(single[1]).max())
    gathered = []
    for line in compiled.as_text().splitlines():
        if "all-gather(" in line:
            gathered += [int(d) for d in re.findall(r"\\[(\\d+)[,\\]]", line.split("=")[1])]
    assert not any(d >= n for d in gathered), gathered
    print("ok")
"""


FUNCTIONS = """
    import jax, jax.numpy as jnp, numpy as np
    jax.config.update("jax_enable_x64", True)
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    import jax_peig as jp

    auto = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
    explicit = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Explicit,))
    rng = np.random.default_rng(0)
    n, m, k = 48, 32, 4

    def orthonormal(*shape):
        return np.linalg.qr(rng.normal(size=shape))[0]

    # Eigenvalues 1, 1, 2, 2, 5, ... and singular values 3, 3, 2, 1, ...
    q = orthonormal(n, n)
    square = (q * np.r_[1.0, 1, 2, 2, np.linspace(5, 9, n - 4)]) @ q.T
    s = np.r_[3.0, 3, 2, np.linspace(1, 0.1, m - 3)]
    tall = (orthonormal(n, m) * s) @ orthonormal(m, m).T
    diagonal = np.r_[0.1, 0.1, 0.5, np.linspace(1, 4, n - 3)]
    y, z = rng.normal(size=n), rng.normal(size=m)

    def put(mesh, x, *axes):
        return jax.device_put(jnp.asarray(x), NamedSharding(mesh, P(*axes)))

    def boltzmann(w):
        return jnp.exp(-w)

    def on_space(space, y):
        both = jp.spectral_apply(boltzmann, space, y) + jp.projector_apply(space, y)
        return jnp.sum(both**3) + jnp.sum(jp.density(boltzmann, space) ** 2)

    def product(d, block):
        return d[:, None] * block

    def of_products(d, y):
        a = jp.BlockProduct(jax.tree_util.Partial(product, d))
        return on_space(jp.eigenspace(a, k=3, n=n, method="lobpcg"), y)

    def triplets(a, y):
        u, s, vh, _ = jp.partial_svd(a, 2)
        return jnp.sum(s) + jnp.sum((y @ u) ** 2) + jnp.sum((vh @ z) ** 2)

    def iterated(a, y):
        u, s, vh, _ = jp.partial_svd(a, 2, method="chebyshev")
        return jnp.sum(s) + jnp.sum((y @ u) ** 2) + jnp.sum((vh @ z) ** 2)

    def on_singular_space(a, y):
        return jnp.sum(jp.singular_apply(jnp.log, jp.singular_space(a, k), y, sides="UU") * y)

    def norms(a, y):
        found = jp.nuclear_norm(a, 5)
        thresholded = jp.singular_value_threshold(a, 1.5, 4).X
        return jp.ky_fan_norm(a, 2) + found.norm + found.left_out + jnp.sum(thresholded**3)

    rows, columns, both = ("x", None), (None, "x"), (("x", None), (None, "x"))
    cases = [
        (lambda a, y: on_space(jp.eigenspace(a, k=k), y), square, both),
        (lambda a, y: jp.spectral_sum(boltzmann, a, k=k), square, both),
        (lambda a, y: jnp.sum(jp.hermitian_function(boltzmann, a) ** 3), square[:8, :8], [rows]),
        (of_products, diagonal, [("x",)]),
        (triplets, tall, both),
        (lambda a, y: norms(a.T, y), tall, [rows]),
        (iterated, tall, [rows]),
        (norms, tall, [rows]),
        (lambda a, y: jnp.sum(jp.low_rank(a, k).X ** 3) + on_singular_space(a, y), tall, [rows]),
        (lambda a, y: jp.crossing(a, k=k).weighted(jnp.eye(k)), square, [rows]),
    ]
    for f, x, places in cases:
        run = jax.jit(jax.value_and_grad(f))
        wanted = run(jnp.asarray(x), jnp.asarray(y))
        for mesh in (auto, explicit):
            for axes in places:
                value, slope = run(put(mesh, x, *axes), put(mesh, y, "x"))
                np.testing.assert_allclose(value, wanted[0], rtol=1e-9)
                size = np.max(np.abs(wanted[1]))
                np.testing.assert_allclose(slope, wanted[1], atol=1e-7 * size)

    # Rows stay where they are, outside jit too. A mesh that is set stays set: this comes last.
    wanted = jax.grad(triplets)(jnp.asarray(tall), jnp.asarray(y))
    jax.set_mesh(explicit)
    matrix = put(explicit, square, *rows)
    called = lambda: jax.grad(lambda a: jnp.sum(jp.partial_eigh(a, k=k)[0]))(matrix)
    called()
    seen = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: seen.append(event) if "backend_compile" in event else None
    )
    called()
    assert not seen, seen  # the same program again
    space = jp.eigenspace(matrix, k=k)
    assert space.basis.sharding.spec == P("x", None)
    slope = jax.grad(triplets)(put(explicit, tall, *rows), put(explicit, y, "x"))
    np.testing.assert_allclose(slope, wanted, atol=1e-12)
    print("ok")
"""


BATCH = """
    import jax, jax.numpy as jnp, numpy as np
    jax.config.update("jax_enable_x64", True)
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    from jax_peig import partial_eigh

    n = 512
    mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))

    def value(c):
        potential = 100 * jnp.linspace(0.0, 1.0, n) ** 2
        product = lambda u: potential * u + c * (2 * u - jnp.roll(u, 1) - jnp.roll(u, -1))
        return partial_eigh(product, k=3, n=n, method="lobpcg", tol=1e-6).eigenvalues

    couplings = jnp.linspace(0.1, 3.0, 8)
    spread = jax.device_put(couplings, NamedSharding(mesh, P("x")))
    compiled = jax.jit(jax.vmap(value)).lower(spread).compile()
    assert not compiled(spread).sharding.is_fully_replicated
    alone = jnp.stack([value(c) for c in couplings])
    np.testing.assert_allclose(compiled(spread), alone, rtol=1e-8)
    gathered = [line for line in compiled.as_text().splitlines() if "all-gather(" in line]
    assert not any(f",{n}," in line or f",{n}]" in line for line in gathered), gathered
    print("ok")
"""


CHOICE = """
    import jax, jax.numpy as jnp, numpy as np
    jax.config.update("jax_enable_x64", True)
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    from jax_peig import operators
    from tests.support.choices import chosen
    from tests.support.finite_elements import laplacian

    line = operators.from_scipy(laplacian(600))
    assert chosen(line)[0] == "shift_invert"
    mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.AXES,))
    spread = lambda x, *axes: jax.device_put(x, NamedSharding(mesh, P(*axes)))
    assert chosen(jax.tree.map(spread, line))[0] == "chebyshev"
    assert chosen(line, v0=spread(jnp.ones(600), "x"))[0] == "chebyshev"
    print("ok")
"""


def run_on_four_devices(program):
    """Run the text of a program that prints "ok" at its end."""
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=4"
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "ok" in run.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "axes"),
    [("lobpcg", "Auto"), ("lobpcg", "Explicit"), ("chebyshev", "Auto"), ("davidson", "Auto")],
)
def test_no_block_is_gathered(method, axes):
    """Values and gradients are those of one device, and no block of vectors is gathered on one."""
    run_on_four_devices(SHARDED.replace("AXES", axes).replace("METHOD", method))


@pytest.mark.slow
def test_a_batch_spread_over_devices_stays_there():
    """On several devices a batch is a batch, and no member's vectors are brought to another."""
    run_on_four_devices(BATCH)


@pytest.mark.parametrize("axes", ["Auto", "Explicit"])
def test_auto_factorises_no_matrix_of_several_devices(axes):
    """A sparse factorisation is host code, for one device."""
    run_on_four_devices(CHOICE.replace("AXES", axes))


@pytest.mark.slow
def test_functions_on_a_mesh():
    """Values and gradients are those of one device."""
    run_on_four_devices(FUNCTIONS)
