"""`Info` in a batch, under jit and on the host."""

import jax
import numpy as np
import pytest

from jax_peig import Info, PartialEighError, Status, partial_eigh
from tests.support import spectra
from tests.support.small_pencils import GOOD, METHODS, K, changed


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_batch_keeps_its_problems_apart(method):
    """Good, NaN, indefinite and a slow one: each has its own account."""
    a = np.stack([GOOD.A, changed(GOOD.A, (1, 2), np.nan), GOOD.A, 3 * GOOD.A])
    m = np.stack([GOOD.M, GOOD.M, -GOOD.M, GOOD.M])
    result = spectra.batched(K, method)(a, m)
    status = [Status(int(s)) for s in result.info.status]
    assert status == [
        Status.CONVERGED,
        Status.NOT_FINITE,
        Status.M_NOT_POSITIVE_DEFINITE,
        Status.CONVERGED,
    ]
    w = np.asarray(result.eigenvalues)
    np.testing.assert_allclose(w[0], GOOD.values[:K], rtol=1e-11)
    np.testing.assert_allclose(w[3], 3 * GOOD.values[:K], rtol=1e-11)
    assert np.all(np.isnan(w[1:3]))
    assert list(result.info.converged) == [K, 0, 0, K]
    assert result.info.message == Status.NOT_FINITE.text  # the worst of the four
    with pytest.raises(PartialEighError, match="2 of 4 problems failed"):
        result.info.raise_if_failed()
    # Every field has the batch's axis in front.
    assert all(leaf.shape[0] == 4 for leaf in jax.tree.leaves(result.info))
    # A batch without failures says so.
    jax.tree.map(lambda leaf: leaf[np.array([0, 3])], result.info).raise_if_failed()


@pytest.mark.parametrize("use", ["raise_if_failed()", "message"])
def test_the_host_is_needed_for_words(use):
    def ask(a):
        info = partial_eigh(a, k=K, method="dense").info
        return info.raise_if_failed() if use == "raise_if_failed()" else info.message

    with pytest.raises(TypeError) as caught:
        jax.jit(ask)(GOOD.A)
    for word in (f"Info.{use}", "under a JAX transformation", "info.status"):
        assert word in str(caught.value)


def test_info_passes_through_jit():
    eager = partial_eigh(GOOD.A, GOOD.M, K, method="dense").info
    info = spectra.jitted(K, "dense")(GOOD.A, GOOD.M).info
    assert isinstance(info, Info)
    for name in ("converged", "steps", "matvecs", "matvecs_M", "status", "clusters", "cut"):
        np.testing.assert_array_equal(getattr(info, name), getattr(eager, name))
    for name in ("gap", "error_bounds", "MX"):
        np.testing.assert_allclose(
            np.abs(getattr(info, name)), np.abs(getattr(eager, name)), rtol=1e-6, atol=1e-11
        )
    np.testing.assert_allclose(eager.MX, GOOD.M @ partial_eigh(
        GOOD.A, GOOD.M, K, method="dense").eigenvectors, atol=1e-12)  # fmt: skip


def test_every_status_has_a_text():
    texts = [status.text for status in Status]
    assert all(texts)
    assert len(set(texts)) == len(Status)
