"""MINRES for blocks of right-hand sides, Paige and Saunders (1975).

The Lanczos process with the preconditioner T, column by column,

    beta_{j+1} v_{j+1} = A T v_j - alpha_j v_j - beta_j v_{j-1},   <u, v> = u^H T v,

gives a tridiagonal least-squares problem, solved by Givens rotations as it grows. A may be
indefinite, or singular with a consistent right-hand side; T is positive definite.

Differences from ``scipy.sparse.linalg.minres``:
1. Complex Hermitian systems; alpha and beta are real all the same.
2. All right-hand sides advance together, with one block product a step; a column that is done, or
   whose Lanczos process ended (beta = 0: the solution is exact), stands still.
3. The stopping test is the residual's T-norm relative to the start; the caller judges.
4. Where the right-hand side has a part outside A's range, A r falls to rounding and the iterate
   comes near the least-squares solution; then, going on, runs away while r stays. On request that
   is noticed, and the iterate of the smallest ||A r|| returned.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks
from jax_peig._core.types import Array, Block

# Inconsistent: ||A r|| / (||A|| ||r||) was below this, in sqrt(eps), ...
FLAT = 1.0
# ... has grown by so much since, ...
RISE = 100.0
# ... and the residual has not fallen by this factor.
FALL = 0.9


class Report(NamedTuple):
    """What `solve_and_report` returns."""

    x: Block
    steps: Array  # block products
    positive: Array  # A looked positive definite
    inconsistent: Array  # by column: ended above the target, where no step reduces the residual


class _State(NamedTuple):
    x: Block
    r1: Block  # unnormalised Lanczos vectors beta_j v_j, before and now
    r2: Block
    y: Block  # T r2
    w1: Block  # search directions, before and now
    w: Block
    beta_old: Array
    beta: Array
    delta_bar: Array  # what the rotations leave for the next step
    epsilon: Array
    cs: Array
    sn: Array
    phi_bar: Array  # norm of the residual
    pivot: Array  # of the tridiagonal matrix: its last diagonal entry in L D L^T
    positive: Array  # all pivots were positive
    square: Array  # of the tridiagonal matrix's Frobenius norm
    low: Array  # the smallest ||A r|| / ||r|| so far, ...
    phi_low: Array  # ... with the residual norm ...
    x_low: Block | None  # ... and the iterate there, where least squares are asked for
    flat: Array  # inconsistent
    step: Array
    active: Array


def solve(product, b: Block, atol: Array, max_steps: int, preconditioner=None) -> Block:
    """Solve ``A_j z_j = b_j`` for every column; see the package's text for the arguments."""
    return solve_and_report(product, b, atol, max_steps, preconditioner).x


def solve_and_report(
    product,
    b: Block,
    atol: Array,
    max_steps: int | Array,
    preconditioner=None,
    least_squares: bool = False,
) -> Report:
    """`solve`, and how it went; with ``least_squares`` inconsistent columns are looked for.

    The Lanczos matrix is definite where A is, and the signs of its pivots tell.
    """
    index = jnp.arange(b.shape[1])
    dtype = b.dtype

    def precondition(block):
        return block if preconditioner is None else preconditioner(block)

    def dot(u, v):
        return jnp.sum(u.conj() * v, axis=0).real

    def scale(block, factor):
        return block * factor.astype(dtype)[None, :]

    y = precondition(b)
    beta = jnp.sqrt(jnp.maximum(dot(b, y), 0))
    norm = blocks.column_norms(b)
    target = atol * beta / jnp.where(norm > 0, norm, 1)
    zero, zeros = jnp.zeros_like(beta), jnp.zeros_like(b)
    start = _State(
        zeros, zeros, b, y, zeros, zeros, jnp.ones_like(beta), beta, zero, zero,
        -jnp.ones_like(beta), zero, beta, jnp.ones_like(beta), jnp.ones_like(beta, bool),
        zero, jnp.full_like(beta, jnp.inf), beta, zeros if least_squares else None,
        jnp.zeros_like(beta, bool), jnp.array(0), (beta > target) & (beta > 0),
    )  # fmt: skip

    def advance(s: _State) -> _State:
        v = scale(s.y, blocks.reciprocal(s.beta))
        y = product(v, index)
        y = jnp.where(s.step > 0, y - scale(s.r1, s.beta * blocks.reciprocal(s.beta_old)), y)
        alpha = dot(v, y)
        y = y - scale(s.r2, alpha * blocks.reciprocal(s.beta))
        ty = precondition(y)
        beta = jnp.sqrt(jnp.maximum(dot(y, ty), 0))
        # The rotation of the step before, then a new one that annihilates beta.
        delta = s.cs * s.delta_bar + s.sn * alpha
        gamma_bar = s.sn * s.delta_bar - s.cs * alpha
        epsilon, delta_bar = s.sn * beta, -s.cs * beta
        gamma = jnp.hypot(gamma_bar, beta)
        cs, sn = gamma_bar * blocks.reciprocal(gamma), beta * blocks.reciprocal(gamma)
        w = scale(v - scale(s.w1, s.epsilon) - scale(s.w, delta), blocks.reciprocal(gamma))
        phi_bar = sn * s.phi_bar
        square = s.square + alpha**2 + beta**2 + jnp.where(s.step > 0, s.beta**2, 0)
        slope = jnp.hypot(gamma_bar, delta_bar)  # ||A r|| / ||r|| of the step before
        pivot = alpha - jnp.where(s.step > 0, s.beta**2 / s.pivot, 0)
        new = _State(
            s.x + scale(w, cs * s.phi_bar), s.r2, y, ty, s.w, w, s.beta, beta, delta_bar, epsilon,
            cs, sn, phi_bar, pivot, s.positive & (pivot > 0), square, s.low,
            s.phi_low, s.x_low, s.flat, s.step + 1, s.active,
        )  # fmt: skip
        usable = s.active & jnp.isfinite(beta) & (gamma > 0)
        kept = jax.tree.map(lambda n, o: jnp.where(usable, n, o) if n.ndim else n, new, s)
        kept = kept._replace(active=usable & (phi_bar > target) & (beta > 0))
        return look_back(s, kept, slope) if least_squares else kept

    def look_back(s: _State, new: _State, slope: Array) -> _State:
        """Remember the iterate before this step, or notice that those since have run away."""
        assert s.x_low is not None
        lower = s.active & (slope < s.low)
        norm = jnp.sqrt(jnp.finfo(slope.dtype).eps * new.square) * FLAT
        rose = (s.low <= norm) & (slope > RISE * s.low) & (s.phi_bar > FALL * s.phi_low)
        rose = rose & s.active
        return new._replace(
            low=jnp.where(lower, slope, s.low),
            phi_low=jnp.where(lower, s.phi_bar, s.phi_low),
            x_low=jnp.where(lower[None, :], s.x, s.x_low),
            x=jnp.where(rose[None, :], s.x_low, new.x),
            active=new.active & ~rose,
            flat=s.flat | rose,
        )

    end = jax.lax.while_loop(lambda s: jnp.any(s.active) & (s.step < max_steps), advance, start)
    return Report(end.x, end.step, jnp.all(end.positive), end.flat)
