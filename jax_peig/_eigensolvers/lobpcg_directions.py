"""LOBPCG's new directions W = T R: the preconditioner T it makes itself, and W made orthonormal.

Where no preconditioner is given, T is a polynomial in the operator:

    T = p(D A - s) D,    1 - t p(t) = T_m((c - t) / e) / T_m(c / e),    m = d + 1

with D = I, or an approximate inverse of M that costs no matvecs with M. p(t) is close to 1 / t on
[c - e, c + e] = [a - s, b - s]. For an even degree d it is positive everywhere, as is shown in
`preconditioners.chebyshev`. T is then positive definite whatever is chosen, and the choice decides
nothing but the number of steps. s is the smallest Ritz value, a the largest of the block, and b the
spectrum's end, raised where T R shows that it lies further out. d is such that T resembles the
inverse:

    m^2 = (b - s) / (a - s),    where 1 - t p(t) <= 1 / cosh(2) = 0.27 on the interval

That takes no matvec at all where the gap is wide, and `MOST` where it is narrow. A step with T
takes m matvecs and does as much as m steps without it, with fewer inner products and small
eigenproblems.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.types import Array, Block
from jax_peig._linear_solvers.semi_iteration import semi_iteration
from jax_peig._operators.mass_inverse import ApproximateInverse
from jax_peig._operators.operator import Operator
from jax_peig._problem.convergence import Images, multiply

MOST = 16  # the highest degree, an even number
# The gap between the block's ends counts as no more than this part of the spectrum.
WIDEST = 1 / 4
# The spectrum is taken to end further out than Lanczos steps or T R show, by this part of it.
ROOM = 0.05
# With the caller's inverse of M the spread in W is not known, and taken for this part of the
# distance between a Rayleigh quotient and the lowest Ritz value.
SPREAD = 0.2
# Projections of W, at most: the second leaves what rounding allows.
PASSES = 2


# -- T ---------------------------------------------------------------------------------------------


class Plan(NamedTuple):
    """The polynomial p of one step."""

    shift: Array
    lower: Array  # a - s
    upper: Array  # b - s
    degree: Array


class Polynomial(NamedTuple):
    """T, but for what changes from step to step."""

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

    def further(self, end: Array, lowest: Array, products: Images) -> Array:
        """The spectrum's ``end``, or one beyond it where W = T R lies further out.

        p grows like t^d beyond b, so that an eigenvalue there fills W with its vector, and even a
        part of it spoils W. Sign D A has a mean and a spread in each column of W, in the inner
        product of D^{-1}. A vector that is the part p of a column, at a distance h from all others,
        puts mean plus spread at h (p + sqrt(p - p^2)): at h or beyond where p >= 1/2, and at 1.21 h
        at most.

        Parameters
        ----------
        lowest : ()
            The lowest Ritz value.
        products : Images
            W, sign A W and M W.
        """
        w, aw, mw = products
        inverse = self.inverse
        dual = w if inverse is None else inverse.approximate_mass(w, mw)
        size = jnp.sum(w.conj() * dual, axis=0).real
        factor = blocks.reciprocal(size)
        mean = jnp.sum(w.conj() * aw, axis=0).real * factor
        if inverse is None or inverse.given is None:  # D is diagonal
            scaled = aw if inverse is None else inverse.diagonal[:, None].astype(aw.dtype) * aw
            square = jnp.sum(aw.conj() * scaled, axis=0).real * factor
            spread = jnp.sqrt(jnp.maximum(square - mean**2, 0))
        else:
            spread = SPREAD * (mean - lowest)
        reach = jnp.max(jnp.where(size > 0, mean + spread, -jnp.inf))
        return jnp.where(reach > end, reach + ROOM * (reach - lowest), end)

    def __call__(self, block: Block, plan: Plan) -> Block:
        """T V, up to a factor; ``plan.degree`` matvecs a vector."""

        def shifted(z: Block, /) -> Block:
            return multiply_inverse(self.sign * self.operator(z)) - plan.shift.astype(z.dtype) * z

        def multiply_inverse(block: Block) -> Block:
            return block if self.inverse is None else self.inverse(block)

        first = jnp.where(self.worthwhile, multiply_inverse(block), block)
        return semi_iteration(shifted, first, plan.lower, plan.upper, plan.degree + 1)


# -- W orthonormal ---------------------------------------------------------------------------------


class Directions(NamedTuple):
    """W, and the coefficients of N = (W diag(scale) - [X, P] c) L^{-H}, orthonormal to [X, P]."""

    w: Block  # (n, s)
    mw: Block
    scale: Array  # (s,)
    c: Array  # (2 m, s)
    inverse: Array  # of L, (s, s)
    safe: Array  # whether rounding leaves N orthonormal enough
    passes: Array  # over W by projections
    definite: Array  # M looked positive definite

    def coefficients(self) -> tuple[Array, Array]:
        """C_1 (2 m, s) and C_2 (s, s) of N = [X, P] C_1 + W C_2.

        After the last projection W itself is orthonormal, even where that did not show (for an
        indefinite M, say).
        """
        eye = jnp.eye(self.w.shape[1], dtype=self.w.dtype)
        c = jnp.where(self.safe, self.c, 0)
        inverse = jnp.where(self.safe, self.inverse, eye).conj().T
        return -c @ inverse, self.scale[:, None] * inverse


def orthonormal_directions(
    w: Block, mass: Operator | None, basis: Images, tol: float
) -> Directions:
    """Make W orthonormal to [X, P]: by coefficients where that is safe, else by projections first.

    Parameters
    ----------
    w : (n, s)
        With unit columns.
    basis : Images
        [X, P], orthonormal but for zero columns.
    tol : float
        That of the wanted residuals.
    """

    def project(before: Directions) -> Directions:
        """W orthogonal to [X, P] to some digits; a column that was in their span is dropped."""
        w = before.w * before.scale[None, :] - basis.v @ before.c  # of norm 1 before
        rounding = tolerances.rank(w.dtype)
        w, mw, negative = blocks.orthonormalize(w, multiply(mass, w), rounding)
        return _measured(w, mw, basis, tol)._replace(
            passes=before.passes + 1, definite=before.definite & ~negative
        )

    return jax.lax.while_loop(
        lambda directions: ~directions.safe & (directions.passes < PASSES),
        project,
        _measured(w, multiply(mass, w), basis, tol),
    )


def _measured(w: Block, mw: Block, basis: Images, tol: float) -> Directions:
    """N for W, with c = [X, P]^H M W and L L^H = W^H M W - c^H c, columns scaled.

    N is coupled to X by an error of eps |L^{-1}|, and its Gram matrix is in error by eps
    |L^{-1}|^2. The second has to stay below eps^{3/4}, by which Rayleigh-Ritz prefers X. The first,
    divided by it, is the angle by which a copy of an eigenvalue in N, with an error of sqrt(eps),
    gets into X: that has to stay below the tolerance.
    """
    g = blocks.gram(w, mw)
    diagonal = blocks.diagonal(g)
    scale = blocks.reciprocal(jnp.sqrt(diagonal)).astype(g.dtype)
    c = blocks.gram(basis.v, mw) * scale[None, :]
    eye = jnp.eye(g.shape[0], dtype=g.dtype)
    # A zero column of W is left alone.
    g = scale[:, None] * g * scale[None, :] + jnp.where(scale == 0, eye, 0)
    (inverse,) = blocks.inverse_factor(g - c.conj().T @ c)  # NaN where not definite
    size = jnp.sum(jnp.abs(inverse) ** 2) / inverse.shape[1]
    eps = tolerances.eps(g.dtype)
    limit = min(0.1 * eps**-0.25, (0.1 * tol * eps**-0.75) ** 2)
    safe = (size <= max(limit, 1.5)) & jnp.all(diagonal >= 0)
    return Directions(w, mw, scale, c, inverse, safe, jnp.array(0), jnp.array(True))
