"""crossing: one-sided derivatives against finite differences of LAPACK's sorted eigenvalues."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jax_peig import crossing, derivative_report, eigenspace
from tests.support.gauge_free import random_hermitian, random_unitary

N = 12


def pencil(values, dtype=np.float64, seed=0):
    """A0 and M0 with these eigenvalues, and a direction for each."""
    rng = np.random.default_rng(seed)
    values = np.r_[values, np.linspace(5, 9, N - len(values))]
    q = random_unitary(rng, N, dtype)
    factor = np.eye(N) + 0.1 * random_hermitian(rng, N, dtype)
    a, m = ((factor @ (q * w) @ q.conj().T @ factor.conj().T) for w in (values, np.ones(N)))
    a, m = ((x + x.conj().T) / 2 for x in (a, m))
    return a, m, random_hermitian(rng, N, dtype), 0.05 * random_hermitian(rng, N, dtype)


def members(values):
    """The positions of the cluster of 1 among all ascending eigenvalues."""
    return np.flatnonzero(np.abs(values - 1) < 1e-6)


QUESTIONS = {
    "smallest": ((1, 1, 1, 2, 3), {"k": 4}),
    "largest": ((1, 1, 1, 2, 3), {"k": 3, "which": "largest"}),
    "nearest": ((0.2, 1, 1, 1, 3), {"k": 3, "sigma": 1.1}),
    "of another pair": ((0.5, 1, 1, 2, 3), {"k": 4, "index": 2}),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=() if simple else pytest.mark.slow)
        for name in QUESTIONS
        for dtype in (np.float64, np.complex128)
        for simple in [(name, dtype) in (("smallest", np.float64), ("nearest", np.complex128))]
    ],
)
def test_one_sided_derivatives(name, dtype):
    """Along a direction in which A and M move, for t -> 0+ and t -> 0-."""
    values, question = QUESTIONS[name]
    a, m, da, dm = pencil(values, dtype)
    sign = -1 if question.get("which") == "largest" else 1

    @jax.jit
    def along(t):
        return crossing(sign * (a + t * da), m + t * dm, **question)

    def sorted_eigenvalues(t):
        return scipy.linalg.eigh(a + t * da, m + t * dm, eigvals_only=True)

    at = members(sorted_eigenvalues(0.0))
    found, moved = jax.jvp(along, (0.0,), (1.0,))
    assert int(jnp.sum(found.members)) == at.size
    np.testing.assert_allclose(found.value, sign, rtol=1e-10)
    slopes = sign * np.asarray(found.slopes(moved.block))[: at.size]
    assert np.isnan(np.asarray(found.slopes(moved.block))[at.size :]).all()
    h = 1e-6
    for step in (h, -h):
        one_sided = (sorted_eigenvalues(step)[at] - 1) / step
        np.testing.assert_allclose(np.sort(one_sided), np.sort(slopes), atol=1e-4)
    np.testing.assert_allclose(moved.value, sign * np.mean(slopes), rtol=1e-10)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128], ids=["real", "complex"])
def test_pull_is_the_transpose_of_the_block(dtype):
    """Parameters in a pytree of closures: the gradient of tr(Z R_g) is refused for no Z."""
    a, m, da, dm = pencil((1, 1, 1, 2, 3), dtype)
    z = random_hermitian(np.random.default_rng(5), 3, dtype)

    def found(p):
        def product(u):
            return (jnp.asarray(a) + p["a"] * jnp.asarray(da)) @ u

        return crossing(product, m + p["m"] * dm, 3, n=N, dtype=dtype)

    p = {"a": jnp.zeros((), dtype), "m": jnp.zeros((), dtype)}
    pulled = jax.jit(jax.grad(lambda p: found(p).weighted(jnp.asarray(z)), holomorphic=False))(p)
    for name in p:
        direction = {key: jnp.asarray(key == name, dtype) for key in p}
        _, moved = jax.jvp(lambda p: found(p).block, (p,), (direction,))
        np.testing.assert_allclose(pulled[name].real, jnp.trace(z @ moved).real, atol=1e-11)


def test_no_entry_of_the_block_is_refused():
    """That of an eigenspace's R is."""
    a, m, da, _ = pencil((1, 1, 1, 2, 3))
    entry = lambda t: crossing(a + t * da, m, 3).block[0, 1]  # noqa: E731
    assert np.isfinite(jax.grad(entry)(0.0))
    assert np.isnan(jax.grad(lambda t: eigenspace(a + t * da, m, 3).rayleigh[0, 1])(0.0))


