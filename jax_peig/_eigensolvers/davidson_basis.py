"""The basis of the Davidson method: expansion by one vector, restart, Rayleigh-Ritz."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.types import Array, Block, DTypeLike
from jax_peig._eigensolvers.convergence import Images, multiply
from jax_peig._operators.operator import Operator


class Basis(NamedTuple):
    """V, M-orthonormal, with room for m columns, of which the first ``filled`` are in use."""

    layers: tuple[Block, ...]  # V, A V and, with M, M V, each (n, m); zero from `filled` on
    h: Array  # V^H A V, (m, m)
    filled: Array

    @classmethod
    def empty(cls, n: int, size: int, dtype: DTypeLike, layers: int) -> "Basis":
        """No vector yet; ``layers`` is 2 without M and 3 with M."""
        block, h = jnp.zeros((n, size), dtype), jnp.zeros((size, size), dtype)
        return cls((block,) * layers, h, jnp.array(0))

    @property
    def size(self) -> int:
        """The room, m."""
        return self.h.shape[0]

    @property
    def full(self) -> Array:
        """Whether no room is left."""
        return self.filled >= self.size

    @property
    def scale(self) -> Array:
        """An upper bound of the largest |Ritz value|."""
        return jnp.max(jnp.sum(jnp.abs(self.h), axis=1))

    def emptied(self) -> "Basis":
        """The same room without vectors."""
        return Basis(*jax.tree.map(jnp.zeros_like, tuple(self)))

    def combine(self, c: Array) -> Images:
        """V C, A V C and M V C for coefficients (m, b)."""
        return Images.of(blocks.combine(self.layers, c))

    def orthonormal(self, w: Block, mass: Operator | None) -> tuple[Block, Block, Array]:
        """Make w (n, 1) orthonormal to the basis, or zero; M w; and whether M looked definite.

        Two projections are enough: a vector that loses more than half its digits in the first one
        is rounding, and is dropped.
        """
        v = Images.of(self.layers)
        w = blocks.unit_columns(w)
        for _ in range(2):
            w = _remainder(w, v.v, v.m)
        mw = multiply(mass, w)
        square = blocks.gram(w, mw).real  # (1, 1)
        inverse = jnp.sqrt(blocks.reciprocal(square)).astype(w.dtype)
        return w * inverse, mw * inverse, jnp.all(square >= 0)

    def append(self, v: Block, av: Block, mv: Block) -> "Basis":
        """One more vector (n, 1), orthonormal to the basis; a zero one takes no room."""
        i = self.filled
        layers = tuple(
            jax.lax.dynamic_update_slice_in_dim(old, new, i, axis=1)
            for old, new in zip(self.layers, (v, av, mv), strict=False)
        )
        column = blocks.gram(layers[0], av)  # (m, 1)
        here = jnp.arange(self.size) == i
        h = jnp.where(here[None, :], column, self.h)
        h = jnp.where(here[:, None], column.conj().T, h)
        return Basis(layers, h, i + jnp.where(jnp.all(v == 0), 0, 1))

    def compress(self, c: Array, p: Array) -> "Basis":
        """V [C, P] for orthonormal C (m, b) and what P (m, 1) adds to it."""
        for _ in range(2):
            p = _remainder(p, c, c)
        both = jnp.concatenate([c, p], axis=1)
        rest = self.size - both.shape[1]
        h = jnp.pad(both.conj().T @ self.h @ both, ((0, rest), (0, rest)))
        new = jnp.any(p != 0).astype(self.filled.dtype)
        combined = blocks.combine(self.layers, both)
        layers = tuple(jnp.pad(block, ((0, 0), (0, rest))) for block in combined)
        return Basis(layers, h, c.shape[1] + new)

    def rayleigh_ritz(self, deflated: Array, width: int) -> tuple[Array, Array, Array]:
        """The lowest Ritz pairs on the complement of the first ``deflated`` vectors.

        The couplings between the deflated vectors and all others are left out: Ritz vectors of the
        first ones come first, then those of the operator projected to the complement.

        Returns
        -------
        theta : (width,)
            Ritz values.
        c : (m, m)
            Coefficients of all Ritz vectors.
        k : (width, width)
            The residuals are A X - M X K. K is diag(theta), and takes the part along the deflated
            vectors out of the others' residuals.
        """
        first = jnp.arange(self.size) < deflated
        uncoupled = jnp.where(first[:, None] == first[None, :], self.h, 0)
        # Moved below all others, they come first, and mix with none.
        shift = jnp.diag(jnp.where(first, 4 * self.scale, 0).astype(self.h.dtype))
        alive = jnp.arange(self.size) < self.filled
        theta, c = blocks.rayleigh_ritz(blocks.herm(uncoupled - shift), alive=alive)
        lead = c[:, :width]
        quotient = lead.conj().T @ self.h @ lead
        theta = jnp.where(alive[:width], jnp.diagonal(quotient).real, theta[:width])
        first = first[:width]
        coupling = jnp.where(first[:, None] & ~first[None, :], quotient, 0)
        return theta, c, coupling + jnp.diag(theta.astype(self.h.dtype))


def _remainder(w: Block, basis: Block, dual: Block) -> Block:
    """A unit vector w (n, 1) after projection, normalised; zero where rounding is left."""
    return blocks.unit_columns(blocks.project_out(w, basis, dual), tolerances.rank(w.dtype))
