"""The forms in which a caller may give a matrix, told apart in one place: see `classify`."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jax.experimental.sparse import BCOO

from jax_peig._core.checks import check_floating, is_array
from jax_peig._core.types import Array, Block, OperatorLike
from jax_peig._operators.sparse import SparseOperator, from_scipy


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class BlockProduct:
    """Mark a function as the product with a whole block, (n, b) -> (n, b), one vector a column.

    Parameters
    ----------
    function : callable
        A function or a pytree callable, for any number b of columns.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig import BlockProduct, partial_eigh
    >>> scale = jnp.arange(1.0, 31.0)
    >>> A = BlockProduct(lambda V: scale[:, None] * V)
    >>> w, X, info = partial_eigh(A, k=2, n=30)
    >>> [round(float(x), 4) for x in w]
    [1.0, 2.0]
    """

    function: Callable[[Block], Block]

    def tree_flatten(self) -> tuple[tuple[Any, ...], None]:
        return (self.function,), None

    @classmethod
    def tree_unflatten(cls, _: None, children: tuple[Any, ...]) -> Self:
        return cls(*children)


class Given(NamedTuple):
    """A matrix as a caller gave it, and how it multiplies.

    The kinds are "array"; "matmul", an object with ``@``; "mv", an object with ``.mv``; "vector", a
    function of one vector; "block", a function of a block.
    """

    kind: str
    operator: Any  # of a SciPy matrix its `SparseOperator`, of a `BlockProduct` its function

    @property
    def explicit(self) -> bool:
        """Whether the entries of the matrix are known."""
        return is_array(self.operator) or isinstance(self.operator, (BCOO, SparseOperator))

    def times(self, vector: Array) -> Array:
        """A v for a vector."""
        return multiply(self.operator, self.kind, vector[:, None])[:, 0]


# The attribute that shows each kind, in the order in which they are looked for.
_ATTRIBUTES = (("mv", "mv"), ("matmul", "__matmul__"), ("vector", "__call__"))


def classify(x: OperatorLike, name: str, vectors: str = "(n,) -> (n,)") -> Given:
    """Find out in which form a caller gave a matrix.

    Parameters
    ----------
    x : array, BCOO, SciPy sparse, ``@``, ``.mv``, callable or BlockProduct
        See `partial_eigh`.
    name : str
        The caller's name for it, for error texts.
    vectors : str
        The shapes of a function's argument and result, for error texts.

    Raises
    ------
    TypeError
        For anything else.
    """
    kind = kind_of_operator(x, name, vectors)
    if kind == "block":
        return Given(kind, x.function)
    if scipy.sparse.issparse(x):
        check_floating(x.dtype, name)
        return Given(kind, from_scipy(x))
    return Given(kind, x)


def kind_of_operator(x: OperatorLike, name: str, vectors: str = "(n,) -> (n,)") -> str:
    """Return the kind that `classify` finds, by the type of ``x`` alone: nothing is converted.

    Raises
    ------
    TypeError
        As `classify`, of which the parameters are.
    """
    if is_array(x):
        return "array"
    if scipy.sparse.issparse(x):
        return "matmul"
    if isinstance(x, scipy.sparse.linalg.LinearOperator):
        raise TypeError(
            f"{name} is a scipy.sparse.linalg.LinearOperator, which runs on the host and cannot be "
            "traced; expected a function of JAX arrays. Write the product with jax.numpy."
        )
    if isinstance(x, BlockProduct):
        if callable(x.function):
            return "block"
        raise TypeError(
            f"{name} is a BlockProduct that holds a {type(x.function).__name__}; expected a "
            "function of a block of columns. Arrays are operators as they are."
        )
    found = next((kind for kind, attribute in _ATTRIBUTES if hasattr(x, attribute)), None)
    if found is None:
        raise TypeError(
            f"{name} is of type {type(x).__name__}; expected an array, a function of one vector "
            f"{vectors}, a BlockProduct, a BCOO or another object with @, or one with .mv."
            f"{_instead(x, name.split()[-1])}"
        )
    return found


def _instead(x: Any, argument: str) -> str:
    """What to write in place of something that is no operator, if that is clear."""
    if isinstance(x, (list, tuple)):
        return f" Write jnp.asarray({argument})."
    if isinstance(x, (int, float, complex, np.number)):
        return f" Write lambda v: {x} * v."
    if isinstance(x, str):
        return " Operators have no names: give the object itself."
    return ""


def is_opaque(x: Any) -> bool:
    """Whether tracing alone tells what an operator depends on.

    It does for a function, and for a pytree that holds a function that was made for this call: such
    a pytree would have another structure at every call.
    """
    leaves, treedef = jax.tree_util.tree_flatten(x)
    if jax.tree_util.treedef_is_leaf(treedef) and leaves:
        return True
    return any(_is_local(v) for v in (x, *leaves))


def _is_local(value: Any) -> bool:
    """Whether this is a lambda or a function inside another one, or holds one in a partial."""
    while isinstance(value, functools.partial):
        value = value.func
    value = inspect.unwrap(value) if callable(value) else value
    return inspect.isfunction(value) and "<" in value.__qualname__


def multiply(operator: Any, kind: str, block: Block) -> Array:
    """A V for a block V; the kind is that of `Given`."""
    if kind == "block":
        return operator(block)
    if kind in ("matmul", "array"):
        return operator @ block
    vector = operator.mv if kind == "mv" else operator
    return jax.vmap(vector, in_axes=1, out_axes=1)(block)


def order_and_dtype(x: OperatorLike, name: str) -> tuple[int | None, Any]:
    """Return n and dtype as ``x`` itself tells them: a matrix does, a function does not.

    Raises
    ------
    TypeError, ValueError
        For a matrix of another dtype, or one that is not square.
    """
    if not (is_array(x) or isinstance(x, (BCOO, SparseOperator)) or scipy.sparse.issparse(x)):
        return None, None
    check_floating(x.dtype, name)
    square = x.ndim == 2 and x.shape[0] == x.shape[1]
    if not (square or (is_array(x) and x.ndim == 1)):
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}; expected a square matrix (n, n), or (n,) for "
            f"a diagonal one given by its diagonal.{_of_shape(x, name.split()[-1])}"
        )
    return x.shape[0], x.dtype


def _of_shape(x: Any, argument: str) -> str:
    """What to do with an array that is not a square matrix."""
    if x.ndim == 2:
        return " Take jax_peig.partial_svd for a rectangular A." if argument == "A" else ""
    return " Batches go through jax.vmap." if x.ndim > 2 else ""
