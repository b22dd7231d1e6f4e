"""What the solvers return: eigenpairs, and how good they are."""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from jax_peig._core import display
from jax_peig._core.status import Status, worst_member
from jax_peig._core.types import Array


class PartialEighError(RuntimeError):
    """Raised on the host by `Info.raise_if_failed`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Info:
    """How good the computed pairs are. Under ``vmap`` every field has the batch's axes in front.

    Attributes
    ----------
    converged : int
        How many of the k pairs reached the tolerance.
    residual_norms : (k,) real
        ||A x - lam M x||_2, computed afresh from the returned pairs.
    error_bounds : (k,) real
        An eigenvalue lies within this distance of each computed one: ||A x - lam M x|| in the
        M^{-1} norm over ||x||_M, plus the rounding of that residual. With a factorisation of its
        own, "shift_invert" gives |lam - pole| d / (1 - d), where d is
        ||(A - pole M)^{-1} (A x - lam M x)||_M over ||x||_M, plus ||A x - lam M x|| ||x||, which
        stands for the error of the solves.
    error_estimates : (k,) real
        How far each computed eigenvalue most likely is from the exact one (Kato-Temple). It is of
        second order in the residual, with the gap that the guard vectors show, and it is no bound:
        its median is 4 times the true error, see ``tests/benchmarks/bounds.py``.
    rounding : (k,) real
        eps (||A|| + |lam| ||M||) ||x||. No iteration brings a residual norm below about ten times
        this: what is left there is rounding.
    steps : int
        Iterations.
    matvecs, matvecs_M : int
        Products of A and of M with one vector each.
    status : int
        A `Status`; ``message`` is its text.
    clusters : (k,) int
        Pairs with the same label are one cluster: their eigenvalues cannot be told apart.
    gap : real
        Distance of the k eigenvalues to the others as computed; inf where k = n.
    cut : bool
        Whether k cuts a cluster: then span(X) is not unique and has no derivative.
    hermiticity_error, hermiticity_error_M : real
        ||A - A^H|| / ||A||, estimated by a random probe; exact for an array, as it was given.
    linearity_error, linearity_error_M : real
        ||A (a x + b y) - a A x - b A y|| over ||A||, estimated by a random probe; 0 for an array.
    preconditioner_definite : bool
        False where a random probe showed that the preconditioner, or M_solve, is not linear,
        Hermitian and positive definite. The residuals decide whether the pairs are good all the
        same.
    linearity_error_helpers : real
        The largest linearity error of the preconditioner, M_solve and OPinv; 0 without them. That
        of an iterative solver is of the size of its tolerance. It is told, and the residuals
        decide.
    solves : int
        Solves with A - pole M of one vector each; 0 without.
    pole : real
        The shift of these solves: sigma, or a number below it where A - sigma M is singular. NaN
        without.
    inertia : int
        With ``ShiftInvert(inertia=True)``: how many eigenvalues there are up to the k-th, with it,
        by Sylvester's law. k is a proof that none is missing; another number says that some are,
        and ``status`` too. -1 where it is not known: without the option, where k cuts a cluster,
        and where SuperLU had to take pivots by rows.
    MX : as the eigenvectors, or None
        M X; None without M. `project_gauge` needs it.
    history : (max_steps + 1, k) real or None
        With ``history=True``: relative residuals before the first step and after every step, in the
        order of the pairs at that step; NaN after the end of the iteration. None otherwise.
    method, reason : str
        The eigensolver that ran, and why it was chosen.
    """

    converged: Array
    residual_norms: Array
    error_bounds: Array
    error_estimates: Array
    rounding: Array
    steps: Array
    matvecs: Array
    matvecs_M: Array
    status: Array
    clusters: Array
    gap: Array
    cut: Array
    hermiticity_error: Array
    hermiticity_error_M: Array
    linearity_error: Array
    linearity_error_M: Array
    preconditioner_definite: Array
    linearity_error_helpers: Array
    solves: Array
    pole: Array
    inertia: Array
    MX: Array | None
    history: Array | None
    method: str = dataclasses.field(metadata={"static": True})
    reason: str = dataclasses.field(metadata={"static": True})

    @property
    def message(self) -> str:
        """The status in words, the worst of a batch; outside ``jit`` only."""
        return Status.worst_of(np.atleast_1d(_on_host(self.status, "message"))).text

    def __repr__(self) -> str:
        return display.account(self)

    def raise_if_failed(self) -> None:
        """Raise `PartialEighError` with what happened and what to do; outside ``jit`` only.

        Raises
        ------
        PartialEighError
            Where any pair did not converge or the problem is not a Hermitian one.
        """
        status = np.atleast_1d(_on_host(self.status, "raise_if_failed()"))
        failed = status != Status.CONVERGED
        if not np.any(failed):
            return
        worst = Status(int(status[worst_member(status)]))
        k = self.residual_norms.shape[-1]
        fewest = int(np.min(np.asarray(self.converged)))
        where = f"{int(failed.sum())} of {status.size} problems failed; " if status.size > 1 else ""
        raise PartialEighError(
            f"{where}{worst.name}: {worst.text}. "
            f"(converged: {fewest} of {k}; largest residual norm "
            f"{np.max(np.asarray(self.residual_norms)):.3g}; steps: "
            f"{int(np.max(np.asarray(self.steps)))}; hermiticity error "
            f"{np.max(np.asarray(self.hermiticity_error)):.3g})"
        )


def _on_host(x: Any, what: str) -> np.ndarray:
    if isinstance(x, jax.core.Tracer):
        raise TypeError(
            f"Info.{what} was used under a JAX transformation, where values are not known. Use it "
            "on the result of the transformed function, or test info.status inside."
        )
    return np.asarray(x)


class Eigenspace(NamedTuple):
    """The space of k eigenvectors, ``A X = M X R``, ``X^H M X = I``, as `eigenspace` returns it.

    Attributes
    ----------
    rayleigh : (k, k)
        R = X^H A X, Hermitian, of the dtype of the basis.
    basis : (n, k), or as ``like`` with a last axis k
        X, one of many M-orthonormal bases: X Q with Q^H R Q is as good for every unitary Q.
    info : Info
        How good the pairs are that span the space.
    """

    rayleigh: Array
    basis: Array
    info: Info

    def __repr__(self) -> str:
        return display.result(self, "Rayleigh quotient", self.rayleigh)


class PartialEigh(NamedTuple):
    """Eigenpairs of ``A X = M X diag(w)``, ``X^H M X = I``.

    Attributes
    ----------
    eigenvalues : (k,) real
        Ascending for the smallest, descending for the largest, by distance for the nearest.
    eigenvectors : (n, k), or as ``like`` with a last axis k
        One M-normalised eigenvector a column.
    info : Info
        How good they are.
    """

    eigenvalues: Array
    eigenvectors: Array
    info: Info

    def __repr__(self) -> str:
        return display.result(self, "eigenvalue", self.eigenvalues)


class PartialSVD(NamedTuple):
    """The k largest singular triplets, ``A V = U diag(s)``, ``A^H U = V diag(s)``.

    Attributes
    ----------
    U : (m, k)
        Left singular vectors, orthonormal columns.
    s : (k,) real
        Singular values, descending.
    Vh : (k, n)
        Right singular vectors, conjugated: orthonormal rows.
    info : Info
        How good the pairs (s, [u; v]/sqrt(2)) of [[0, A], [A^H, 0]] are.
    """

    U: Array
    s: Array
    Vh: Array
    info: Info

    def __repr__(self) -> str:
        return display.result(self, "singular value", self.s)


class SingularSpace(NamedTuple):
    """The space of the k largest singular triplets, as `singular_space` returns it.

    Attributes
    ----------
    left : (m, k)
        U, orthonormal columns.
    core : (k, k)
        S = U^H A V, Hermitian; diagonal in value, the singular values in descending order.
    right : (n, k)
        V, orthonormal columns. The three belong together: U Q, Q^H S Q, V Q is as good for every
        unitary Q.
    info : Info
        As in `PartialSVD`; ``cut`` says that the space has no derivative.
    """

    left: Array
    core: Array
    right: Array
    info: Info

    def __repr__(self) -> str:
        return display.result(self, "singular value", self.core)
