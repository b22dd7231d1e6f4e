"""The derivative rules of A X = M X R, X^H M X = I: the equations.

The forward rule is eqs 2.3-2.8 of Kasim (arXiv:2011.04366), corrected; the reverse rule is eqs
2.9-2.12, corrected.

Differences from the paper:
1. The first term of M-bar in 2.10 has a minus sign, - X L Lbar X^H, as in its 3.38 and 5.90.
2. The terms along X in 2.4 and 2.10 take the whole cluster block, D o, and not its diagonal, I o:
   M-orthonormality fixes the Hermitian part of X^H M X' inside a cluster.
3. 2.12 reads A Y - M Y L, and not A Y - M Y E.
4. The components between two retained eigenvectors are written in closed form. The linear systems
   are solved on the complement of all k vectors, where they are definite.
5. The eigenvalues are the Rayleigh matrix R = D o (X^H A X) inside the rules. Its value is
   diag(lam), and its derivative is the whole block inside a cluster, which second derivatives at
   exact degeneracy need.

`PairwiseRule` differentiates (lam, X), and D is the mask of the clusters. `SpaceRule` takes
(R, X) with all k pairs in one cluster, D True everywhere; `SingularSpaceRule` is that of singular
triplets. `CrossingRule` differentiates D o R, the blocks of the clusters.
"""

import abc
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jax_peig._core import blocks
from jax_peig._core.types import Array, Block, DTypeLike
from jax_peig._derivatives import sylvester, well_posed
from jax_peig._derivatives.sylvester import Settings
from jax_peig._derivatives.systems import Point
from jax_peig._diagnostics import clusters


@dataclasses.dataclass(frozen=True)
class Rule(abc.ABC):
    """The forward and the reverse rule; static and hashable.

    A subclass defines the (k, k) coefficients along X, and the checks of cotangents.

    Attributes
    ----------
    settings : Settings
        How the linear systems are solved.
    refine : bool
        Whether the pairs take a step of refinement before they are differentiated.
    on_gauge : {"nan", "warn", "ignore"}
        The policy for ill-posed derivatives, see `Derivative`.
    """

    settings: Settings
    refine: bool
    on_gauge: str
    # k cuts only where the gap is below so many error bounds; None leaves it to the clusters.
    gap_resolution: ClassVar[float | None] = None

    def pushforward(self, at: Point, adx: Block | None, mdx: Block | None) -> tuple[Array, Block]:
        """Tangents of (lam or R, X) from the blocks A' X and M' X: eqs 2.3-2.8, corrected.

        A'_s = herm(X^H A' X),  M'_s = herm(X^H M' X),  G = A'_s - (R M'_s + M'_s R)/2
        lam' = diag(G), or R' = G                                           (2.3)
        T R - R T = G off clusters, T = 0 inside                            closed form of 2.5, 2.6
        Z = -S(A' X - M' X R)                                               (2.5)
        X' = X (T - M'_s / 2) + Z                                           (2.4)

        None stands for a zero block.
        """
        x, r = at.system.x, at.system.r
        rhs = jnp.zeros_like(x) if adx is None else adx
        g = blocks.herm(blocks.gram(x, rhs))
        if mdx is None:
            along = self.rotation(at, g)
        else:
            m_s = blocks.herm(blocks.gram(x, mdx))
            g = g - (r @ m_s + m_s @ r) / 2
            rhs = rhs - mdx @ r
            along = self.rotation(at, g) - m_s / 2
        z = -sylvester.solve(at.system, rhs, self.settings)
        return self.eigenvalue_tangent(at, g), x @ along + z

    def pullback(self, at: Point, lb: Array | None, xb: Block | None) -> tuple[Block, Block]:
        """Cotangents (U, Q) of the blocks A' X and M' X from (lb, Xb): eqs 2.9-2.12, corrected.

        In the Hermitian pairing <a, b> = Re tr(a^H b), with C the cotangent of G:

        B  = X^H Xb,  W R - R W = (B - B^H)/2 off clusters, W = 0 inside
        C  = W + diag(lb), or herm(lb)
        Zb = -S(Xb)                                                         (2.11, 2.12)
        U  = X C + Zb                                                       (2.9)
        Q  = -X [(R C + C R)/2 + herm(B)/2] - Zb R                          (2.10)

        None stands for zero. Without Xb no linear system is solved.
        """
        x, r = at.system.x, at.system.r
        b = None if xb is None else blocks.gram(x, xb)
        c = self.block_cotangent(at, lb, b)
        if xb is None or b is None:
            return x @ c, -x @ ((r @ c + c @ r) / 2)
        zb = -sylvester.solve(at.system, xb, self.settings)
        along = (r @ c + c @ r + blocks.herm(b)) / 2
        return x @ c + zb, -x @ along - zb @ r

    @staticmethod
    @abc.abstractmethod
    def first_output(lam: Array, dtype: DTypeLike) -> Array:
        """The first output: lam (k,), or R (k, k) = diag(lam) of ``dtype``."""

    @staticmethod
    @abc.abstractmethod
    def eigenvalues(first: Array) -> Array:
        """The eigenvalues (k,) from the first output."""

    @staticmethod
    @abc.abstractmethod
    def rayleigh(first: Array, x: Block, ax: Block, labels: Array) -> Array:
        """R (k, k): its value is diagonal, its derivative a whole block for each cluster."""

    @staticmethod
    @abc.abstractmethod
    def rotation(at: Point, g: Array) -> Array:
        """T (k, k), which turns the retained eigenvectors into each other."""

    @staticmethod
    @abc.abstractmethod
    def eigenvalue_tangent(at: Point, g: Array) -> Array:
        """The tangent of the first output."""

    @staticmethod
    @abc.abstractmethod
    def block_cotangent(at: Point, lb: Array | None, b: Array | None) -> Array:
        """C (k, k), the cotangent of G, from the first output's and from B = X^H Xb."""

    @staticmethod
    @abc.abstractmethod
    def gauge_part(at: Point, lb: Array | None, b: Array) -> Array:
        """The part (k, k) of a cotangent that depends on the choice of the vectors."""

    @staticmethod
    @abc.abstractmethod
    def cotangent_size(at: Point, lb: Array, xb: Block) -> Array:
        """The size of a cotangent, beside which its gauge part is judged in a report."""

    @staticmethod
    @abc.abstractmethod
    def ill_posed(
        at: Point, skew: Array, lb: Array | None, xb: Block | None, *, derived: bool
    ) -> well_posed.Causes:
        """Whether the cotangents ask for a derivative that does not exist; see `well_posed`."""


