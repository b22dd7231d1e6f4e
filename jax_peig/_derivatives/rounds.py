"""One round of a solver of the derivatives' systems, for a panel of right-hand sides.

`SOLVERS` is the table of solvers. Each returns corrections for a panel of residuals, which
`_derivatives.solve` judges.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from jax_peig._core import blocks
from jax_peig._core.types import Array, Block, BlockFunction
from jax_peig._derivatives.systems import Systems
from jax_peig._linear_solvers import krylov, minres
from jax_peig._linear_solvers.semi_iteration import semi_iteration
from jax_peig._problem.convergence import Spectrum, multiply

# A guard vector is deflated if its residual, over its distance to the k-th pair, is below this.
ACCURATE = 1e-2
# The leak along the retained vectors may grow by this factor before it is projected out.
LEAK = 10.0
# Where no guard vector is deflated, the rest of the spectrum begins no later than this part of the
# first one's distance behind the k-th pair.
NEAREST = 0.1
# The shift-inverted systems are solved to this part of the tolerance: their residuals differ from
# those of the systems.
SHIFT_INVERT_SAFETY = 0.2


class Panel(NamedTuple):
    """A panel of right-hand sides."""

    r: Block  # (n, c)
    pairs: Array  # (c,), of the k systems
    atol: Array  # (c,)


class RoundResult(NamedTuple):
    """A solver's corrections for a panel, and their cost."""

    z: Block  # (n, c)
    steps: Array
    matvecs: Array


class SystemSolver(NamedTuple):
    """A solver of the systems."""

    run: Callable[[Systems, int, Panel], RoundResult]  # at most so many steps
    all_columns: bool = False  # its panel is all columns, and it is the only solver
    counted: bool = True  # it tells its steps and matvecs
    worthwhile: Callable[[Systems], Array | bool] | None = None  # None is always


def solver_of(name: Any) -> SystemSolver:
    """The solver of a name in `SOLVERS`, or of a caller's function (matvec, B) -> Z."""
    if callable(name):
        return SystemSolver(functools.partial(_callable, name), all_columns=True, counted=False)
    return SOLVERS[name]


def _uncounted(z: Block) -> RoundResult:
    """The result of a solver that does not count."""
    return RoundResult(z, jnp.array(0), jnp.array(0))


# -- without iteration, or by the caller ----------------------------------------------------------


def _eigenbasis(systems: Systems, max_steps: int, panel: Panel) -> RoundResult:
    """sum_i x_i x_i^H r_j / (lam_i - lam_j) over the pairs beyond the k wanted ones."""
    del max_steps
    complement = systems.data.complement
    assert complement is not None
    gaps = systems.sign * (complement.values[:, None] - systems.lam[None, panel.pairs])
    inverse = jnp.where(gaps == 0, 0, 1 / jnp.where(gaps == 0, 1, gaps))
    inside = blocks.gram(complement.vectors, panel.r)
    return _uncounted(complement.vectors @ (inside * inverse.astype(inside.dtype)))


def _callable(
    solver: Callable[[BlockFunction, Block], Block], systems: Systems, max_steps: int, panel: Panel
) -> RoundResult:
    """A caller's solver. Its product is made definite on span(X) too."""
    del max_steps
    index = jnp.arange(systems.x.shape[1])

    def product(block: Block) -> Block:
        return systems(block, index) + systems.mx @ blocks.gram(systems.mx, block)

    return _uncounted(solver(product, panel.r))


# -- Krylov methods -------------------------------------------------------------------------------


def _solve_projected(
    solve: Callable[..., Any], systems: Systems, max_steps: int, panel: Panel
) -> Any:
    """Apply a Krylov method, with the preconditioner between projections."""
    given = systems.data.preconditioner

    def product(block: Block, index: Array) -> Block:
        return systems(block, panel.pairs[index])

    def precondition(block: Block) -> Block:
        assert given is not None
        return systems.within(given(systems.dual(block)))

    helper = None if given is None else precondition
    return solve(product, panel.r, panel.atol, max_steps, helper)


def _cg(systems: Systems, max_steps: int, panel: Panel) -> RoundResult:
    return _uncounted(_solve_projected(krylov.cg, systems, max_steps, panel))


def _gmres(systems: Systems, max_steps: int, panel: Panel) -> RoundResult:
    return _uncounted(_solve_projected(krylov.gmres, systems, max_steps, panel))


def _minres(systems: Systems, max_steps: int, panel: Panel) -> RoundResult:
    report = _solve_projected(minres.solve, systems, max_steps, panel)
    return RoundResult(report.x, report.steps, report.steps * panel.r.shape[1])


def _shift_invert(systems: Systems, max_steps: int, panel: Panel) -> RoundResult:
    """MINRES on the systems times M (A - sigma M)^{-1}, which are Hermitian again.

        (M - (lam_j - sigma) M (A - sigma M)^{-1} M) z_j = M (A - sigma M)^{-1} r_j

    For M = I the eigenvalues (lam_i - lam_j) / (lam_i - sigma) gather at one: few steps are needed.
    No products with A are needed, only products with OPinv. Where M is singular, these systems do
    not see its null space: z_j = (A - sigma M)^{-1} (r_j + (lam_j - sigma) M z_j) does.
    """
    op_inv, sigma = systems.data.op_inv, systems.data.sigma
    assert op_inv is not None
    assert sigma is not None
    shift = systems.lam[panel.pairs] - sigma

    def product(block: Block, index: Array) -> Block:
        block = systems.within(block)
        mass = multiply(systems.m, block)
        inverse = multiply(systems.m, op_inv(mass))
        return systems.dual(mass - blocks.scale_columns(inverse, shift[index]))

    rhs = systems.dual(multiply(systems.m, op_inv(panel.r)))
    norms = blocks.column_norms(panel.r)
    atol = SHIFT_INVERT_SAFETY * panel.atol * blocks.reciprocal(norms) * blocks.column_norms(rhs)
    report = minres.solve(product, rhs, atol, max_steps)
    z = report.x
    if systems.m is not None:
        z = op_inv(panel.r + blocks.scale_columns(systems.m(z), shift))
    return RoundResult(z, report.steps, jnp.array(0))


