"""The fingerprint of a traced function: equal fingerprints are the same program.

A fingerprint is a nested tuple of every equation: its primitive, operands, types, parameters, and
the jaxprs inside these. Each value is compared by a rule of its type. A value without a rule, such
as a callback, makes the whole program `Incomparable`: what is unknown compiles once more.

Rules of ``jax.custom_jvp`` and ``jax.custom_vjp`` are Python functions. They compare by their code,
their defaults, and all that they close over or read from their module, compared in the same way.
"""

import builtins
import dataclasses
import dis
import enum
import functools
import types
from collections.abc import Hashable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Primitive

from jax_peig._operators import comparison
from jax_peig._operators.comparison import (
    NOTES,
    Incomparable,
    Rule,
    Same,
    Walk,
    described,
    is_fixed_function,
    is_fixed_name,
    is_of_jax,
)

# By these a function may read or change what its code does not name.
_UNSEEN = frozenset(
    {"eval", "exec", "globals", "locals", "vars", "open", "input", "setattr", "delattr"}
    | {"pure_callback", "io_callback", "debug"}
)
# Objects of JAX that are made once for each value.
_INTERNED = frozenset({"UnspecifiedValue", "JaxprEqnContext"})


def fingerprint(jaxpr: Any) -> tuple[Hashable, bool]:
    """Return the fingerprint of a jaxpr, and whether it depends on anything that can change.

    Raises
    ------
    Incomparable
        For a program with effects, or with a parameter of which equality is not known.
    """
    walk = Walk(_rule_of)
    return walk.jaxpr(jaxpr), walk.changeable


def _of_object(walk: Walk, value: Any) -> Hashable:
    """An object of JAX that compares by value, or a function in one of JAX's wrappers."""
    kind: Any = type(value)
    if not is_of_jax(kind):
        raise Incomparable(described(value))
    if kind.__name__ in NOTES:
        return kind.__name__
    if kind.__name__ == "WrappedFun":
        parts = (value.f, value.transforms, value.params, value.in_type)
        return walk.numbered(value, lambda: (kind, walk.values(parts)))
    if callable(value):
        return _of_wrapper(walk, value)
    if dataclasses.is_dataclass(value):
        walk.changeable |= not kind.__dataclass_params__.frozen
        fields = [getattr(value, field.name) for field in dataclasses.fields(value)]
        return (kind, walk.values(fields))
    if kind.__eq__ is object.__eq__ and kind.__name__ not in _INTERNED:
        raise Incomparable(described(value))
    try:
        hash(value)
    except TypeError:
        raise Incomparable(described(value)) from None
    return (kind, value)


# -- functions ------------------------------------------------------------------------------------


def _of_function(walk: Walk, value: Any) -> Hashable:
    """A Python function: its code and all that it reads."""
    return walk.numbered(value, lambda: _function(walk, value))


def _function(walk: Walk, function: Any) -> Hashable:
    fixed = is_fixed_function(function)
    names = function.__code__.co_freevars
    cells = dict(zip(names, function.__closure__ or (), strict=True))
    if fixed and function.__qualname__ == "_memoize.<locals>.memoized":
        # JAX's cache of what `fn` returned.
        return ("memoized", walk.value(cells["fn"].cell_contents))
    try:
        closed_over = tuple((k, walk.value(c.cell_contents)) for k, c in cells.items())
    except ValueError:  # a cell that is empty
        raise Incomparable("an empty cell") from None
    read: tuple[Hashable, ...] = ()
    if not fixed:
        walk.changeable = True
        read = tuple(_globals(walk, function))
    return (
        Same(function.__code__),
        walk.value(function.__defaults__),
        walk.value(function.__kwdefaults__ and tuple(function.__kwdefaults__.items())),
        walk.values(_attributes(function)),
        closed_over,
        read,
    )


def _globals(walk: Walk, function: Any) -> Iterator[Hashable]:
    """What a function's code reads from its module."""
    for name in _names_read(function.__code__):
        if name in function.__globals__:
            yield (name, walk.value(function.__globals__[name]))
        elif hasattr(builtins, name):
            yield (name, Same(getattr(builtins, name)))
        else:
            raise Incomparable(name)


