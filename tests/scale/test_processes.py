"""Several processes are one: equal eigenpairs and gradients; and none outlives another's death."""

import numpy as np
import pytest

from tests.scale.processes import GRACE, TOL, deaths, results, start

SIDE = 64
HEARTBEAT = 10


@pytest.fixture(scope="module")
def alone():
    return results(start(1, SIDE, HEARTBEAT), timeout=300)[0]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_the_results_of_one_process(alone, count):
    """In every process. The well is deeper than the pairs' tolerance by eight digits."""
    for found in results(start(count, SIDE, HEARTBEAT), timeout=400):
        assert found["status"] == alone["status"] == 0
        np.testing.assert_allclose(found["eigenvalues"], alone["eigenvalues"], rtol=TOL)
        np.testing.assert_allclose(found["loss"], alone["loss"], rtol=TOL)
        size = np.max(np.abs(alone["gradient"]))
        np.testing.assert_allclose(found["gradient"], alone["gradient"], atol=1e-6 * size)


@pytest.mark.slow
@pytest.mark.parametrize("dies", [0, 1])
def test_a_death_ends_the_others(dies):
    """With an error, and within the heartbeat; the first process is the coordinator."""
    codes, waited = deaths(start(2, SIDE, HEARTBEAT, dies), dies, HEARTBEAT + GRACE)
    assert all(code != 0 for code in codes)
    assert waited <= HEARTBEAT + GRACE
