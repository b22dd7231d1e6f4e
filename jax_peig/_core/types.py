"""Aliases for signatures, and the dtypes of vectors."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np

Array: TypeAlias = jax.Array
ArrayLike: TypeAlias = jax.Array | np.ndarray
# A block holds one vector per column.
Block: TypeAlias = jax.Array  # (n, b)
BlockFunction: TypeAlias = Callable[[Block], Block]
# (V, index) -> A_index[j] v_j: every column has its own operator.
ColumnsProduct: TypeAlias = Callable[[Block, Array], Block]
# Whatever may be given as A, M or a preconditioner: see `jax_peig.operators`.
OperatorLike: TypeAlias = Any
DTypeLike: TypeAlias = Any
PyTree: TypeAlias = Any
# The dtypes that vectors may have.
FLOATING = ("float32", "float64", "complex64", "complex128")
