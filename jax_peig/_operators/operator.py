"""The front door: whatever a caller may give as A, M or a preconditioner, as one `Operator`.

An `Operator` is a pytree. Its leaves are the arrays that the product depends on. Its static part
says how to multiply and is hashable by value, so that a second call with other values compiles
nothing. A plain function is traced. What it closes over, traced parameters included, is hoisted
into leaves; what it does with that is a `Program`, the same one for all functions that do the same.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jax_peig._core.checks import TRACING_ERRORS, failure, is_array
from jax_peig._core.types import Array, Block, DTypeLike, OperatorLike
from jax_peig._operators.given import Given, classify, is_opaque, multiply, order_and_dtype
from jax_peig._operators.program import Program, program_of

Leaves = tuple[Any, ...]


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class Operator:
    """A linear operator on blocks of vectors.

    Attributes
    ----------
    product : callable
        ``product(leaves, V) -> A V`` for V (n, b); hashable by value.
    leaves : tuple of arrays
        The arrays that the product depends on, differentiable where they are inexact.
    n : int
        The order.
    """

    product: Callable[[Leaves, Block], Block]
    leaves: Leaves
    n: int

    def __call__(self, block: Block) -> Block:
        """A V, V of shape (n, b)."""
        return self.product(self.leaves, block)

    def tree_flatten(self) -> tuple[Leaves, tuple[Any, int]]:
        return self.leaves, (self.product, self.n)

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, int], leaves: Leaves) -> Self:
        product, n = static
        return cls(product, tuple(leaves), n)


# -- ways to multiply -----------------------------------------------------------------------------
# Frozen dataclasses compare by value, so that equal ones share compiled programs.


@dataclasses.dataclass(frozen=True)
class MatrixProduct:
    """A dense matrix (n, n), or the diagonal (n,) of a diagonal one.

    ``given_as`` is the dtype in which a caller gave the matrix. It is None once `hermitian_part`
    has replaced the matrix by its Hermitian part.
    """

    given_as: str | None

    def __call__(self, leaves: Leaves, block: Block) -> Block:
        (matrix,) = leaves
        return matrix[:, None] * block if matrix.ndim == 1 else matrix @ block


@dataclasses.dataclass(frozen=True)
class _TreeProduct:
    """A pytree operator; ``static`` holds its leaves that are no arrays, with their positions."""

    treedef: Any
    static: tuple[tuple[int, Any], ...]
    kind: str  # see `Given`

    def __call__(self, leaves: Leaves, block: Block) -> Block:
        return multiply(self.given(leaves), self.kind, block)

    def given(self, leaves: Leaves) -> Any:
        """What the caller gave."""
        full = list(leaves)
        for position, leaf in self.static:
            full.insert(position, leaf)
        return jax.tree_util.tree_unflatten(self.treedef, full)


@dataclasses.dataclass(frozen=True)
class _TracedVector:
    """A traced function of one vector."""

    program: Program

    def __call__(self, leaves: Leaves, block: Block) -> Block:
        return jax.vmap(lambda v: self.program(leaves, v)[0], in_axes=1, out_axes=1)(block)


@dataclasses.dataclass(frozen=True)
class _TracedBlock:
    """A function of a block, traced for some widths.

    ``traces`` holds the width, the program and the number of its leaves, from the narrowest to the
    widest. The leaves are those of all programs in this order. A block of another width is padded
    to the next traced width, or cut into several blocks of the widest.
    """

    traces: tuple[tuple[int, Program, int], ...]

    def __call__(self, leaves: Leaves, block: Block) -> Block:
        width = block.shape[1]
        widest = len(self.traces) - 1
        chosen = next((i for i, t in enumerate(self.traces) if t[0] >= width), widest)
        traced_width, program, count = self.traces[chosen]
        start = sum(t[2] for t in self.traces[:chosen])
        own = leaves[start : start + count]
        parts = []
        for first in range(0, width, traced_width):
            part = block[:, first : first + traced_width]
            missing = traced_width - part.shape[1]
            padded = jnp.pad(part, ((0, 0), (0, missing))) if missing else part
            (product,) = program(own, padded)
            parts.append(product[:, : part.shape[1]])
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)


# -- from what a caller gives to an Operator ------------------------------------------------------


def as_operator(
    x: OperatorLike,
    n: int,
    dtype: DTypeLike,
    name: str,
    *,
    widths: tuple[int, ...] = (1,),
) -> Operator:
    """Make an `Operator` of order ``n`` from whatever a caller gave.

    Parameters
    ----------
    x : as in `classify`, or an Operator
        An array is (n, n), or (n,) for a diagonal.
    n, dtype
        The order, and the dtype of the vectors.
    name : str
        The caller's name for it, for error texts.
    widths : tuple of int
        The widths of most blocks that it will multiply. A plain function of a block is traced for
        these.

    Raises
    ------
    TypeError, ValueError
        What was given, what is expected, what to do.
    """
    if isinstance(x, Operator):
        return x
    order_and_dtype(x, name)
    given = classify(x, name)
    if given.kind == "array":
        return _from_array(given.operator, n, dtype, name)
    made = _from_pytree(given, n, dtype, name)
    if made is not None:
        return made
    if given.kind in ("vector", "mv"):
        return _from_vector_function(given, n, dtype, name)
    return _from_block_function(given, n, dtype, name, widths)


def _from_array(x: Any, n: int, dtype: DTypeLike, name: str) -> Operator:
    order, own = order_and_dtype(x, name)
    if order != n:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; expected order n = {n}, as A has.")
    if np.promote_types(own, dtype) != dtype:
        raise TypeError(
            f"{name} has dtype {own}, the vectors have {np.dtype(dtype)}; expected a matrix that "
            f"keeps the vectors' dtype. Give dtype={np.promote_types(own, dtype)}."
        )
    return Operator(MatrixProduct(own.name), (jnp.asarray(x).astype(dtype),), n)


def _from_pytree(given: Given, n: int, dtype: DTypeLike, name: str) -> Operator | None:
    """The operator with the leaves of a caller's pytree; None where it depends on more."""
    if is_opaque(given.operator):
        return None
    leaves, treedef = jax.tree_util.tree_flatten(given.operator)
    arrays = tuple(jnp.asarray(v) for v in leaves if _is_numeric(v))
    static = tuple((i, v) for i, v in enumerate(leaves) if not _is_numeric(v))
    product = _TreeProduct(treedef, static, given.kind)
    if not _is_hashable(product):
        return None
    closed = _trace(product, arrays, (n, 1), dtype, name)
    if any(isinstance(c, jax.core.Tracer) for c in closed.consts):
        return None
    return Operator(product, arrays, n)


