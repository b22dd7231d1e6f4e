"""How derivatives are computed, as one frozen value that the caller may choose."""

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
        The solver of the linear systems on the complement of the eigenvectors. "semi_iteration" is
        Chebyshev's, without inner products, on the interval that the forward solve knows, deflated
        by its guard vectors. "cg" and "gmres" are those of ``jax.scipy.sparse.linalg``. A callable
        ``solver(matvec, B) -> Z`` is given a positive definite product with blocks (n, k), another
        matrix for each column, and right-hand sides B (n, k) in the complement. "auto" takes

        * the full spectrum after ``method="dense"``, which needs no iteration;
        * "cg" where a preconditioner is given, and after "davidson" with M;
        * "minres" for ``which="nearest"``, on the shift-inverted systems where OPinv is given;
        * "semi_iteration" else, and "minres" where it gains less than a digit a round, or where
          "lobpcg" found the row sums a poor approximation of M.

        The true residual is always computed afresh, whatever the solver reports.
    tol : float, optional
        Relative residual of the linear systems. Default: a tenth of the eigenvectors' error, which
        is residual over gap, but not below eps^(2/3) nor above 1e-3.
    max_steps : int, optional
        Bound on the steps of one solve. Default: 10,000.
    preconditioner : operator, optional
        As in `partial_eigh`, positive definite. Default: that of the eigensolver. Its derivative is
        zero. A value with an array in it is not hashable; nothing in the package needs it to be.
    refine : bool
        Improve the eigenpairs by one step, before they are returned and differentiated. The step
        dX = -S(A X - M X diag(w)) costs k linear systems like those of a gradient, and squares the
        error of the pairs and of every derivative, relative to the gap. It serves a loose ``tol``
        of the eigensolver, and a gradient that `derivative_report` finds too inaccurate.
    on_gauge : {"nan", "warn", "ignore"}
        What a gradient returns that depends on an arbitrary choice: of the vectors inside a
        cluster, of a complex vector's phase, of the part of a cluster that k cuts. "ignore" returns
        the number of one choice, that of Kasim (2020); "warn" does so and warns on the host. "nan"
        does not try to solve the systems of a cluster that k cuts, which are singular. A part of
        the cotangent counts as gauge-dependent above 10 sqrt(eps) of the whole, which rounding in a
        loss leaves, and in a cluster of some width above 100 width / max |w|, which a loss that
        varies with the eigenvalues adds.
    on_unconverged : {"nan", "warn", "ignore"}
        What derivatives return where the eigenpairs did not converge, or where the residual of a
        linear system is more than ten times its tolerance and above its own rounding.

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
        named = isinstance(self.solver, str) and self.solver in SOLVERS
        if not (named or callable(self.solver)):
            raise ValueError(
                f"Derivative: unknown solver {self.solver!r}; expected one of {SOLVERS} or a "
                "callable solver(matvec, B) -> Z."
            )
        for name in ("on_gauge", "on_unconverged"):
            policy = getattr(self, name)
            if not (isinstance(policy, str) and policy in POLICIES):
                raise ValueError(f"Derivative: {name}={policy!r}; expected one of {POLICIES}.")
        if not isinstance(self.refine, bool):
            raise TypeError(f"Derivative: refine is {self.refine!r}; expected True or False.")
        check_positive("Derivative: tol", self.tol, float)
        check_positive("Derivative: max_steps", self.max_steps, int)
