"""The front door: whatever a caller may give as A, M or a preconditioner, as one `Operator`.

An `Operator` is a pytree: its leaves are the arrays the product depends on, its static part says
how to multiply and is hashable by value, so that a second call with other values compiles nothing.
What a plain function closes over (traced parameters included) is hoisted into leaves by tracing
it once; such a function is new to the compiler at every call, so a pytree callable is the form
for loops that are not under ``jit``.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jax.experimental.sparse import BCOO

from jax_peig._core import tolerances
from jax_peig._core.linear_map import LinearMap, bind
from jax_peig._core.types import FLOATING, Array, Block, DTypeLike, OperatorLike
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

    def tree_flatten(self):
        return (self.function,), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class Operator:
    """A linear operator on blocks of vectors.

    Attributes
    ----------
    product : callable
        ``product(leaves, V) -> A V`` for V (n, b); hashable by value.
    leaves : tuple of arrays
        What the product depends on; differentiable where inexact.
    n : int
        The order.
    """

    product: Callable[[tuple[Any, ...], Block], Block]
    leaves: tuple[Any, ...]
    n: int

    def __call__(self, block: Block) -> Block:
        """A V, V of shape (n, b)."""
        return self.product(self.leaves, block)

    def tree_flatten(self):
        return self.leaves, (self.product, self.n)

    @classmethod
    def tree_unflatten(cls, static, leaves):
        product, n = static
        return cls(product, tuple(leaves), n)


# -- ways to multiply: frozen dataclasses, so that they compare by value --------------------------


@dataclasses.dataclass(frozen=True)
class _MatrixProduct:
    """A dense matrix (n, n), or the diagonal (n,) of a diagonal one.

    ``given`` is the dtype in which a caller gave the matrix; it is None once `hermitian_part` has
    replaced the matrix by its Hermitian part.
    """

    given: str | None

    def __call__(self, leaves, block):
        (matrix,) = leaves
        return matrix[:, None] * block if matrix.ndim == 1 else matrix @ block


@dataclasses.dataclass(frozen=True)
class _TreeProduct:
    """A pytree operator: ``kind`` is how it multiplies, ``static`` its leaves but the arrays."""

    treedef: Any
    static: tuple[tuple[int, Any], ...]
    kind: str  # "vector", "block", "matmul", "mv"

    def __call__(self, leaves, block):
        full = list(leaves)
        for position, leaf in self.static:
            full.insert(position, leaf)
        return _multiply(jax.tree_util.tree_unflatten(self.treedef, full), self.kind, block)


@dataclasses.dataclass(frozen=True, eq=False)
class _TracedVector:
    """A traced function of one vector; its constants are the leaves. Compares by identity."""

    jaxpr: Any

    def __call__(self, leaves, block):
        def apply(v):
            return jax.core.eval_jaxpr(self.jaxpr, leaves, v)[0]

        return jax.vmap(apply, in_axes=1, out_axes=1)(block)


@dataclasses.dataclass(frozen=True, eq=False)
class _TracedBlock:
    """A function of a block as traced for some widths; compares by identity.

    ``traces`` holds, from the narrowest to the widest, the width, the jaxpr and the number of its
    constants; the leaves are all the constants in this order. A block of another width is padded
    to the next traced one, or cut into several of the widest.
    """

    traces: tuple[tuple[int, Any, int], ...]

    def __call__(self, leaves, block):
        width = block.shape[1]
        widest = len(self.traces) - 1
        chosen = next((i for i, t in enumerate(self.traces) if t[0] >= width), widest)
        traced_width, jaxpr, count = self.traces[chosen]
        start = sum(t[2] for t in self.traces[:chosen])
        constants = leaves[start : start + count]
        parts = []
        for first in range(0, width, traced_width):
            part = block[:, first : first + traced_width]
            missing = traced_width - part.shape[1]
            padded = jnp.pad(part, ((0, 0), (0, missing))) if missing else part
            (product,) = jax.core.eval_jaxpr(jaxpr, constants, padded)
            parts.append(product[:, : part.shape[1]])
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)


def _multiply(operator: Any, kind: str, block: Block) -> Block:
    if kind == "block":
        return operator(block)
    if kind == "matmul":
        return operator @ block
    vector = operator.mv if kind == "mv" else operator
    return jax.vmap(vector, in_axes=1, out_axes=1)(block)


# -- from what a caller gives to an Operator ------------------------------------------------------


def is_array(x: Any) -> bool:
    """Whether ``x`` is a NumPy or JAX array (a tracer included)."""
    return isinstance(x, (np.ndarray, jax.Array))


def order_and_dtype(x: OperatorLike, name: str) -> tuple[int | None, Any]:
    """What ``x`` itself says of n and dtype: an array or a sparse matrix does, a function not."""
    if is_array(x) or isinstance(x, (BCOO, SparseOperator)) or scipy.sparse.issparse(x):
        if not jnp.issubdtype(x.dtype, jnp.inexact) or x.dtype.name not in FLOATING:
            raise TypeError(
                f"{name} has dtype {x.dtype}; expected one of {', '.join(FLOATING)}. "
                f"Convert it, for example with {name.split()[-1]}.astype(float)."
            )
        square = x.ndim == 2 and x.shape[0] == x.shape[1]
        if not (square or (is_array(x) and x.ndim == 1)):
            raise ValueError(
                f"{name} has shape {tuple(x.shape)}; expected a square matrix (n, n), or (n,) for "
                "a diagonal one given by its diagonal. Batches go through jax.vmap."
            )
        return x.shape[0], x.dtype
    return None, None


def as_operator(
    x: OperatorLike,
    n: int,
    dtype: Any,
    name: str,
    *,
    widths: tuple[int, ...] = (1,),
) -> Operator:
    """Make an `Operator` of order ``n`` of whatever a caller gave.

    Parameters
    ----------
    x : array (n, n) or (n,), BCOO, SciPy sparse, ``@``, ``.mv``, callable, BlockProduct, Operator
        See `partial_eigh`.
    n, dtype
        Order, and dtype of the vectors it is applied to.
    name : str
        What the caller knows it by, for error texts.
    widths : tuple of int
        The widths of the blocks it will mostly be applied to: a plain function of a block is
        traced for these.

    Raises
    ------
    TypeError, ValueError
        What was given, what is expected, what to do.
    """
    if isinstance(x, Operator):
        return x
    if is_array(x):
        return _from_array(x, n, dtype, name)
    if scipy.sparse.issparse(x):
        order_and_dtype(x, name)
        return _from_object(from_scipy(x), "matmul", n, dtype, name, widths)
    if isinstance(x, scipy.sparse.linalg.LinearOperator):
        raise TypeError(
            f"{name} is a scipy.sparse.linalg.LinearOperator, which runs on the host and cannot be "
            "traced; expected a function of JAX arrays. Write the product with jax.numpy."
        )
    if isinstance(x, BlockProduct):
        return _from_object(x.function, "block", n, dtype, name, widths)
    for kind, attribute in (("mv", "mv"), ("matmul", "__matmul__"), ("vector", "__call__")):
        if hasattr(x, attribute):
            return _from_object(x, kind, n, dtype, name, widths)
    raise TypeError(
        f"{name} is of type {type(x).__name__}; expected an array, a function of one vector "
        "(n,) -> (n,), a BlockProduct, a BCOO or another object with @, or one with .mv."
    )


def _from_array(x, n, dtype, name):
    order, own = order_and_dtype(x, name)
    if order != n:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; expected order n = {n}, as A has.")
    if np.promote_types(own, dtype) != dtype:
        raise TypeError(
            f"{name} has dtype {own}, the vectors have {np.dtype(dtype)}; expected a matrix that "
            f"keeps the vectors' dtype. Give dtype={np.promote_types(own, dtype)}."
        )
    return Operator(_MatrixProduct(own.name), (jnp.asarray(x).astype(dtype),), n)


def hermitian_part(operator: Operator) -> Operator:
    """An array's Hermitian part, as ``jnp.linalg.eigh`` takes it.

    The gradient with respect to the array is Hermitian then. Other operators are what they are.
    """
    if not (isinstance(operator.product, _MatrixProduct) and operator.product.given):
        return operator
    (matrix,) = operator.leaves
    adjoint = matrix.conj() if matrix.ndim == 1 else matrix.conj().T
    return Operator(_MatrixProduct(None), ((matrix + adjoint) / 2,), operator.n)


def imaginary_beyond_rounding(diagonal: Any, dtype: DTypeLike) -> Any:
    """Which entries of a diagonal, computed in ``dtype``, are too far from real for rounding, (n,).

    NumPy or JAX, as ``diagonal`` is. A product such as B B^H leaves imaginary parts of some eps
    times the largest entry, which in a positive definite matrix stands on the diagonal.
    """
    return abs(diagonal.imag) > tolerances.hermiticity(dtype) * abs(diagonal).max()


def has_imaginary_diagonal(operator: Operator | None) -> Array:
    """Whether a matrix was given whose diagonal is not real but for rounding.

    Off the diagonal an asymmetry may be a matter of storage, one triangle alone; on it the matrix
    is wrong. For other operators, and once the Hermitian part is taken, the answer is False.
    """
    if operator is None or not isinstance(operator.product, _MatrixProduct):
        return jnp.array(False)
    (matrix,), given = operator.leaves, operator.product.given
    if given is None or not jnp.iscomplexobj(matrix):
        return jnp.array(False)
    diagonal = jax.lax.stop_gradient(matrix if matrix.ndim == 1 else jnp.diagonal(matrix))
    return jnp.any(imaginary_beyond_rounding(diagonal, given))


def asymmetry(given: Operator | None, part: Operator | None, norm: Array) -> Array | None:
    """||A - A^H||_F / ||A||_F of an array, by its Hermitian ``part``; None for other operators.

    ``norm`` is that of the part, roughly: the array is scaled by it where its squares could leave
    the range of numbers, and only there, since a pass over it costs as much as some products.
    """
    if given is None or part is None or given.product == part.product:
        return None
    (matrix,), (hermitian,) = jax.lax.stop_gradient((given.leaves, part.leaves))

    def relative(matrix, hermitian):
        size = jnp.linalg.norm(matrix)
        return 2 * jnp.linalg.norm(matrix - hermitian) / jnp.where(size > 0, size, 1)

    def scaled(matrix, hermitian):
        scale = (1 / jnp.where(norm > 0, norm, 1)).astype(matrix.dtype)
        return relative(matrix * scale, hermitian * scale)

    limits = jnp.finfo(norm.dtype)
    near_one = (norm > limits.tiny**0.25) & (norm < limits.max**0.25)
    return jax.lax.cond(near_one, relative, scaled, matrix, hermitian)


def matrix_of(operator: Operator) -> Array | None:
    """The matrix (n, n) of a Hermitian operator that was given by it; None for others."""
    product = operator.product
    if isinstance(product, _MatrixProduct) and product.given is None:
        (matrix,) = operator.leaves
        return matrix if matrix.ndim == 2 else None
    return None


def diagonal_of(operator: Operator) -> Array | None:
    """The diagonal (n,) of an operator that was given by it; None for others."""
    if isinstance(operator.product, _MatrixProduct) and operator.leaves[0].ndim == 1:
        return operator.leaves[0]
    return None


def _from_object(x, kind, n, dtype, name, widths):
    leaves, treedef = jax.tree_util.tree_flatten(x)
    by_vector = kind in ("vector", "mv")
    if not (jax.tree_util.treedef_is_leaf(treedef) and leaves):  # not itself one opaque leaf
        arrays = tuple(jnp.asarray(v) for v in leaves if _is_numeric(v))
        static = tuple((i, v) for i, v in enumerate(leaves) if not _is_numeric(v))
        product = _TreeProduct(treedef, static, kind)
        if _is_hashable(product):
            closed = _trace(product, arrays, (n, 1), dtype, name)
            if not any(isinstance(c, jax.core.Tracer) for c in closed.consts):
                return Operator(product, arrays, n)
    # A plain function, or a pytree whose function closes over more: hoist all it depends on.
    if by_vector:
        function = x.mv if kind == "mv" else x
        closed = _trace(lambda _, v: function(v), (), (n,), dtype, name)
        return Operator(_TracedVector(closed.jaxpr), tuple(closed.consts), n)
    traces, constants = [], []
    for width in sorted(set(widths)):
        closed = _trace(lambda _, v: _multiply(x, kind, v), (), (n, width), dtype, name)
        traces.append((width, closed.jaxpr, len(closed.consts)))
        constants.extend(closed.consts)
    return Operator(_TracedBlock(tuple(traces)), tuple(constants), n)


def _trace(product, leaves, shape, dtype, name):
    """Trace ``product(leaves, v)``, check what it returns, and give the closed jaxpr."""
    vector = jax.ShapeDtypeStruct(shape, dtype)
    given = f"{name} applied to a {'vector' if len(shape) == 1 else 'block'} {shape}"
    try:
        closed = jax.make_jaxpr(product)(leaves, vector)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{given} of {np.dtype(dtype)} failed: {str(error).rstrip('.')}. Expected a product "
            f"with order n = {shape[0]}; check n, dtype and the shapes inside the product."
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


def _is_numeric(leaf):
    return is_array(leaf) or isinstance(leaf, (bool, int, float, complex, np.generic))


def _is_hashable(value):
    try:
        hash(value)
    except TypeError:
        return False
    return True


# -- products inside the derivative rules ---------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _HermitianProduct(LinearMap):
    """V -> A V, or its transpose V -> conj(A conj(V)): A is Hermitian, nothing is transposed."""

    product: Callable[[tuple[Any, ...], Block], Block]
    conjugated: bool = False

    def __call__(self, residuals, inputs):
        (block,) = inputs
        if self.conjugated:
            return [self.product(tuple(residuals), block.conj()).conj()]
        return [self.product(tuple(residuals), block)]

    def transposed(self):
        return dataclasses.replace(self, conjugated=not self.conjugated)


def apply_hermitian(operator: Operator | None, block: Block) -> Array:
    """A V for a Hermitian A (V itself for None), transposed by symmetry wherever JAX transposes."""
    if operator is None:
        return block
    (out,) = bind(_HermitianProduct(operator.product), operator.leaves, [block])
    return out
