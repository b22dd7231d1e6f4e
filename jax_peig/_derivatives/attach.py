"""How JAX comes to use the derivative rules: `attach` and its linear maps.

`attach` is a ``custom_jvp``. Its tangents pass through one linear map, the pushforward, which
carries the pullback as its transpose: JAX never transposes a rule operation by operation.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jax_peig._core import blocks
from jax_peig._core.linear_map import Arrays, LinearMap, MaybeArrays, bind, jvp_along
from jax_peig._core.types import Array, Block
from jax_peig._derivatives import well_posed
from jax_peig._derivatives.rules import Rule, with_value
from jax_peig._derivatives.systems import ForwardResult, Point, SylvesterSystem
from jax_peig._operators.hermitian import apply_hermitian
from jax_peig._operators.operator import Operator


@dataclasses.dataclass(frozen=True)
class _RuleMap(LinearMap):
    """A linear map whose residuals are the leaves of a `Point`."""

    tree: Any
    rule: Rule

    def point(self, residuals: Arrays) -> Point:
        """The point of linearisation."""
        return jax.tree.unflatten(self.tree, residuals)


@dataclasses.dataclass(frozen=True)
class _Push(_RuleMap):
    """(A' X, M' X) -> (lam', X'); a third input, the transpose of `_Pull`'s, is always zero."""

    @property
    def outputs(self) -> int:
        return 2

    def __call__(self, residuals: Arrays, inputs: MaybeArrays) -> Arrays:
        at = self.point(residuals)
        lam_dot, x_dot = self.rule.pushforward(at, inputs[0], inputs[1])
        if self.rule.settings.on_unconverged == "nan":
            lam_dot = jnp.where(at.forward.converged, lam_dot, jnp.nan)
            x_dot = jnp.where(at.forward.converged, x_dot, jnp.nan)
        if self.rule.on_gauge == "nan":
            # No gauge makes the derivative of a part of a cluster finite.
            x_dot = jnp.where(at.forward.cut[None, :], jnp.nan, x_dot)
        return [lam_dot, x_dot]

    def transposed(self) -> LinearMap:
        return _Pull(self.tree, self.rule)

    def pull(
        self, residuals: Arrays, cotangents: MaybeArrays, active: tuple[bool, ...]
    ) -> MaybeArrays:
        lb, xb = cotangents
        u, q, skew = bind(self.transposed(), residuals, cotangents)
        u, q = bind(_Check(self.tree, self.rule), residuals, [u, q, skew, lb, xb])
        return [u, q, None][: len(active)]


@dataclasses.dataclass(frozen=True)
class _Pull(_RuleMap):
    """(lb, Xb) -> cotangents of (A' X, M' X), and the gauge-dependent part of (lb, Xb).

    JAX pairs without conjugation: the map is conj, then the rule, then conj.
    """

    @property
    def outputs(self) -> int:
        return 3

    def __call__(self, residuals: Arrays, inputs: MaybeArrays) -> Arrays:
        at = self.point(residuals)
        lb, xb = (None if ct is None else ct.conj() for ct in inputs)
        u, q = self.rule.pullback(at, lb, xb)
        b = jnp.zeros_like(at.system.r) if xb is None else blocks.gram(at.system.x, xb)
        skew = self.rule.gauge_part(at, lb, b)
        return [u.conj(), q.conj(), skew.conj()]

    def transposed(self) -> LinearMap:
        return _Push(self.tree, self.rule)


