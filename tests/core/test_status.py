"""The statuses: each has one text, and their order from the best to the worst is explicit."""

import itertools

import numpy as np

from jax_peig import Status
from jax_peig._core.status import worst_member


def test_every_status_has_its_own_advice():
    texts = [status.text for status in Status]
    assert len(set(texts)) == len(Status)
    assert all(": " in text for text in texts[1:])  # what happened: what to do


def test_the_order_is_one_of_all():
    assert sorted(status.severity for status in Status) == list(range(len(Status)))
    assert Status.CONVERGED.severity == 0


def test_what_is_worse_than_what():
    """Accurate before inaccurate before ill-posed before NaN, whatever the numbers are."""
    order = (
        Status.CONVERGED,
        Status.NOT_SHOWN_COMPLETE,
        Status.MAX_STEPS,
        Status.STAGNATED,
        Status.M_NOT_POSITIVE_DEFINITE,
        Status.A_NOT_HERMITIAN,
        Status.A_NOT_LINEAR,
        Status.NOT_FINITE,
    )
    for better, worse in itertools.pairwise(order):
        assert better.severity < worse.severity
        assert Status.worst_of([worse, better, Status.CONVERGED]) == worse


def test_pairs_are_returned_where_the_problem_is_one():
    ill_posed = {status for status in Status if not status.has_pairs}
    assert ill_posed == {
        Status.NOT_FINITE,
        Status.M_NOT_POSITIVE_DEFINITE,
        Status.A_NOT_HERMITIAN,
        Status.M_NOT_HERMITIAN,
        Status.A_NOT_LINEAR,
        Status.M_NOT_LINEAR,
    }


def test_the_worst_member():
    status = np.array([[0, int(Status.MAX_STEPS)], [int(Status.NOT_SHOWN_COMPLETE), 0]])
    assert worst_member(status) == (0, 1)
    assert worst_member(np.array(3)) == ()
