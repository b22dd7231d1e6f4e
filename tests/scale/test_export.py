"""Programs that leave the process: exported, written, read and run; lowered for accelerators."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from jax import export

from jax_peig import eigenspace, partial_eigh, partial_svd, spectral_sum
from jax_peig.operators import from_scipy

N = 64
METHODS = ("dense", "chebyshev", "lobpcg", "davidson", "shift_invert")
DTYPES = ("float32", "float64")


def product(d, v):
    neighbours = jnp.pad(v[1:], (0, 1)) + jnp.pad(v[:-1], (1, 0))
    return d * v + 2 * v - neighbours


def solved(d, method):
    """A loss of values and vectors, and the status."""
    A = functools.partial(product, d)
    if method == "shift_invert":
        A = jax.vmap(A, in_axes=1, out_axes=1)(jnp.eye(N, dtype=d.dtype))
    w, x, info = partial_eigh(A, k=2, n=N, dtype=d.dtype, method=method)
    return jnp.sum(w) + jnp.sum(x**4), info.status


def function(method, gradient):
    f = functools.partial(solved, method=method)
    return jax.jit(jax.grad(f, has_aux=True) if gradient else f)


def diagonal(dtype="float64"):
    return jnp.linspace(0.0, 3.0, N, dtype=dtype)


def round_trip(f, *arguments):
    """What f gives after it was written and read; serialising is flatbuffers' in JAX."""
    pytest.importorskip("flatbuffers")
    written = export.export(f)(*arguments).serialize()
    return export.deserialize(bytearray(written)).call(*arguments)


def check_round_trip(f, *arguments):
    found, wanted = round_trip(f, *arguments), f(*arguments)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


CASES = [
    pytest.param(method, gradient, marks=[] if method == "dense" else pytest.mark.slow)
    for method in METHODS
    for gradient in (False, True)
]


@pytest.mark.parametrize(("method", "gradient"), CASES)
def test_a_round_trip(method, gradient):
    """Equal values, and the status of a run that converged."""
    check_round_trip(function(method, gradient), diagonal())


@pytest.mark.slow
def test_a_round_trip_of_any_length():
    """A whole result, `Info` apart from its words, and the functions of a space."""

    def pairs(d):
        w, x, info = partial_eigh(
            functools.partial(product, d), k=2, n=N, method="chebyshev", history=True
        )
        return w, jnp.abs(x), info.residual_norms < 1e-6, info.clusters, info.status

    def smooth(d):
        total = spectral_sum(jnp.exp, jnp.diag(d), k=3)
        space = eigenspace(functools.partial(product, d), k=2, n=N, method="lobpcg")
        return total + jnp.sum(space.rayleigh**2) + jnp.sum(partial_svd(jnp.diag(d), 2).s)

    for f in (pairs, smooth, jax.grad(smooth)):
        check_round_trip(jax.jit(f), diagonal())


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [DTYPES[0], pytest.param(DTYPES[1], marks=pytest.mark.slow)])
def test_lowering_for_accelerators(dtype, method, gradient):
    """The program exists for a CUDA GPU and for a TPU; whether it runs there only they can show."""
    made = export.export(function(method, gradient), platforms=["cuda", "tpu"])(diagonal(dtype))
    assert made.platforms == ("cuda", "tpu")
    assert {a.dtype for a in made.in_avals} == {jnp.dtype(dtype)}
    called_back = [line for line in made.mlir_module().splitlines() if "callback" in line]
    assert not called_back


@pytest.mark.parametrize("platforms", [["cpu"], ["cuda", "tpu"]])
def test_host_code_is_not_exported(platforms):
    """A sparse factorisation runs on the host: JAX says so before anything is written."""
    off = -np.ones(N - 1)
    chain = from_scipy(scipy.sparse.diags_array([off, 2 * np.ones(N), off], offsets=[-1, 0, 1]))

    def lowest(values):
        A = chain.with_values(values)
        return partial_eigh(A, k=2, method="shift_invert").eigenvalues

    with pytest.raises(NotImplementedError, match="callback"):
        export.export(jax.jit(lowest), platforms=platforms)(chain.values).serialize()
