"""The convergence history and the line of progress of an iterative eigensolver."""

import functools
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_peig._core.types import Array, DTypeLike


class Monitor(NamedTuple):
    """What an eigensolver records and shows while it runs; static and hashable.

    Attributes
    ----------
    rows : int
        Steps of the history that are kept; 0 keeps none.
    progress : bool
        Whether each step is shown on the console.
    """

    rows: int = 0
    progress: bool = False

    def begin(self, k: int, dtype: DTypeLike) -> Array:
        """The empty history, (rows, k), of NaN."""
        return jnp.full((self.rows, k), jnp.nan, jnp.finfo(dtype).dtype)

    def record(
        self, history: Array, step: Array, relative: Array, matvecs: Array, tol: float
    ) -> Array:
        """Write the relative residuals (k,) of a step, counted from 0, and show them if asked."""
        if self.progress:
            show = functools.partial(_show, k=relative.shape[0])
            jax.debug.callback(show, step, matvecs, jnp.sum(relative <= tol), jnp.max(relative))
        if not self.rows:
            return history
        return history.at[jnp.minimum(step, self.rows - 1)].set(relative)

    def finish(self, step: Array) -> None:
        """End the line of progress after the last ``step``."""
        if self.progress:
            jax.debug.callback(_end, step)


def _show(
    step: np.ndarray, matvecs: np.ndarray, converged: np.ndarray, worst: np.ndarray, *, k: int
) -> None:
    sys.stderr.write(
        f"\rpartial_eigh: step {int(step)}, {int(matvecs)} matvecs, "
        f"{int(converged)}/{k} converged, largest residual {float(worst):.1e}   "
    )
    sys.stderr.flush()


def _end(step: np.ndarray) -> None:
    del step  # orders this callback after the last `_show`
    sys.stderr.write("\n")
    sys.stderr.flush()