# -- Chebyshev's semi-iteration --------------------------------------------------------------------


def _semi_iteration(systems: Systems, max_steps: int, panel: Panel) -> RoundResult:
    """A Galerkin correction with the guard vectors, then p(D B_j) D on the remaining residual.

    B_j = sign (A - lam_j M) on the complement. D is I without M, an approximate inverse of M with
    it. The residual polynomial T_m((c - t) / e) / T_m(c / e) is small on [c - e, c + e], from the
    lowest eigenvalue without deflated guard vector to the spectrum's end. It is below one between 0
    and there, where the guard vectors took most of the residual out; errors of theirs die with the
    rounds.
    """
    guards, spectrum = systems.data.guards, systems.data.spectrum
    assert guards is not None
    assert spectrum is not None
    wanted = systems.sign * systems.lam
    values, shift = systems.sign * guards.values, wanted[panel.pairs]
    deflated, edge = _deflated(values, guards.errors, wanted)
    start, end = _interval(edge, spectrum, shift)

    distance = values[:, None] - shift[None, :]
    weights = jnp.where(deflated[:, None], blocks.reciprocal(distance), 0)
    inside = blocks.gram(guards.vectors, panel.r)
    lowest = guards.vectors @ (inside * weights.astype(inside.dtype))
    rest = systems.dual(panel.r - systems.bare(lowest, panel.pairs))

    size = blocks.scaled_norms(rest, jnp.ones_like(shift[0]))
    gain = jnp.maximum(size * blocks.reciprocal(panel.atol), 1)
    needed = jnp.where(panel.atol > 0, jnp.arccosh(gain), 0)
    steps, period = _schedule((start, end), needed, shift, jnp.min(wanted), max_steps)

    def approximate_inverse(block: Block) -> Block:
        # D leaks along the retained vectors at first order: every step projects them out.
        return block if spectrum.inverse is None else systems.within(spectrum.inverse(block))

    def product(z: Block) -> Block:
        return approximate_inverse(systems.bare(z, panel.pairs))

    z = semi_iteration(
        product, approximate_inverse(rest), start[None, :], end[None, :], steps + 1,
        systems.within, period,
    )  # fmt: skip
    return RoundResult(lowest + z, steps, panel.r.shape[1] * (steps + 1))


def _deflated(values: Array, errors: Array, wanted: Array) -> tuple[Array, Array]:
    """Which guard vectors are deflated, and where the rest of the spectrum begins.

    A Ritz value lies above its eigenvalue. An interval that begins too low costs steps; one that
    begins too high leaves a little more to the next round.
    """
    last = jnp.max(wanted)
    distance = values - last
    deflated = blocks.leading(errors <= ACCURATE * distance)
    beyond = jnp.min(jnp.where(deflated, jnp.inf, values - errors))
    known = jnp.max(jnp.where(deflated, values, last + NEAREST * distance[0]))
    return deflated, jnp.where(jnp.all(deflated), values[-1], jnp.maximum(beyond, known))


def _interval(edge: Array, spectrum: Spectrum, shift: Array) -> tuple[Array, Array]:
    """The interval (c,), (c,) of the spectrum of D B_j that is left to the polynomial."""
    # The spectrum of D M reaches little beyond one.
    moved = -shift if spectrum.inverse is None else jnp.maximum(-2 * shift, 0)
    start, end = edge - shift, spectrum.upper + moved
    return start, jnp.maximum(end, 2 * start)


def _schedule(
    interval: tuple[Array, Array], needed: Array, shift: Array, lowest: Array, max_steps: int
) -> tuple[Array, Array]:
    """The steps, and after how many of them the retained vectors are projected out.

    A reduction by cosh(``needed``) (c,) takes needed / arccosh(c / e) steps. B_j is not zero along
    the retained vectors, which are not exact: that leak grows like the polynomial at
    ``lowest`` - ``shift`` = lam_1 - lam_j <= 0, and is projected out before it has grown by `LEAK`.
    """
    start, end = interval
    c, e = (end + start) / 2, (end - start) / 2
    rate = jnp.arccosh(c / e)
    steps = jnp.clip(jnp.ceil(jnp.max(needed / rate)), 1, max_steps).astype(int)
    growth = jnp.arccosh((c + shift - lowest) / e) - rate
    period = jnp.log(LEAK) / jnp.maximum(jnp.max(growth), jnp.log(LEAK) / max_steps)
    return steps, jnp.maximum(jnp.floor(period), 1).astype(int)


def _approximates_mass(systems: Systems) -> Array | bool:
    """Whether the approximate inverse of M is good enough for the semi-iteration."""
    assert systems.data.spectrum is not None
    return systems.data.spectrum.worthwhile


SOLVERS = {
    "eigenbasis": SystemSolver(_eigenbasis, all_columns=True),
    "semi_iteration": SystemSolver(_semi_iteration, worthwhile=_approximates_mass),
    "cg": SystemSolver(_cg, counted=False),
    "gmres": SystemSolver(_gmres, counted=False),
    "minres": SystemSolver(_minres),
    "shift-invert": SystemSolver(_shift_invert),
}
