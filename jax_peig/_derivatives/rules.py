"""The derivative rules of A X = M X L, X^H M X = I, and how JAX comes to use them.

Forward (Kasim, arXiv:2011.04366, eqs 2.3-2.8, corrected) and reverse (eqs 2.9-2.12, corrected).
Three formulas of the paper are wrong as printed:

* the first term of M-bar in 2.10 has a minus sign, - X L Lbar X^H (as its 3.38 and 5.90 have it);
* the terms along X in 2.4 and 2.10 take the whole cluster block, D o, not its diagonal, I o:
  M-orthonormality fixes the Hermitian part of X^H M X' inside a cluster;
* 2.12 reads A Y - M Y L, not A Y - M Y E.

And one thing is done otherwise: components between two retained eigenvectors are written in closed
form, and the linear systems are solved on the complement of all k vectors, where they are definite.

Inside the rules the eigenvalues are the Rayleigh matrix R = D o (X^H A X): its value is diag(lam),
its derivative is the whole block inside a cluster, which is what second derivatives at exact
degeneracy need.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jax_peig._core import blocks
from jax_peig._core.linear_map import LinearMap, bind, jvp_along
from jax_peig._core.types import Array, Block
from jax_peig._derivatives import sylvester, well_posed
from jax_peig._derivatives.sylvester import Settings, System
from jax_peig._derivatives.systems import SystemData
from jax_peig._diagnostics import clusters
from jax_peig._operators.operator import Operator, apply_hermitian


@dataclasses.dataclass(frozen=True)
class Rules:
    """The static, hashable part of the rules."""

    settings: Settings
    refine: bool  # improve the pairs first
    on_gauge: str
    whole: bool = False  # all pairs are one cluster, and the matrix R takes the place of lam


class ForwardResult(NamedTuple):
    """What the forward solve found out, without derivative; a pytree."""

    data: SystemData
    mx: Block | None  # M X, where there is an M
    labels: Array  # (k,) clusters
    cut: Array  # (k,) pairs of a cluster that k cuts
    converged: Array  # all k pairs did


class _Residuals(NamedTuple):
    system: System
    lam: Array  # (k,)
    forward: ForwardResult


# -- the two rules --------------------------------------------------------------------------------


def pushforward(
    res: _Residuals, adx: Block | None, mdx: Block | None, rules: Rules
) -> tuple[Array, Block]:
    """Tangents (lam', X') from the blocks A' X and M' X (None is zero): eqs 2.3-2.8, corrected.

    A'_s = herm(X^H A' X),  M'_s = herm(X^H M' X),  G = A'_s - (R M'_s + M'_s R)/2
    lam' = diag(G)                                                                     (2.3)
    T R - R T = G off clusters, T = 0 inside                            closed form of 2.5, 2.6
    Z = -S(A' X - M' X R)                                                              (2.5)
    X' = X (T - M'_s / 2) + Z                                                          (2.4)

    With ``rules.whole`` R' = G is the first, and T = 0.
    """
    x, r = res.system.x, res.system.r
    zero = jnp.zeros_like(x)
    a_s = blocks.herm(blocks.gram(x, zero if adx is None else adx))
    g, rhs = a_s, zero if adx is None else adx
    if mdx is not None:
        m_s = blocks.herm(blocks.gram(x, mdx))
        g = g - (r @ m_s + m_s @ r) / 2
        rhs = rhs - mdx @ r
    lam_dot = g if rules.whole else jnp.diagonal(g).real
    along = jnp.zeros_like(g) if rules.whole else _between(res, g)
    if mdx is not None:
        along = along - m_s / 2
    z = -sylvester.solve(res.system, rhs, rules.settings)
    return lam_dot, x @ along + z


def pullback(
    res: _Residuals, lb: Array | None, xb: Block | None, rules: Rules
) -> tuple[Block, Block]:
    """Cotangents of the blocks A' X and M' X from (lb, Xb): eqs 2.9-2.12, corrected.

    In the Hermitian pairing <a, b> = Re tr(a^H b):

    B  = X^H Xb,  W R - R W = (B - B^H)/2 off clusters,  C = W + diag(lb)
    Zb = -S(Xb)                                                                    (2.11, 2.12)
    U  = X C + Zb                                                 cotangent of A' X       (2.9)
    Q  = -X [(R C + C R)/2 + herm(B)/2] - Zb R                    cotangent of M' X      (2.10)

    The antisymmetric difference is taken before the division, so that a nearly degenerate pair of
    a gauge-invariant loss loses no accuracy. Without Xb no linear system is solved.

    With ``rules.whole`` lb is the cotangent of R, (k, k), and C = herm(lb).
    """
    x, r = res.system.x, res.system.r
    if lb is None:
        c = jnp.zeros_like(r)
    else:
        c = blocks.herm(lb) if rules.whole else jnp.diag(lb.astype(r.dtype))
    if xb is None:
        return x @ c, -x @ ((r @ c + c @ r) / 2)
    b = blocks.gram(x, xb)
    if not rules.whole:
        c = c + _between(res, (b - b.conj().T) / 2)
    zb = -sylvester.solve(res.system, xb, rules.settings)
    along = (r @ c + c @ r + blocks.herm(b)) / 2
    return x @ c + zb, -x @ along - zb @ r


def _between(res: _Residuals, g: Array) -> Array:
    """T with T R - R T = g off clusters, 0 inside: T_ij = g_ij / (lam_j - lam_i)."""
    leaves = [res.system.r, res.lam, res.forward.labels]
    (t,) = bind(_Commutator(), leaves, [g])
    return t


@dataclasses.dataclass(frozen=True)
class _Commutator(LinearMap):
    """g -> T with T R - R T = g off clusters.

    In value R = diag(lam) and T = F o g, F_ij = 1/(lam_j - lam_i), elementwise and so its own
    transpose; in the derivative R is full: d T = F o (dg - (T dR - dR T)).
    """

    def __call__(self, residuals, inputs):
        _, lam, labels = residuals
        (g,) = inputs
        inside = clusters.mask(labels)
        difference = lam[None, :] - lam[:, None]
        f = jnp.where(inside, 0, 1 / jnp.where(inside, 1, difference))
        return [f.astype(g.dtype) * g]

    def transposed(self):
        return self

    def residual_jvp(self, residuals, tangents, inputs):
        (t,) = bind(self, residuals, inputs)
        dr = tangents[0]
        if dr is None:
            return [t], [jnp.zeros_like(t)]
        (slope,) = bind(self, residuals, [t @ dr - dr @ t])
        return [t], [-slope]


# -- the rules as one linear map with its transpose -----------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Push(LinearMap):
    """(A' X, M' X) -> (lam', X'); a third input, the transpose of `_Pull`'s, is always zero."""

    tree: Any
    rules: Rules

    @property
    def outputs(self):
        return 2

    def __call__(self, residuals, inputs):
        res = jax.tree.unflatten(self.tree, residuals)
        lam_dot, x_dot = pushforward(res, inputs[0], inputs[1], self.rules)
        if self.rules.settings.on_unconverged == "nan":
            lam_dot = jnp.where(res.forward.converged, lam_dot, jnp.nan)
            x_dot = jnp.where(res.forward.converged, x_dot, jnp.nan)
        if self.rules.on_gauge == "nan":
            # No gauge makes the derivative of a part of a cluster finite.
            x_dot = jnp.where(res.forward.cut[None, :], jnp.nan, x_dot)
        return [lam_dot, x_dot]

    def transposed(self):
        return _Pull(self.tree, self.rules)

    def pull(self, residuals, cotangents, active):
        lb, xb = cotangents
        u, q, skew = bind(self.transposed(), residuals, cotangents)
        rules = self.rules
        check = _Check(self.tree, rules.on_gauge, rules.settings.on_unconverged, rules.whole)
        u, q = bind(check, residuals, [u, q, skew, lb, xb])
        return [u, q, None][: len(active)]


