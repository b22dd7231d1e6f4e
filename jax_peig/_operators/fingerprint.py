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
import hashlib
import struct
import sys
import types
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Primitive

# Functions and types of these packages are what they were when they were imported.
_FIXED = frozenset({"jax", "jaxlib", "numpy", "ml_dtypes", "scipy", "jax_peig"})
_FIXED_MODULES = frozenset(
    {"builtins", "math", "cmath", "operator", "functools", "itertools", "typing", "types"}
)
# By these a function may read or change what its code does not name.
_UNSEEN = frozenset(
    {"eval", "exec", "globals", "locals", "vars", "open", "input", "setattr", "delattr"}
    | {"pure_callback", "io_callback", "debug"}
)
# Objects of JAX that are made once for each value.
_INTERNED = frozenset({"UnspecifiedValue", "JaxprEqnContext"})
# Descriptions, and where JAX notes what the latest call of a function returned.
_NOTES = frozenset({"Store", "EqualStore", "DebugInfo"})


class Incomparable(Exception):  # noqa: N818  # no error: a function then has a program of its own
    """A value of which equality is not known to be the same behaviour."""


def fingerprint(jaxpr: Any) -> tuple[Hashable, bool]:
    """Return the fingerprint of a jaxpr, and whether it depends on anything that can change.

    Raises
    ------
    Incomparable
        For a program with effects, or with a parameter of which equality is not known.
    """
    walk = _Walk()
    return walk.jaxpr(jaxpr), walk.changeable


class _Same:
    """An object that is compared by identity."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


class _Walk:
    """One walk through a program. An object that is met again is named by its number."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        self.changeable = False

    def jaxpr(self, jaxpr: Any) -> Hashable:
        """The equations of a jaxpr, closed or not, with its variables numbered as they appear."""
        consts = tuple(getattr(jaxpr, "consts", ()))
        jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
        if jaxpr.effects or getattr(jaxpr, "is_high", False):
            raise Incomparable("effects")
        inputs = [*jaxpr.constvars, *jaxpr.invars]
        variables = {v: i for i, v in enumerate(inputs)}
        equations = []
        for equation in jaxpr.eqns:
            if equation.effects:
                raise Incomparable("effects")
            operands = tuple(self.atom(v, variables) for v in equation.invars)
            for v in equation.outvars:
                variables[v] = len(variables)
            equations.append((operands, self.operation(equation)))
        return (
            "jaxpr",
            len(jaxpr.constvars),
            tuple(self.value(v.aval) for v in inputs),
            tuple(self.value(c) for c in consts),
            tuple(equations),
            tuple(self.atom(v, variables) for v in jaxpr.outvars),
        )

    def operation(self, equation: Any) -> Hashable:
        """What an equation does, and the types of its results."""
        return (
            _Same(equation.primitive),
            tuple(self.value(v.aval) for v in equation.outvars),
            self.value(equation.ctx),
            tuple((k, self.value(v)) for k, v in sorted(equation.params.items())),
        )

    def atom(self, atom: Any, variables: dict[Any, int]) -> Hashable:
        """A variable by its number, a literal by its type and its bits."""
        if isinstance(atom, Literal):
            return (self.value(atom.aval), self.value(atom.val))
        return variables[atom]

    def value(self, value: Any) -> Hashable:
        """The fingerprint of any value, by the rule of its type."""
        rule = _RULES.get(type(value))
        if rule is not None:
            return rule(self, value)
        for kind, rule in _RULES_OF_SUBTYPES:
            if isinstance(value, kind):
                return rule(self, value)
        return _of_object(self, value)

    def values(self, values: Any) -> tuple[Hashable, ...]:
        """The fingerprints of several values."""
        return tuple(self.value(v) for v in values)

    def numbered(self, value: Any, rule: Callable[[], Hashable]) -> Hashable:
        """The fingerprint of something that may contain itself, or be met again."""
        known = self.numbers.get(id(value))
        if known is not None:
            return ("again", known)
        self.numbers[id(value)] = len(self.numbers)
        return rule()


# -- plain values ---------------------------------------------------------------------------------


def _by_value(_: _Walk, value: Any) -> Hashable:
    return (type(value), value)


def _by_identity(_: _Walk, value: Any) -> Hashable:
    return _Same(value)


def _of_number(_: _Walk, value: Any) -> Hashable:
    """A number by its bits, so that NaN equals itself and -0.0 is not 0.0."""
    if not _is_fixed(type(value)):
        raise Incomparable(_name(value))
    kind = (type(value), getattr(value, "dtype", None))
    if isinstance(value, int):
        return (kind, int(value))
    return (kind, struct.pack("dd", value.real, value.imag))


