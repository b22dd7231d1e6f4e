"""One round of a solver of the derivatives' systems, for a panel of right-hand sides.

Chebyshev's semi-iteration needs no inner products. The guard vectors take the lowest end of the
spectrum out, as far as they are accurate: a Galerkin correction with them comes before every
polynomial, and errors of theirs die with the rounds.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jax_peig._core import blocks
from jax_peig._core.types import Array, Block
from jax_peig._derivatives.systems import Systems
from jax_peig._eigensolvers.convergence import multiply
from jax_peig._linear_solvers import krylov, minres
from jax_peig._linear_solvers.semi_iteration import semi_iteration

# A guard vector whose residual, over its distance to the k-th pair, is below this is deflated.
ACCURATE = 1e-2
# What leaks along the retained vectors may grow by this factor before it is projected out.
LEAK = 10.0


class Columns(NamedTuple):
    """A panel of right-hand sides."""

    r: Block  # (n, c)
    which: Array  # (c,), of the k systems
    atol: Array  # (c,)


class Round(NamedTuple):
    """What a solver made of a panel."""

    z: Block
    steps: Array
    matvecs: Array


_KRYLOV = {"cg": krylov.cg, "gmres": krylov.gmres}


def improve(systems: Systems, name: Any, max_steps: int, columns: Columns) -> Round:
    """One round of a solver: corrections for a panel of residuals."""
    if name == "eigenbasis":
        return _untold(_spectral(systems, columns))
    if callable(name):
        return _untold(name(_plus_span(systems), columns.r))
    if name == "semi_iteration":
        return _semi_iteration(systems, max_steps, columns)
    if name == "shift-invert":
        return _shift_invert(systems, max_steps, columns)
    return _krylov(systems, max_steps, name, columns)


def _untold(z: Block) -> Round:
    """Of a solver that counts nothing."""
    return Round(z, jnp.array(0), jnp.array(0))


def _krylov(systems: Systems, max_steps: int, name: str, columns: Columns) -> Round:
    """CG, MINRES or GMRES with the caller's preconditioner between projections."""
    helper = systems.data.preconditioner
    precondition = None
    if helper is not None:

        def precondition(block):
            return systems.within(helper(systems.dual(block)))

    def product(block, index):
        return systems(block, columns.which[index])

    if name != "minres":  # they do not tell how many
        z = _KRYLOV[name](product, columns.r, columns.atol, max_steps, precondition)
        return _untold(z)
    report = minres.solve_and_report(product, columns.r, columns.atol, max_steps, precondition)
    return Round(report.x, report.steps, report.steps * columns.r.shape[1])


def _spectral(systems: Systems, columns: Columns) -> Block:
    """sum_i x_i x_i^H r_j / (lam_i - lam_j) over the pairs beyond the k wanted ones."""
    complement = systems.data.complement
    assert complement is not None
    gaps = systems.sign * (complement.values[:, None] - systems.lam[None, columns.which])
    inverse = jnp.where(gaps == 0, 0, 1 / jnp.where(gaps == 0, 1, gaps))
    inside = blocks.gram(complement.vectors, columns.r)
    coefficients = inside * inverse.astype(inside.dtype)
    return complement.vectors @ coefficients


def _plus_span(systems: Systems):
    """The product handed to a caller's solver: made definite on span(X) too."""
    index = jnp.arange(systems.x.shape[1])

    def product(block):
        return systems(block, index) + systems.mx @ blocks.gram(systems.mx, block)

    return product


def _shift_invert(systems: Systems, max_steps: int, columns: Columns) -> Round:
    """MINRES on the systems times M (A - sigma M)^{-1}, which is Hermitian again.

        (M - (lam_j - sigma) M (A - sigma M)^{-1} M) z_j = M (A - sigma M)^{-1} r_j

    Its eigenvalues (lam_i - lam_j) / (lam_i - sigma), for M = I, gather at one: few steps.
    """
    op_inv, sigma = systems.data.op_inv, systems.data.sigma
    assert op_inv is not None
    assert sigma is not None
    shift = systems.lam[columns.which] - sigma

    def product(block, index):
        block = systems.within(block)
        mass = multiply(systems.m, block)
        inverse = multiply(systems.m, op_inv(mass))
        return systems.dual(mass - inverse * shift[index].astype(block.dtype)[None, :])

    rhs = systems.dual(multiply(systems.m, op_inv(columns.r)))
    norms = blocks.column_norms(columns.r)
    atol = 0.2 * columns.atol * blocks.reciprocal(norms) * blocks.column_norms(rhs)
    report = minres.solve_and_report(product, rhs, atol, max_steps)
    return Round(report.x, report.steps, jnp.array(0))  # products with OPinv alone