@dataclasses.dataclass(frozen=True)
class _Pull(LinearMap):
    """(lb, Xb) -> cotangents of (A' X, M' X), and the gauge-dependent part of Xb.

    In JAX's pairing without conjugation: conj, the rule, conj.
    """

    tree: Any
    rules: Rules

    @property
    def outputs(self):
        return 3

    def __call__(self, residuals, inputs):
        res = jax.tree.unflatten(self.tree, residuals)
        lb, xb = (None if ct is None else ct.conj() for ct in inputs)
        u, q = pullback(res, lb, xb, self.rules)
        b = jnp.zeros_like(res.system.r)
        if xb is not None:
            b = blocks.gram(res.system.x, xb)
        if self.rules.whole:
            skew = well_posed.turning_part(b, res.system.r, lb)
        else:
            skew = well_posed.gauge_part(b, res.forward.labels)
        return [u.conj(), q.conj(), skew.conj()]

    def transposed(self):
        return _Push(self.tree, self.rules)


@dataclasses.dataclass(frozen=True)
class _Check(LinearMap):
    """(U, Q, gauge part, lb, Xb) -> (U, Q), or NaN where the question is ill-posed.

    A linear map so that it sees, in nested modes, the whole tangent of what it checks: along a
    path of a gauge-invariant loss the tangents of X and of Xb change the gauge part by equal and
    opposite amounts, and only their sum is zero.
    """

    tree: Any
    on_gauge: str
    on_unconverged: str
    whole: bool
    derived: bool = False

    @property
    def outputs(self):
        return 2

    def __call__(self, residuals, inputs):
        res = jax.tree.unflatten(self.tree, residuals)
        u, q, skew, lb, xb = inputs
        valid = self._well_posed(res, skew, lb, xb, self.derived)
        if self.on_unconverged == "nan":
            valid &= res.forward.converged
        elif self.on_unconverged == "warn":
            jax.debug.callback(well_posed.warn_unconverged, res.forward.converged)
        like = res.system.x
        return [jnp.where(valid, jnp.zeros_like(like) if t is None else t, jnp.nan) for t in (u, q)]

    def _well_posed(self, res, skew, lb, xb, derived):
        if self.on_gauge == "ignore":
            return jnp.array(True)
        xb = None if xb is None else xb.conj()
        forward, x, mx = res.forward, res.system.x, res.system.mx
        if self.whole:
            lb = None if lb is None else lb.conj()
            judge = well_posed.space_ill_posed
        else:
            judge = well_posed.ill_posed
        bad = judge(res.lam, forward.labels, forward.cut, x, mx, skew, lb, xb, derived=derived)
        if self.on_gauge == "nan":
            return ~bad
        jax.debug.callback(well_posed.warn_ill_posed, bad)
        return jnp.array(True)

    def pull(self, residuals, cotangents, active):
        return [*cotangents, None, None, None]

    def tangent(self):
        return dataclasses.replace(self, derived=True)

    def residual_jvp(self, residuals, tangents, inputs):
        """Outputs that do not depend on the residuals, or NaN where that derivative is ill-posed.

        Where lb is not constant over a cluster the first derivative was a generalised gradient,
        which jumps; its own derivative, even at constant lb, would need the whole block.
        """
        outputs = bind(self, residuals, inputs)
        res = jax.tree.unflatten(self.tree, residuals)
        valid = self._well_posed(res, jnp.zeros_like(res.system.r), inputs[3], None, True)
        return outputs, [jnp.where(valid, jnp.zeros_like(o), jnp.nan) for o in outputs]


