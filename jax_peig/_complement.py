"""Solving P^H (A - lam_j M) P z_j = r_j on the complement of the eigenvectors, and judging it.

Which solver, in "auto":

* the full spectrum, where the eigensolver was "dense";
* Chebyshev's semi-iteration where the spectrum's end is known from the forward solve. No inner
  products; the guard vectors take the lowest end out, as far as they are accurate: a Galerkin
  correction with them comes before every polynomial, and errors of theirs die with the rounds;
* CG where a preconditioner is given, or where the end of the spectrum of M^{-1} A is not known;
* MINRES where the systems are indefinite: interior pairs, shift-inverted where OPinv is given.

Whatever the solver says, the true residual decides. It is computed afresh after every round, and
solved for again; where a round does not gain a digit, MINRES takes over.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_peig import _blocks, _tolerances
from jax_peig._eigensolvers.ritz import (
    Complement,
    Lengths,
    Ritz,
    Spectrum,
    multiply,
    residuals,
)
from jax_peig._linear_solvers import krylov, minres
from jax_peig._linear_solvers.chebyshev import semi_iteration
from jax_peig._operators import Operator
from jax_peig._types import Array, Block

# Rounds of a solver: the first does the work, the others mend what rounding, a solver's own more
# optimistic test, and the guard vectors' errors have left.
ROUNDS = 4
# The least gain of a round, in residual, of a solver that goes on.
GAIN = 0.1
# A system counts as solved within this factor of its tolerance...
SLACK = 10
# ...or where its residual is at the rounding of the products, these many eps.
ROUNDING = 30
# A guard vector whose residual, over its distance to the k-th pair, is below this is deflated.
ACCURATE = 1e-2
# What leaks along the retained vectors may grow by this factor before it is projected out.
LEAK = 10.0
# Columns solved together: those that are not asked for cost nothing, but to fill a panel up.
PANEL = 5


class Guards(NamedTuple):
    """Ritz pairs beyond the k wanted ones, M-orthogonal to them; none has to be accurate."""

    values: Array  # (g,), in the order of the wanted
    vectors: Block  # (n, g)
    errors: Array  # (g,), residual norms in the M^{-1} norm, about


class Fixed(NamedTuple):
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


class Solution(NamedTuple):
    """What `solve` returns."""

    z: Block
    converged: Array  # (k,)
    residuals: Array  # (k,), norms
    products: Array  # with A, in vectors


class _Columns(NamedTuple):
    """A panel of right-hand sides."""

    r: Block  # (n, c)
    which: Array  # (c,), of the k systems
    atol: Array  # (c,)


class _State(NamedTuple):
    z: Block
    r: Block
    norms: Array
    done: Array
    stage: Array  # of the solvers
    rounds: Array  # of this one
    gained: Array  # the last round was worth while
    products: Array


class Systems(NamedTuple):
    """sign P^H (A - lam_j M) P, positive definite for the smallest and the largest pairs."""

    a: Operator
    m: Operator | None
    x: Block
    mx: Block
    lam: Array  # (k,)
    fixed: Fixed
    sign: int

    def __call__(self, z: Block, index: Array) -> Block:
        return self.dual(self.bare(self.within(z), index))

    def bare(self, z: Block, index: Array) -> Block:
        """Sign (A - lam_j M) z_j without projections."""
        shift = self.lam[index].astype(z.dtype)[None, :]
        return self.sign * (self.a(z) - multiply(self.m, z) * shift)

    def within(self, z: Block) -> Block:
        """P Z."""
        return _blocks.project_out(z, self.x, self.mx)

    def dual(self, r: Block) -> Block:
        """P^H R."""
        return _blocks.project_out(r, self.mx, self.x)


def solve(
    systems: Systems, rhs: Block, full: Array, solvers: tuple[Any, ...], max_steps: int
) -> Solution:
    """Z = P Z with P^H (A Z - M Z diag(lam)) = rhs, for rhs in the dual complement.

    Parameters
    ----------
    rhs : (n, k t)
        k right-hand sides, one for each pair; t times.
    full : (k t,)
        Norms before projection: below their rounding a column is zero and is not solved for.
    solvers : tuple
        Tried one after the other, as far as is needed: "eigenbasis", "chebyshev", "cg", "minres",
        "gmres", "shift-invert", or a callable.
    max_steps : int
        Of a round.
    """
    fixed, count = systems.fixed, rhs.shape[1]
    which = jnp.arange(count) % systems.lam.shape[0]
    noise, one = ROUNDING * _tolerances.eps(rhs.dtype), jnp.ones_like(full[0])
    size = _blocks.column_norms(rhs)
    present = ~(size <= noise * full)  # NaN is
    # Of norm one from here on.
    scale = jnp.where(present, _blocks.reciprocal(size), 0)
    rhs = jnp.where(present[None, :], rhs * (systems.sign * scale).astype(rhs.dtype)[None, :], 0)
    target = jnp.maximum(fixed.tol, noise * full * scale)
    norm_a, norm_m = fixed.norms
    stiffness = norm_a + jnp.abs(systems.lam) * norm_m
    natural = _blocks.reciprocal(jnp.max(stiffness))  # what z is no shorter than
    improve = [functools.partial(_improve, systems, name, max_steps) for name in solvers]

    def turn(own: Array, solver, columns: _Columns) -> tuple[Block, Array]:
        """One round of a solver. Under vmap every one takes every turn: zero where not its own."""
        if len(solvers) > 1:
            columns = columns._replace(r=jnp.where(own, columns.r, 0))
        return solver(columns)

    def panel(index: Array, state: _State) -> _State:
        """One round for the columns ``index``; those beyond the last are filling."""
        own = jnp.minimum(index, count - 1)
        asked = (index < count) & ~state.done[own]
        r = jnp.where(asked[None, :], state.r[:, own], 0)
        step, products = jax.lax.switch(
            state.stage,
            [functools.partial(turn, state.stage == i, f) for i, f in enumerate(improve)],
            _Columns(r, which[own], jnp.where(asked, 0.5 * target[own], 0)),
        )
        z = state.z[:, own] + systems.within(step)
        r = rhs[:, own] - systems(z, which[own])
        norms = _blocks.scaled_norms(r, one)
        floor = noise * stiffness[which[own]] * _blocks.scaled_norms(z, natural)
        better = asked & (norms < state.norms[own])  # NaN is not, nor is it kept
        done = better & (norms <= jnp.maximum(target[own], floor))
        gained = done | ~asked | (better & (norms <= GAIN * state.norms[own]))

        def put(old: Array, new: Array) -> Array:
            return old.at[..., index].set(jnp.where(better, new, old[..., own]), mode="drop")

        return _State(
            z=put(state.z, z),
            r=put(state.r, r),
            norms=put(state.norms, norms),
            done=put(state.done, done),
            stage=state.stage,
            rounds=state.rounds,
            gained=state.gained & jnp.all(gained),
            products=state.products + products + index.shape[0],
        )

    whole = solvers[0] == "eigenbasis" or callable(solvers[0])  # alone, and all columns at once
    panels = 1 if whole else -(-count // PANEL)
    width = -(-count // panels)

    def refine(state: _State) -> _State:
        """One round for all columns that are open, a panel at a time; and which solver is next."""
        order = jnp.arange(count) if whole else jnp.lexsort((which, state.done))
        order = jnp.pad(order, (0, panels * width - count), constant_values=count)
        needed = 1 if whole else -(-jnp.sum(~state.done) // width)

        def body(i: Array, state: _State) -> _State:
            return panel(jax.lax.dynamic_slice_in_dim(order, i * width, width), state)

        state = state._replace(rounds=state.rounds + 1, gained=jnp.array(True))
        state = jax.lax.fori_loop(0, needed, body, state)
        last = state.stage == len(solvers) - 1
        over = (state.rounds == ROUNDS) | (~state.gained & ~last)
        return state._replace(
            stage=jnp.where(over, state.stage + 1, state.stage),
            rounds=jnp.where(over, 0, state.rounds),
        )

    none = jnp.array(0)
    norms = present.astype(size.dtype)
    state = _State(jnp.zeros_like(rhs), rhs, norms, ~present, none, none, jnp.array(True), none)
    state = jax.lax.while_loop(lambda s: ~jnp.all(s.done) & (s.stage < len(solvers)), refine, state)
    z = jnp.where(present[None, :], state.z * size.astype(rhs.dtype)[None, :], 0)
    converged = state.done | (state.norms <= SLACK * target)
    return Solution(z, converged, state.norms * size, state.products)


# -- one round of a solver -------------------------------------------------------------------------

_KRYLOV = {"cg": krylov.cg, "gmres": krylov.gmres}


def _improve(systems: Systems, name: Any, max_steps: int, columns: _Columns) -> tuple[Block, Array]:
    """Corrections for a panel, and the products that they took."""
    if name == "eigenbasis":
        return _spectral(systems, columns), jnp.array(0)
    if callable(name):
        return name(_plus_span(systems), columns.r), jnp.array(0)
    if name == "chebyshev":
        return _semi_iteration(systems, max_steps, columns)
    if name == "shift-invert":
        return _shift_invert(systems, max_steps, columns)
    return _krylov(systems, max_steps, name, columns)


def _krylov(systems: Systems, max_steps: int, name: str, columns: _Columns) -> tuple[Block, Array]:
    """CG, MINRES or GMRES with the caller's preconditioner between projections."""
    helper = systems.fixed.preconditioner
    precondition = None
    if helper is not None:

        def precondition(block):
            return systems.within(helper(systems.dual(block)))

    def product(block, index):
        return systems(block, columns.which[index])

    if name != "minres":  # they do not tell how many
        z = _KRYLOV[name](product, columns.r, columns.atol, max_steps, precondition)
        return z, jnp.array(0)
    report = minres.solve_and_report(product, columns.r, columns.atol, max_steps, precondition)
    return report.x, report.steps * columns.r.shape[1]


