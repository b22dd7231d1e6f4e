"""The convergence history and the line of progress of an iterative eigensolver."""

import functools
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core.types import Array


class Monitor(NamedTuple):
    """What is recorded, and what is shown, while an eigensolver runs; static and hashable.

    Attributes
    ----------
    rows : int
        Steps of the history that are kept; 0 keeps none.
    progress : bool
        Whether each step is shown on the console.
    """

    rows: int = 0
    progress: bool = False

    def begin(self, k: int, dtype) -> Array:
        """The empty history, (rows, k), of NaN."""
        return jnp.full((self.rows, k), jnp.nan, jnp.finfo(dtype).dtype)

    def record(
        self, history: Array, step: Array, relative: Array, matvecs: Array, tol: float
    ) -> Array:
        """Write the relative residuals (k,) of a step, counted from 0, and show them if asked."""
        if self.progress:
            shown = functools.partial(_show, k=relative.shape[0])
            jax.debug.callback(shown, step, matvecs, jnp.sum(relative <= tol), jnp.max(relative))
        if not self.rows:
            return history
        return history.at[jnp.minimum(step, self.rows - 1)].set(relative)

    def finish(self, step: Array) -> None:
        """End the line of progress; ``step`` is the last one."""
        if self.progress:
            jax.debug.callback(_end, step)


def _show(step, matvecs, converged, worst, *, k: int) -> None:
    sys.stderr.write(
        f"\rpartial_eigh: step {int(step)}, {int(matvecs)} products, "
        f"{int(converged)}/{k} converged, largest residual {float(worst):.1e}   "
    )
    sys.stderr.flush()


def _end(step) -> None:
    del step
    sys.stderr.write("\n")
    sys.stderr.flush()