@pytest.mark.slow
def test_a_cut_cluster():
    """k = 2 of three copies: NaN in both modes, and the report says why."""
    a, m, da, _ = pencil((1, 1, 1, 2, 3))
    f = lambda t: crossing(a + t * da, m, 2).weighted(jnp.eye(2))  # noqa: E731
    assert np.isnan(jax.grad(f)(0.0))
    assert np.isnan(jax.jvp(f, (0.0,), (1.0,))[1])
    assert np.isnan(jax.grad(lambda t: crossing(a + t * da, m, 2).value)(0.0))
    (problem,) = derivative_report(f, 0.0).calls[0].problems
    assert "k cuts" in problem


@pytest.mark.slow
def test_second_derivatives():
    """The mean of the cluster has one, the block none."""
    a, m, da, dm = pencil((1, 1, 1, 2, 3))
    f = lambda t: crossing(a + t * da, m + t * dm, 3)  # noqa: E731
    found = jax.grad(jax.grad(lambda t: f(t).value))(0.0)
    h = 1e-3
    mean = [
        np.mean(scipy.linalg.eigh(a + t * da, m + t * dm, eigvals_only=True)[:3])
        for t in (-h, 0.0, h)
    ]
    np.testing.assert_allclose(found, (mean[0] - 2 * mean[1] + mean[2]) / h**2, rtol=1e-4)
    off = jnp.ones((3, 3)) - jnp.eye(3)
    assert np.isnan(jax.jvp(jax.grad(lambda t: f(t).weighted(off)), (0.0,), (1.0,))[1])


def test_a_cluster_of_some_width():
    """Inside it the slopes are the block's; a distance away they are the eigenvalues' own."""
    width = 1e-6
    a, m, da, _ = pencil((1, 1 + width, 2, 3))
    f = lambda t: crossing(a + t * da, m, 2, degeneracy_tol=10 * width)  # noqa: E731
    found, moved = jax.jvp(f, (0.0,), (1.0,))
    assert found.members.all()
    h = 1e-4
    ahead = scipy.linalg.eigh(a + h * da, m, eigvals_only=True)[:2]
    np.testing.assert_allclose(found.slopes(moved.block), (ahead - 1) / h, atol=2e-2)
    apart = jax.jvp(lambda t: crossing(a + t * da, m, 2), (0.0,), (1.0,))[1].block
    np.testing.assert_allclose(apart[0, 0], moved.block[0, 0], rtol=1e-6)
    assert apart[0, 1] == 0
    assert not np.isclose(moved.block[0, 1], 0)


def test_batches_and_text():
    a, m, da, _ = pencil((1, 1, 1, 2, 3))
    some = jnp.stack([jnp.asarray(a), jnp.asarray(a + da)])
    found = jax.jit(jax.vmap(lambda a: crossing(a, m, 3)))(some)
    np.testing.assert_array_equal(jnp.sum(found.members, axis=1), [3, 1])
    assert "members 3" in repr(crossing(a, m, 3))


def test_mistakes():
    a, m, _, _ = pencil((1, 1, 1, 2, 3))
    with pytest.raises(ValueError, match="crossing: index is 3; expected 0 <= index < k = 3"):
        crossing(a, m, 3, index=3)
    found = crossing(a, m, 3)
    with pytest.raises(ValueError, match=r"Z has shape \(2, 2\); expected \(3, 3\)"):
        found.weighted(jnp.eye(2))
    with pytest.raises(TypeError, match="expected an array"):
        found.weighted(1.0)
