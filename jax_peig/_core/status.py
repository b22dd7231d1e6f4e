"""How a computation ended: a status with its advice, and which of several is the worst."""

import enum
from collections.abc import Iterable

import numpy as np


class Status(enum.IntEnum):
    """How a computation ended; `Info.status` holds the number, `Info.message` the text.

    The numbers say nothing of how bad a status is: ask `severity`, or `worst_of`.
    """

    CONVERGED = 0
    MAX_STEPS = 1
    STAGNATED = 2
    NOT_FINITE = 3
    M_NOT_POSITIVE_DEFINITE = 4
    A_NOT_HERMITIAN = 5
    M_NOT_HERMITIAN = 6
    PRECONDITIONER_NOT_POSITIVE_DEFINITE = 7
    K_TOO_SMALL = 8
    NOT_SHOWN_COMPLETE = 9
    A_NOT_LINEAR = 10
    M_NOT_LINEAR = 11

    @property
    def text(self) -> str:
        """What happened and what to do."""
        return _TEXTS[self]

    @property
    def severity(self) -> int:
        """The place in the order from the best to the worst."""
        return _BY_SEVERITY.index(self)

    @property
    def has_pairs(self) -> bool:
        """Whether there are pairs to return, converged or not."""
        return self in WITH_PAIRS

    @classmethod
    def worst_of(cls, numbers: Iterable[int]) -> "Status":
        """Return the worst of several."""
        return max((cls(int(number)) for number in numbers), key=lambda status: status.severity)


_TEXTS = {
    Status.CONVERGED: "all k pairs converged",
    Status.NOT_SHOWN_COMPLETE: (
        "all k pairs reached the tolerance, but it could not be shown that no other pair is "
        "missing among them: raise max_steps, or ask for a k that does not cut a cluster"
    ),
    Status.K_TOO_SMALL: "not every singular value above the threshold is among the k: raise k",
    Status.MAX_STEPS: (
        "some pairs did not reach the tolerance within max_steps: raise max_steps, loosen tol, "
        "give a preconditioner (multigrid for elliptic problems), or try another method "
        "(ShiftInvert for matrices that are stiff)"
    ),
    Status.STAGNATED: (
        "the residuals stopped falling above the tolerance, at the rounding of the products: "
        "loosen tol or work in float64; matrices that are stiff are for ShiftInvert"
    ),
    Status.PRECONDITIONER_NOT_POSITIVE_DEFINITE: (
        "some pairs did not reach the tolerance, and the preconditioner, M_solve or OPinv is not "
        "linear, or the preconditioner or M_solve not Hermitian positive definite: check its sign, "
        "that it is symmetric, and the tolerance of an iterative solver in it"
    ),
    Status.M_NOT_POSITIVE_DEFINITE: (
        "M is not positive definite: check its sign, and remove degrees of freedom without mass"
    ),
    Status.M_NOT_HERMITIAN: (
        "M is not Hermitian (info.hermiticity_error_M): check signs and conjugation of its product"
    ),
    Status.A_NOT_HERMITIAN: (
        "A is not Hermitian (info.hermiticity_error): check signs, conjugation and boundary terms "
        "of its product"
    ),
    Status.M_NOT_LINEAR: (
        "the product with M is not linear (info.linearity_error_M): M (a x + b y) is not "
        "a M x + b M y; remove constant terms, conj, real and abs from it"
    ),
    Status.A_NOT_LINEAR: (
        "the product with A is not linear (info.linearity_error): A (a x + b y) is not "
        "a A x + b A y; remove constant terms, conj, real and abs from it, and give a nonlinear "
        "function's Jacobian product by jax.jvp"
    ),
    Status.NOT_FINITE: "a product gave NaN or inf: check A, M and the preconditioner",
}
_BY_SEVERITY = tuple(_TEXTS)
WITH_PAIRS = _BY_SEVERITY[: _BY_SEVERITY.index(Status.M_NOT_POSITIVE_DEFINITE)]


def worst_member(status: np.ndarray) -> tuple[int, ...]:
    """The index of the first member of a batch with the worst status."""
    severity = np.array([Status(int(number)).severity for number in status.reshape(-1)])
    where = np.unravel_index(np.argmax(severity), status.shape)
    return tuple(int(i) for i in where)
