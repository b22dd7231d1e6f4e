"""The Sylvester equations of the rules, as linear maps: on the complement and inside span(X).

**On the complement.** With P = I - X X^H M, S(B) is the Z = P Z that solves

    P^H (A Z - M Z R) = P^H B.

R = diag(lam) in value, so that the columns are separate systems with P^H (A - lam_j M) P, positive
definite on the complement for the smallest pairs and negative definite for the largest. In the
derivative R is a full matrix: its off-diagonal entries inside a cluster move (see `rules`).

The operator is completed on span(X) so that it is invertible there and hides nothing:

    L(Z) = P^H (A P Z - M P Z R) + s M X X^H M Z,      S(B) = P L^{-1}(B).

s = ||A|| / ||M|| makes both parts of the size of A: P, which removes the second, leaves no rounding
of a larger one. L is Hermitian; L^{-1} is a linear map with its own transpose (itself, conjugated)
and its own derivative, d L^{-1}(B) = L^{-1}(dB - dL(Z)). P depends on X and M and is differentiated
as written.

**Inside span(X).** T solves T R - R T = G off clusters, and is zero inside them:

    T_ij = G_ij / (lam_j - lam_i).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.batching import one_after_another
from jax_peig._core.linear_map import Arrays, LinearMap, MaybeArrays, bind, jvp_along
from jax_peig._core.types import Array, Block
from jax_peig._derivatives import solve as systems_solve
from jax_peig._derivatives import well_posed
from jax_peig._derivatives.systems import SylvesterSystem, Systems
from jax_peig._diagnostics import clusters
from jax_peig._operators.hermitian import apply_hermitian


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the systems are solved: the static, hashable part."""

    solvers: tuple[Any, ...]  # tried one after the other, see `_derivatives.solve`
    max_steps: int
    sign: int  # 1 where the systems are positive definite, -1 where negative
    on_unconverged: str


# -- on the complement ----------------------------------------------------------------------------


def solve(system: SylvesterSystem, b: Block, settings: Settings) -> Block:
    """S(B) for B (n, k): zero where the complement is, NaN by column where it did not converge.

    Where k = n it is zero and takes no matvecs.
    """
    n, k = system.x.shape
    if n == k:
        return jnp.zeros_like(b)
    leaves, tree = jax.tree.flatten(system)
    (z,) = bind(_Inverse(tree, settings), leaves, [b])
    return blocks.project_out(z, system.x, system.mx)


def _dual_project(block: Block, x: Block, mx: Block) -> Block:
    """P^H B = B - M X (X^H B)."""
    return blocks.project_out(block, mx, x)


def _completed(system: SylvesterSystem, z: Block) -> Block:
    """L(Z), with R a full matrix."""
    inside = blocks.gram(system.mx, z)
    pz = z - system.x @ inside
    image = apply_hermitian(system.a, pz) - apply_hermitian(system.m, pz) @ system.r
    return _dual_project(image, system.x, system.mx) + system.mx @ (_size(system) * inside)


def _size(system: SylvesterSystem) -> Array:
    """||A|| / ||M||, and 1 for A = 0, in the dtype of the vectors."""
    norm_a, norm_m = system.data.norms
    size = norm_a * blocks.reciprocal(norm_m)
    return jnp.where(size > 0, size, 1).astype(system.x.dtype)


@dataclasses.dataclass(frozen=True)
class _Inverse(LinearMap):
    """B -> L^{-1}(B) and its transpose B -> conj(L^{-1}(conj(B)))."""

    tree: Any
    settings: Settings
    conjugated: bool = False

    def __call__(self, residuals: Arrays, inputs: MaybeArrays) -> Arrays:
        (b,) = inputs
        assert b is not None
        rhs = b.conj() if self.conjugated else b
        if self.settings.solvers == ("eigenbasis",):
            z = self.apply(residuals, rhs)
        else:
            z = one_after_another(self.apply, list(residuals), rhs)
        return [z.conj() if self.conjugated else z]

    def apply(self, residuals: Arrays, b: Block) -> Block:
        """L^{-1}(B)."""
        return _invert(jax.tree.unflatten(self.tree, residuals), b, self.settings)

    def transposed(self) -> "_Inverse":
        return dataclasses.replace(self, conjugated=not self.conjugated)

    def batched(self, axes: tuple[int | None, ...], size: int) -> LinearMap:
        """Many right-hand sides of one problem (jacfwd, vmap of jvp) are one solve."""
        one = all(axis is None for axis in axes)
        iterative = not any(callable(s) for s in self.settings.solvers)
        return _Copies(self, size) if one and iterative else super().batched(axes, size)

    def residual_jvp(
        self, residuals: Arrays, tangents: MaybeArrays, inputs: MaybeArrays
    ) -> tuple[Arrays, Arrays]:
        (z,) = bind(self, residuals, inputs)

        def image(leaves: Arrays) -> Block:
            system = jax.tree.unflatten(self.tree, leaves)
            if self.conjugated:
                return _completed(system, z.conj()).conj()
            return _completed(system, z)

        _, moved = jvp_along(image, residuals, tangents)
        (slope,) = bind(self, residuals, [moved])
        return [z], [-slope]


