"""Checks of arguments that several public functions make, each with its error text.

A text says what was given, what is expected and what to do. ``name`` is what the caller knows the
argument by, such as "partial_eigh: M".
"""

import operator
from typing import Any

import jax
import numpy as np

from jax_peig._core.types import FLOATING, DTypeLike


def is_array(x: Any) -> bool:
    """Whether ``x`` is a NumPy or JAX array (a tracer included)."""
    return isinstance(x, (np.ndarray, jax.Array))


def is_concrete(*values: Any) -> bool:
    """Whether the values are known while a program is traced."""
    return not any(isinstance(v, jax.core.Tracer) for v in values)


def kind_of(x: Any) -> Any:
    """What an error text calls ``x``: the dtype of an array, the type of all else."""
    return x.dtype if is_array(x) else type(x).__name__


def check_floating(dtype: DTypeLike, name: str) -> None:
    """Raise TypeError unless ``dtype`` is one of the four dtypes of vectors."""
    if np.dtype(dtype).name not in FLOATING:
        raise TypeError(
            f"{name} has dtype {dtype}; expected one of {', '.join(FLOATING)}. "
            f"Convert it, for example with {name.split()[-1]}.astype(float)."
        )


def floating_dtype(dtype: DTypeLike, caller: str) -> np.dtype:
    """Return what a ``dtype=`` argument comes to, in single precision without x64.

    Raises
    ------
    TypeError
        Unless it is one of the four dtypes of vectors.
    """
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.name not in FLOATING:
        given = repr(dtype) if found is None else found
        raise TypeError(f"{caller}: dtype is {given}; expected one of {', '.join(FLOATING)}.")
    return np.dtype(jax.dtypes.canonicalize_dtype(found))


def check_positive(name: str, value: Any, kind: type, zero: bool = False) -> None:
    """Raise where an optional number is given and is not a positive ``kind`` (or zero)."""
    if value is None:
        return
    wanted = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise TypeError(
            f"{name} is {value!r} of type {type(value).__name__}; expected a Python {kind.__name__}"
            " (it is compiled into the program), or None for the default."
        )
    if not (value > 0 or (zero and value == 0)):
        raise ValueError(f"{name} is {value!r}; expected a positive number.")


def integer(x: Any, name: str) -> int:
    """Return ``x`` as a Python integer.

    Raises
    ------
    TypeError
        Where it is none; a boolean is none.
    """
    try:
        found = None if isinstance(x, (bool, np.bool_)) else operator.index(x)
    except TypeError:
        found = None
    if found is None:
        raise TypeError(f"{name} is {x!r}; expected a Python integer.")
    return found