# -- attaching the rules to what an eigensolver returned ------------------------------------------


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def attach(
    rules: Rules, a: Operator, m: Operator | None, lam: Array, x: Block, forward: ForwardResult
) -> tuple[Array, Block]:
    """(lam, x) themselves, as differentiable functions of what A and M depend on.

    The eigensolver is given parameters without tangents and is never differentiated; its result
    passes through here and receives the derivatives of the pairs that it is an approximation of.
    With ``rules.whole`` lam is the matrix R, whose value is diagonal.
    """
    del rules, a, m, forward
    return lam, x


def _attach_jvp(rules, primals, tangents):
    a, m, lam, x, forward = primals
    a_dot, m_dot = tangents[:2]
    lam, x = attach(rules, a, m, lam, x, forward)
    ax, adx = _product_and_tangent(a, a_dot, x)
    mx, mdx = _product_and_tangent(m, m_dot, x)
    if forward.mx is not None:
        mx = _with_value(forward.mx, mx)  # the forward solve's; A X is of use in derivatives alone
    if rules.whole:
        r, values = lam, jnp.diagonal(lam).real
    else:
        d = clusters.mask(forward.labels)
        block = jnp.where(d, blocks.herm(blocks.gram(x, ax)), 0)
        r, values = _with_value(jnp.diag(lam).astype(x.dtype), block), lam
    res = _Residuals(System(a, m, x, mx, r, forward.data), values, forward)
    leaves, tree = jax.tree.flatten(res)
    lam_dot, x_dot = bind(_Push(tree, rules), leaves, [adx, mdx])
    if lam_dot is None:
        return (lam, x), (jnp.zeros_like(lam), jnp.zeros_like(x))
    return (lam, x), (lam_dot, x_dot)


attach.defjvp(_attach_jvp, symbolic_zeros=True)


def _product_and_tangent(operator: Operator | None, tangent, x: Block):
    """A X, and A' X at fixed X: None where A does not move."""
    if operator is None:
        return x, None
    moves = [
        type(dot) is not SymbolicZero and jnp.issubdtype(jax.typeof(leaf).dtype, jnp.inexact)
        for leaf, dot in zip(operator.leaves, tangent.leaves, strict=True)
    ]
    if not any(moves):
        return apply_hermitian(operator, x), None

    def product(leaves):
        return apply_hermitian(dataclasses.replace(operator, leaves=tuple(leaves)), x)

    dots = [dot if move else None for dot, move in zip(tangent.leaves, moves, strict=True)]
    return jvp_along(product, operator.leaves, dots)


@jax.custom_jvp
def _with_value(value: Array, carrier: Array) -> Array:
    """``value``, with the derivative of ``carrier``, which is the same to the solver's accuracy."""
    del carrier
    return value


@_with_value.defjvp
def _with_value_jvp(primals, tangents):
    return _with_value(*primals), tangents[1]
