"""Solve a problem with several processes, and compare with one: python -m tests.scale.processes.

The processes run on this machine and talk over its loopback, as they would over a network; JAX and
gloo do all of it. The operator is -Laplace + a well on a grid whose rows are shared out. Its
product sends one row to either neighbour. The result of one process is the reference for the
eigenvalues, for a loss of the eigenvectors, and for its gradient in the shape of the well.

With --dies I the I-th process ends at once, and the time until the others have ended is told.
"""

import argparse
import functools
import json
import os
import socket
import subprocess
import sys
import time

K = 3
WELL = (0.06, 0.05, 0.3)  # curvatures along both axes, and the depth at which it is cut, over 8
TOL = 1e-8
# Beside the heartbeat: the coordinator looks at the heartbeats in turns, and processes have to end.
GRACE = 30.0


# -- one process ----------------------------------------------------------------------------------


def laplacian(block, count):
    """-Laplace of a block (rows, columns, b), of which this device has some rows."""
    import jax
    import jax.numpy as jnp

    def shifts(by):
        return [(i, i + by) for i in range(count) if 0 <= i + by < count]

    above = jax.lax.ppermute(block[-1:], "x", shifts(1))
    below = jax.lax.ppermute(block[:1], "x", shifts(-1))
    tall = jnp.concatenate([above, block, below])
    wide = jnp.pad(block, ((0, 0), (1, 1), (0, 0)))
    return 4 * block - tall[2:] - tall[:-2] - wide[:, 2:] - wide[:, :-2]


def solved(well, mesh, side):
    """A loss of the lowest pairs in a well, and the eigenvalues and what became of them."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    from jax_peig import BlockProduct, partial_eigh

    rows = P("x", None, None)
    local = functools.partial(laplacian, count=mesh.size)
    halo = jax.shard_map(local, mesh=mesh, in_specs=rows, out_specs=rows)
    places = jnp.arange(side) - side / 2
    parabola = (well[0] * places[:, None]) ** 2 + (well[1] * places[None, :]) ** 2
    depth = 8 * well[2]
    potential = depth * jnp.tanh(parabola / depth)
    potential = jax.lax.with_sharding_constraint(potential, NamedSharding(mesh, P("x", None)))

    def product(block):
        return potential[:, :, None] * block + halo(block)

    w, x, info = partial_eigh(
        BlockProduct(product),
        k=K,
        like=jax.ShapeDtypeStruct((side, side), jnp.float64),
        method="chebyshev",
        tol=TOL,
    )
    return jnp.sum(w) + jnp.sum(x**4), (w, info.status, info.matvecs)


def work(options):
    """Solve with the other processes, and print the numbers as one line of JSON."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    if options.processes[0] > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(
            f"127.0.0.1:{options.port}",
            options.processes[0],
            options.worker,
            heartbeat_timeout_seconds=options.heartbeat,
        )
    if options.dies == options.worker:
        os._exit(1)
    mesh = jax.make_mesh((jax.device_count(),), ("x",), (jax.sharding.AxisType.Auto,))
    f = jax.value_and_grad(functools.partial(solved, mesh=mesh, side=options.side), has_aux=True)
    started = time.perf_counter()
    run = jax.jit(f).lower(WELL).compile()
    compiled = time.perf_counter()
    (loss, (w, status, matvecs)), slope = jax.block_until_ready(run(WELL))
    told = {
        "loss": float(loss),
        "eigenvalues": [float(x) for x in w],
        "gradient": [float(x) for x in slope],
        "status": int(status),
        "matvecs": int(matvecs),
        "compile": compiled - started,
        "run": time.perf_counter() - compiled,
    }
    print(json.dumps(told), flush=True)


# -- all of them ----------------------------------------------------------------------------------


def start(count, side, heartbeat, dies=None):
    """Start ``count`` processes that solve together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = [sys.executable, "-m", "tests.scale.processes", "--processes", count, "--port", port]
    common += ["--side", side, "--heartbeat", heartbeat, "--dies", -1 if dies is None else dies]
    return [
        subprocess.Popen(
            [str(word) for word in (*common, "--worker", i)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]


def results(running, timeout):
    """What each process printed; RuntimeError where one failed, and none is left running."""
    try:
        ended = [(*process.communicate(timeout=timeout), process.returncode) for process in running]
    finally:
        for process in running:
            process.kill()
    for i, (_, errors, code) in enumerate(ended):
        if code != 0:
            raise RuntimeError(f"process {i} ended with {code}: {errors[-2000:]}")
    return [json.loads(printed.splitlines()[-1]) for printed, _, _ in ended]


def deaths(running, dies, timeout):
    """The exit codes of the others, and the seconds from a process's death to the last of theirs.

    TimeoutExpired where one of them does not end; none is left running.
    """
    try:
        running[dies].wait(timeout)
        died = time.perf_counter()
        for process in running:
            process.wait(max(0.0, died + timeout - time.perf_counter()))
        waited = time.perf_counter() - died
    finally:
        for process in running:
            process.kill()
            process.communicate()
    return [p.returncode for i, p in enumerate(running) if i != dies], waited


def main(options):
    """Compare the processes' results with those of one, and print a table."""
    if options.dies >= 0:
        count = options.processes[0]
        running = start(count, options.side, options.heartbeat, options.dies)
        codes, waited = deaths(running, options.dies, options.heartbeat + GRACE)
        print(f"{count} processes, of which {options.dies} dies: the others end with {codes}")
        print(f"after {waited:.1f} s, with a heartbeat of {options.heartbeat} s")
        return
    print(f"n = {options.side**2}; differences are those to one process, relative")
    print(f"{'processes':>9}  {'matvecs':>7}  {'compile':>7}  {'run':>7}  eigenvalues  gradient")
    wanted = None
    for count in (1, *options.processes):
        found = results(start(count, options.side, options.heartbeat), options.timeout)[0]
        wanted = wanted or found
        w, slope = (difference(found, wanted, what) for what in ("eigenvalues", "gradient"))
        times = "  ".join(f"{found[what]:6.1f}s" for what in ("compile", "run"))
        print(f"{count:>9}  {found['matvecs']:>7}  {times}  {w:11.1e}  {slope:8.1e}", flush=True)


def difference(found, wanted, what):
    """The largest difference of two lists, over the largest entry."""
    pairs = list(zip(found[what], wanted[what], strict=True))
    return max(abs(a - b) for a, b in pairs) / max(abs(b) for _, b in pairs)


def parsed(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tests.scale.processes", description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--side", type=int, default=1000, help="of the grid: n is its square")
    parser.add_argument("--heartbeat", type=int, default=20, help="seconds")
    parser.add_argument("--timeout", type=float, default=3600.0, help="of each run, seconds")
    parser.add_argument("--dies", type=int, default=-1, help="the process that dies")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    chosen = parsed()
    main(chosen) if chosen.worker is None else work(chosen)
