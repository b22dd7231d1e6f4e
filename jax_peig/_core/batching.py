"""Batches whose members need different work: one after the other, on a machine that is one CPU.

Under ``vmap`` an iteration goes on for all members until the last has converged, and takes every
branch for each of them. A CPU gains nothing by it. An accelerator does, and so do several devices,
over which a batch may be spread: there a batch stays a batch.
"""

from collections.abc import Callable
from typing import Any

import jax


def one_after_another(function: Callable[..., Any], *operands: Any) -> Any:
    """``function(*operands)``, of pytrees of arrays; it must not be differentiated."""
    if jax.device_count() > 1:
        return function(*operands)
    single = jax.custom_batching.custom_vmap(function)

    @single.def_vmap
    def rule(size: int, batched: list[Any], *operands: Any) -> tuple[Any, Any]:
        del size
        leaves, tree = jax.tree.flatten(operands)
        moves = jax.tree.leaves(batched)

        def member(call: Callable[..., Any], moving: list[Any]) -> Any:
            rest = iter(moving)
            full = [next(rest) if m else x for x, m in zip(leaves, moves, strict=True)]
            return call(*jax.tree.unflatten(tree, full))

        found = jax.lax.platform_dependent(
            [x for x, m in zip(leaves, moves, strict=True) if m],
            cpu=lambda batch: jax.lax.map(lambda one: member(single, one), batch),
            default=jax.vmap(lambda one: member(function, one)),
        )
        return found, jax.tree.map(lambda _: True, found)

    return single(*operands)
