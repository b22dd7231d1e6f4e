"""A product in single precision: its traced equations, read with narrower types.

A caller's product is written for vectors of one dtype, and closes over arrays of it. It is traced
for that dtype. The equations are then evaluated with float32 wherever they say float64, and with
complex64 for complex128: in operands and constants, in parameters that name a dtype, and in the
bodies of loops and branches.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jax_peig._core.checks import TRACING_ERRORS, first_line
from jax_peig._core.types import Array, Block, BlockFunction, DTypeLike

_NARROWER = {"float64": np.dtype("float32"), "complex128": np.dtype("complex64")}
# Calls whose bodies are written out, and the parameter with the body: nothing differentiates here.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "checkpoint": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
}


def single(dtype: DTypeLike) -> Any:
    """The dtype in its place: float32, complex64, or ``dtype`` itself."""
    return _NARROWER.get(str(dtype), dtype)


def in_single_precision(product: BlockFunction, like: Block) -> BlockFunction | None:
    """The function ``product`` of a block like ``like``, for blocks of the narrower dtype.

    Returns None where ``like`` has that dtype itself.

    Raises
    ------
    TypeError
        Where the product cannot be read so: it calls the host, or makes integers of numbers' bits.
    """
    if single(like.dtype) == like.dtype:
        return None
    traced = jax.make_jaxpr(product)(like)
    closed = ClosedJaxpr(traced.jaxpr, [_as_single(value) for value in traced.consts])

    def narrow(block: Block, /) -> Block:
        (image,) = _evaluate(closed, [block])
        return image

    try:
        jax.eval_shape(narrow, jax.ShapeDtypeStruct(like.shape, single(like.dtype)))
    except (*TRACING_ERRORS, NotImplementedError) as error:
        raise TypeError(
            f"mixed_precision=True: the product cannot be taken in {single(like.dtype)}"
            f" ({first_line(error).rstrip('.')}). Leave mixed_precision out."
        ) from error
    return narrow


def _as_single(value: Any) -> Any:
    dtype = jnp.result_type(value)
    return value if single(dtype) == dtype else jnp.asarray(value).astype(single(dtype))


def _evaluate(closed: Any, arguments: Sequence[Array]) -> list[Array]:
    """The results of a closed jaxpr of the wider dtype; constants and arguments are narrow."""
    jaxpr = closed.jaxpr
    values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Array:
        if isinstance(atom, Literal):
            aval: Any = atom.aval
            return jnp.asarray(atom.val, single(aval.dtype))
        return values[atom]

    for equation in jaxpr.eqns:
        results = _apply(equation, [read(v) for v in equation.invars])
        for variable, result in zip(equation.outvars, results, strict=True):
            expected = (variable.aval.shape, single(variable.aval.dtype))
            if (result.shape, result.dtype) != expected:
                raise TypeError(f"{equation.primitive.name} gives {result.dtype} there")
            values[variable] = result
    return [read(v) for v in jaxpr.outvars]


def _apply(equation: Any, operands: list[Array]) -> list[Array]:
    primitive, params = equation.primitive, equation.params
    if primitive.name in _CALLS:
        body = params[_CALLS[primitive.name]]
        closed = body if isinstance(body, ClosedJaxpr) else ClosedJaxpr(body, ())
        narrow = ClosedJaxpr(closed.jaxpr, [_as_single(value) for value in closed.consts])
        return _evaluate(narrow, operands)
    params = {name: _narrow_parameter(value) for name, value in params.items()}
    results = primitive.bind(*operands, **params)
    return results if primitive.multiple_results else [results]


def _narrow_parameter(value: Any) -> Any:
    if isinstance(value, ClosedJaxpr):
        return _narrow_body(value)
    if isinstance(value, Jaxpr):
        return _narrow_body(ClosedJaxpr(value, ())).jaxpr
    if type(value) is tuple:
        return tuple(_narrow_parameter(v) for v in value)
    return single(value) if isinstance(value, np.dtype) else value


def _narrow_body(body: Any) -> Any:
    """The body of a loop or a branch."""
    narrow = ClosedJaxpr(body.jaxpr, [_as_single(value) for value in body.consts])
    like = [jax.ShapeDtypeStruct(a.shape, single(a.dtype)) for a in body.in_avals]
    made: Callable[..., Any] = jax.make_jaxpr(lambda *given: _evaluate(narrow, given))
    return made(*like)
