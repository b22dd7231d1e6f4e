"""The type of all preconditioners, and the checks of their arguments."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_peig._core import tolerances
from jax_peig._core.checks import check_floating, is_array, is_concrete
from jax_peig._core.types import Array, ArrayLike, Block


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["leaves"], meta_fields=["product", "n"]
)
@dataclasses.dataclass(frozen=True)
class Preconditioner:
    """A positive definite operator T: ``T @ v`` and ``T(v)`` for v (n,) or (n, b).

    Attributes
    ----------
    leaves : tuple
        The arrays, or the operator, that the product depends on.
    product : callable
        ``product(leaves, V) -> T V`` for V (n, b); hashable by value.
    n : int or None
        The order. None where A is a function, which does not tell it.
    """

    leaves: tuple[Any, ...]
    product: Callable[[tuple[Any, ...], Block], Block]
    n: int | None

    def __matmul__(self, v: ArrayLike) -> Array:
        n = "n" if self.n is None else self.n
        block = floating_array(
            v, "preconditioner: vector", f"({n},) or ({n}, b)", (1, 2), finite=False
        )
        if self.n not in (None, block.shape[0]):
            raise ValueError(
                f"preconditioner of order {n} applied to shape {block.shape}; expected ({n},) or "
                f"({n}, b). Make it of what has the order of A."
            )
        if block.ndim == 1:
            return self.product(self.leaves, block[:, None])[:, 0]
        return self.product(self.leaves, block)

    def __call__(self, v: ArrayLike) -> Array:
        """T v."""
        return self @ v


def inverse_size(values: Array) -> Array:
    """1 / |v|, with |v| at least 100 eps of the largest; 1 where all are zero."""
    size = jnp.abs(values)
    largest = jnp.max(size)
    floor = tolerances.rank(values.dtype) * largest
    return 1 / jnp.where(largest > 0, jnp.maximum(size, floor), 1)


def floating_array(
    x: Any, name: str, shape: str, ndims: Sequence[int], finite: bool = True
) -> Array:
    """Return x, checked: a floating array with one of ``ndims`` axes, finite if concrete."""
    if not is_array(x):
        raise TypeError(f"{name} is a {type(x).__name__}; expected an array {shape}.")
    check_floating(x.dtype, name)
    if x.ndim not in ndims or x.size == 0:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; expected an array {shape}.")
    if finite and is_concrete(x) and not np.all(np.isfinite(np.asarray(x))):
        raise ValueError(f"{name} holds NaN or inf; expected finite numbers.")
    return jnp.asarray(x)


def real_number(x: Any, name: str) -> Array:
    """Return x, checked: a real number in JAX's default float, finite if concrete."""
    x = np.asarray(x) if isinstance(x, (int, float, np.generic)) else x
    if not is_array(x) or x.ndim != 0 or x.dtype.kind not in "iuf":
        raise TypeError(f"{name} is {x!r}; expected a real number.")
    if is_concrete(x) and not np.isfinite(np.asarray(x)):
        raise ValueError(f"{name} is {x}; expected a finite number.")
    return jnp.asarray(x, jnp.result_type(float))


def positive_integer(x: Any, name: str) -> int:
    """Return x, checked: an integer of at least 1."""
    try:
        count = -1 if isinstance(x, (bool, np.bool_)) else operator.index(x)
    except TypeError:
        count = -1
    if count < 1:
        raise ValueError(f"{name} is {x!r}; expected a Python integer of at least 1.")
    return count