@functools.lru_cache(maxsize=1024)
def _names_read(code: types.CodeType) -> tuple[str, ...]:
    """The global names in a function's code and in the functions inside it."""
    for name in _UNSEEN.intersection(code.co_names):
        raise Incomparable(name)
    names = []
    for instruction in dis.get_instructions(code):
        operation = instruction.opname
        if operation.startswith("IMPORT") or operation in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            raise Incomparable(operation)
        if operation.startswith("LOAD") and operation.endswith(("GLOBAL", "GLOBALS", "NAME")):
            names.append(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.extend(_names_read(constant))
    return tuple(dict.fromkeys(names))


def _of_method(walk: Walk, value: Any) -> Hashable:
    return ("method", walk.value(value.__func__), walk.value(value.__self__))


def _of_builtin(_: Walk, value: Any) -> Hashable:
    owner = value.__self__
    if not (owner is None or isinstance(owner, types.ModuleType)):
        raise Incomparable(described(value))
    if not is_fixed_name(value.__module__ or ""):
        raise Incomparable(described(value))
    return Same(value)


def _of_partial(walk: Walk, value: Any) -> Hashable:
    parts = (value.func, value.args, tuple(value.keywords.items()), _attributes(value))
    return (type(value), walk.values(parts))


def _of_ruled_function(walk: Walk, value: Any) -> Hashable:
    """A function with rules of its own: `jax.custom_jvp` or `jax.custom_vjp."""
    copied = getattr(value.fun, "__dict__", {})  # by functools.update_wrapper
    own = [(k, v) for k, v in _attributes(value) if copied.get(k, copied) is not v]
    return walk.numbered(value, lambda: (type(value), walk.values(own)))


def _of_wrapper(walk: Walk, value: Any) -> Hashable:
    """``jax.jit`` of a function, or a function of ``jax.numpy``."""
    if getattr(jax.numpy, str(getattr(value, "__name__", "")), None) is value:
        return Same(value)
    if type(value).__name__ != "PjitFunction":
        raise Incomparable(described(value))
    return walk.numbered(value, lambda: (Same(value), walk.value(value.__wrapped__)))


def _attributes(value: Any) -> tuple[tuple[str, Any], ...]:
    """The attributes of an object, without those that describe it."""
    return tuple((k, v) for k, v in vars(value).items() if not k.startswith("__"))


# -- the rules, by type ---------------------------------------------------------------------------

_RULES: dict[type, Rule] = {
    type(None): comparison.by_value,
    type(Ellipsis): comparison.by_value,
    bool: comparison.by_value,
    int: comparison.by_value,
    str: comparison.by_value,
    bytes: comparison.by_value,
    float: comparison.of_number,
    complex: comparison.of_number,
    list: comparison.of_list,
    dict: comparison.of_dict,
    set: comparison.of_set,
    frozenset: comparison.of_set,
    slice: comparison.of_slice,
    jax.core.ShapedArray: comparison.by_value,
    jax.tree_util.PyTreeDef: comparison.of_tree,
    Jaxpr: comparison.of_jaxpr,
    ClosedJaxpr: comparison.of_jaxpr,
    JaxprEqn: comparison.of_equation,
    types.FunctionType: _of_function,
    types.MethodType: _of_method,
    types.BuiltinFunctionType: _of_builtin,
    types.ModuleType: comparison.of_module,
    functools.partial: _of_partial,
    jax.tree_util.Partial: _of_partial,
    jax.custom_jvp: _of_ruled_function,
    jax.custom_vjp: _of_ruled_function,
    np.ufunc: comparison.by_identity,
    object: comparison.by_identity,
}
# The first that fits.
_RULES_OF_SUBTYPES: tuple[tuple[Any, Rule], ...] = (
    (jax.core.Tracer, comparison.of_tracer),
    (jax.core.Trace, comparison.of_trace),
    (jax.Array, comparison.by_identity),
    ((np.ndarray, np.generic), comparison.of_numpy),
    (np.dtype, comparison.by_value),
    (Primitive, comparison.by_identity),
    (enum.Enum, comparison.of_enum),
    ((int, float, complex), comparison.of_number),
    ((jax.sharding.Mesh, jax.sharding.AbstractMesh), comparison.by_value),
    (type, comparison.of_type),
    (tuple, comparison.of_tuple),
)


def _rule_of(value: Any) -> Rule:
    rule = _RULES.get(type(value))
    if rule is not None:
        return rule
    return next((rule for kind, rule in _RULES_OF_SUBTYPES if isinstance(value, kind)), _of_object)
