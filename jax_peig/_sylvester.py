"""The linear systems of the derivatives: A Z - M Z R = B on the M-complement of span(X).

With P = I - X X^H M, S(B) is the Z = P Z that solves

    P^H (A Z - M Z R) = P^H B.

R = diag(lam) in value, and the columns are separate systems with P^H (A - lam_j M) P, positive
definite on the complement for the smallest pairs, negative definite for the largest. R is a matrix
in what is differentiated: its off-diagonal entries inside a cluster move (see `_derivatives`).

The operator is completed on span(X) so that it is invertible there and hides nothing:

    L(Z) = P^H (A P Z - M P Z R) + M X X^H M Z,      S(B) = P L^{-1}(B),

which is Hermitian; L^{-1} is a linear map with its own transpose (itself, conjugated) and its own
derivative, d L^{-1}(B) = L^{-1}(dB - dL(Z)). P depends on X and M and is differentiated as written.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_peig import _blocks, _tolerances, _well_posed
from jax_peig._eigensolvers.ritz import Complement
from jax_peig._linear_map import LinearMap, bind, jvp_along
from jax_peig._linear_solvers import krylov, minres
from jax_peig._operators import Operator, apply_hermitian
from jax_peig._types import Array, Block

# Solves of the remaining residual: one restart mends what rounding and a solver's own, more
# optimistic test have left.
ROUNDS = 4
# A system counts as solved within this factor of its tolerance...
SLACK = 10
# ...or where its residual is at the rounding of the products, these many eps.
ROUNDING = 30


class System(NamedTuple):
    """What the linear systems depend on; a pytree."""

    a: Operator
    m: Operator | None
    x: Block  # (n, k)
    mx: Block  # M X; a derivative of M moves it
    r: Array  # (k, k), the Rayleigh matrix
    fixed: "Fixed"


class Fixed(NamedTuple):
    """What the systems are solved with and the solution does not depend on."""

    preconditioner: Operator | None
    norms: tuple[Array, Array]  # ||A||, ||M||
    complement: Complement | None
    op_inv: Operator | None  # (A - sigma M)^{-1}, for interior pairs
    sigma: Array | None


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the systems are solved: the static, hashable part."""

    solver: Any  # "eigenbasis", "cg", "minres", "gmres", "shift-invert" or a callable
    tol: float
    max_steps: int
    sign: int  # 1 where the systems are positive definite, -1 where negative
    on_unconverged: str


def solve(system: System, b: Block, settings: Settings) -> Block:
    """S(B) for B (n, k): zero where the complement is, NaN by column where it did not converge.

    Zero without any product where k = n.
    """
    n, k = system.x.shape
    if n == k:
        return jnp.zeros_like(b)
    leaves, tree = jax.tree.flatten(system)
    (z,) = bind(_Inverse(tree, settings), leaves, [b])
    return _blocks.project_out(z, system.x, system.mx)


def _dual_project(block: Block, x: Block, mx: Block) -> Block:
    """P^H B = B - M X (X^H B)."""
    return _blocks.project_out(block, mx, x)


def _completed(system: System, z: Block) -> Block:
    """L(Z), with R a full matrix."""
    inside = _blocks.gram(system.mx, z)
    pz = z - system.x @ inside
    image = apply_hermitian(system.a, pz) - apply_hermitian(system.m, pz) @ system.r
    return _dual_project(image, system.x, system.mx) + system.mx @ inside


@dataclasses.dataclass(frozen=True)
class _Inverse(LinearMap):
    """B -> L^{-1}(B) and its transpose B -> conj(L^{-1}(conj(B)))."""

    tree: Any
    settings: Settings
    conjugated: bool = False

    def __call__(self, residuals, inputs):
        (b,) = inputs
        system = jax.tree.unflatten(self.tree, residuals)
        if self.conjugated:
            return [_invert(system, b.conj(), self.settings).conj()]
        return [_invert(system, b, self.settings)]

    def transposed(self):
        return dataclasses.replace(self, conjugated=not self.conjugated)

    def residual_jvp(self, residuals, tangents, inputs):
        (z,) = bind(self, residuals, inputs)

        def image(leaves):
            system = jax.tree.unflatten(self.tree, leaves)
            if self.conjugated:
                return _completed(system, z.conj()).conj()
            return _completed(system, z)

        _, moved = jvp_along(image, residuals, tangents)
        (slope,) = bind(self, residuals, [moved])
        return [z], [-slope]


def _invert(system: System, b: Block, settings: Settings) -> Block:
    """L^{-1}(B): closed form on span(X), an iterative or a spectral solve on the complement."""
    inside = _blocks.gram(system.x, b)
    # Twice: where B lies in span(M X) to rounding, the first projection leaves rounding of its
    # size, along M X as well.
    rhs = _dual_project(_dual_project(b, system.x, system.mx), system.x, system.mx)
    z, converged = _solve_complement(system, rhs, _blocks.column_norms(b), settings)
    if settings.on_unconverged == "nan":
        z = jnp.where(converged[None, :], z, jnp.nan)
    elif settings.on_unconverged == "warn":
        jax.debug.callback(_well_posed.warn_unconverged, jnp.all(converged))
    return z + system.x @ inside


