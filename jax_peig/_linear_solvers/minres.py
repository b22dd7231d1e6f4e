"""MINRES for blocks of right-hand sides, Paige and Saunders (1975).

The Lanczos process with the preconditioner T, column by column,

    beta_{j+1} v_{j+1} = A T v_j - alpha_j v_j - beta_j v_{j-1},   <u, v> = u^H T v,

gives a tridiagonal least-squares problem, solved by Givens rotations as it grows. A may be
indefinite, or singular with a consistent right-hand side; T is positive definite.

Differences from ``scipy.sparse.linalg.minres``:
1. Complex Hermitian systems are solved too; alpha and beta are real all the same.
2. All right-hand sides advance together, with one block product a step. A column stands still once
   it is done, or its Lanczos process ended (beta = 0: the solution is exact).
3. The stopping test is the residual's T-norm relative to the start; the caller judges.
4. Where the right-hand side has a part outside A's range, A r falls to rounding and the iterate
   comes near the least-squares solution. Further steps make it run away while r stays. On request
   that is noticed, and the iterate of the smallest ||A r|| is returned.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.types import Array, Block, BlockFunction, ColumnsProduct

# A right-hand side is inconsistent where ||A r|| / (||A|| ||r||) was below this, in sqrt(eps), ...
FLAT = 1.0
# ... has grown by this factor since, ...
RISE = 100.0
# ... and the residual has not fallen by this factor.
FALL = 0.9


class Report(NamedTuple):
    """The result of `solve`."""

    x: Block
    steps: Array  # block products
    positive: Array  # whether A looked positive definite
    inconsistent: Array  # (b,), ended above the target, where no step reduces the residual


class _Lanczos(NamedTuple):
    """The Lanczos process at step j; every column has its own."""

    old: Block  # beta_{j-1} v_{j-1}
    now: Block  # beta_j v_j
    t_now: Block  # T beta_j v_j
    beta_old: Array  # (b,)
    beta: Array  # (b,)


class _Rotation(NamedTuple):
    """The last Givens rotation, and the entries that it leaves for the next step; (b,) each."""

    cs: Array
    sn: Array
    delta_bar: Array
    epsilon: Array


class _Column(NamedTuple):
    """The last column of the triangular factor, but for its epsilon; (b,) each."""

    delta: Array
    gamma: Array
    slope: Array  # ||A r|| / ||r|| of the step before


class _Iterate(NamedTuple):
    """The iterate, its last two search directions, and the norm of its residual."""

    x: Block
    w_old: Block
    w: Block
    phi_bar: Array  # (b,)


class _Pivots(NamedTuple):
    """The signs of the pivots of the tridiagonal matrix, which is definite where A is."""

    last: Array  # (b,), the last diagonal entry in L D L^T
    positive: Array  # (b,), all of them were


class _Watch(NamedTuple):
    """The memory by which an inconsistent right-hand side is noticed."""

    square: Array  # (b,), of the tridiagonal matrix's Frobenius norm
    slope: Array  # (b,), the smallest ||A r|| / ||r|| so far, ...
    phi: Array  # (b,), ... the norm of the residual there, ...
    x: Block | None  # ... and the iterate, if least squares are asked for
    inconsistent: Array  # (b,)


class _State(NamedTuple):
    lanczos: _Lanczos
    rotation: _Rotation
    iterate: _Iterate
    pivots: _Pivots
    watch: _Watch
    step: Array
    active: Array  # (b,)


def solve(
    product: ColumnsProduct,
    b: Block,
    atol: Array,
    max_steps: int | Array,
    preconditioner: BlockFunction | None = None,
    least_squares: bool = False,
) -> Report:
    """Solve ``A_j z_j = b_j`` for every column; see the package's text for the arguments.

    With ``least_squares`` inconsistent columns are noticed.
    """
    precondition = _identity if preconditioner is None else preconditioner
    index = jnp.arange(b.shape[1])
    start, target = _start(b, precondition(b), atol, least_squares)

    def advance(s: _State) -> _State:
        first = s.step == 0
        v = blocks.scale_columns(s.lanczos.t_now, blocks.reciprocal(s.lanczos.beta))
        lanczos, alpha = _lanczos_step(s.lanczos, v, product(v, index), precondition, first)
        rotation, column = _rotate(s.rotation, alpha, lanczos.beta)
        iterate = _update(s.iterate, v, column, s.rotation.epsilon, rotation)
        beta = jnp.where(first, 0, s.lanczos.beta)
        pivot = alpha - jnp.where(first, 0, beta**2 / s.pivots.last)
        pivots = _Pivots(pivot, s.pivots.positive & (pivot > 0))
        square = s.watch.square + alpha**2 + lanczos.beta**2 + beta**2
        watch = s.watch._replace(square=square)
        new = _State(lanczos, rotation, iterate, pivots, watch, s.step + 1, s.active)
        usable = s.active & jnp.isfinite(lanczos.beta) & (column.gamma > 0)
        kept = jax.tree.map(lambda n, o: jnp.where(usable, n, o) if n.ndim else n, new, s)
        kept = kept._replace(active=usable & (iterate.phi_bar > target) & (lanczos.beta > 0))
        return _look_back(s, kept, column.slope) if least_squares else kept

    end = jax.lax.while_loop(lambda s: jnp.any(s.active) & (s.step < max_steps), advance, start)
    return Report(end.iterate.x, end.step, jnp.all(end.pivots.positive), end.watch.inconsistent)


def _identity(block: Block) -> Block:
    return block


def _dot(u: Block, v: Block) -> Array:
    """Re u_j^H v_j for every column, (b,)."""
    return jnp.sum(u.conj() * v, axis=0).real


def _start(b: Block, tb: Block, atol: Array, least_squares: bool) -> tuple[_State, Array]:
    """The state before the first step, and the T-norms (b,) to reach."""
    beta = jnp.sqrt(jnp.maximum(_dot(b, tb), 0))
    norm = blocks.column_norms(b)
    target = atol * beta / jnp.where(norm > 0, norm, 1)
    zero, one, zeros = jnp.zeros_like(beta), jnp.ones_like(beta), jnp.zeros_like(b)
    start = _State(
        lanczos=_Lanczos(old=zeros, now=b, t_now=tb, beta_old=one, beta=beta),
        rotation=_Rotation(cs=-one, sn=zero, delta_bar=zero, epsilon=zero),
        iterate=_Iterate(x=zeros, w_old=zeros, w=zeros, phi_bar=beta),
        pivots=_Pivots(last=one, positive=jnp.ones_like(beta, bool)),
        watch=_Watch(
            square=zero,
            slope=jnp.full_like(beta, jnp.inf),
            phi=beta,
            x=zeros if least_squares else None,
            inconsistent=jnp.zeros_like(beta, bool),
        ),
        step=jnp.array(0),
        active=(beta > target) & (beta > 0),
    )
    return start, target


def _lanczos_step(
    s: _Lanczos, v: Block, av: Block, precondition: BlockFunction, first: Array
) -> tuple[_Lanczos, Array]:
    """The next Lanczos vector, from v_j and A v_j, and alpha_j."""
    scale = blocks.scale_columns
    y = jnp.where(first, av, av - scale(s.old, s.beta * blocks.reciprocal(s.beta_old)))
    alpha = _dot(v, y)
    y = y - scale(s.now, alpha * blocks.reciprocal(s.beta))
    ty = precondition(y)
    beta = jnp.sqrt(jnp.maximum(_dot(y, ty), 0))
    return _Lanczos(old=s.now, now=y, t_now=ty, beta_old=s.beta, beta=beta), alpha


def _rotate(s: _Rotation, alpha: Array, beta: Array) -> tuple[_Rotation, _Column]:
    """Apply the rotation of the step before, then a new one that annihilates beta."""
    delta = s.cs * s.delta_bar + s.sn * alpha
    gamma_bar = s.sn * s.delta_bar - s.cs * alpha
    epsilon, delta_bar = s.sn * beta, -s.cs * beta
    gamma = jnp.hypot(gamma_bar, beta)
    cs, sn = gamma_bar * blocks.reciprocal(gamma), beta * blocks.reciprocal(gamma)
    return _Rotation(cs, sn, delta_bar, epsilon), _Column(
        delta, gamma, slope=jnp.hypot(gamma_bar, delta_bar)
    )


def _update(
    s: _Iterate, v: Block, column: _Column, epsilon: Array, rotation: _Rotation
) -> _Iterate:
    """The next search direction, iterate and residual norm; ``epsilon`` is the step before's."""
    scale = blocks.scale_columns
    w = v - scale(s.w_old, epsilon) - scale(s.w, column.delta)
    w = scale(w, blocks.reciprocal(column.gamma))
    x = s.x + scale(w, rotation.cs * s.phi_bar)
    return _Iterate(x=x, w_old=s.w, w=w, phi_bar=rotation.sn * s.phi_bar)


def _look_back(s: _State, new: _State, slope: Array) -> _State:
    """Remember the iterate before this step, or notice that those since have run away."""
    watch = s.watch
    assert watch.x is not None
    lower = s.active & (slope < watch.slope)
    norm = jnp.sqrt(tolerances.eps(slope.dtype) * new.watch.square) * FLAT
    rose = (watch.slope <= norm) & (slope > RISE * watch.slope)
    rose = rose & (s.iterate.phi_bar > FALL * watch.phi) & s.active
    x = blocks.where_columns(rose, watch.x, new.iterate.x)
    return new._replace(
        iterate=new.iterate._replace(x=x),
        watch=new.watch._replace(
            slope=jnp.where(lower, slope, watch.slope),
            phi=jnp.where(lower, s.iterate.phi_bar, watch.phi),
            x=blocks.where_columns(lower, s.iterate.x, watch.x),
            inconsistent=watch.inconsistent | rose,
        ),
        active=new.active & ~rose,
    )
