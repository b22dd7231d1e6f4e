"""The data of the derivatives: the pairs, their linear systems, and help to solve those.

The linear systems live on the M-complement of the eigenvectors,

    P^H (A - lam_j M) P z_j = r_j,   P = I - X X^H M.

The forward solve leaves guard vectors and the end of the spectrum, which help to solve them.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.types import Array, Block
from jax_peig._operators.operator import Operator
from jax_peig._problem.convergence import (
    Complement,
    Lengths,
    Ritz,
    Spectrum,
    multiply,
    residuals,
)

# The default tolerance of the systems is this part of the eigenvectors' own error, ...
ERROR_SHARE = 0.1
# ... and never looser than this.
LOOSEST_TOLERANCE = 1e-3


class Guards(NamedTuple):
    """Ritz pairs beyond the k wanted ones, M-orthogonal to them; none has to be accurate."""

    values: Array  # (g,), in the order of the wanted
    vectors: Block  # (n, g)
    errors: Array  # (g,), residual norms in the M^{-1} norm, approximately


class SystemData(NamedTuple):
    """How the systems are solved: their solution does not depend on it. A pytree."""

    preconditioner: Operator | None
    norms: tuple[Array, Array]  # ||A||, ||M||
    tol: Array  # relative residual
    complement: Complement | None
    spectrum: Spectrum | None
    guards: Guards | None
    op_inv: Operator | None  # (A - sigma M)^{-1}, for interior pairs
    sigma: Array | None
    refused: Array | None  # (k,), which systems are singular and not solved; None: all are solved


class ForwardResult(NamedTuple):
    """The forward solve's findings beside the pairs, without derivatives; a pytree."""

    data: SystemData
    mx: Block | None  # M X; None without M
    labels: Array  # (k,), clusters
    cut: Array  # (k,), pairs of a cluster that k cuts
    converged: Array  # whether all k pairs converged


class SylvesterSystem(NamedTuple):
    """The parameters of A Z - M Z R = B on the complement; a pytree."""

    a: Operator
    m: Operator | None
    x: Block  # (n, k)
    mx: Block  # (n, k), M X; a derivative of M moves it
    r: Array  # (k, k), the Rayleigh matrix
    data: SystemData


class Point(NamedTuple):
    """The point at which the rules linearise: they are not linear in it. A pytree."""

    system: SylvesterSystem
    lam: Array  # (k,)
    forward: ForwardResult


class Systems(NamedTuple):
    """The operators sign P^H (A - lam_j M) P, definite for the smallest and the largest pairs."""

    a: Operator
    m: Operator | None
    x: Block  # (n, k)
    mx: Block  # (n, k)
    lam: Array  # (k,)
    data: SystemData
    sign: int  # 1 for the smallest pairs, -1 for the largest

    @classmethod
    def of(cls, system: SylvesterSystem, sign: int) -> "Systems":
        """The columns of a Sylvester system, with R = diag(lam)."""
        a, m, x, mx, r, data = system
        return cls(a, m, x, mx, blocks.diagonal(r), data, sign)

    def __call__(self, z: Block, index: Array) -> Block:
        """The products of the columns of Z (n, c) with the operators ``index`` (c,)."""
        return self.dual(self.bare(self.within(z), index))

    def bare(self, z: Block, index: Array) -> Block:
        """Sign (A - lam_j M) z_j, without projections."""
        shift = self.lam[index].astype(z.dtype)[None, :]
        return self.sign * (self.a(z) - multiply(self.m, z) * shift)

    def within(self, z: Block) -> Block:
        """P Z."""
        return blocks.project_out(z, self.x, self.mx)

    def dual(self, r: Block) -> Block:
        """P^H R."""
        return blocks.project_out(r, self.mx, self.x)


def guards_of(ritz: Ritz, k: int, norms: tuple[Array, Array]) -> Guards | None:
    """The guard vectors that an eigensolver leaves beside its k pairs; None where it has none."""
    if ritz.values.shape[0] == k:
        return None
    lengths = Lengths.of(residuals(ritz), ritz.values, ritz.vectors, norms)
    return Guards(ritz.values[k:], ritz.vectors[:, k:], (lengths.r * lengths.x)[k:])


def default_tolerance(bounds: Array, gap: Array, cut: Array) -> Array:
    """The relative residual to solve the systems to, from the error bounds (k,) of the pairs.

    It is a tenth of the eigenvectors' own error, residual over gap: the gradient inherits that
    error, and a tighter tolerance would not improve it.
    """
    least = tolerances.derivative(gap.dtype)
    error = jnp.max(bounds) * blocks.reciprocal(gap)
    share = jnp.clip(ERROR_SHARE * error, least, LOOSEST_TOLERANCE)
    return jnp.where(cut, least, share).astype(gap.dtype)
