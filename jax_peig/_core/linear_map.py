"""Linear maps that carry their own transpose through every JAX transformation.

``bind(map, residuals, inputs)`` evaluates ``map(residuals, inputs)``. The map has to be linear in
``inputs`` and may depend on ``residuals`` in any smooth way. A plain JAX function is transposed
operation by operation; a linear map is transposed by the rule that it states. Two things need that:

* the reverse rule of the eigendecomposition is the one written down in ``_derivatives``. It checks
  its cotangents, and solves one linear system where transposing a solve would nest two;
* a Hermitian product is its own transpose, conjugated. A caller's function may hold a loop or a
  callback, and only has to be Hermitian.

``jax.custom_derivatives.linear_call`` is close, but can be neither batched nor differentiated with
respect to its residuals. These are the rules below, for ``out = f(r; x)`` linear in x:

    jvp        d out = f(r; dx) + (d_r f)(r; x) dr
    transpose  ct_x = f^T(r; ct_out),   (f^T)^T = f
    batching   vmap of f and of f^T
    lowering   that of the traced function, in line

The JAX names that may move between releases (``jax.extend``, ``jax.interpreters``) are used here
and in ``_operators`` only; ``tests/core/test_contract.py`` pins them.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jax_peig._core.types import Array

Arrays: TypeAlias = list[Array]
# None stands for a zero that nothing is computed for.
MaybeArrays: TypeAlias = list[Array | None]


class LinearMap:
    """A map that `bind` evaluates: subclass it as a frozen dataclass, which is hashable by value.

    Compiled programs are cached by the map's value; a map that compares by identity would compile
    again at every call.
    """

    @property
    def outputs(self) -> int:
        """The number of outputs."""
        return 1

    def __call__(self, residuals: Arrays, inputs: MaybeArrays) -> Arrays:
        """Outputs for ``inputs``, of which None stands for zero (never for all of them)."""
        raise NotImplementedError

    def transposed(self) -> "LinearMap":
        """The transpose in JAX's pairing, sum(ct * out) without conjugation."""
        raise NotImplementedError

    def tangent(self) -> "LinearMap":
        """The map to apply to tangents of the inputs: the same, except for its checks."""
        return self

    def pull(
        self, residuals: Arrays, cotangents: MaybeArrays, active: tuple[bool, ...]
    ) -> MaybeArrays:
        """The transpose applied to cotangents; a subclass may add checks of them."""
        present = tuple(ct is not None for ct in cotangents)
        return _bind(self.transposed(), residuals, cotangents, present, active)

    def batched(self, axes: tuple[int | None, ...], size: int) -> "LinearMap":
        """The map on batches, axis 0 of inputs and outputs and the residuals' ``axes``."""
        return _Batched(self, axes, size)

    def residual_jvp(
        self, residuals: Arrays, tangents: MaybeArrays, inputs: MaybeArrays
    ) -> tuple[Arrays, Arrays]:
        """Outputs, and their derivative along the residuals' tangents at fixed inputs."""
        return jvp_along(lambda leaves: self(leaves, inputs), residuals, tangents)


def jvp_along(
    function: Callable[[Arrays], Any],
    leaves: Sequence[Array],
    tangents: Sequence[Array | None],
) -> tuple[Any, Any]:
    """``jax.jvp`` of a function of a list, along those tangents that are not None."""
    active = [i for i, t in enumerate(tangents) if t is not None]

    def moving(*some: Array) -> Any:
        full = list(leaves)
        for i, leaf in zip(active, some, strict=True):
            full[i] = leaf
        return function(full)

    return jax.jvp(moving, [leaves[i] for i in active], [tangents[i] for i in active])


def bind(
    linear_map: LinearMap, residuals: Sequence[Array], inputs: Sequence[Array | None]
) -> list[Any]:
    """Apply ``linear_map``; see the module's text.

    Parameters
    ----------
    linear_map : LinearMap
        Hashable by value.
    residuals : sequence of arrays
        The arguments that the map depends on without being linear in them.
    inputs : sequence of arrays or None
        The arguments that it is linear in; None is a zero that nothing is computed for.

    Returns
    -------
    list of arrays
        The map's outputs; all None if all inputs are.
    """
    active_in = tuple(x is not None for x in inputs)
    return _bind(linear_map, residuals, inputs, active_in, (True,) * linear_map.outputs)