# -- Chebyshev's semi-iteration --------------------------------------------------------------------


def _semi_iteration(systems: Systems, max_steps: int, columns: Columns) -> Round:
    """A Galerkin correction with the guard vectors, then p(D B_j) D on what is left.

    B_j = sign (A - lam_j M) on the complement; D = I without M, a rough inverse of it with. The
    residual polynomial T_m((c - t) / e) / T_m(c / e) is small on [c - e, c + e], from the edge of
    what the guard vectors leave to the spectrum's end, and below one between 0 and that edge, where
    they did most of it already.

    What leaks along the retained vectors (B_j is no zero there, and they are not exact) grows like
    the polynomial at lam_1 - lam_j <= 0: it is projected out before it has grown by `LEAK`. With D,
    which leaks at first order, at every step.
    """
    data, sign = systems.data, systems.sign
    guards, spectrum = data.guards, data.spectrum
    assert guards is not None
    assert spectrum is not None
    r, index, atol = columns
    dtype = r.dtype
    shift = sign * systems.lam[index]  # (c,)
    values = sign * guards.values
    used, edge = _edge(values, guards.errors, sign * systems.lam)
    # The spectrum of D M reaches little beyond one.
    end = spectrum.upper + (-shift if spectrum.inverse is None else jnp.maximum(-2 * shift, 0))
    start = edge - shift
    end = jnp.maximum(end, 2 * start)
    c, e = (end + start) / 2, (end - start) / 2

    distance = values[:, None] - shift[None, :]
    weights = jnp.where(used[:, None], blocks.reciprocal(distance), 0)
    lowest = guards.vectors @ (blocks.gram(guards.vectors, r) * weights.astype(dtype))
    rest = systems.dual(r - systems.bare(lowest, index))

    rate = jnp.arccosh(c / e)
    gain = jnp.maximum(blocks.scaled_norms(rest, jnp.ones_like(c[0])) * blocks.reciprocal(atol), 1)
    steps = jnp.max(jnp.where(atol > 0, jnp.arccosh(gain), 0) / rate)
    steps = jnp.clip(jnp.ceil(steps), 1, max_steps).astype(int)
    growth = jnp.arccosh((c + shift - jnp.min(sign * systems.lam)) / e) - rate
    period = jnp.log(LEAK) / jnp.maximum(jnp.max(growth), jnp.log(LEAK) / max_steps)
    period = jnp.maximum(jnp.floor(period), 1).astype(int)

    def rough(block):
        return block if spectrum.inverse is None else systems.within(spectrum.inverse(block))

    def product(z):
        return rough(systems.bare(z, index))

    z = semi_iteration(
        product, rough(rest), start[None, :], end[None, :], steps + 1, systems.within, period
    )
    return Round(lowest + z, steps, r.shape[1] * (steps + 1))


def _edge(values: Array, errors: Array, wanted: Array) -> tuple[Array, Array]:
    """Which guard vectors are deflated, and where the rest of the spectrum begins.

    A Ritz value lies above the eigenvalue it stands for: what begins too low costs steps, too high
    leaves a little more to the next round.
    """
    last = jnp.max(wanted)
    distance = values - last
    used = jnp.cumprod(errors <= ACCURATE * distance) > 0
    beyond = jnp.min(jnp.where(used, jnp.inf, values - errors))
    known = jnp.max(jnp.where(used, values, last + 0.1 * distance[0]))
    return used, jnp.where(jnp.all(used), values[-1], jnp.maximum(beyond, known))
