"""Vectors of any shape at the front door: arguments become flat, and results get their shape back.

Functions of one vector, `BlockProduct` and objects with ``.mv`` see vectors of the caller's shape.
What multiplies by ``@``, matrices and the preconditioners of the package, multiplies flat ones.
"""

import dataclasses
from typing import Any, NamedTuple, Self, cast

import jax

from jax_peig._api.keywords import EighOptions
from jax_peig._core.checks import is_array
from jax_peig._core.options import Derivative
from jax_peig._core.results import PartialEigh
from jax_peig._core.types import Array, OperatorLike, PyTree
from jax_peig._core.vectors import VectorShape, check_example, outline
from jax_peig._operators.given import BlockProduct, is_opaque, kind_of_operator
from jax_peig._operators.operator import Operator

HELPERS = ("preconditioner", "M_solve", "OPinv")


class Flat(NamedTuple):
    """A call's arguments for flat vectors."""

    shape: VectorShape | None  # None where the caller's vectors are flat
    A: OperatorLike
    M: OperatorLike
    options: EighOptions

    @property
    def grid(self) -> tuple[int, ...] | None:
        """The shape of a vector that is one array of several axes."""
        return None if self.shape is None else self.shape.grid


def flattened(caller: str, A: OperatorLike, M: OperatorLike, options: EighOptions) -> Flat:
    """Find the shape of the caller's vectors in ``like`` or ``v0``, and make it flat.

    Raises
    ------
    TypeError, ValueError
        Where ``like`` is no vector, or v0 has another shape.
    """
    like, v0 = options.get("like"), options.get("v0")
    if like is None:
        leaves = [] if v0 is None or is_array(v0) else jax.tree.leaves(v0)
        if not leaves or not all(map(is_array, leaves)):
            return Flat(None, A, M, options)
        like, name = v0, "v0"
    else:
        name = "like"
    dtype = check_example(like, f"{caller}: {name}")
    shape = VectorShape.of(like)
    made: dict[str, Any] = dict(options)
    made["like"] = jax.ShapeDtypeStruct((shape.n,), dtype)
    if shape.is_flat:
        return Flat(None, A, M, cast(EighOptions, made))
    if v0 is not None:
        made["v0"] = _guess(caller, shape, v0)

    def flat(x: OperatorLike, name: str) -> OperatorLike:
        return flat_operator(x, f"{caller}: {name}", shape)

    made.update({name: flat(made[name], name) for name in HELPERS if name in made})
    derivative = made.get("derivative")
    if isinstance(derivative, Derivative):
        inner = flat(derivative.preconditioner, "Derivative.preconditioner")
        made["derivative"] = dataclasses.replace(derivative, preconditioner=inner)
    return Flat(shape, flat(A, "A"), flat(M, "M"), cast(EighOptions, made))


def _guess(caller: str, shape: VectorShape, v0: PyTree) -> Array:
    if shape.columns(v0) is None:
        raise ValueError(
            f"{caller}: v0 has the structure {outline(v0)}; expected that of like, {shape}, or "
            "each leaf with one more axis, the last, for several vectors."
        )
    check_example(v0, f"{caller}: v0")
    return shape.ravel(v0)


def flat_operator(x: OperatorLike, name: str, shape: VectorShape) -> OperatorLike:
    """The operator on flat vectors of one on vectors of ``shape``."""
    if x is None or isinstance(x, Operator):
        return x
    kind = kind_of_operator(x, name)
    if kind in ("array", "matmul"):
        return x
    function = x.function if kind == "block" else x
    product: Any = _FlatProduct(function, kind == "mv", shape)
    if is_opaque(function):  # its leaves are not all that it depends on
        product = product.__call__
    return BlockProduct(product) if kind == "block" else product


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class _FlatProduct:
    """A product with vectors of a shape, as one with flat vectors."""

    function: Any
    is_mv: bool
    shape: VectorShape

    def __call__(self, flat: Array) -> Array:
        function = self.function.mv if self.is_mv else self.function
        return self.shape.ravel(function(self.shape.unravel(flat)))

    def tree_flatten(self) -> tuple[tuple[Any], tuple[bool, VectorShape]]:
        return (self.function,), (self.is_mv, self.shape)

    @classmethod
    def tree_unflatten(cls, static: tuple[bool, VectorShape], children: tuple[Any]) -> Self:
        return cls(children[0], *static)


def shaped(result: PartialEigh, shape: VectorShape | None) -> PartialEigh:
    """The result with vectors of the caller's shape, each leaf with a last axis k."""
    if shape is None:
        return result
    first, x, info = result
    if info.MX is not None:
        info = dataclasses.replace(info, MX=shape.unravel(info.MX))
    return PartialEigh(first, shape.unravel(x), info)