def _spectral(systems: Systems, columns: _Columns) -> Block:
    """sum_i x_i x_i^H r_j / (lam_i - lam_j) over the pairs beyond the k wanted ones."""
    complement = systems.fixed.complement
    assert complement is not None
    gaps = systems.sign * (complement.values[:, None] - systems.lam[None, columns.which])
    inverse = jnp.where(gaps == 0, 0, 1 / jnp.where(gaps == 0, 1, gaps))
    inside = _blocks.gram(complement.vectors, columns.r)
    coefficients = inside * inverse.astype(inside.dtype)
    return complement.vectors @ coefficients


def _plus_span(systems: Systems):
    """The product handed to a caller's solver: made definite on span(X) too."""
    index = jnp.arange(systems.x.shape[1])

    def product(block):
        return systems(block, index) + systems.mx @ _blocks.gram(systems.mx, block)

    return product


def _shift_invert(systems: Systems, max_steps: int, columns: _Columns) -> tuple[Block, Array]:
    """MINRES on the systems times M (A - sigma M)^{-1}, which is Hermitian again.

        (M - (lam_j - sigma) M (A - sigma M)^{-1} M) z_j = M (A - sigma M)^{-1} r_j

    Its eigenvalues (lam_i - lam_j) / (lam_i - sigma), for M = I, gather at one: few steps.
    """
    op_inv, sigma = systems.fixed.op_inv, systems.fixed.sigma
    assert op_inv is not None
    assert sigma is not None
    shift = systems.lam[columns.which] - sigma

    def product(block, index):
        block = systems.within(block)
        mass = multiply(systems.m, block)
        inverse = multiply(systems.m, op_inv(mass))
        return systems.dual(mass - inverse * shift[index].astype(block.dtype)[None, :])

    rhs = systems.dual(multiply(systems.m, op_inv(columns.r)))
    norms = _blocks.column_norms(columns.r)
    atol = 0.2 * columns.atol * _blocks.reciprocal(norms) * _blocks.column_norms(rhs)
    report = minres.solve_and_report(product, rhs, atol, max_steps)
    return report.x, jnp.array(0)  # products with OPinv alone


