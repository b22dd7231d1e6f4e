"""Vectors of any shape: pytrees of arrays as flat vectors, and back.

A vector is a pytree whose leaves all have one dtype, or an array of any rank. Inside the package it
is flat, (n,): the leaves are ravelled in row-major order and joined in the order of the pytree, as
`jax.flatten_util.ravel_pytree` does. Several vectors have one more axis, the last of each leaf.
"""

import dataclasses
import math
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, auto_axes

from jax_peig._core.checks import kind_of
from jax_peig._core.sharding import explicit_mesh
from jax_peig._core.types import FLOATING, Array, PyTree


@dataclasses.dataclass(frozen=True)
class VectorShape:
    """The structure of a vector: its pytree, and the shape of each leaf.

    The last axis of several vectors leaves each ``leaf[..., j]`` a leaf of the j-th one, as
    ``X[:, j]`` is of flat vectors, and leaves a sharded leading axis where it is.
    """

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, vector: PyTree) -> Self:
        """The structure of a vector, whose leaves may be arrays or ``jax.ShapeDtypeStruct``."""
        leaves, treedef = jax.tree.flatten(vector)
        return cls(treedef, tuple(tuple(leaf.shape) for leaf in leaves))

    @classmethod
    def of_columns(cls, vectors: PyTree) -> Self:
        """The structure of each of several vectors."""
        leaves, treedef = jax.tree.flatten(vectors)
        return cls(treedef, tuple(tuple(leaf.shape[:-1]) for leaf in leaves))

    @property
    def n(self) -> int:
        """How many entries a vector has."""
        return sum(map(math.prod, self.shapes))

    @property
    def is_flat(self) -> bool:
        """Whether a vector is an array (n,)."""
        return jax.tree_util.treedef_is_leaf(self.treedef) and len(self.shapes[0]) == 1

    @property
    def grid(self) -> tuple[int, ...] | None:
        """The shape of the only leaf; None where there are several."""
        return self.shapes[0] if len(self.shapes) == 1 else None

    def __str__(self) -> str:
        return str(jax.tree.unflatten(self.treedef, list(self.shapes)))

    def columns(self, tree: PyTree) -> tuple[int, ...] | None:
        """() for one vector, (b,) for b vectors, None for a tree of another structure."""
        leaves, treedef = jax.tree.flatten(tree)
        if treedef != self.treedef or not all(hasattr(leaf, "shape") for leaf in leaves):
            return None
        shapes = [tuple(leaf.shape) for leaf in leaves]
        tail = shapes[0][len(self.shapes[0]) :]
        alike = all(x == (*own, *tail) for x, own in zip(shapes, self.shapes, strict=True))
        return tail if alike and len(tail) <= 1 else None

    def ravel(self, tree: PyTree) -> Array:
        """(n,) of a vector, (n, b) of b vectors.

        Raises
        ------
        TypeError, ValueError
            Where the tree has another structure, or leaves of several dtypes.
        """
        tail = self.columns(tree)
        if tail is None:
            raise ValueError(f"its structure is {outline(tree)}; expected {self}")
        if self.is_flat:
            return jnp.asarray(tree)
        leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
        dtypes = sorted({str(leaf.dtype) for leaf in leaves})
        if len(dtypes) > 1:
            raise TypeError(f"its leaves have the dtypes {', '.join(dtypes)}; expected one dtype")
        if len(leaves) == 1:
            return leaves[0].reshape(-1, *tail)

        def joined(parts: list[Array]) -> Array:
            return jnp.concatenate([part.reshape(-1, *tail) for part in parts])

        return _unsharded(joined, leaves)

    def unravel(self, flat: Array) -> PyTree:
        """The vector of a flat one (n,), or the b vectors of (n, b)."""
        if self.is_flat:
            return flat
        tail = flat.shape[1:]
        if len(self.shapes) == 1:
            return jax.tree.unflatten(self.treedef, [flat.reshape(*self.shapes[0], *tail)])

        def cut(flat: Array) -> list[Array]:
            leaves, start = [], 0
            for shape in self.shapes:
                part = jax.lax.slice_in_dim(flat, start, start + math.prod(shape))
                leaves.append(part.reshape(*shape, *tail))
                start += math.prod(shape)
            return leaves

        return jax.tree.unflatten(self.treedef, _unsharded(cut, flat))


def _unsharded(function: Any, argument: PyTree) -> Any:
    """``function(argument)``; on a mesh of Explicit axes what it returns is replicated."""
    mesh = explicit_mesh(argument)
    if mesh is None:
        return function(argument)
    return auto_axes(function, out_sharding=NamedSharding(mesh, PartitionSpec()))(argument)


def outline(tree: PyTree) -> str:
    """The shapes of a pytree's leaves, and the types of those that are no arrays."""
    return str(jax.tree.map(lambda x: getattr(x, "shape", type(x).__name__), tree))


def check_example(vector: PyTree, name: str) -> Any:
    """Return the dtype of an example of a vector.

    Raises
    ------
    TypeError
        Unless its leaves are arrays or ``jax.ShapeDtypeStruct`` of one floating dtype.
    """
    leaves = jax.tree.leaves(vector)
    if not leaves:
        raise TypeError(f"{name} has no leaves; expected a vector, an array or a pytree of arrays.")
    for leaf in leaves:
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise TypeError(
                f"{name} holds a {kind_of(leaf)}; expected arrays, or jax.ShapeDtypeStruct. "
                "Convert it, for example with jnp.asarray."
            )
    dtypes = sorted({str(leaf.dtype) for leaf in leaves})
    if len(dtypes) > 1 or dtypes[0] not in FLOATING:
        raise TypeError(
            f"{name} has leaves of dtype {', '.join(dtypes)}; expected one of "
            f"{', '.join(FLOATING)}, the same for all. Convert them, for example with "
            "jax.tree.map(lambda x: x.astype(float), ...)."
        )
    return leaves[0].dtype
