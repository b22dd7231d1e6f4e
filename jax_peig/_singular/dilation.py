"""The Hermitian dilation H = [[0, A], [A^H, 0]] of a rectangular A, as an operator.

Its eigenvalues are s_i, -s_i and |m - n| zeros, with eigenvectors [u_i; v_i]/sqrt(2) and
[u_i; -v_i]/sqrt(2) (Golub and Van Loan, Matrix Computations, 2013, section 8.6.1): a singular
value problem in which no small singular value is squared away. JAX transposes the caller's product.
"""

import dataclasses
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.experimental.sparse import BCOO

from jax_peig._core.sharding import replicated
from jax_peig._core.types import FLOATING, Array, Block, DTypeLike, OperatorLike
from jax_peig._operators.operator import BlockProduct, is_array
from jax_peig._operators.sparse import SparseOperator, from_scipy


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class Dilation:
    """[U; V] -> [A V; A^H U] for blocks; a pytree of what A is."""

    a: Any
    kind: str  # "matmul", "mv", "vector" or "block"
    shape: tuple[int, int]

    def __call__(self, block: Block) -> Block:
        """H applied to a block (m + n, b)."""
        return replicated(Dilation.product, self, block)

    def product(self, block: Block) -> Block:
        """The same, of arrays that are on no mesh of Explicit axes."""
        m = self.shape[0]
        u, v = block[:m], block[m:]
        adjoint = jax.linear_transpose(self.forward, jax.ShapeDtypeStruct(v.shape, v.dtype))
        return jnp.concatenate([self.forward(v), adjoint(u.conj())[0].conj()])

    def forward(self, block: Block) -> Block:
        """A V, (n, b) -> (m, b)."""
        if self.kind == "block":
            return self.a(block)
        if self.kind == "matmul":
            return self.a @ block
        function = self.a.mv if self.kind == "mv" else self.a
        return jax.vmap(function, in_axes=1, out_axes=1)(block)

    def tree_flatten(self):
        return (self.a,), (self.kind, self.shape)

    @classmethod
    def tree_unflatten(cls, static, children):
        return cls(*children, *static)


class Rectangular(NamedTuple):
    """A matrix (m, n) as a caller gave it, checked."""

    caller: str  # the public function that was called, for the texts of errors
    dilation: Dilation
    dtype: np.dtype  # of the vectors


def rectangular(name: str, A: OperatorLike, shape: Any, dtype: DTypeLike) -> Rectangular:
    """Check what a caller gave as A, and make its dilation.

    Raises
    ------
    TypeError, ValueError
        What was given, what is expected, what to do.
    """
    if A is None or isinstance(A, (int, float, complex, str)):
        raise TypeError(f"{name}: A is {A!r}; expected an array (m, n), a function, BCOO or `@`.")
    if scipy.sparse.issparse(A):
        A = from_scipy(A)
    own, known = None, None
    if is_array(A) or isinstance(A, (BCOO, SparseOperator)):
        if A.ndim != 2:
            raise ValueError(
                f"{name}: A has shape {tuple(A.shape)}; expected (m, n). Batches go through "
                "jax.vmap."
            )
        if A.dtype.name not in FLOATING:
            raise TypeError(
                f"{name}: A has dtype {A.dtype}; expected one of {', '.join(FLOATING)}. Convert "
                "it, for example with A.astype(float)."
            )
        own, known = (int(A.shape[0]), int(A.shape[1])), np.dtype(A.dtype)
    shape = _shape(shape, own, A, name)
    found = known if dtype is None and known is not None else _dtype(dtype, name)
    if known is not None and np.promote_types(known, found) != found:
        raise TypeError(
            f"{name}: A has dtype {known}; expected a dtype that keeps it, not {found}."
        )
    if isinstance(A, BlockProduct):
        made = Dilation(A.function, "block", shape)
    elif is_array(A):
        made = Dilation(jnp.asarray(A).astype(found), "matmul", shape)
    else:
        kinds = [("mv", "mv"), ("matmul", "__matmul__"), ("vector", "__call__")]
        kind = next((kind for kind, attribute in kinds if hasattr(A, attribute)), None)
        if kind is None:
            raise TypeError(
                f"{name}: A is of type {type(A).__name__}; expected an array (m, n), a function of "
                "one vector (n,) -> (m,), a BlockProduct, a BCOO or another object with @ or .mv."
            )
        made = Dilation(A, kind, shape)
    _check_product(made, found, name)
    return Rectangular(name, made, found)


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


def _dtype(dtype: Any, name: str) -> np.dtype:
    try:
        found = np.dtype(jnp.result_type(float) if dtype is None else dtype)
    except TypeError:
        raise TypeError(
            f"{name}: dtype is {dtype!r}; expected one of {', '.join(FLOATING)}."
        ) from None
    if found.name not in FLOATING:
        raise TypeError(f"{name}: dtype is {found}; expected one of {', '.join(FLOATING)}.")
    return np.dtype(jax.dtypes.canonicalize_dtype(found))


def _check_product(made: Dilation, dtype: np.dtype, name: str) -> None:
    m, n = made.shape
    given = f"{name}: A applied to a block of vectors ({n},) of {dtype}"
    try:
        out = jax.eval_shape(made.forward, jax.ShapeDtypeStruct((n, 1), dtype))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{given} failed: {str(error).rstrip('.')}. Expected a product with A of shape "
            f"{made.shape}; check shape, dtype and the shapes inside the product."
        ) from error
    if getattr(out, "shape", None) != (m, 1) or out.dtype != dtype:
        raise ValueError(f"{given} returned {out}; expected vectors ({m},) of {dtype}.")


def halves(block: Block, m: int) -> tuple[Array, Array]:
    """U and V of [U; V]/sqrt(2)."""
    root = jnp.asarray(np.sqrt(2), block.dtype)
    return block[:m] * root, block[m:] * root