@dataclasses.dataclass(frozen=True)
class PairwiseRule(Rule):
    """The rule of (lam, X): clusters are those that the forward solve found."""

    @staticmethod
    def first_output(lam: Array, dtype: DTypeLike) -> Array:
        """Lam."""
        del dtype
        return lam

    @staticmethod
    def eigenvalues(first: Array) -> Array:
        """Lam."""
        return first

    @staticmethod
    def rayleigh(first: Array, x: Block, ax: Block, labels: Array) -> Array:
        """R = D o herm(X^H A X), with the value diag(lam)."""
        block = jnp.where(clusters.mask(labels), blocks.herm(blocks.gram(x, ax)), 0)
        return with_value(jnp.diag(first).astype(x.dtype), block)

    @staticmethod
    def rotation(at: Point, g: Array) -> Array:
        """T with T R - R T = G off clusters, 0 inside."""
        return sylvester.solve_between(at.system.r, at.lam, at.forward.labels, g)

    @staticmethod
    def eigenvalue_tangent(at: Point, g: Array) -> Array:
        """Lam' = diag(G): eq. 2.3."""
        del at
        return blocks.diagonal(g)

    @staticmethod
    def block_cotangent(at: Point, lb: Array | None, b: Array | None) -> Array:
        """C = diag(lb) + W, with W R - R W = (B - B^H)/2 off clusters.

        The antisymmetric difference is taken before the division, so that a nearly degenerate pair
        of a gauge-invariant loss loses no accuracy.
        """
        r = at.system.r
        c = jnp.zeros_like(r) if lb is None else jnp.diag(lb.astype(r.dtype))
        if b is None:
            return c
        skew = (b - b.conj().T) / 2
        return c + sylvester.solve_between(r, at.lam, at.forward.labels, skew)

    @staticmethod
    def gauge_part(at: Point, lb: Array | None, b: Array) -> Array:
        """D o (B - B^H): eq. 2.13."""
        del lb
        return well_posed.gauge_part(b, at.forward.labels)

    @staticmethod
    def cotangent_size(at: Point, lb: Array, xb: Block) -> Array:
        """The largest ||x_j|| ||xb_j||."""
        del lb
        return jnp.max(blocks.column_norms(at.system.x) * blocks.column_norms(xb))

    @staticmethod
    def ill_posed(
        at: Point, skew: Array, lb: Array | None, xb: Block | None, *, derived: bool
    ) -> well_posed.Causes:
        """Whether the derivative of (lam, X) does not exist, and why."""
        return well_posed.pairs_ill_posed(at, skew, lb, xb, derived=derived)


