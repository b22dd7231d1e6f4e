"""Arrays on a mesh of Explicit axes: the compiler partitions contractions over a sharded axis.

With Explicit axes JAX asks every such contraction how its result is sharded. The functions here
hand whole computations to the compiler's automatic partitioning instead.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec, auto_axes

from jax_peig._core.types import Array, PyTree


def explicit_mesh(tree: PyTree) -> Any:
    """Return the mesh of Explicit axes on which an array of the pytree lies, or None."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    meshes = [jax.typeof(leaf).sharding.mesh for leaf in leaves]
    return next((mesh for mesh in meshes if AxisType.Explicit in mesh.axis_types), None)


def replicated(function: Callable[..., Array], *arguments: PyTree) -> Array:
    """Return ``function(*arguments)``; on a mesh of Explicit axes the result is replicated."""
    mesh = explicit_mesh(arguments)
    if mesh is None:
        return function(*arguments)
    leaves, treedef = jax.tree.flatten(arguments)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]

    def run(*arrays: Array) -> Array:
        full = list(leaves)  # functions among them
        for place, array in zip(places, arrays, strict=True):
            full[place] = array
        return function(*jax.tree.unflatten(treedef, full))

    partitioned = auto_axes(run, out_sharding=NamedSharding(mesh, PartitionSpec()))
    return partitioned(*(leaves[place] for place in places))
