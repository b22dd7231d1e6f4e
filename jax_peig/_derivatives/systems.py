"""The linear systems of the derivatives, on the complement of the eigenvectors.

    P^H (A - lam_j M) P z_j = r_j,   P = I - X X^H M,

and what is known of them from the forward solve: the guard vectors and the spectrum's end.
"""

from typing import NamedTuple

from jax_peig._core import blocks
from jax_peig._core.types import Array, Block
from jax_peig._eigensolvers.convergence import (
    Complement,
    Lengths,
    Ritz,
    Spectrum,
    multiply,
    residuals,
)
from jax_peig._operators.operator import Operator


class Guards(NamedTuple):
    """Ritz pairs beyond the k wanted ones, M-orthogonal to them; none has to be accurate."""

    values: Array  # (g,), in the order of the wanted
    vectors: Block  # (n, g)
    errors: Array  # (g,), residual norms in the M^{-1} norm, about


class SystemData(NamedTuple):
    """What the systems are solved with and the solution does not depend on; a pytree."""

    preconditioner: Operator | None
    norms: tuple[Array, Array]  # ||A||, ||M||
    tol: Array  # relative residual
    complement: Complement | None
    spectrum: Spectrum | None
    guards: Guards | None
    op_inv: Operator | None  # (A - sigma M)^{-1}, for interior pairs
    sigma: Array | None


def guards_of(ritz: Ritz, k: int, norms: tuple[Array, Array]) -> Guards | None:
    """The guard vectors that an eigensolver leaves behind its k pairs."""
    if ritz.values.shape[0] == k:
        return None
    lengths = Lengths.of(residuals(ritz), ritz.values, ritz.vectors, norms)
    return Guards(ritz.values[k:], ritz.vectors[:, k:], (lengths.r * lengths.x)[k:])


class Systems(NamedTuple):
    """sign P^H (A - lam_j M) P, positive definite for the smallest and the largest pairs."""

    a: Operator
    m: Operator | None
    x: Block
    mx: Block
    lam: Array  # (k,)
    data: SystemData
    sign: int

    def __call__(self, z: Block, index: Array) -> Block:
        return self.dual(self.bare(self.within(z), index))

    def bare(self, z: Block, index: Array) -> Block:
        """Sign (A - lam_j M) z_j without projections."""
        shift = self.lam[index].astype(z.dtype)[None, :]
        return self.sign * (self.a(z) - multiply(self.m, z) * shift)

    def within(self, z: Block) -> Block:
        """P Z."""
        return blocks.project_out(z, self.x, self.mx)

    def dual(self, r: Block) -> Block:
        """P^H R."""
        return blocks.project_out(r, self.mx, self.x)