def _bind(
    linear_map: LinearMap,
    residuals: Sequence[Array],
    inputs: Sequence[Array | None],
    active_in: tuple[bool, ...],
    active_out: tuple[bool, ...],
) -> list[Any]:
    """The primitive's outputs, None where they are not active."""
    if not any(active_in) or not any(active_out):
        return [None] * len(active_out)
    outputs = linear_map_p.bind(
        *residuals,
        *(x for x in inputs if x is not None),
        linear_map=linear_map,
        active_in=active_in,
        active_out=active_out,
    )
    return _scatter(outputs, active_out)


def _scatter(values: Sequence[Any], mask: Sequence[bool]) -> list[Any]:
    """Put ``values`` where ``mask`` is True, None elsewhere."""
    iterator = iter(values)
    return [next(iterator) if m else None for m in mask]


def _split(arguments: Sequence[Any], active_in: Sequence[bool]) -> tuple[list[Any], list[Any]]:
    """The primitive's arguments as residuals and inputs, the latter with None for zeros."""
    cut = len(arguments) - sum(active_in)
    return list(arguments[:cut]), _scatter(arguments[cut:], active_in)


def _evaluate(
    *arguments: Array,
    linear_map: LinearMap,
    active_in: tuple[bool, ...],
    active_out: tuple[bool, ...],
) -> Arrays:
    """The active outputs of the map, as a flat list: what the primitive computes."""
    residuals, inputs = _split(arguments, active_in)
    outputs = linear_map(residuals, inputs)
    kept = []
    for output, keep in zip(outputs, active_out, strict=True):
        if keep:
            kept.append(output)
    return kept


linear_map_p = Primitive("jax_peig_linear_map")
linear_map_p.multiple_results = True


@functools.partial(jax.jit, static_argnames=("linear_map", "active_in", "active_out"))
def _compiled(
    *arguments: Array,
    linear_map: LinearMap,
    active_in: tuple[bool, ...],
    active_out: tuple[bool, ...],
) -> Arrays:
    return _evaluate(*arguments, linear_map=linear_map, active_in=active_in, active_out=active_out)


@linear_map_p.def_impl
def _impl(*arguments: Array, **params: Any) -> Arrays:
    return _compiled(*arguments, **params)


@linear_map_p.def_abstract_eval
def _abstract_eval(*avals: Any, **params: Any) -> list[Any]:
    shapes = tuple((a.shape, a.dtype, a.weak_type) for a in avals)
    return _output_avals(shapes, **params)


@functools.lru_cache(maxsize=1024)
def _output_avals(shapes: tuple[Any, ...], **params: Any) -> list[Any]:
    arguments = [
        jax.ShapeDtypeStruct(shape, dtype, weak_type=weak) for shape, dtype, weak in shapes
    ]
    outputs = jax.eval_shape(functools.partial(_evaluate, **params), *arguments)
    return [jax.core.ShapedArray(o.shape, o.dtype) for o in outputs]


mlir.register_lowering(linear_map_p, mlir.lower_fun(_evaluate, multiple_results=True))


def _jvp(
    primals: Sequence[Array],
    tangents: Sequence[Any],
    *,
    linear_map: LinearMap,
    active_in: tuple[bool, ...],
    active_out: tuple[bool, ...],
) -> tuple[Arrays, Arrays]:
    """The sum of the map on the inputs' tangents and its derivative in the residuals."""
    residuals, inputs = _split(primals, active_in)
    nonzero = [None if type(t) is ad.Zero else t for t in tangents]
    residual_tangents, input_tangents = _split(nonzero, active_in)
    residual_tangents = [
        t if jnp.issubdtype(jax.typeof(r).dtype, jnp.inexact) else None
        for r, t in zip(residuals, residual_tangents, strict=True)
    ]
    if any(t is not None for t in residual_tangents):
        outputs, slopes = linear_map.residual_jvp(residuals, residual_tangents, inputs)
    else:
        outputs = _bind(linear_map, residuals, inputs, active_in, active_out)
        slopes = [None] * len(active_out)  # type: ignore[list-item]
    moved = tuple(t is not None for t in input_tangents)
    pushed = _bind(linear_map.tangent(), residuals, input_tangents, moved, active_out)
    values, total = [], []
    for keep, value, slope, push in zip(active_out, outputs, slopes, pushed, strict=True):
        if not keep:
            continue
        values.append(value)
        terms = [t for t in (slope, push) if t is not None]
        total.append(sum(terms[1:], terms[0]) if terms else jnp.zeros_like(value))
    return values, total


