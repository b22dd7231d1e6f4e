"""Traced functions as programs: two closures of the same code are one, and compile once.

`program_of` takes a traced function apart: what it depends on (`hoisting`), and what it does with
that (`fingerprint`). Of all functions with one fingerprint it returns the same `Program`, which
compares by identity, so that compiled programs are shared.

A rule of ``jax.custom_jvp`` is a Python function, which JAX calls later, when it differentiates.
Python can change what such a function reads. Therefore the fingerprint of the older program is
taken again before it is used for a newer one, wherever it depends on anything that can change. A
function whose fingerprint cannot be taken gets a program of its own.
"""

import dataclasses
import threading
import weakref
from collections.abc import Callable
from typing import Any, Self

import jax

from jax_peig._core.types import Array
from jax_peig._operators.fingerprint import Incomparable, fingerprint
from jax_peig._operators.hoisting import hoist


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A traced function without what it depends on. It compares by identity; see `program_of`."""

    jaxpr: Any

    def __call__(self, leaves: tuple[Any, ...], *arguments: Array) -> list[Array]:
        """The function's results, flat, where it depends on ``leaves``."""
        return jax.core.eval_jaxpr(self.jaxpr, leaves, *arguments)


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class Traced:
    """A function as a pytree: what it depends on is its leaves."""

    program: Program
    leaves: tuple[Any, ...]

    def __call__(self, *arguments: Array) -> Array:
        """The function's only result."""
        return self.program(self.leaves, *arguments)[0]

    def tree_flatten(self) -> tuple[tuple[Any, ...], Program]:
        return self.leaves, self.program

    @classmethod
    def tree_unflatten(cls, program: Program, leaves: tuple[Any, ...]) -> Self:
        return cls(program, tuple(leaves))


# The programs that are in use, by their fingerprints; no program is kept alive by this.
_PROGRAMS: weakref.WeakValueDictionary[Any, Program] = weakref.WeakValueDictionary()
_LOCK = threading.Lock()


def traced(function: Callable[..., Array], *like: Any) -> Traced:
    """Trace a function of arguments of the types of ``like``."""
    return Traced(*program_of(jax.make_jaxpr(function)(*like)))


def program_of(closed: Any) -> tuple[Program, tuple[Any, ...]]:
    """Return the program of a closed jaxpr, and the values that it depends on."""
    jaxpr, leaves = hoist(closed)
    try:
        found, changeable = fingerprint(jaxpr)
    except (Incomparable, RecursionError):
        return Program(closed.jaxpr), tuple(closed.consts)
    with _LOCK:
        program = _PROGRAMS.get(found)
        if program is None or (changeable and not _is_still(program, found)):
            program = _PROGRAMS[found] = Program(jaxpr)
    return program, leaves


def _is_still(program: Program, found: Any) -> bool:
    """Whether a program has the fingerprint that it had when it was made."""
    try:
        return bool(fingerprint(program.jaxpr)[0] == found)
    except (Incomparable, RecursionError):
        return False
