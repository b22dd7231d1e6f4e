"""The keyword arguments that functions pass on, shown to editors, type checkers and ``help``."""

import inspect
from collections.abc import Callable
from typing import TypedDict, TypeVar

from jax_peig._core.options import Derivative
from jax_peig._core.types import Array, ArrayLike, DTypeLike, OperatorLike, PyTree
from jax_peig._problem.problem import Method

F = TypeVar("F", bound=Callable)


class SVDOptions(TypedDict, total=False):
    """Those keyword arguments of `partial_eigh` that make sense for singular values too."""

    method: str | Method
    tol: float | None
    tol_relative_to: str
    max_steps: int | None
    degeneracy_tol: float | None
    derivative: Derivative | None
    key: Array | None
    history: bool
    progress: bool


class EighOptions(SVDOptions, total=False):
    """All keyword arguments of `partial_eigh`."""

    which: str | None
    sigma: ArrayLike | float | None
    n: int | None
    dtype: DTypeLike
    v0: ArrayLike | PyTree | None
    like: PyTree | None
    preconditioner: OperatorLike
    M_solve: OperatorLike
    OPinv: OperatorLike


def check_known(caller: str, options: SVDOptions, allowed: type, whose: str) -> None:
    """Raise TypeError for an option that is not ``allowed``, a TypedDict of the function ``whose``.

    Unpack is for type checkers: at run time any keyword comes through.
    """
    known = allowed.__annotations__
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TypeError(
            f"{caller}: unknown option {unknown[0]!r}; expected options of {whose}: "
            f"{', '.join(known)}."
        )


def passes_on(options: type, like: Callable) -> Callable[[F], F]:
    """Show the keyword arguments ``options``, of the function ``like``, in a signature.

    They stand in the place of ``**options``, with the defaults that they have there.
    """

    def decorate(function: F) -> F:
        own = inspect.signature(function)
        shared = inspect.signature(like).parameters
        kept = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        names = [p.name for p in kept]
        passed = [
            shared[name] for name in shared if name in options.__annotations__ and name not in names
        ]
        function.__signature__ = own.replace(parameters=[*kept, *passed])  # type: ignore[attr-defined]
        return function

    return decorate