ad.primitive_jvps[linear_map_p] = _jvp


def _transpose(
    cotangents: Sequence[Any],
    *arguments: Any,
    linear_map: LinearMap,
    active_in: tuple[bool, ...],
    active_out: tuple[bool, ...],
) -> MaybeArrays:
    """Cotangents of the inputs; None for the residuals."""
    residuals, _ = _split(arguments, active_in)
    full = _scatter(cotangents, active_out)
    full = [None if ct is None or type(ct) is ad.Zero else ct for ct in full]
    pulled = linear_map.pull(residuals, full, active_in)
    return [None] * len(residuals) + [p for p, a in zip(pulled, active_in, strict=True) if a]


ad.primitive_transposes[linear_map_p] = _transpose


@dataclasses.dataclass(frozen=True)
class _Batched(LinearMap):
    """vmap of a map over the residuals' ``axes`` and axis 0 of every input and output."""

    base: LinearMap
    axes: tuple[int | None, ...]
    size: int

    def _vmap(self, function: Callable[..., Any], *more_axes: Any) -> Callable[..., Any]:
        return jax.vmap(function, in_axes=(list(self.axes), *more_axes), axis_size=self.size)

    @property
    def outputs(self) -> int:
        return self.base.outputs

    def __call__(self, residuals: Arrays, inputs: MaybeArrays) -> Arrays:
        def evaluate(residuals: Arrays, present: Arrays) -> Arrays:
            return self.base(residuals, _scatter(present, [x is not None for x in inputs]))

        return self._vmap(evaluate, 0)(residuals, [x for x in inputs if x is not None])

    def transposed(self) -> LinearMap:
        return _Batched(self.base.transposed(), self.axes, self.size)

    def tangent(self) -> LinearMap:
        return _Batched(self.base.tangent(), self.axes, self.size)

    def pull(
        self, residuals: Arrays, cotangents: MaybeArrays, active: tuple[bool, ...]
    ) -> MaybeArrays:
        def evaluate(residuals: Arrays, present: Arrays) -> MaybeArrays:
            full = _scatter(present, [ct is not None for ct in cotangents])
            pulled = self.base.pull(residuals, full, active)
            return [p for p, keep in zip(pulled, active, strict=True) if keep]

        present = [ct for ct in cotangents if ct is not None]
        return _scatter(self._vmap(evaluate, 0)(residuals, present), active)

    def residual_jvp(
        self, residuals: Arrays, tangents: MaybeArrays, inputs: MaybeArrays
    ) -> tuple[Arrays, Arrays]:
        def evaluate(
            residuals: Arrays, tangents: MaybeArrays, present: Arrays
        ) -> tuple[Arrays, Arrays]:
            full = _scatter(present, [x is not None for x in inputs])
            return self.base.residual_jvp(residuals, tangents, full)

        present = [x for x in inputs if x is not None]
        return self._vmap(evaluate, list(self.axes), 0)(residuals, tangents, present)


def _batch(
    arguments: Sequence[Array],
    dims: Sequence[int | None],
    *,
    linear_map: LinearMap,
    active_in: tuple[bool, ...],
    active_out: tuple[bool, ...],
) -> tuple[Arrays, list[int]]:
    """The batched map's outputs, all along axis 0."""
    size = next(a.shape[d] for a, d in zip(arguments, dims, strict=True) if d is not None)
    residuals, inputs = _split(arguments, active_in)
    axes, input_dims = _split(dims, active_in)
    # Inputs without a batch axis are broadcast: a transpose then always finds its cotangents
    # batched, and the maps stay linear in every one of them.
    spread = [
        None
        if x is None
        else (jnp.broadcast_to(x, (size, *x.shape)) if d is None else jnp.moveaxis(x, d, 0))
        for x, d in zip(inputs, input_dims, strict=True)
    ]
    batched = linear_map.batched(tuple(axes), size)
    outputs = _bind(batched, residuals, spread, active_in, active_out)
    kept = [o for o in outputs if o is not None]
    return kept, [0] * len(kept)


batching.primitive_batchers[linear_map_p] = _batch
