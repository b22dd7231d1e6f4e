"""The Hermitian dilation H = [[0, A], [A^H, 0]] of a rectangular A, as an operator.

Its eigenvalues are s_i, -s_i and |m - n| zeros, with eigenvectors [u_i; v_i]/sqrt(2) and
[u_i; -v_i]/sqrt(2) (Golub and Van Loan, Matrix Computations, 2013, section 8.6.1). No small
singular value is squared away. JAX transposes the caller's product.
"""

import dataclasses
import operator
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from jax_peig._core.checks import (
    TRACING_ERRORS,
    check_floating,
    failure,
    first_line,
    floating_dtype,
)
from jax_peig._core.sharding import replicated
from jax_peig._core.types import Array, Block, DTypeLike, OperatorLike
from jax_peig._operators.given import Given, classify, is_opaque, multiply
from jax_peig._operators.program import traced


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class Dilation:
    """[U; V] -> [A V; A^H U] for blocks; a pytree that holds A."""

    a: Any
    kind: str  # how A multiplies, see `Given`
    shape: tuple[int, int]

    def __call__(self, block: Block) -> Block:
        """H applied to a block (m + n, b)."""
        return replicated(Dilation.product, self, block)

    def product(self, block: Block) -> Block:
        """H applied to a block, for arrays that are on no mesh of Explicit axes."""
        m = self.shape[0]
        return jnp.concatenate([self.forward(block[m:]), self.adjoint(block[:m])])

    def forward(self, block: Block) -> Block:
        """A V, (n, b) -> (m, b)."""
        return multiply(self.a, self.kind, block)

    def adjoint(self, block: Block) -> Block:
        """A^H U, (m, b) -> (n, b)."""
        like = jax.ShapeDtypeStruct((self.shape[1], block.shape[1]), block.dtype)
        (image,) = jax.linear_transpose(self.forward, like)(block.conj())
        return image.conj()

    def tree_flatten(self) -> tuple[tuple[Any], tuple[str, tuple[int, int]]]:
        return (self.a,), (self.kind, self.shape)

    @classmethod
    def tree_unflatten(cls, static: tuple[str, tuple[int, int]], children: tuple[Any]) -> Self:
        kind, shape = static
        return cls(*children, kind, shape)


class Rectangular(NamedTuple):
    """A matrix (m, n) as a caller gave it, checked."""

    caller: str  # the public function that was called, for the texts of errors
    explicit: bool  # its entries are known
    dilation: Dilation
    dtype: np.dtype  # of the vectors


def rectangular(name: str, A: OperatorLike, shape: Any, dtype: DTypeLike) -> Rectangular:
    """Check A as a caller gave it, and make its dilation.

    Raises
    ------
    TypeError, ValueError
        What was given, what is expected, what to do.
    """
    given = classify(A, f"{name}: A", "(n,) -> (m,)")
    own, known = _own(given, name)
    shape = _shape(shape, own, A, name)
    if dtype is None:
        dtype = jnp.result_type(float) if known is None else known
    found = floating_dtype(dtype, name)
    if known is not None and np.promote_types(known, found) != found:
        raise TypeError(
            f"{name}: A has dtype {known}; expected a dtype that keeps it, not {found}."
        )
    matrix = given.operator
    if given.kind == "array":
        matrix = jnp.asarray(matrix).astype(found)
    made = Dilation(matrix, given.kind, shape)
    _check_product(made, given.explicit, found, name)
    if given.kind == "vector" and is_opaque(matrix):
        vector = jax.ShapeDtypeStruct(shape[1:], found)
        made = Dilation(traced(matrix, vector), given.kind, shape)
    return Rectangular(name, given.explicit, made, found)


def _own(given: Given, name: str) -> tuple[tuple[int, int] | None, np.dtype | None]:
    """The shape and dtype as A itself tells them, checked: a matrix does, a function does not."""
    if not given.explicit:
        return None, None
    matrix = given.operator
    if matrix.ndim != 2:
        raise ValueError(
            f"{name}: A has shape {tuple(matrix.shape)}; expected (m, n). Batches go through "
            "jax.vmap."
        )
    check_floating(matrix.dtype, f"{name}: A")
    return (int(matrix.shape[0]), int(matrix.shape[1])), np.dtype(matrix.dtype)


def _shape(shape: Any, own: tuple[int, int] | None, A: Any, name: str) -> tuple[int, int]:
    if shape is None:
        if own is None:
            raise ValueError(
                f"{name}: shape is missing; A is a {type(A).__name__}, which does not tell it: "
                "give shape=(m, n), or A as an array."
            )
        return own
    try:
        m, n = (operator.index(side) for side in shape)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: shape is {shape!r}; expected two integers (m, n).") from None
    if min(m, n) < 1 or own not in (None, (m, n)):
        raise ValueError(f"{name}: shape is {(m, n)}; expected {own or 'positive integers'}.")
    return m, n


def _check_product(made: Dilation, explicit: bool, dtype: np.dtype, name: str) -> None:
    m, n = made.shape
    vector = jax.ShapeDtypeStruct((n, 1), dtype)
    given = f"{name}: A applied to a block of vectors ({n},) of {dtype}"
    try:
        out = jax.eval_shape(made.forward, vector)
    except TRACING_ERRORS as error:
        advice = (
            f"Expected a product with A of shape {made.shape}; check shape, dtype and the shapes "
            "inside the product."
        )
        raise ValueError(f"{given} failed: {failure(error, advice)}") from error
    if getattr(out, "shape", None) != (m, 1) or out.dtype != dtype:
        raise ValueError(f"{given} returned {out}; expected vectors ({m},) of {dtype}.")
    if explicit:
        return
    try:
        jax.eval_shape(lambda u: jax.linear_transpose(made.forward, vector)(u), out)
    except Exception as error:  # which one JAX raises depends on the operation
        raise ValueError(
            f"{name}: A is a function that JAX cannot transpose ({first_line(error).rstrip('.')}); "
            "expected a linear one. Write A in linear operations, loops as jax.lax.scan, or give "
            "A as an array."
        ) from error


def halves(block: Block, m: int) -> tuple[Array, Array]:
    """U and V of [U; V]/sqrt(2)."""
    root = jnp.asarray(np.sqrt(2), block.dtype)
    return block[:m] * root, block[m:] * root
