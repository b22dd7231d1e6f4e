"""Solving the systems of the derivatives, and judging the solutions.

With ``solver="auto"`` the solvers are, see `rounds`:

* the full spectrum, if the eigensolver was "dense";
* Chebyshev's semi-iteration, if the spectrum's end is known from the forward solve;
* CG, if a preconditioner is given, or if the end of the spectrum of M^{-1} A is not known;
* MINRES, if the systems are indefinite: interior pairs, shift-inverted if OPinv is given; and if
  "lobpcg" found the row sums a poor approximation of M.

The true residual decides, whatever the solver reports. It is computed afresh after every round, and
solved for again; where a round does not gain a digit, the next solver (MINRES) takes over.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_peig._core import blocks, tolerances
from jax_peig._core.types import Array, Block
from jax_peig._derivatives.rounds import Panel, RoundResult, SystemSolver, solver_of
from jax_peig._derivatives.systems import Systems

# Rounds of a solver: the first does the work. The others mend the rounding, a solver's own more
# optimistic test, and the guard vectors' errors.
ROUNDS = 4
# A solver goes on if a round reduces every residual to this part.
GAIN = 0.1
# A round solves to this part of the target, so that the true residual is below it.
SAFETY = 0.5
# A system counts as solved if its residual is within this factor of its tolerance, ...
SLACK = 10
# ... or at the rounding of the products, so many eps.
PRODUCT_ROUNDING = 30
# Columns that are solved together: columns that are done cost nothing, except to fill a panel up.
# One, two or five are a panel of their own, because four or eight columns would be filled poorly.
PANEL = 4


class Solution(NamedTuple):
    """The result of `solve`."""

    z: Block
    converged: Array  # (c,)
    residuals: Array  # (c,), norms
    steps: Array  # of all rounds and panels, as far as the solvers tell
    matvecs: Array  # with A, in vectors


def solve(
    systems: Systems, rhs: Block, full: Array, solvers: tuple[Any, ...], max_steps: int
) -> Solution:
    """Z = P Z with P^H (A Z - M Z diag(lam)) = rhs, for rhs in the dual complement.

    Parameters
    ----------
    rhs : (n, k t)
        k right-hand sides, one for each pair; t times.
    full : (k t,)
        Norms before projection: a column below their rounding is zero and is not solved for.
    solvers : tuple
        Tried one after the other, as far as is needed: names of `rounds.SOLVERS`, or a callable.
    max_steps : int
        Of a round.
    """
    noise = PRODUCT_ROUNDING * tolerances.eps(rhs.dtype)
    size = blocks.column_norms(rhs)
    present = ~(size <= noise * full)  # NaN is
    # The columns have norm one from here on.
    scale = jnp.where(present, blocks.reciprocal(size), 0)
    unit = blocks.where_columns(present, blocks.scale_columns(rhs, systems.sign * scale))
    target = jnp.maximum(systems.data.tol, noise * full * scale)
    panels = _PanelSolver.of(systems, unit, target, tuple(map(solver_of, solvers)), max_steps)
    start = panels.start(present.astype(size.dtype), ~present)
    end = jax.lax.while_loop(panels.unfinished, panels.run_round, start)
    z = blocks.where_columns(present, blocks.scale_columns(end.z, size))
    converged = end.done | (end.norms <= SLACK * target)
    return Solution(z, converged, end.norms * size, end.steps, end.matvecs)


class _State(NamedTuple):
    z: Block  # (n, c)
    r: Block  # (n, c), the true residuals
    norms: Array  # (c,)
    done: Array  # (c,)
    stage: Array  # which solver
    rounds: Array  # of this solver
    gained: Array  # the last round was worth while
    steps: Array
    matvecs: Array


@dataclasses.dataclass(frozen=True)
class _PanelSolver:
    """Rounds for systems with right-hand sides of norm one or zero, a panel of columns at a time.

    Its methods are traced inside one loop: its arrays are computed before, once.
    """

    systems: Systems
    rhs: Block  # (n, c)
    index: Array  # (c,), of the k systems
    target: Array  # (c,), residual norms to reach
    stiffness: Array  # (k,), ||A|| + |lam| ||M||
    natural: Array  # the solutions are no shorter than this
    solvers: tuple[SystemSolver, ...]
    max_steps: int

    @classmethod
    def of(
        cls,
        systems: Systems,
        rhs: Block,
        target: Array,
        solvers: tuple[SystemSolver, ...],
        max_steps: int,
    ) -> "_PanelSolver":
        index = jnp.asarray(np.arange(rhs.shape[1]) % systems.lam.shape[0])
        norm_a, norm_m = systems.data.norms
        stiffness = norm_a + jnp.abs(systems.lam) * norm_m
        natural = blocks.reciprocal(jnp.max(stiffness))
        return cls(systems, rhs, index, target, stiffness, natural, solvers, max_steps)

    @property
    def count(self) -> int:
        """The number of right-hand sides."""
        return self.rhs.shape[1]

    @property
    def width(self) -> int:
        """The number of columns in a panel."""
        alone = self.solvers[0].all_columns or self.count in (1, 2, PANEL, PANEL + 1)
        return self.count if alone else PANEL

    def start(self, norms: Array, done: Array) -> _State:
        """Before the first round: Z = 0."""
        none, first = jnp.array(0), self.solvers[0]
        stage = jnp.array(0)
        if first.worthwhile is not None and len(self.solvers) > 1:
            stage = jnp.where(first.worthwhile(self.systems), 0, 1)
        return _State(
            z=jnp.zeros_like(self.rhs),
            r=self.rhs,
            norms=norms,
            done=done,
            stage=stage,
            rounds=none,
            gained=jnp.array(True),
            steps=none,
            matvecs=none,
        )

    def unfinished(self, state: _State) -> Array:
        """Whether a column is open and a solver is left."""
        return ~jnp.all(state.done) & (state.stage < len(self.solvers))

    def run_round(self, state: _State) -> _State:
        """One round, and which solver is next."""
        state = state._replace(rounds=state.rounds + 1, gained=jnp.array(True))
        run = self.run_panel if self.width == self.count else self.run_open
        state = run(state)
        last = state.stage == len(self.solvers) - 1
        over = (state.rounds == ROUNDS) | (~state.gained & ~last)
        return state._replace(
            stage=jnp.where(over, state.stage + 1, state.stage),
            rounds=jnp.where(over, 0, state.rounds),
        )

    def run_open(self, state: _State) -> _State:
        """One round for the open columns, a panel at a time: they come first."""
        count, width = self.count, self.width
        order = jnp.lexsort((self.index, state.done))
        order = jnp.pad(order, (0, -(-count // width) * width - count), constant_values=count)

        def body(i: Array, state: _State) -> _State:
            columns = jax.lax.dynamic_slice_in_dim(order, i * width, width)
            return self.run_panel(state, columns)

        return jax.lax.fori_loop(0, -(-jnp.sum(~state.done) // width), body, state)

    def run_panel(self, state: _State, columns: Array | None = None) -> _State:
        """One round for some columns, or for all; those beyond the last are filling."""

        def take(old: Array) -> Array:
            return old if columns is None else old[..., jnp.minimum(columns, self.count - 1)]

        index, target = take(self.index), take(self.target)
        asked = ~take(state.done)
        if columns is not None:
            asked &= columns < self.count
        r = blocks.where_columns(asked, take(state.r))
        atol = jnp.where(asked, SAFETY * target, 0)
        step, steps, matvecs = self.correct(state.stage, Panel(r, index, atol))
        z = take(state.z) + self.systems.within(step)
        r = take(self.rhs) - self.systems(z, index)
        norms = blocks.scaled_norms(r, jnp.ones_like(self.target[0]))
        noise = PRODUCT_ROUNDING * tolerances.eps(r.dtype)
        floor = noise * self.stiffness[index] * blocks.scaled_norms(z, self.natural)
        better = asked & (norms < take(state.norms))  # False for NaN, which is not kept
        done = better & (norms <= jnp.maximum(target, floor))
        gained = done | ~asked | (better & (norms <= GAIN * take(state.norms)))

        def put(old: Array, new: Array) -> Array:
            new = jnp.where(better, new, take(old))
            return new if columns is None else old.at[..., columns].set(new, mode="drop")

        return _State(
            z=put(state.z, z),
            r=put(state.r, r),
            norms=put(state.norms, norms),
            done=put(state.done, done),
            stage=state.stage,
            rounds=state.rounds,
            gained=state.gained & jnp.all(gained),
            steps=state.steps + steps,
            matvecs=state.matvecs + matvecs + self.width,
        )

    def correct(self, stage: Array, panel: Panel) -> RoundResult:
        """The corrections by the solver whose turn it is."""

        def turn(own: Array, solver: SystemSolver, panel: Panel) -> RoundResult:
            # Under vmap every solver takes every turn: with zeros if it is not its own.
            if len(self.solvers) > 1:
                panel = panel._replace(r=jnp.where(own, panel.r, 0))
            return solver.run(self.systems, self.max_steps, panel)

        turns = [functools.partial(turn, stage == i, s) for i, s in enumerate(self.solvers)]
        return jax.lax.switch(stage, turns, panel)
