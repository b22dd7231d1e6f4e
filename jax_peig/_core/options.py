"""What a caller may choose about derivatives, as one frozen value."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jax_peig._core.checks import check_positive
from jax_peig._core.types import OperatorLike

SOLVERS = ("auto", "semi_iteration", "cg", "minres", "gmres")
POLICIES = ("nan", "warn", "ignore")


@dataclasses.dataclass(frozen=True)
class Derivative:
    """How derivatives of eigenpairs are computed, and what an ill-posed one returns.

    Parameters
    ----------
    solver : {"auto", "semi_iteration", "cg", "minres", "gmres"} or callable
        The iterative method for the linear systems on the complement of the eigenvectors. "auto"
        is "cg" with a preconditioner; without one "semi_iteration", a semi-iteration without inner
        products on the interval that the forward solve knows, deflated by its guard vectors ("cg"
        after "davidson" with M); "minres" where those do not gain a digit a round, or after a
        "lobpcg" whose M is not resembled by its row sums; for
        ``method="dense"`` the full spectrum, which needs no iteration; for ``which="nearest"``
        "minres", on the shift-inverted systems where OPinv is given. "cg" and "gmres" are those of
        ``jax.scipy.sparse.linalg``. A callable
        ``solver(matvec, B) -> Z`` is given a positive definite product with blocks (n, k), another
        matrix for each column, and right-hand sides B (n, k) in the complement.
        The true residual is computed afresh, whatever the solver says.
    tol : float, optional
        Relative residual of the linear systems. Default: a tenth of the eigenvectors' error,
        residual over gap, but not below eps^(2/3) nor above 1e-3.
    max_steps : int, optional
        Bound on the steps of one solve. Default: 10,000.
    preconditioner : operator, optional
        As in `partial_eigh`, positive definite; default: that of the eigensolver. Its derivative
        is zero. With an array in it the value is not hashable, as the array is not; nothing in the
        package needs it to be.
    refine : bool
        Improve the eigenpairs, before they are returned and differentiated, by one step that costs
        k linear systems like those of a gradient: dX = -S(A X - M X diag(w)). Their error, and that
        of every derivative, is squared (relative to the gap): for a loose ``tol`` of the
        eigensolver, or where `derivative_report` finds the gradient too inaccurate.
    on_gauge : {"nan", "warn", "ignore"}
        What a gradient returns that depends on an arbitrary choice: of the vectors inside a
        cluster, of a complex vector's phase, of the part of a cluster that k cuts. "ignore" takes
        the choice of Kasim (2020), "warn" does so and warns on the host. A part of the cotangent
        counts above 10 sqrt(eps) of the whole, what rounding in a loss leaves, and in a cluster of
        some width above 100 width / max |w|, what a loss that varies with the eigenvalues adds.
    on_unconverged : {"nan", "warn", "ignore"}
        What derivatives return where the eigenpairs did not converge, or a linear system is more
        than ten times above its tolerance and above the rounding of its residual.

    Raises
    ------
    ValueError, TypeError
        For an unknown choice.

    Examples
    --------
    >>> from jax_peig import Derivative
    >>> Derivative(solver="minres", tol=1e-12).solver
    'minres'
    """

    solver: str | Callable[..., Any] = "auto"
    tol: float | None = None
    max_steps: int | None = None
    preconditioner: OperatorLike = None
    refine: bool = False
    on_gauge: str = "nan"
    on_unconverged: str = "nan"

    def __post_init__(self) -> None:
        if not (callable(self.solver) or self.solver in SOLVERS):
            raise ValueError(
                f"Derivative: unknown solver {self.solver!r}; expected one of {SOLVERS} or a "
                "callable solver(matvec, B) -> Z."
            )
        for name in ("on_gauge", "on_unconverged"):
            if getattr(self, name) not in POLICIES:
                raise ValueError(
                    f"Derivative: {name}={getattr(self, name)!r}; expected one of {POLICIES}."
                )
        if not isinstance(self.refine, bool):
            raise TypeError(f"Derivative: refine is {self.refine!r}; expected True or False.")
        check_positive("Derivative: tol", self.tol, float)
        check_positive("Derivative: max_steps", self.max_steps, int)