# -- Chebyshev's semi-iteration --------------------------------------------------------------------


def _semi_iteration(systems: Systems, max_steps: int, columns: _Columns) -> tuple[Block, Array]:
    """A Galerkin correction with the guard vectors, then p(D B_j) D on what is left.

    B_j = sign (A - lam_j M) on the complement; D = I without M, a rough inverse of it with. The
    residual polynomial T_m((c - t) / e) / T_m(c / e) is small on [c - e, c + e], from the edge of
    what the guard vectors leave to the spectrum's end, and below one between 0 and that edge, where
    they did most of it already.

    What leaks along the retained vectors (B_j is no zero there, and they are not exact) grows like
    the polynomial at lam_1 - lam_j <= 0: it is projected out before it has grown by `LEAK`. With D,
    which leaks at first order, at every step.
    """
    fixed, sign = systems.fixed, systems.sign
    guards, spectrum = fixed.guards, fixed.spectrum
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
    weights = jnp.where(used[:, None], _blocks.reciprocal(distance), 0)
    lowest = guards.vectors @ (_blocks.gram(guards.vectors, r) * weights.astype(dtype))
    rest = systems.dual(r - systems.bare(lowest, index))

    rate = jnp.arccosh(c / e)
    gain = jnp.maximum(
        _blocks.scaled_norms(rest, jnp.ones_like(c[0])) * _blocks.reciprocal(atol), 1
    )
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
    return lowest + z, r.shape[1] * (steps + 1)


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