def _solve_complement(system: System, rhs: Block, full: Array, settings: Settings):
    """Z = P Z with P^H (A Z - M Z diag(lam)) = rhs, and whether each column converged.

    ``full`` are the norms of the right-hand sides before projection: below their rounding a
    column is zero and is not solved for. Every residual is computed afresh.
    """
    x, mx, sign = system.x, system.mx, settings.sign
    lam = jnp.diagonal(system.r).real
    noise = ROUNDING * _tolerances.eps(rhs.dtype)
    size = _blocks.column_norms(rhs)
    rhs = jnp.where((size > noise * full)[None, :], rhs, 0)
    target = jnp.maximum(settings.tol * size, noise * full)
    norm_a, norm_m = system.fixed.norms
    stiffness = norm_a + jnp.abs(lam) * norm_m

    def image(z, index):
        pz = _blocks.project_out(z, x, mx)
        mz = pz if system.m is None else system.m(pz)
        shifted = system.a(pz) - mz * lam[index].astype(pz.dtype)[None, :]
        return sign * _dual_project(shifted, x, mx)

    index = jnp.arange(rhs.shape[1])
    improve = _improvement(system, settings, image, 0.5 * target)

    def judge(z):
        r = sign * rhs - image(z, index)
        norms = _blocks.column_norms(r)
        floor = noise * stiffness * _blocks.column_norms(z)
        return r, norms, norms <= jnp.maximum(target, floor)

    def refine(carry):
        z, r, _, done, count = carry
        step = improve(jnp.where(done[None, :], 0, r))
        z = z + jnp.where(done[None, :], 0, _blocks.project_out(step, x, mx))
        return z, *judge(z), count + 1

    norms = jnp.where(size > noise * full, size, 0)
    begin = (jnp.zeros_like(rhs), sign * rhs, norms, norms == 0, jnp.array(0))
    z, _, norms, done, _ = jax.lax.while_loop(
        lambda c: ~jnp.all(c[3]) & (c[4] < ROUNDS), refine, begin
    )
    return z, done | (norms <= SLACK * target)


_METHODS = {"cg": krylov.cg, "minres": minres.solve, "gmres": krylov.gmres}


def _improvement(system: System, settings: Settings, image, atol: Array):
    """The function of residuals (n, k) that gives corrections, by the chosen solver."""
    x, mx, fixed = system.x, system.mx, system.fixed
    approximate_inverse = fixed.preconditioner
    if settings.solver == "eigenbasis":
        lam = jnp.diagonal(system.r).real
        return lambda r: _spectral(fixed.complement, r, lam, settings.sign)
    if settings.solver == "shift-invert":
        return lambda r: _shift_invert(system, r, settings)
    if callable(settings.solver):
        return lambda r: settings.solver(_plus_span(image, x, mx), r)
    precondition = None
    if approximate_inverse is not None:

        def precondition(block):
            inner = approximate_inverse(_dual_project(block, x, mx))
            return _blocks.project_out(inner, x, mx)

    method = _METHODS[settings.solver]
    return lambda r: method(image, r, atol, settings.max_steps, precondition)


def _spectral(complement: Complement | None, block: Block, lam: Array, sign: int) -> Block:
    """sum_i x_i x_i^H b_j / (lam_i - lam_j) over the pairs beyond the k wanted ones."""
    if complement is None:
        raise ValueError("the spectral solver needs all eigenpairs")
    gaps = sign * (complement.values[:, None] - lam[None, :])
    inverse = jnp.where(gaps == 0, 0, 1 / jnp.where(gaps == 0, 1, gaps))
    coefficients = _blocks.gram(complement.vectors, block) * inverse.astype(block.dtype)
    return complement.vectors @ coefficients


def _shift_invert(system: System, r: Block, settings: Settings) -> Block:
    """MINRES on the systems times M (A - sigma M)^{-1}, which is Hermitian again.

        (M - (lam_j - sigma) M (A - sigma M)^{-1} M) z_j = M (A - sigma M)^{-1} r_j

    Its eigenvalues (lam_i - lam_j) / (lam_i - sigma), for M = I, gather at one: few steps.
    """
    x, mx, op_inv, sigma = system.x, system.mx, system.fixed.op_inv, system.fixed.sigma
    if op_inv is None or sigma is None:
        raise ValueError("the shift-invert solver needs OPinv and sigma")
    shift = jnp.diagonal(system.r).real - sigma

    def weighted(block):
        return _dual_project(block if system.m is None else system.m(block), x, mx)

    def product(block, index):
        block = _blocks.project_out(block, x, mx)
        inverse = op_inv(block if system.m is None else system.m(block))
        return weighted(block - inverse * shift[index].astype(block.dtype)[None, :])

    rhs = weighted(op_inv(r))
    atol = 0.1 * settings.tol * _blocks.column_norms(rhs)
    return minres.solve(product, rhs, atol, settings.max_steps)


def _plus_span(image, x: Block, mx: Block):
    """The product handed to a caller's solver: completed on span(X) as L(Z) is, and so definite."""

    def product(block):
        inside = mx @ _blocks.gram(mx, block)
        return image(block, jnp.arange(block.shape[1])) + inside

    return product
