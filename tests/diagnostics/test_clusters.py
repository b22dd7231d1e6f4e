"""Clusters, the gap and whether k cuts a cluster, for prescribed spectra."""

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import scipy.sparse.csgraph
from hypothesis import given

from jax_peig import partial_eigh
from jax_peig._diagnostics.clusters import cluster_labels
from tests.support import spectra
from tests.support.small_pencils import METHODS, K, N, rough


def labels(values, method="dense", k=K, **options):
    pencil = spectra.pencil(values, seed=5)
    info = partial_eigh(pencil.A, k=k, method=method, **options).info
    return [int(c) for c in info.clusters], bool(info.cut), float(info.gap)


def spectrum(*head):
    """``head``, and after it what is well apart."""
    return np.concatenate([head, np.arange(10.0, 10.0 + N - len(head))])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("head", "expected", "cut"),
    [
        ([1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5], False),
        ([1, 1, 1, 4, 5, 6], [0, 0, 0, 1, 2, 3], False),
        ([1, 1, 2, 2, 3, 3], [0, 0, 1, 1, 2, 2], False),
        ([1, 2, 3, 4, 5, 5, 5], [0, 1, 2, 3, 4, 4], True),
        ([1, 2, 3, 4, 5, 6, 6], [0, 1, 2, 3, 4, 5], True),
        ([0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], True),
        # sqrt(eps) max |lam| is 9e-8 here.
        ([1, 1 + 1e-9, 3, 4, 5, 6], [0, 0, 1, 2, 3, 4], False),
        ([1, 1 + 1e-5, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5], False),
        ([1, 2, 3, 4, 5, 6, 6 + 1e-12], [0, 1, 2, 3, 4, 5], True),
        ([1, 2, 3, 4, 5, 6, 6 + 1e-9], [0, 1, 2, 3, 4, 5], True),
        ([1, 2, 3, 4, 5, 6, 6 + 1e-3], [0, 1, 2, 3, 4, 5], False),
        # A chain is one cluster, though its ends are further apart than the tolerance.
        ([1, 1 + 7e-8, 1 + 1.4e-7, 4, 5, 6], [0, 0, 0, 1, 2, 3], False),
    ],
)
def test_clusters_and_cut(head, expected, cut, method):
    values = spectrum(*head)
    found, found_cut, gap = labels(values, method)
    assert found == expected
    assert found_cut == cut
    np.testing.assert_allclose(gap, values[K] - values[K - 1], rtol=1e-2, atol=1e-9)


def test_degeneracy_tolerance():
    """A caller's figure is absolute; zero leaves what the error bounds cannot separate."""
    head = [1, 1.01, 1.02, 1.05, 5, 6, 6.01]
    assert labels(spectrum(*head))[:2] == ([0, 1, 2, 3, 4, 5], False)
    found, cut, _ = labels(spectrum(*head), degeneracy_tol=0.015)
    assert (found, cut) == ([0, 0, 0, 1, 2, 3], True)
    head = [1, 1, 1 + 1e-9, 4, 5, 6, 6]
    assert labels(spectrum(*head))[:2] == ([0, 0, 0, 1, 2, 3], True)
    assert labels(spectrum(*head), degeneracy_tol=0)[:2] == ([0, 0, 1, 2, 3, 4], True)


def test_pairs_that_are_not_separated_are_not_divided():
    """Unconverged pairs are one cluster as far as their error bounds overlap."""
    pencil = spectra.pencil(spectrum(1, 1.1, 3, 4, 5, 6), seed=6)
    for noise in (1e-1, 1e-3, 1e-6):
        info = rough(pencil, 0, noise).info
        w = np.asarray(rough(pencil, 0, noise).eigenvalues)
        bounds, found = np.asarray(info.error_bounds), np.asarray(info.clusters)
        for i in range(K - 1):
            if bounds[i] + bounds[i + 1] >= w[i + 1] - w[i]:
                assert found[i] == found[i + 1]
        assert found[0] == 0
        assert set(np.diff(found)) <= {0, 1}


def test_the_gap_is_infinite_without_a_further_pair():
    info = partial_eigh(np.arange(1.0, 4.0), k=3).info
    assert np.isinf(info.gap)
    assert not info.cut


def test_largest():
    values = -spectrum(1, 1, 3, 4, 5, 6, 6)
    pencil = spectra.pencil(values, seed=7)
    info = partial_eigh(pencil.A, k=K, which="largest", method="dense").info
    assert [int(c) for c in info.clusters] == [0, 0, 1, 2, 3, 4]
    assert info.cut
    np.testing.assert_allclose(info.gap, 0.0, atol=1e-13)


# Multiples of 1/4 are exact, and many intervals touch.
QUARTERS = st.integers(-20, 20).map(lambda i: i / 4)
RADII = st.integers(0, 6).map(lambda i: i / 4) | st.just(np.inf)


@given(st.lists(st.tuples(QUARTERS, RADII), min_size=7, max_size=7))
def test_clusters_are_the_connected_unions_of_intervals(intervals):
    values, radii = np.array(intervals).T
    with np.errstate(invalid="ignore"):
        linked = np.abs(values[:, None] - values[None, :]) <= radii[:, None] + radii[None, :]
    _, components = scipy.sparse.csgraph.connected_components(linked, directed=False)
    _, first, inverse = np.unique(components, return_index=True, return_inverse=True)
    expected = np.argsort(np.argsort(first))[inverse]  # numbered as they first appear
    np.testing.assert_array_equal(jax.jit(cluster_labels)(values, radii), expected)
