"""Random blocks: their distribution along directions that eigenvectors have, and independence."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import scipy.stats

from jax_peig._core.blocks import random_block

N, B = 1024, 16
# A mean of N products of independent entries of variance one is N(0, 1/N), nearly; the largest of
# some thousand of them is beyond six standard deviations once in a hundred thousand blocks.
CORRELATION = 6 / np.sqrt(N)
# Kolmogorov and Smirnov's distance of so many numbers from their distribution is larger than this
# over the root of their number once in a million times.
DISTANCE = np.sqrt(np.log(2e6) / 2)

BASES = {
    "unit vectors": lambda x: x,
    "cosines": lambda x: scipy.fft.dct(x, axis=0, norm="ortho"),
    "sines": lambda x: scipy.fft.dst(x, axis=0, norm="ortho"),
    "signs": lambda x: scipy.linalg.hadamard(N) @ x / np.sqrt(N),
    "differences": lambda x: (x[1::2] - x[::2]) / np.sqrt(2),
}


def block(seed: int = 0, draw: int = 0, dtype=np.float64, n: int = N, width: int = B):
    return np.asarray(random_block(jax.random.key(seed), n, width, dtype, draw))


@pytest.mark.parametrize("seed", [0, 1, 2**31, 123456789])
@pytest.mark.parametrize("basis", BASES)
def test_components_are_distributed_as_they_should_be(basis, seed):
    components = BASES[basis](block(seed)).ravel()
    root = np.sqrt(3)
    expected = {
        "unit vectors": scipy.stats.uniform(-root, 2 * root),
        "differences": scipy.stats.triang(0.5, -np.sqrt(6), 2 * np.sqrt(6)),
    }.get(basis, scipy.stats.norm())  # sums of many entries
    found = scipy.stats.kstest(components, expected.cdf).statistic
    assert found < DISTANCE / np.sqrt(components.size)


def test_columns_and_shifted_rows_are_independent():
    x = block()
    for shift in (0, 1, 2, 16, 256):
        gram = x.T @ np.roll(x, shift, axis=0) / N
        if shift == 0:
            gram -= np.diag(np.diag(gram))
        assert np.abs(gram).max() < CORRELATION


def test_keys_and_draws_are_independent():
    # Words that differ in one bit, the highest among them, are the hardest for a hash.
    words = [(0, 0), (0, 1), (0, 2), (1, 0), (0, 2**16), (0, 2**31), (2**31, 0), (2**31, 2**31)]
    keys = [jax.random.wrap_key_data(jnp.array(pair, np.uint32)) for pair in words]
    drawn = [
        np.asarray(random_block(key, N, B, np.float64, draw))
        for key, draw in itertools.product(keys, [0, 1, 2, 2**15])
    ]
    for one, other in itertools.combinations(drawn, 2):
        assert np.abs(one.T @ other / N).max() < CORRELATION


def test_a_column_for_each_draw_is_well_conditioned():
    # Iterations draw a column a step: the singular values of the whole are those of Marchenko and
    # Pastur.
    x = np.concatenate([block(draw=step, width=1) for step in range(64)], axis=1)
    ratio = np.sqrt(64 / N)
    s = np.linalg.svd(x / np.sqrt(N), compute_uv=False)
    assert 1 - 1.2 * ratio < s.min()
    assert s.max() < 1 + 1.2 * ratio


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_entries(dtype):
    z = block(dtype=dtype)
    assert z.dtype == dtype
    size = z.size
    # E |z|^2 = 1, with a variance of 0.4; E z^2 = 0, with one of 1.4.
    assert abs(np.mean(np.abs(z) ** 2) - 1) < 6 / np.sqrt(size)
    assert abs(np.mean(z**2)) < 6 / np.sqrt(size)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16])
def test_every_precision_draws_the_same_numbers(dtype):
    x = random_block(jax.random.key(5), N, B, dtype)
    assert x.dtype == dtype
    # A word, a difference and a product are rounded, and sqrt(3): below 1.7 eps together.
    error = np.abs(np.asarray(x, float) - block(5))
    assert error.max() <= 2 * float(jnp.finfo(dtype).eps)


def test_rows_and_columns_do_not_depend_on_the_size():
    np.testing.assert_array_equal(block()[:100, :3], block(n=100, width=3))


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_typed_keys_of_every_kind(implementation):
    keys = [jax.random.key(seed, impl=implementation) for seed in (0, 1)]
    one, other = (np.asarray(random_block(key, N, B, np.float64)) for key in keys)
    assert np.abs(one.T @ other / N).max() < CORRELATION


def test_a_key_of_the_old_kind():
    typed, raw = jax.random.key(7, impl="threefry2x32"), np.array([0, 7], np.uint32)
    one, other = (random_block(key, 50, 2, np.float64) for key in (typed, jnp.asarray(raw)))
    np.testing.assert_array_equal(one, other)


def test_a_batch_of_keys():
    keys = jax.random.split(jax.random.key(0), 3)
    batch = jax.jit(jax.vmap(lambda key: random_block(key, 50, 2, np.float64)))(keys)
    for key, drawn in zip(keys, batch, strict=True):
        np.testing.assert_array_equal(drawn, random_block(key, 50, 2, np.float64))
