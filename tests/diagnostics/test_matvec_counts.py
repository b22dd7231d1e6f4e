"""`info.matvecs` and `info.matvecs_M` are what the host counts."""

import jax
import numpy as np
import pytest
from jax.tree_util import Partial

from jax_peig import BlockProduct, Status, partial_eigh
from tests.support import spectra
from tests.support.counter import Counter
from tests.support.small_pencils import METHODS, K, N


@pytest.mark.parametrize("method", METHODS)
def test_products_are_counted(method):
    pencil = spectra.pencil(spectra.clustered(N, K, "inside"), condition=1e2, seed=8)
    a, m = Counter(pencil.A), Counter(pencil.M)
    result = partial_eigh(a, m, K, n=N, method=method)
    jax.block_until_ready(result)
    assert int(result.info.matvecs) == a.count
    assert int(result.info.matvecs_M) == m.count
    np.testing.assert_allclose(result.eigenvalues, pencil.values[:K], rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("guessed", [False, True])
@pytest.mark.parametrize("mass", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("method", ["chebyshev", "lobpcg", "davidson"])
def test_products_of_iterations_are_counted(method, mass, guessed):
    """From a guess that is none, too: what it took to find that out, and what came after."""
    pencil = spectra.pencil(spectra.clustered(N, K, "inside"), condition=10.0, seed=8)
    a, m = Counter(pencil.A), Counter(pencil.M)
    v0 = np.random.default_rng(0).standard_normal((N, K)) if guessed else None
    result = partial_eigh(a, m if mass else None, K, n=N, method=method, v0=v0)
    jax.block_until_ready(result)
    assert int(result.info.status) == Status.CONVERGED
    assert int(result.info.matvecs) == a.count
    assert int(result.info.matvecs_M) == m.count


def test_products_of_a_block_are_counted_by_columns():
    """Without M; BlockProduct is called with all columns at once."""
    matrix = spectra.pencil(spectra.clustered(N, K, "inside"), seed=9).A
    a = Counter(matrix)
    product = BlockProduct(Partial(a.block))
    result = partial_eigh(product, k=K, n=N, method="lobpcg", preconditioner=np.ones(N))
    jax.block_until_ready(result)
    assert int(result.info.matvecs) == a.count
    assert int(result.info.matvecs_M) == 0
    width = a.count / max(int(result.info.steps), 1)
    assert width < 2.5 * K


def test_the_dense_method_multiplies_n_vectors():
    pencil = spectra.pencil(spectra.clustered(N, K, "inside"), condition=1e2, seed=8)
    info = partial_eigh(pencil.A, pencil.M, K, method="dense").info
    assert int(info.matvecs) == N
    assert int(info.steps) == 1