@dataclasses.dataclass(frozen=True)
class _Check(_RuleMap):
    """(U, Q, gauge part, lb, Xb) -> (U, Q), or NaN where the derivative does not exist.

    It is a linear map so that in nested modes it sees whole tangents: along a path of a
    gauge-invariant loss the tangents of X and of Xb change the gauge part by equal and opposite
    amounts, and only their sum is zero.
    """

    derived: bool = False

    @property
    def outputs(self) -> int:
        return 2

    def __call__(self, residuals: Arrays, inputs: MaybeArrays) -> Arrays:
        at = self.point(residuals)
        u, q, skew, lb, xb = inputs
        valid = self._well_posed(at, skew, lb, xb, self.derived)
        policy = self.rule.settings.on_unconverged
        if policy == "nan":
            valid &= at.forward.converged
        elif policy == "warn":
            jax.debug.callback(well_posed.warn_unconverged, at.forward.converged)
        like = at.system.x
        return [jnp.where(valid, jnp.zeros_like(like) if t is None else t, jnp.nan) for t in (u, q)]

    def _well_posed(
        self, at: Point, skew: Array | None, lb: Array | None, xb: Block | None, derived: bool
    ) -> Array:
        """The check's answer by the policy `Rule.on_gauge`: True, or a warning, or False."""
        if self.rule.on_gauge == "ignore":
            return jnp.array(True)
        skew = jnp.zeros_like(at.system.r) if skew is None else skew
        lb, xb = (None if ct is None else ct.conj() for ct in (lb, xb))
        bad = self.rule.ill_posed(at, skew, lb, xb, derived=derived).any()
        if self.rule.on_gauge == "nan":
            return ~bad
        jax.debug.callback(well_posed.warn_ill_posed, bad)
        return jnp.array(True)

    def pull(
        self, residuals: Arrays, cotangents: MaybeArrays, active: tuple[bool, ...]
    ) -> MaybeArrays:
        del residuals, active
        return [*cotangents, None, None, None]

    def tangent(self) -> LinearMap:
        return dataclasses.replace(self, derived=True)

    def residual_jvp(
        self, residuals: Arrays, tangents: MaybeArrays, inputs: MaybeArrays
    ) -> tuple[Arrays, Arrays]:
        """Outputs that do not depend on the residuals, or NaN where that derivative is ill-posed.

        Where lb is not constant over a cluster, the first derivative is a generalised gradient,
        which jumps. Its own derivative would need the whole block, even at constant lb.
        """
        del tangents
        outputs = bind(self, residuals, inputs)
        at = self.point(residuals)
        valid = self._well_posed(at, None, inputs[3], None, True)
        return outputs, [jnp.where(valid, jnp.zeros_like(o), jnp.nan) for o in outputs]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def attach(
    rule: Rule, a: Operator, m: Operator | None, first: Array, x: Block, forward: ForwardResult
) -> tuple[Array, Block]:
    """(first, x) themselves, as differentiable functions of the parameters of A and M.

    The eigensolver is given parameters without tangents and is never differentiated. Its result
    passes through here and receives the derivatives of the pairs that it approximates. ``first`` is
    lam or R, see `Rule.first_output`.
    """
    del rule, a, m, forward
    return first, x


def _attach_jvp(
    rule: Rule, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[tuple[Array, Block], tuple[Array, Block]]:
    a, m, first, x, forward = primals
    a_dot, m_dot = tangents[:2]
    first, x = attach(rule, a, m, first, x, forward)
    ax, adx = _product_and_tangent(a, a_dot, x)
    mx, mdx = _product_and_tangent(m, m_dot, x)
    if forward.mx is not None:
        # The value is the forward solve's; the product itself serves derivatives alone.
        mx = with_value(forward.mx, mx)
    system = SylvesterSystem(a, m, x, mx, rule.rayleigh(first, x, ax, forward.labels), forward.data)
    leaves, tree = jax.tree.flatten(Point(system, rule.eigenvalues(first), forward))
    first_dot, x_dot = bind(_Push(tree, rule), leaves, [adx, mdx])
    if first_dot is None:
        return (first, x), (jnp.zeros_like(first), jnp.zeros_like(x))
    return (first, x), (first_dot, x_dot)


attach.defjvp(_attach_jvp, symbolic_zeros=True)


def _product_and_tangent(
    operator: Operator | None, tangent: Operator | None, x: Block
) -> tuple[Block, Block | None]:
    """A X, and A' X at fixed X: None where A does not move."""
    if operator is None or tangent is None:
        return x, None
    moves = [
        type(dot) is not SymbolicZero and jnp.issubdtype(jax.typeof(leaf).dtype, jnp.inexact)
        for leaf, dot in zip(operator.leaves, tangent.leaves, strict=True)
    ]
    if not any(moves):
        return apply_hermitian(operator, x), None

    def product(leaves: Arrays) -> Block:
        return apply_hermitian(dataclasses.replace(operator, leaves=tuple(leaves)), x)

    dots = [dot if move else None for dot, move in zip(tangent.leaves, moves, strict=True)]
    return jvp_along(product, operator.leaves, dots)
