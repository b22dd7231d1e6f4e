"""What several devices say to each other: counted in the compiled program, on 8 virtual ones.

A product of a chain with its neighbours sends one row to either side. Beside that the methods need
inner products: sums over all devices, of matrices as small as a block is wide.
"""

import functools
import json
import os
import subprocess
import sys

import pytest

DEVICES = 8
N = 4096
ROWS = N // DEVICES
# All-reduces in one step of the method's outer loop, and of the derivative's, as measured. Those of
# both sides of a branch count, and one that sums several arrays counts once.
STEP = {"chebyshev": 9, "lobpcg": 8, "davidson": 13}
DERIVATIVE_STEP = 9
WHATS = ("forward", "jvp", "gradient")
# Loops that evaluate a polynomial in A: a filter or a direction. The derivative has one more.
POLYNOMIALS = {"chebyshev": 1, "lobpcg": 1, "davidson": 0}


def chain(d, block):
    """The product on one device's rows: (diag(d) + a second difference) of a block."""
    import jax
    import jax.numpy as jnp

    up, down = ([(i, i + s) for i in range(DEVICES) if 0 <= i + s < DEVICES] for s in (1, -1))
    before = jax.lax.ppermute(block[-1:], "x", up)
    after = jax.lax.ppermute(block[:1], "x", down)
    padded = jnp.concatenate([before, block, after])
    return d[:, None] * block + 2 * block - padded[2:] - padded[:-2]


def compiled(method, what):
    """The text of the optimised program, compiled for 8 devices."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import AxisType, NamedSharding
    from jax.sharding import PartitionSpec as P

    from jax_peig import BlockProduct, partial_eigh

    jax.config.update("jax_enable_x64", True)
    mesh = jax.make_mesh((DEVICES,), ("x",), axis_types=(AxisType.Auto,))
    specs = {"in_specs": (P("x"), P("x", None)), "out_specs": P("x", None)}
    product = jax.shard_map(chain, mesh=mesh, **specs)

    def loss(d):
        A = BlockProduct(functools.partial(product, d))
        w, x, _ = partial_eigh(A, k=3, n=N, method=method)
        return jnp.sum(w) + jnp.sum(jnp.sum(x**2, axis=1) ** 2)

    functions = {
        "forward": loss,
        "jvp": lambda d: jax.jvp(loss, (d,), (jnp.ones_like(d),)),
        "gradient": jax.grad(loss),
    }
    spread = jax.device_put(jnp.linspace(0.0, 3.0, N) ** 2, NamedSharding(mesh, P("x")))
    return jax.jit(functions[what]).lower(spread).compile().as_text()


def main(method, what):
    """Print every loop: its collectives, and whether it holds others."""
    from tests.scale.collectives import loops_of

    loops = loops_of(compiled(method, what)).all()
    print(json.dumps([[loop.collectives, bool(loop.inner)] for loop in loops]))


@pytest.mark.parametrize(
    ("method", "what"),
    [
        pytest.param(
            method,
            what,
            marks=[] if (method, what) == ("chebyshev", "forward") else pytest.mark.slow,
        )
        for method in STEP
        for what in WHATS
    ],
)
def test_only_small_sums_and_halos(method, what):
    """Nothing of size n is gathered, and no polynomial waits for a sum."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={DEVICES}"
    run = subprocess.run(
        [sys.executable, "-m", "tests.scale.test_collectives", method, what],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    loops = json.loads(run.stdout.splitlines()[-1])
    kinds = [[kind for kind, _ in collectives] for collectives, _ in loops]
    assert {kind for found in kinds for kind in found} == {"all-reduce", "collective-permute"}
    # No message is as large as one device's part of a single vector; the largest is (b, b) or, of
    # LOBPCG, (2 b, 2 b).
    assert max(size for collectives, _ in loops for _, size in collectives) < ROWS
    polynomials = [
        found
        for found, (_, holds_others) in zip(kinds, loops, strict=True)
        if "collective-permute" in found and "all-reduce" not in found and not holds_others
    ]
    assert len(polynomials) == POLYNOMIALS[method] + (what != "forward")
    allowed = STEP[method] if what == "forward" else max(STEP[method], DERIVATIVE_STEP)
    once, *repeated = kinds
    assert max(found.count("all-reduce") for found in repeated) <= allowed
    assert once.count("all-reduce") <= allowed + 1


if __name__ == "__main__":
    main(*sys.argv[1:])
