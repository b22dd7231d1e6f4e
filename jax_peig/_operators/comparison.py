"""How the values in a traced program are compared, each by the rule of its type.

A rule gives what stands for a value: something hashable that is equal for two values only if the
program does the same with both. It refuses a value of which this is not known.
"""

import hashlib
import struct
import sys
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from jax.extend.core import Literal

# Functions and types of these packages are what they were when they were imported.
_FIXED = frozenset({"jax", "jaxlib", "numpy", "ml_dtypes", "scipy", "jax_peig"})
_FIXED_MODULES = frozenset(
    {"builtins", "math", "cmath", "operator", "functools", "itertools", "typing", "types"}
)
# Descriptions, and where JAX notes what the latest call of a function returned.
NOTES = frozenset({"Store", "EqualStore", "DebugInfo"})


class Incomparable(Exception):  # noqa: N818  # no error: a function then has a program of its own
    """A value of which equality is not known to be the same behaviour."""


class Same:
    """An object that is compared by identity."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


class Walk:
    """One walk through a program. An object that is met again is named by its number."""

    def __init__(self, rule_of: Callable[[Any], "Rule"]) -> None:
        self.rule_of = rule_of
        self.numbers: dict[int, tuple[int, Any]] = {}  # the object too: no other gets its id
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
            Same(equation.primitive),
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
        return self.rule_of(value)(self, value)

    def values(self, values: Any) -> tuple[Hashable, ...]:
        """The fingerprints of several values."""
        return tuple(self.value(v) for v in values)

    def numbered(self, value: Any, rule: Callable[[], Hashable]) -> Hashable:
        """The fingerprint of something that may contain itself, or be met again."""
        known = self.numbers.get(id(value))
        if known is not None:
            return ("again", known[0])
        self.numbers[id(value)] = (len(self.numbers), value)
        return rule()


Rule = Callable[[Walk, Any], Hashable]


def described(value: Any) -> str:
    """What stood in the way, for whoever looks into it."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


# -- what is fixed --------------------------------------------------------------------------------


def is_fixed_name(module: str) -> bool:
    return module in _FIXED_MODULES or module.partition(".")[0] in _FIXED


def is_of_jax(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in ("jax", "jaxlib")


def is_fixed(kind: type) -> bool:
    """Whether a type belongs to a package that is fixed."""
    return is_fixed_name(kind.__module__)


def is_fixed_function(function: Any) -> bool:
    """Whether a function is part of a package that is fixed, and reads its module alone."""
    module = function.__globals__.get("__name__", "")
    found = sys.modules.get(module)
    return found is not None and vars(found) is function.__globals__ and is_fixed_name(module)


# -- plain values ---------------------------------------------------------------------------------


def by_value(_: Walk, value: Any) -> Hashable:
    return (type(value), value)


def by_identity(_: Walk, value: Any) -> Hashable:
    return Same(value)


def of_number(_: Walk, value: Any) -> Hashable:
    """A number by its bits, so that NaN equals itself and -0.0 is not 0.0."""
    if not is_fixed(type(value)):
        raise Incomparable(described(value))
    kind = (type(value), getattr(value, "dtype", None))
    if isinstance(value, int):
        return (kind, int(value))
    return (kind, struct.pack("dd", value.real, value.imag))


def of_numpy(walk: Walk, value: Any) -> Hashable:
    """A NumPy array or scalar by its contents."""
    # Of other classes the contents are not all: those of NumPy have masks.
    plain = type(value) is np.ndarray or isinstance(value, np.generic) or is_of_jax(type(value))
    if value.dtype.hasobject or not plain:
        raise Incomparable(described(value))
    if value.ndim:
        walk.changeable = True
    weak = getattr(value, "weak_type", None)
    contents = np.asarray(value, order="C").tobytes()
    if len(contents) > 64:
        contents = hashlib.sha256(contents).digest()
    return (type(value), value.dtype, value.shape, weak, contents)


def of_tuple(walk: Walk, value: Any) -> Hashable:
    if type(value).__name__ in NOTES and is_fixed(type(value)):
        return type(value).__name__
    if not (type(value) is tuple or is_fixed(type(value))):
        raise Incomparable(described(value))
    return (type(value), walk.values(value))


def of_list(walk: Walk, value: Any) -> Hashable:
    walk.changeable = True
    return walk.numbered(value, lambda: (list, walk.values(value)))


def of_dict(walk: Walk, value: Any) -> Hashable:
    walk.changeable = True
    return walk.numbered(value, lambda: (dict, walk.values(value.items())))


def of_set(walk: Walk, value: Any) -> Hashable:
    walk.changeable |= isinstance(value, set)
    return (type(value), walk.values(value))


def of_slice(walk: Walk, value: Any) -> Hashable:
    return (slice, walk.values((value.start, value.stop, value.step)))


def of_tree(walk: Walk, value: Any) -> Hashable:
    """A tree's structure, if its nodes are JAX's own: those of others have methods."""
    stack = [value]
    while stack:
        tree = stack.pop()
        data = tree.node_data()
        if data is not None and data[0] not in (tuple, list, dict, type(None)):
            raise Incomparable(described(value))
        stack.extend(tree.children())
    return by_value(walk, value)


def of_tracer(_: Walk, value: Any) -> Hashable:
    raise Incomparable(described(value))


def of_trace(_: Walk, value: Any) -> Hashable:
    """The trace in which JAX met a rule: the rule is called in another."""
    return (type(value), getattr(value, "requires_low", None))


def of_jaxpr(walk: Walk, value: Any) -> Hashable:
    return walk.numbered(value, lambda: walk.jaxpr(value))


def of_equation(walk: Walk, value: Any) -> Hashable:
    """An equation that JAX keeps for its parameters, in a rule of which it uses some results."""
    operands = tuple(walk.value(v.aval) for v in value.invars)
    return walk.numbered(value, lambda: (operands, walk.operation(value)))


def of_module(_: Walk, value: Any) -> Hashable:
    if not is_fixed_name(value.__name__):
        raise Incomparable(described(value))
    return Same(value)


def of_type(_: Walk, value: Any) -> Hashable:
    if not is_fixed(value):
        raise Incomparable(described(value))
    return Same(value)


def of_enum(walk: Walk, value: Any) -> Hashable:
    return (of_type(walk, type(value)), value.name)