@dataclasses.dataclass(frozen=True)
class SpaceRule(Rule):
    """The rule of (R, X) with all k pairs in one cluster: T = 0, and nothing is divided by gaps."""

    @staticmethod
    def first_output(lam: Array, dtype: DTypeLike) -> Array:
        """R = diag(lam)."""
        return jnp.diag(lam).astype(dtype)

    @staticmethod
    def eigenvalues(first: Array) -> Array:
        """The diagonal of R."""
        return blocks.diagonal(first)

    @staticmethod
    def rayleigh(first: Array, x: Block, ax: Block, labels: Array) -> Array:
        """R itself, which is the first output."""
        del x, ax, labels
        return first

    @staticmethod
    def rotation(at: Point, g: Array) -> Array:
        """T = 0."""
        del at
        return jnp.zeros_like(g)

    @staticmethod
    def eigenvalue_tangent(at: Point, g: Array) -> Array:
        """R' = G."""
        del at
        return g

    @staticmethod
    def block_cotangent(at: Point, lb: Array | None, b: Array | None) -> Array:
        """C = herm(lb)."""
        del b
        return jnp.zeros_like(at.system.r) if lb is None else blocks.herm(lb)

    @staticmethod
    def gauge_part(at: Point, lb: Array | None, b: Array) -> Array:
        """B - B^H + 2 (R C - C R): zero where no X Q, Q^H R Q changes the loss."""
        return well_posed.turning_part(b, at.system.r, lb)

    @staticmethod
    def cotangent_size(at: Point, lb: Array, xb: Block) -> Array:
        """The largest ||x_j|| ||xb_j||, and the largest |lam| |lb|."""
        lengths = blocks.column_norms(at.system.x) * blocks.column_norms(xb)
        return jnp.max(lengths) + jnp.max(jnp.abs(at.lam)) * jnp.max(jnp.abs(lb))

    @staticmethod
    def ill_posed(
        at: Point, skew: Array, lb: Array | None, xb: Block | None, *, derived: bool
    ) -> well_posed.Causes:
        """Whether the derivative of (R, X) does not exist, and why."""
        return well_posed.space_ill_posed(at, skew, lb, xb, derived=derived)


@dataclasses.dataclass(frozen=True)
class SingularSpaceRule(SpaceRule):
    """The rule of (R, X) for singular triplets, whose gap may be far below a cluster's width.

    A loss of the space divides by s_k - s_{k+1} alone. Its derivative has the relative error
    bound / gap, which is at most 1 / gap_resolution.
    """

    gap_resolution: ClassVar[float | None] = 100.0

    @staticmethod
    def ill_posed(
        at: Point, skew: Array, lb: Array | None, xb: Block | None, *, derived: bool
    ) -> well_posed.Causes:
        """`SpaceRule.ill_posed`, and at a cut every loss of X: of zeros no weight tells more."""
        causes = SpaceRule.ill_posed(at, skew, lb, xb, derived=derived)
        if xb is None or derived:
            return causes
        return causes._replace(cut=causes.cut | (jnp.any(at.forward.cut) & jnp.any(xb != 0)))


@dataclasses.dataclass(frozen=True)
class CrossingRule(PairwiseRule):
    """The rule of D o R, a block for each cluster, whose derivative is all of D o G.

    The block has a first derivative whatever basis of the cluster it is written in. No cotangent of
    a whole cluster is refused.
    """

    @staticmethod
    def first_output(lam: Array, dtype: DTypeLike) -> Array:
        """D o R = diag(lam)."""
        return jnp.diag(lam).astype(dtype)

    @staticmethod
    def eigenvalues(first: Array) -> Array:
        """The diagonal of R."""
        return blocks.diagonal(first)

    @staticmethod
    def rayleigh(first: Array, x: Block, ax: Block, labels: Array) -> Array:
        """R = D o herm(X^H A X), with the value diag(lam)."""
        return PairwiseRule.rayleigh(blocks.diagonal(first), x, ax, labels)

    @staticmethod
    def eigenvalue_tangent(at: Point, g: Array) -> Array:
        """D o G, and NaN for a cluster that k cuts."""
        cut = at.forward.cut
        block = jnp.where(cut[:, None] | cut[None, :], jnp.nan, g)
        return jnp.where(clusters.mask(at.forward.labels), block, 0)

    @staticmethod
    def block_cotangent(at: Point, lb: Array | None, b: Array | None) -> Array:
        """C = D o herm(lb) + W."""
        c = PairwiseRule.block_cotangent(at, None, b)
        if lb is None:
            return c
        return c + jnp.where(clusters.mask(at.forward.labels), blocks.herm(lb), 0)

    @staticmethod
    def cotangent_size(at: Point, lb: Array, xb: Block) -> Array:
        """The largest ||x_j|| ||xb_j||, and the largest |lb|."""
        return PairwiseRule.cotangent_size(at, lb, xb) + jnp.max(jnp.abs(lb))

    @staticmethod
    def ill_posed(
        at: Point, skew: Array, lb: Array | None, xb: Block | None, *, derived: bool
    ) -> well_posed.Causes:
        """Whether k cuts a cluster that is asked for, or a second derivative needs its basis."""
        return well_posed.crossing_ill_posed(at, skew, lb, xb, derived=derived)


@jax.custom_jvp
def with_value(value: Array, carrier: Array) -> Array:
    """``value``, with the derivative of ``carrier``, which is equal up to the solver's accuracy."""
    del carrier
    return value


@with_value.defjvp
def _with_value_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    return with_value(*primals), tangents[1]
