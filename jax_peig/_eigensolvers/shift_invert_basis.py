"""The basis V of a block Lanczos iteration for S M, and what a block has beside it.

V, S M V and M V are stored by rows, (size, n): two more columns of V are written in one place, and
the host gets them one after another.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.types import Array, Block, DTypeLike
from jax_peig._operators.operator import Operator
from jax_peig._problem.convergence import multiply

# Columns of a block: both copies of a pair come at once, and solves of two cost less than twice
# one. Wider blocks need more solves.
WIDTH = 2
# Passes over V at most to make a block orthogonal to it.
PASSES = 3
# A pass that leaves less than this part of the square of a length is followed by another: what
# rounding left along V is as much larger, relative to what remains.
SHORT = 0.25


class Beside(NamedTuple):
    """What a block B has beside V: B = V inside + F root."""

    f: Block  # (n, b), M-orthonormal, and to V; zero columns come last
    mf: Block
    root: Array  # (b, b)
    inside: Array  # (size, b)
    products: Array  # of M with one vector each
    negative: Array  # v^H M v < 0 was seen


class Basis(NamedTuple):
    """V with its images, M-orthonormal in the first ``filled`` columns and zero beyond."""

    v_rows: Array  # V^T, (size, n)
    w_rows: Array  # (S M V)^T
    mv_rows: Array | None  # (M V)^T; None without M: a copy in the loop would cost a pass a step
    h: Array  # V^H M S M V, (size, size)
    filled: Array

    @classmethod
    def empty(cls, n: int, size: int, dtype: DTypeLike, mass: bool) -> "Basis":
        """No columns; M V is kept where there is a ``mass``."""
        none = jnp.zeros((size, n), dtype)
        h = jnp.zeros((size, size), dtype)
        return cls(none, none, none if mass else None, h, jnp.array(0))

    @property
    def v(self) -> Block:
        """V, (n, size)."""
        return self.v_rows.T

    @property
    def w(self) -> Block:
        """S M V."""
        return self.w_rows.T

    @property
    def dual(self) -> Block:
        """M V."""
        return self.v if self.mv_rows is None else self.mv_rows.T

    def put(self, f: Block, mf: Block, image: Block) -> "Basis":
        """F, M F and S M F behind the last column; they count from `coupled` on."""

        def put(rows: Array, columns: Block) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(rows, columns.T, self.filled, axis=0)

        mv_rows = None if self.mv_rows is None else put(self.mv_rows, mf)
        return self._replace(
            v_rows=put(self.v_rows, f), w_rows=put(self.w_rows, image), mv_rows=mv_rows
        )

    def coupled(self, inside: Array, count: Array) -> "Basis":
        """The ``count`` columns that were put, with V^H M S M F as their columns of H."""
        h = jax.lax.dynamic_update_slice_in_dim(self.h, inside, self.filled, axis=1)
        h = jax.lax.dynamic_update_slice_in_dim(h, inside.conj().T, self.filled, axis=0)
        return self._replace(h=blocks.herm(h), filled=self.filled + count)

    def rotated(self, c: Array, nu: Array, count: Array) -> "Basis":
        """V C, of which ``count`` columns are Ritz vectors and the others zero."""
        v, w, mv, h, _ = self
        kept = jnp.arange(nu.shape[0]) < count
        h = jnp.diag(jnp.where(kept, nu, 0).astype(h.dtype))
        return Basis(c.T @ v, c.T @ w, None if mv is None else c.T @ mv, h, count)

    def with_columns(self, f: Block, mf: Block) -> "Basis":
        """A basis that a block can be made orthogonal to: V and F."""
        v = jnp.concatenate([self.v_rows, f.T])
        mv = None if self.mv_rows is None else jnp.concatenate([self.mv_rows, mf.T])
        return self._replace(v_rows=v, mv_rows=mv)

    # -- orthogonalisation --

    def rest_of_last(self, image: Block, m: Operator | None) -> Beside:
        """What S M F has beside V, for the F that was put last.

        By the recurrence most of it lies along F and the block before: that part is taken first, so
        that a single pass over V is left.
        """
        begin = jnp.maximum(self.filled - WIDTH, 0)

        def near(rows: Array) -> Block:
            return jax.lax.dynamic_slice_in_dim(rows, begin, 2 * WIDTH).T

        v = near(self.v_rows)
        c = blocks.gram(v if self.mv_rows is None else near(self.mv_rows), image)  # (4, 2)
        rounding = tolerances.rank(image.dtype) * blocks.column_norms(c)
        rest = self.beside(image - v @ c, m, rounding)
        before = jax.lax.dynamic_slice_in_dim(rest.inside, begin, 2 * WIDTH)
        inside = jax.lax.dynamic_update_slice_in_dim(rest.inside, before + c, begin, axis=0)
        return rest._replace(inside=inside)

    def beside(self, block: Block, m: Operator | None, least: Array | float = 0.0) -> Beside:
        """What a block has beside V, by as many passes over V as that takes.

        Columns of an M-norm of at most ``least`` (b,) are rounding, and left out.
        """

        def unfinished(state: tuple[Beside, Array, Array]) -> Array:
            _, shortened, passes = state
            return shortened & (passes < PASSES)

        def again(state: tuple[Beside, Array, Array]) -> tuple[Beside, Array, Array]:
            (f, _, root, inside, products, negative), _, passes = state
            c = blocks.gram(self.dual, f)
            rest = _normalized(f - self.v @ c, m, tolerances.rank(f.dtype))
            shortened = jnp.any((rest.squares > 0) & (rest.squares < SHORT))
            root, inside = rest.root @ root, inside + c @ root
            products, negative = products + f.shape[1], negative | rest.negative
            found = Beside(rest.f, rest.mf, root, inside, products, negative)
            return found, shortened, passes + 1

        unit = _normalized(block, m, least)
        inside = jnp.zeros((self.v_rows.shape[0], block.shape[1]), block.dtype)
        products = jnp.array(block.shape[1])
        first = Beside(unit.f, unit.mf, unit.root, inside, products, unit.negative)
        return jax.lax.while_loop(unfinished, again, (first, jnp.array(True), jnp.array(0)))[0]


class _Normalized(NamedTuple):
    """An M-orthonormal block F, with B = F root."""

    f: Block
    mf: Block
    root: Array
    squares: Array  # of the M-norms of B, (b,); zero for what is rounding
    negative: Array  # one of them is negative beyond rounding


def _normalized(block: Block, m: Operator | None, least: Array | float) -> _Normalized:
    """A block normalised without those columns whose M-norms are at most ``least``."""
    dual = multiply(m, block)
    g = blocks.gram(block, dual)
    squares, negative = blocks.diagonal(g), jnp.array(False)
    if m is not None:
        rounding = tolerances.eps(g.dtype) ** 0.5
        sizes = blocks.column_norms(block) * blocks.column_norms(dual)
        negative = jnp.any(squares < -rounding * sizes)
    keep = squares > least**2
    g = jnp.where(keep[:, None] & keep[None, :], g, 0)
    q, _ = blocks.orthonormalizer(g)
    f = block @ q
    squares = jnp.where(keep, squares, 0)
    return _Normalized(f, f if dual is block else dual @ q, q.conj().T @ g, squares, negative)