def _from_vector_function(given: Given, n: int, dtype: DTypeLike, name: str) -> Operator:
    """A function of one vector, with all that it depends on hoisted into leaves."""
    function = given.operator.mv if given.kind == "mv" else given.operator
    program, leaves = program_of(_trace(lambda _, v: function(v), (), (n,), dtype, name))
    return Operator(_TracedVector(program), leaves, n)


def _from_block_function(
    given: Given, n: int, dtype: DTypeLike, name: str, widths: tuple[int, ...]
) -> Operator:
    """A function of a block, traced for the widths, with all that it depends on hoisted."""
    traces: list[tuple[int, Program, int]] = []
    leaves: list[Any] = []
    for width in sorted(set(widths)):
        closed = _trace(
            lambda _, v: multiply(given.operator, given.kind, v), (), (n, width), dtype, name
        )
        program, own = program_of(closed)
        traces.append((width, program, len(own)))
        leaves.extend(own)
    return Operator(_TracedBlock(tuple(traces)), tuple(leaves), n)


def _trace(
    product: Callable[..., Array],
    leaves: Leaves,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    name: str,
) -> Any:
    """Trace ``product(leaves, v)``, check its result, and return the closed jaxpr."""
    vector = jax.ShapeDtypeStruct(shape, dtype)
    given = f"{name} applied to a {'vector' if len(shape) == 1 else 'block'} {shape}"
    try:
        closed = jax.make_jaxpr(product)(leaves, vector)
    except TRACING_ERRORS as error:
        advice = (
            f"Expected a product with order n = {shape[0]}; check n, dtype and the shapes inside "
            "the product."
        )
        raise ValueError(
            f"{given} of {np.dtype(dtype)} failed: {failure(error, advice)}"
        ) from error
    if len(closed.out_avals) != 1:
        raise ValueError(
            f"{given} returned {len(closed.out_avals)} arrays; expected one, of shape {shape}."
        )
    (out,) = closed.out_avals
    if out.shape != shape:
        raise ValueError(
            f"{given} returned shape {out.shape}; expected {shape}. Mark a product with a "
            "whole block by BlockProduct; otherwise check n."
        )
    if out.dtype != dtype:
        raise TypeError(
            f"{given} of {np.dtype(dtype)} returned {out.dtype}; expected the same dtype. "
            f"Give dtype={out.dtype}, or convert inside the product."
        )
    return closed


def _is_numeric(leaf: Any) -> bool:
    return is_array(leaf) or isinstance(leaf, (bool, int, float, complex, np.generic))


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def pytree_of(operator: Operator) -> Any:
    """The pytree that a caller gave for an operator; None for other forms."""
    product = operator.product
    return product.given(operator.leaves) if isinstance(product, _TreeProduct) else None


# -- what is known of a matrix --------------------------------------------------------------------


def is_matrix(operator: Operator) -> bool:
    """Whether an operator was given as an array: its product is linear by construction."""
    return isinstance(operator.product, MatrixProduct)


def matrix_of(operator: Operator) -> Array | None:
    """The matrix (n, n) of a Hermitian operator that was given as one; None for others."""
    product = operator.product
    if isinstance(product, MatrixProduct) and product.given_as is None:
        (matrix,) = operator.leaves
        return matrix if matrix.ndim == 2 else None
    return None


def diagonal_of(operator: Operator) -> Array | None:
    """The diagonal (n,) of an operator that was given as one; None for others."""
    if is_matrix(operator) and operator.leaves[0].ndim == 1:
        return operator.leaves[0]
    return None


def has_positive_diagonal(operator: Operator | None) -> Array:
    """Whether the diagonal of a matrix is positive, as that of a positive definite one is.

    The answer is True for products, whose diagonal is not known, and where an entry is NaN, which
    has a status of its own.
    """
    if operator is None or not is_matrix(operator):
        return jnp.array(True)
    (matrix,) = operator.leaves
    diagonal = matrix if matrix.ndim == 1 else jnp.diagonal(matrix)
    return ~jnp.any(diagonal.real <= 0)
