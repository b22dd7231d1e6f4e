"""Checks of arguments that several public functions make, each with its error text.

A text says what was given, what is expected and what to do. ``name`` is what the caller knows the
argument by, such as "partial_eigh: M".
"""

import operator
import traceback
from typing import Any

import jax
import numpy as np

from jax_peig._core.types import FLOATING, DTypeLike

# What a caller's function may not do while JAX traces it: the error, what happened, what to do.
_UNTRACEABLE = (
    (
        jax.errors.TracerArrayConversionError,
        "it gives a JAX array to NumPy, which cannot be traced",
        "Write it with jax.numpy",
    ),
    (
        jax.errors.TracerBoolConversionError,
        "it decides by the value of an array (if, while, and, or), which is not known yet",
        "Write jnp.where in place of if, or jax.lax.cond",
    ),
    (
        jax.errors.NonConcreteBooleanIndexError,
        "it picks entries by a mask, and their number is not known yet",
        "Write jnp.where(mask, x, 0)",
    ),
    (
        jax.errors.TracerIntegerConversionError,
        "it takes the value of an array as a Python integer, which is not known yet",
        "Index a jax.numpy array by it, not a list",
    ),
    (
        jax.errors.ConcretizationTypeError,
        "it makes a Python number of an array (float, int, .item()), whose value is not known yet",
        "Leave it an array",
    ),
)
UNTRACEABLE = tuple(kind for kind, _, _ in _UNTRACEABLE)
# What tracing a caller's function may raise because of what the function does.
TRACING_ERRORS = (TypeError, ValueError, *UNTRACEABLE)


def is_array(x: Any) -> bool:
    """Whether ``x`` is a NumPy or JAX array (a tracer included)."""
    return isinstance(x, (np.ndarray, jax.Array))


def is_concrete(*values: Any) -> bool:
    """Whether the values are known while a program is traced."""
    return not any(isinstance(v, jax.core.Tracer) for v in values)


def kind_of(x: Any) -> Any:
    """What an error text calls ``x``: the dtype of an array, the type of all else."""
    return x.dtype if is_array(x) else type(x).__name__


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def failure(error: BaseException, advice: str) -> str:
    """Say in one line why a caller's function could not be traced, and what to do.

    ``advice`` is for errors that are not about tracing, which speak for themselves.
    """
    said = first_line(error).rstrip(".")
    for kind, what, do in _UNTRACEABLE:
        if not isinstance(error, kind):
            continue
        frames = traceback.walk_tb(error.__traceback__)
        if any(str(f.f_globals.get("__name__")).startswith("scipy.sparse") for f, _ in frames):
            what = "it multiplies by a SciPy sparse matrix, which cannot be traced"
            do = "Convert the matrix S once, before: jax_peig.operators.from_scipy(S)"
        return f"{what}. {do}. (JAX: {said}.)"
    return f"{said}. {advice}"


def check_floating(dtype: DTypeLike, name: str) -> None:
    """Raise TypeError unless ``dtype`` is one of the four dtypes of vectors."""
    if str(dtype) not in FLOATING:  # str tells the order of bytes, and keys have no NumPy dtype
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
        found = None if is_array(dtype) else np.dtype(dtype)
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