def _of_numpy(walk: _Walk, value: Any) -> Hashable:
    """A NumPy array or scalar by its contents."""
    # Of other classes the contents are not all: those of NumPy have masks.
    plain = type(value) is np.ndarray or isinstance(value, np.generic) or _is_of_jax(type(value))
    if value.dtype.hasobject or not plain:
        raise Incomparable(_name(value))
    if value.ndim:
        walk.changeable = True
    weak = getattr(value, "weak_type", None)
    contents = np.asarray(value, order="C").tobytes()
    if len(contents) > 64:
        contents = hashlib.sha256(contents).digest()
    return (type(value), value.dtype, value.shape, weak, contents)


def _of_tuple(walk: _Walk, value: Any) -> Hashable:
    if type(value).__name__ in _NOTES and _is_fixed(type(value)):
        return type(value).__name__
    if not (type(value) is tuple or _is_fixed(type(value))):
        raise Incomparable(_name(value))
    return (type(value), walk.values(value))


def _of_list(walk: _Walk, value: Any) -> Hashable:
    walk.changeable = True
    return walk.numbered(value, lambda: (list, walk.values(value)))


def _of_dict(walk: _Walk, value: Any) -> Hashable:
    walk.changeable = True
    return walk.numbered(value, lambda: (dict, walk.values(value.items())))


def _of_set(walk: _Walk, value: Any) -> Hashable:
    walk.changeable |= isinstance(value, set)
    return (type(value), walk.values(value))


def _of_slice(walk: _Walk, value: Any) -> Hashable:
    return (slice, walk.values((value.start, value.stop, value.step)))


def _of_tree(walk: _Walk, value: Any) -> Hashable:
    """A tree's structure, if its nodes are JAX's own: those of others have methods."""
    stack = [value]
    while stack:
        tree = stack.pop()
        data = tree.node_data()
        if data is not None and data[0] not in (tuple, list, dict, type(None)):
            raise Incomparable(_name(value))
        stack.extend(tree.children())
    return _by_value(walk, value)


def _of_tracer(_: _Walk, value: Any) -> Hashable:
    raise Incomparable(_name(value))


def _of_trace(_: _Walk, value: Any) -> Hashable:
    """The trace in which JAX met a rule: the rule is called in another."""
    return (type(value), getattr(value, "requires_low", None))


def _of_jaxpr(walk: _Walk, value: Any) -> Hashable:
    return walk.numbered(value, lambda: walk.jaxpr(value))


def _of_equation(walk: _Walk, value: Any) -> Hashable:
    """An equation that JAX keeps for its parameters, in a rule of which it uses some results."""
    operands = tuple(walk.value(v.aval) for v in value.invars)
    return walk.numbered(value, lambda: (operands, walk.operation(value)))


def _of_module(_: _Walk, value: Any) -> Hashable:
    if not _is_fixed_name(value.__name__):
        raise Incomparable(_name(value))
    return _Same(value)


def _of_type(_: _Walk, value: Any) -> Hashable:
    if not _is_fixed(value):
        raise Incomparable(_name(value))
    return _Same(value)


def _of_enum(walk: _Walk, value: Any) -> Hashable:
    return (_of_type(walk, type(value)), value.name)


def _of_object(walk: _Walk, value: Any) -> Hashable:
    """An object of JAX that compares by value, or a function in one of JAX's wrappers."""
    kind: Any = type(value)
    if not _is_of_jax(kind):
        raise Incomparable(_name(value))
    if kind.__name__ in _NOTES:
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
        raise Incomparable(_name(value))
    try:
        hash(value)
    except TypeError:
        raise Incomparable(_name(value)) from None
    return (kind, value)


# -- functions ------------------------------------------------------------------------------------


def _of_function(walk: _Walk, value: Any) -> Hashable:
    """A Python function: its code and all that it reads."""
    return walk.numbered(value, lambda: _function(walk, value))


def _function(walk: _Walk, function: Any) -> Hashable:
    fixed = _is_fixed_function(function)
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
        _Same(function.__code__),
        walk.value(function.__defaults__),
        walk.value(function.__kwdefaults__ and tuple(function.__kwdefaults__.items())),
        walk.values(_attributes(function)),
        closed_over,
        read,
    )


