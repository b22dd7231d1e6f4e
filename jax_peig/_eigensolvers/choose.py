"""From what a caller says about the method to a method value, and why it is that one.

This is the only place that knows the eigensolvers' names.
"""

from typing import Any

from jax_peig._eigensolvers.chebyshev import Chebyshev
from jax_peig._eigensolvers.davidson import Davidson
from jax_peig._eigensolvers.dense import Dense
from jax_peig._eigensolvers.lobpcg import LOBPCG
from jax_peig._eigensolvers.shift_invert import ShiftInvert
from jax_peig._problem.problem import Method, Structure

# A new method has one line here.
METHODS: dict[str, type[Method]] = {
    "dense": Dense,
    "chebyshev": Chebyshev,
    "lobpcg": LOBPCG,
    "davidson": Davidson,
    "shift_invert": ShiftInvert,
}
NAMES = ("auto", *METHODS)
# Up to this order LAPACK is faster than an iteration, and leaves nothing to converge.
DENSE_ORDER = 500


def method_of(value: Any, caller: str) -> Method | None:
    """The method that a caller's ``method=`` stands for; None for "auto".

    Raises
    ------
    TypeError, ValueError
        For an unknown name, or what is neither a name nor a method value.
    """
    if isinstance(value, Method):
        return value
    if isinstance(value, type) and issubclass(value, Method):
        raise TypeError(
            f"{caller}: method is the class {value.__name__}; expected a value. "
            f"Write method={value.__name__}()."
        )
    if not isinstance(value, str) or value not in NAMES:
        values = ", ".join(f"{kind.__name__}()" for kind in METHODS.values())
        kind = ValueError if isinstance(value, str) else TypeError
        raise kind(f"{caller}: method={value!r}; expected one of {NAMES}, or of {values}.")
    return None if value == "auto" else METHODS[value]()


def choose(structure: Structure) -> tuple[Method, str]:
    """The method for "auto" and its reason."""
    n, k = structure.n, structure.k
    if n <= DENSE_ORDER:
        return Dense(), f"n = {n} is at most {DENSE_ORDER}"
    if 5 * k > n:
        return Dense(), f"k = {k} is more than a fifth of n = {n}"
    if structure.interior:
        return _choose_interior(structure)
    if structure.preconditioner:
        return LOBPCG(), "a preconditioner is given"
    if structure.stiff:
        return ShiftInvert(), "known entries that are stiff (jit may choose otherwise)"
    if structure.mass == "identity":
        return Chebyshev(), "M is the identity, no preconditioner"
    if structure.m_solve:
        return Chebyshev(), "M_solve is given, no preconditioner"
    if structure.mass == "diagonal":
        return Chebyshev(), "M is diagonal, no preconditioner"
    return LOBPCG(), "M is not diagonal, and there is no M_solve"


def _choose_interior(structure: Structure) -> tuple[Method, str]:
    if structure.op_inv:
        return ShiftInvert(), "interior eigenvalues, OPinv"
    if structure.entries:
        return ShiftInvert(), "interior eigenvalues of matrices, which can be factorised"
    return Chebyshev(), "interior eigenvalues, no OPinv, operators known by their products"


def resolve(value: Any, structure: Structure, caller: str) -> tuple[Method, str]:
    """The method that runs, checked against the problem, and the reason.

    Raises
    ------
    TypeError, ValueError
        For an unknown method, and for one that cannot do what is asked.
    """
    asked = method_of(value, caller)
    method, reason = choose(structure) if asked is None else (asked, "asked for")
    why_not = method.unsuited(structure)
    if why_not is not None:
        raise ValueError(f"{caller}: method {method.name!r} {why_not}")
    successor = LOBPCG(method.steps)
    if (
        isinstance(method, Chebyshev)
        and structure.guess
        and structure.mass != "identity"
        and not structure.interior
        and successor.unsuited(structure) is None
    ):
        return successor, f"{reason}; LOBPCG starts from v0 where there is an M"
    return method, reason
