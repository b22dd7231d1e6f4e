"""The preconditioner that LOBPCG makes itself where none is given: a polynomial in the operator.

    T = p(D A - s) D,    1 - t p(t) = T_m((c - t) / e) / T_m(c / e),    m = d + 1

with D = I, or a rough inverse of M that costs no products with M. p(t) is close to 1 / t on
[c - e, c + e] = [a - s, b - s], and for an even degree d positive everywhere, as is shown in
`preconditioners.polynomial`: T is positive definite whatever is chosen, and what is chosen decides
nothing but the number of steps. s is the smallest Ritz value, a the largest of the block, b the
spectrum's end, raised where T R shows that it lies further out, and d as large as makes T resemble
the inverse,

    m^2 = (b - s) / (a - s),    where 1 - t p(t) <= 1 / cosh(2) = 0.27 on the interval:

no product at all where the gap is wide, `MOST` where it is narrow. A step with T takes m products
and does what m steps without it would, but for their inner products and small eigenproblems.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jax_peig._core import blocks
from jax_peig._core.types import Array, Block
from jax_peig._linear_solvers.semi_iteration import semi_iteration
from jax_peig._operators.mass_inverse import ApproximateInverse
from jax_peig._operators.operator import Operator

MOST = 16  # an even number
# The gap to the block's end is taken for no more than this part of the spectrum.
WIDEST = 1 / 4
# How much further out the spectrum is taken to end than Lanczos steps say; and than a Rayleigh
# quotient in W says, whose vector is only in part of what lies there.
ROOM = 0.05
BEYOND = 0.2


def further(end: Array, lowest: Array, reach: Array) -> Array:
    """The spectrum's ``end``, or beyond ``reach`` where that lies further out: a Ritz value."""
    return jnp.where(reach > end, reach + BEYOND * (reach - lowest), end)


class Plan(NamedTuple):
    """What p is for one step."""

    shift: Array
    lower: Array  # a - s
    upper: Array  # b - s
    degree: Array


class Polynomial(NamedTuple):
    """How T is made."""

    operator: Operator
    sign: int
    inverse: ApproximateInverse | None  # D; None without M
    end: Array  # of the spectrum of sign D A, as far as is known in the beginning
    worthwhile: Array  # D resembles M^{-1}; else T is a number

    @classmethod
    def within(
        cls,
        operator: Operator,
        sign: int,
        inverse: ApproximateInverse | None,
        interval: tuple[Array, Array],
        worthwhile: Array,
    ) -> "Polynomial":
        """With an ``interval`` that most likely encloses the spectrum of sign D A."""
        low, high = interval
        return cls(operator, sign, inverse, high + ROOM * (high - low), worthwhile)

    def plan(self, theta: Array, end: Array) -> Plan:
        """For a block with these Ritz values, ascending, and the spectrum's end."""
        low, high = theta[0], theta[-1]
        extent = jnp.maximum(end, high) - low
        extent = jnp.where((extent > 0) & jnp.isfinite(extent), extent, 1)
        gap = jnp.clip(high - low, extent / (MOST + 1) ** 2, extent * WIDEST)
        degree = 2 * jnp.round((jnp.sqrt(extent / gap) - 1) / 2).astype(int)
        return Plan(low, gap, extent, jnp.where(self.worthwhile, degree, 0))

    def reach(self, w: Block, aw: Block, mw: Block) -> Array:
        """The largest Rayleigh quotient of sign D A in W = T R, where there is M.

        p grows like t^d beyond b: an eigenvalue there fills W with its vector, and little of it
        spoils W still.
        """
        assert self.inverse is not None
        below = w.conj() * self.inverse.before(w, mw)
        size = jnp.sum(below, axis=0).real
        quotient = jnp.sum(w.conj() * aw, axis=0).real * blocks.reciprocal(size)
        return jnp.max(jnp.where(size > 0, quotient, -jnp.inf))

    def __call__(self, block: Block, plan: Plan) -> Block:
        """T V, up to a factor; ``plan.degree`` products a vector."""

        def rough(block):
            return block if self.inverse is None else self.inverse(block)

        def shifted(z):
            return rough(self.sign * self.operator(z)) - plan.shift.astype(z.dtype) * z

        first = jnp.where(self.worthwhile, rough(block), block)
        return semi_iteration(shifted, first, plan.lower, plan.upper, plan.degree + 1)
