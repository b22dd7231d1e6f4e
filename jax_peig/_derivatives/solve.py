"""Solving the systems of the derivatives, and judging the solutions.

Which solver, in "auto":

* the full spectrum, where the eigensolver was "dense";
* Chebyshev's semi-iteration where the spectrum's end is known from the forward solve;
* CG where a preconditioner is given, or where the end of the spectrum of M^{-1} A is not known;
* MINRES where the systems are indefinite: interior pairs, shift-inverted where OPinv is given; and
  after a LOBPCG that found D to be no good for M.

Whatever the solver says, the true residual decides. It is computed afresh after every round, and
solved for again; where a round does not gain a digit, MINRES takes over.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.types import Array, Block
from jax_peig._derivatives.rounds import Columns, Round, improve
from jax_peig._derivatives.systems import Systems

# Rounds of a solver: the first does the work, the others mend what rounding, a solver's own more
# optimistic test, and the guard vectors' errors have left.
ROUNDS = 4
# The least gain of a round, in residual, of a solver that goes on.
GAIN = 0.1
# A system counts as solved within this factor of its tolerance...
SLACK = 10
# ...or where its residual is at the rounding of the products, these many eps.
ROUNDING = 30
# Columns solved together: those that are not asked for cost nothing, but to fill a panel up. One,
# two or five are a panel of their own, which four or eight columns would fill too poorly.
PANEL = 4


class Solution(NamedTuple):
    """What `solve` returns."""

    z: Block
    converged: Array  # (k,)
    residuals: Array  # (k,), norms
    steps: Array  # of all rounds and panels, as far as the solvers tell
    matvecs: Array  # with A, in vectors


class _State(NamedTuple):
    z: Block
    r: Block
    norms: Array
    done: Array
    stage: Array  # of the solvers
    rounds: Array  # of this one
    gained: Array  # the last round was worth while
    steps: Array
    matvecs: Array


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
        Tried one after the other, as far as is needed: "eigenbasis", "semi_iteration", "cg",
        "minres", "gmres", "shift-invert", or a callable.
    max_steps : int
        Of a round.
    """
    data, count = systems.data, rhs.shape[1]
    which = jnp.arange(count) % systems.lam.shape[0]
    noise, one = ROUNDING * tolerances.eps(rhs.dtype), jnp.ones_like(full[0])
    size = blocks.column_norms(rhs)
    present = ~(size <= noise * full)  # NaN is
    # Of norm one from here on.
    scale = jnp.where(present, blocks.reciprocal(size), 0)
    rhs = jnp.where(present[None, :], rhs * (systems.sign * scale).astype(rhs.dtype)[None, :], 0)
    target = jnp.maximum(data.tol, noise * full * scale)
    norm_a, norm_m = data.norms
    stiffness = norm_a + jnp.abs(systems.lam) * norm_m
    natural = blocks.reciprocal(jnp.max(stiffness))  # what z is no shorter than
    rounds = [functools.partial(improve, systems, name, max_steps) for name in solvers]

    def turn(own: Array, solver, columns: Columns) -> Round:
        """One round of a solver. Under vmap every one takes every turn: zero where not its own."""
        if len(solvers) > 1:
            columns = columns._replace(r=jnp.where(own, columns.r, 0))
        return solver(columns)

    def panel(index: Array, state: _State) -> _State:
        """One round for the columns ``index``; those beyond the last are filling."""
        own = jnp.minimum(index, count - 1)
        asked = (index < count) & ~state.done[own]
        r = jnp.where(asked[None, :], state.r[:, own], 0)
        step, steps, matvecs = jax.lax.switch(
            state.stage,
            [functools.partial(turn, state.stage == i, f) for i, f in enumerate(rounds)],
            Columns(r, which[own], jnp.where(asked, 0.5 * target[own], 0)),
        )
        z = state.z[:, own] + systems.within(step)
        r = rhs[:, own] - systems(z, which[own])
        norms = blocks.scaled_norms(r, one)
        floor = noise * stiffness[which[own]] * blocks.scaled_norms(z, natural)
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
            steps=state.steps + steps,
            matvecs=state.matvecs + matvecs + index.shape[0],
        )

    whole = solvers[0] == "eigenbasis" or callable(solvers[0])  # alone, and all columns at once
    width = count if whole or count in (1, 2, PANEL + 1) else PANEL
    panels = -(-count // width)

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

    none, stage = jnp.array(0), jnp.array(0)
    if solvers[0] == "semi_iteration" and len(solvers) > 1 and data.spectrum is not None:
        stage = jnp.where(data.spectrum.worthwhile, 0, 1)
    norms = present.astype(size.dtype)
    state = _State(
        jnp.zeros_like(rhs), rhs, norms, ~present, stage, none, jnp.array(True), none, none
    )
    state = jax.lax.while_loop(lambda s: ~jnp.all(s.done) & (s.stage < len(solvers)), refine, state)
    z = jnp.where(present[None, :], state.z * size.astype(rhs.dtype)[None, :], 0)
    converged = state.done | (state.norms <= SLACK * target)
    return Solution(z, converged, state.norms * size, state.steps, state.matvecs)