@dataclasses.dataclass(frozen=True)
class _Copies(LinearMap):
    """`_Inverse` of ``size`` blocks at once, (size, n, k), side by side in one block."""

    base: _Inverse
    size: int

    def __call__(self, residuals: Arrays, inputs: MaybeArrays) -> Arrays:
        (b,) = inputs
        assert b is not None
        _, n, k = b.shape
        (z,) = self.base(residuals, [jnp.moveaxis(b, 0, 1).reshape(n, self.size * k)])
        return [jnp.moveaxis(z.reshape(n, self.size, k), 1, 0)]

    def transposed(self) -> LinearMap:
        return _Copies(self.base.transposed(), self.size)

    def residual_jvp(
        self, residuals: Arrays, tangents: MaybeArrays, inputs: MaybeArrays
    ) -> tuple[Arrays, Arrays]:
        def one(b: Block) -> tuple[Arrays, Arrays]:
            return self.base.residual_jvp(residuals, tangents, [b])

        (b,) = inputs
        assert b is not None
        return jax.vmap(one)(b)


def _invert(system: SylvesterSystem, b: Block, settings: Settings) -> Block:
    """L^{-1}(B): closed form on span(X), an iterative or a spectral solve on the complement."""
    inside = blocks.gram(system.x, b) / _size(system)
    # Where B lies in span(M X) to rounding, one projection leaves rounding of its size, which has
    # a part along M X as well. A second one removes that part.
    rhs = _dual_project(_dual_project(b, system.x, system.mx), system.x, system.mx)
    systems, full = Systems.of(system, settings.sign), blocks.column_norms(b)
    rhs, unanswered = _refuse(system.data.refused, rhs, full)
    z, converged, *_ = systems_solve.solve(systems, rhs, full, settings.solvers, settings.max_steps)
    z = jnp.where(unanswered[None, :], jnp.nan, z)
    if settings.on_unconverged == "nan":
        z = jnp.where(converged[None, :], z, jnp.nan)
    elif settings.on_unconverged == "warn":
        jax.debug.callback(well_posed.warn_unconverged, jnp.all(converged))
    return z + system.x @ inside


def _refuse(refused: Array | None, rhs: Block, full: Array) -> tuple[Block, Array]:
    """Right-hand sides without those of refused systems, and the columns that have no answer.

    The systems of a cluster that k cuts are singular to rounding, and a solver would take all its
    steps to find that out. Their solutions are zero where the right-hand side is rounding beside
    the largest of its set, and do not exist elsewhere.

    Parameters
    ----------
    refused : (k,) or None
        Which systems are refused.
    rhs, full : (n, c), (c,)
        Sets of k right-hand sides, one after the other, and their norms before the projection.
    """
    if refused is None:
        return rhs, jnp.zeros_like(full, bool)
    sizes = full.reshape(-1, refused.shape[0])
    small = tolerances.gauge(full.dtype) * jnp.max(sizes, axis=1, keepdims=True)
    small = jnp.broadcast_to(small, sizes.shape).reshape(full.shape)
    columns = jnp.broadcast_to(refused, sizes.shape).reshape(full.shape)
    unanswered = columns & (blocks.column_norms(rhs) > small)
    return blocks.where_columns(~columns, rhs), unanswered


# -- inside span(X) -------------------------------------------------------------------------------


def solve_between(r: Array, lam: Array, labels: Array, g: Array) -> Array:
    """T (k, k) with T R - R T = G off clusters, 0 inside."""
    (t,) = bind(_Between(), [r, lam, labels], [g])
    return t


@dataclasses.dataclass(frozen=True)
class _Between(LinearMap):
    """G -> T with T R - R T = G off clusters.

    In value R = diag(lam) and T = F o G, F_ij = 1/(lam_j - lam_i): elementwise, and so its own
    transpose. In the derivative R is full: dT = F o (dG - (T dR - dR T)).
    """

    def __call__(self, residuals: Arrays, inputs: MaybeArrays) -> Arrays:
        _, lam, labels = residuals
        (g,) = inputs
        assert g is not None
        inside = clusters.mask(labels)
        difference = lam[None, :] - lam[:, None]
        f = jnp.where(inside, 0, 1 / jnp.where(inside, 1, difference))
        return [f.astype(g.dtype) * g]

    def transposed(self) -> LinearMap:
        return self

    def residual_jvp(
        self, residuals: Arrays, tangents: MaybeArrays, inputs: MaybeArrays
    ) -> tuple[Arrays, Arrays]:
        (t,) = bind(self, residuals, inputs)
        dr = tangents[0]
        if dr is None:
            return [t], [jnp.zeros_like(t)]
        (slope,) = bind(self, residuals, [t @ dr - dr @ t])
        return [t], [-slope]