def _globals(walk: _Walk, function: Any) -> Iterator[Hashable]:
    """What a function's code reads from its module."""
    for name in _names_read(function.__code__):
        if name in function.__globals__:
            yield (name, walk.value(function.__globals__[name]))
        elif hasattr(builtins, name):
            yield (name, _Same(getattr(builtins, name)))
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


def _of_method(walk: _Walk, value: Any) -> Hashable:
    return ("method", walk.value(value.__func__), walk.value(value.__self__))


def _of_builtin(_: _Walk, value: Any) -> Hashable:
    owner = value.__self__
    if not (owner is None or isinstance(owner, types.ModuleType)):
        raise Incomparable(_name(value))
    if not _is_fixed_name(value.__module__ or ""):
        raise Incomparable(_name(value))
    return _Same(value)


def _of_partial(walk: _Walk, value: Any) -> Hashable:
    parts = (value.func, value.args, tuple(value.keywords.items()), _attributes(value))
    return (type(value), walk.values(parts))


def _of_ruled_function(walk: _Walk, value: Any) -> Hashable:
    """A function with rules of its own: `jax.custom_jvp` or `jax.custom_vjp."""
    copied = getattr(value.fun, "__dict__", {})  # by functools.update_wrapper
    own = [(k, v) for k, v in _attributes(value) if copied.get(k, copied) is not v]
    return walk.numbered(value, lambda: (type(value), walk.values(own)))


def _of_wrapper(walk: _Walk, value: Any) -> Hashable:
    """``jax.jit`` of a function, or a function of ``jax.numpy``."""
    if getattr(jax.numpy, str(getattr(value, "__name__", "")), None) is value:
        return _Same(value)
    if type(value).__name__ != "PjitFunction":
        raise Incomparable(_name(value))
    return walk.numbered(value, lambda: (_Same(value), walk.value(value.__wrapped__)))


def _attributes(value: Any) -> tuple[tuple[str, Any], ...]:
    """The attributes of an object, without those that describe it."""
    return tuple((k, v) for k, v in vars(value).items() if not k.startswith("__"))


def _name(value: Any) -> str:
    """What stood in the way, for whoever looks into it."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


# -- what is fixed --------------------------------------------------------------------------------


def _is_fixed_name(module: str) -> bool:
    return module in _FIXED_MODULES or module.partition(".")[0] in _FIXED


def _is_of_jax(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in ("jax", "jaxlib")


def _is_fixed(kind: type) -> bool:
    """Whether a type belongs to a package that is fixed."""
    return _is_fixed_name(kind.__module__)


def _is_fixed_function(function: Any) -> bool:
    """Whether a function is part of a package that is fixed, and reads its module alone."""
    module = function.__globals__.get("__name__", "")
    found = sys.modules.get(module)
    return found is not None and vars(found) is function.__globals__ and _is_fixed_name(module)


# -- the rules, by type ---------------------------------------------------------------------------

_Rule = Callable[[_Walk, Any], Hashable]

_RULES: dict[type, _Rule] = {
    type(None): _by_value,
    type(Ellipsis): _by_value,
    bool: _by_value,
    int: _by_value,
    str: _by_value,
    bytes: _by_value,
    float: _of_number,
    complex: _of_number,
    list: _of_list,
    dict: _of_dict,
    set: _of_set,
    frozenset: _of_set,
    slice: _of_slice,
    jax.core.ShapedArray: _by_value,
    jax.tree_util.PyTreeDef: _of_tree,
    Jaxpr: _of_jaxpr,
    ClosedJaxpr: _of_jaxpr,
    JaxprEqn: _of_equation,
    types.FunctionType: _of_function,
    types.MethodType: _of_method,
    types.BuiltinFunctionType: _of_builtin,
    types.ModuleType: _of_module,
    functools.partial: _of_partial,
    jax.tree_util.Partial: _of_partial,
    jax.custom_jvp: _of_ruled_function,
    jax.custom_vjp: _of_ruled_function,
    np.ufunc: _by_identity,
    object: _by_identity,
}
# The first that fits.
_RULES_OF_SUBTYPES: tuple[tuple[Any, _Rule], ...] = (
    (jax.core.Tracer, _of_tracer),
    (jax.core.Trace, _of_trace),
    (jax.Array, _by_identity),
    ((np.ndarray, np.generic), _of_numpy),
    (np.dtype, _by_value),
    (Primitive, _by_identity),
    (enum.Enum, _of_enum),
    ((int, float, complex), _of_number),
    ((jax.sharding.Mesh, jax.sharding.AbstractMesh), _by_value),
    (type, _of_type),
    (tuple, _of_tuple),
)
