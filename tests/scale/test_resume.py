"""A run goes on in another process, from the eigenvectors that the first one saved."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from jax_peig import Status

SIDE, K, TOL = 24, 4, 1e-9
# Half the steps of an undisturbed run and fewer; a step of "davidson" is one matvec.
ENDS_EARLY = {"chebyshev": 1, "lobpcg": 10, "davidson": 40}


def solve(method, max_steps, key, start=None):
    """The lowest pairs of a membrane, whose second and third eigenvalues are equal."""
    import jax
    import jax.numpy as jnp

    from jax_peig import partial_eigh

    jax.config.update("jax_enable_x64", True)

    def product(u):
        inner = jnp.pad(u, 1)
        return 4 * u - inner[2:, 1:-1] - inner[:-2, 1:-1] - inner[1:-1, 2:] - inner[1:-1, :-2]

    like = jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float64)
    return partial_eigh(
        product, k=K, like=like, v0=start, method=method, max_steps=max_steps, tol=TOL,
        key=jax.random.key(key),
    )  # fmt: skip


def in_a_process(*arguments):
    run = subprocess.run(
        [sys.executable, "-m", "tests.scale.test_resume", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]


def exact():
    levels = 4 * np.sin(np.pi * np.arange(1, SIDE + 1) / (2 * (SIDE + 1))) ** 2
    return np.sort(np.add.outer(levels, levels).ravel())[:K]


@pytest.mark.slow
@pytest.mark.parametrize("method", ENDS_EARLY)
def test_a_run_goes_on_elsewhere(method, tmp_path):
    """To the same eigenvalues within the tolerance, with no pair missed or twice there."""
    early, late = tmp_path / "early.npz", tmp_path / "late.npz"
    in_a_process(method, ENDS_EARLY[method], early)
    first = np.load(early)
    assert first["status"] == Status.MAX_STEPS
    assert first["converged"] < K
    in_a_process(method, "", late, early)
    resumed, whole = np.load(late), solve(method, None, key=2)
    assert resumed["status"] == whole.info.status == Status.CONVERGED
    norm = 8.0  # of the operator: the unit of the tolerance
    for w in (resumed["w"], whole.eigenvalues):
        np.testing.assert_allclose(w, exact(), rtol=0, atol=TOL * norm)
    overlaps = resumed["x"].reshape(-1, K).T @ np.asarray(whole.eigenvectors).reshape(-1, K)
    np.testing.assert_allclose(overlaps @ overlaps.T, np.eye(K), atol=1e-6)


def main(method, max_steps, target, source=None):
    """Save what a run found; with a source it starts from the vectors there."""
    start = None if source is None else np.load(source)["x"]
    steps = int(max_steps) if max_steps else None
    w, x, info = solve(method, steps, key=0 if source is None else 1, start=start)
    np.savez(pathlib.Path(target), w=w, x=x, status=info.status, converged=info.converged)


if __name__ == "__main__":
    main(*sys.argv[1:])
