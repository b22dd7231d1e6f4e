"""What a traced function depends on, as arguments: its constants and its floating numbers.

A number that a function closes over, as s in ``lambda u: s * (D @ u)``, is a literal of the traced
program. `hoist` makes it an argument, beside the arrays, so that a sweep over s is one program. The
numbers inside a ``jax.jit`` are reached by writing its equations out in place of the call. Those in
the body of a loop or a branch stay where they are.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal, Var

Environment = dict[Any, Any]

# Elsewhere these numbers are masks, paddings and the starts of sums: parts of the program.
_USUAL = (0.0, 1.0, -1.0)
_ARITHMETIC = frozenset({"add", "sub", "mul", "div", "pow", "rem", "atan2"})


def hoist(closed: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return a jaxpr without constants of its own, and the values of its constant variables.

    Parameters
    ----------
    closed : closed jaxpr

    Returns
    -------
    jaxpr, leaves
        For ``jax.core.eval_jaxpr(jaxpr, leaves, *args)``.
    """
    jaxpr = closed.jaxpr
    writer = _Writer(list(jaxpr.constvars), list(closed.consts))
    writer.write(jaxpr, {}, renamed=False)
    outvars = [writer.substituted.get(v, v) if isinstance(v, Var) else v for v in jaxpr.outvars]
    made = jaxpr.replace(constvars=writer.variables, eqns=writer.equations, outvars=outvars)
    return made, tuple(writer.leaves)


class _Writer:
    """The equations written so far, and what was hoisted out of them."""

    def __init__(self, variables: list[Any], leaves: list[Any]) -> None:
        self.variables = variables
        self.leaves = leaves
        self.equations: list[Any] = []
        self.substituted: Environment = {}  # of the outermost jaxpr

    def write(self, jaxpr: Any, environment: Environment, *, renamed: bool) -> Environment:
        """Write the equations of a jaxpr, in which ``environment`` stands for its variables.

        ``renamed``: the results get new names, since the same jaxpr may be written twice.
        """
        if not renamed:
            environment = self.substituted

        def atom(v: Any) -> Any:
            return environment.get(v, v) if isinstance(v, Var) else v

        for equation in jaxpr.eqns:
            invars = [atom(v) for v in equation.invars]
            inner = _inner(equation)
            if inner is not None and _holds_leaves(inner):
                body = dict(zip(inner.jaxpr.invars, invars, strict=True))
                for variable, value in zip(inner.jaxpr.constvars, inner.consts, strict=True):
                    body[variable] = self.add(variable.aval, value)
                body = self.write(inner.jaxpr, body, renamed=True)
                for outer, v in zip(equation.outvars, inner.jaxpr.outvars, strict=True):
                    environment[outer] = body.get(v, v) if isinstance(v, Var) else v
                continue
            invars = [
                self.add(v.aval, _leaf(v)) if _is_leaf(v, equation.primitive) else v for v in invars
            ]
            outvars = equation.outvars
            if renamed:
                outvars = [Var(v.aval) for v in outvars]
                environment.update(zip(equation.outvars, outvars, strict=True))
            self.equations.append(equation.replace(invars=invars, outvars=outvars))
        return environment

    def add(self, aval: Any, value: Any) -> Any:
        """A new constant variable of this value."""
        variable = Var(aval)
        self.variables.append(variable)
        self.leaves.append(value)
        return variable


def _is_leaf(atom: Any, primitive: Any) -> bool:
    """Whether an operand is a floating number that is hoisted."""
    if not isinstance(atom, Literal) or np.ndim(atom.val):
        return False
    aval: Any = atom.aval
    dtype = aval.dtype
    if not jnp.issubdtype(dtype, np.inexact):
        return False
    if aval.weak_type and dtype != _dtype_of_numbers(dtype):
        return False  # no value has this weak type
    value = complex(atom.val)
    return primitive.name in _ARITHMETIC or (np.isfinite(value) and value not in _USUAL)


def _dtype_of_numbers(dtype: Any) -> Any:
    number = complex if jnp.issubdtype(dtype, np.complexfloating) else float
    return jax.dtypes.canonicalize_dtype(number)


def _leaf(literal: Any) -> Any:
    """A literal's number as a value of the same type: weak types stay weak."""
    dtype = literal.aval.dtype
    if literal.aval.weak_type:
        real = not jnp.issubdtype(dtype, np.complexfloating)
        return jnp.asarray(float(literal.val) if real else complex(literal.val))
    return np.array(literal.val, dtype)[()]


def _inner(equation: Any) -> Any:
    """The closed jaxpr of a plain ``jax.jit``; None for all else."""
    if equation.primitive.name not in ("jit", "pjit") or equation.effects:
        return None
    params = equation.params
    unset = ("in_layouts", "out_layouts", "donated_invars", "compiler_options_kvs")
    placed = [*params.get("in_shardings", (0,)), *params.get("out_shardings", (0,))]
    if any(type(s).__name__ != "UnspecifiedValue" for s in placed):
        return None
    if any(any(params.get(name, (1,))) for name in unset):
        return None
    if not getattr(params.get("ctx_mesh"), "empty", False):
        return None
    return params["jaxpr"]


def _holds_leaves(closed: Any) -> bool:
    """Whether there is anything to hoist in the body of a ``jax.jit``."""
    if closed.consts:
        return True
    for equation in closed.jaxpr.eqns:
        if any(_is_leaf(v, equation.primitive) for v in equation.invars):
            return True
        inner = _inner(equation)
        if inner is not None and _holds_leaves(inner):
            return True
    return False
