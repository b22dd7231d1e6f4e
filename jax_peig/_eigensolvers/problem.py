"""What partial_eigh was asked for: the static part, and the arrays and operators."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp

from jax_peig._core.monitor import Monitor
from jax_peig._core.types import Array, Block
from jax_peig._operators.operator import Operator

# (A, Ritz, k) -> Ritz, better pairs.
Polish: TypeAlias = Callable[[Operator, Any, int], Any]


class Problem(NamedTuple):
    """Everything that is compiled into the forward program; hashable by value."""

    k: int
    which: str
    method: str
    reason: str  # why this method
    width: int  # of the block
    basis: int  # of "davidson"
    dtype: str
    tol: float
    max_steps: int
    degeneracy_tol: float | None
    monitor: Monitor
    polish: Polish | None = None  # hashable by value

    def places(self, values: Array, sigma: Array | None) -> Array:
        """Where eigenvalues stand in the order wanted, ascending."""
        if sigma is not None:
            return jnp.abs(values - sigma)
        return -values if self.which == "largest" else values


class Inputs(NamedTuple):
    """What the program is called with; a pytree. None is what was not given."""

    a: Operator
    m: Operator | None
    preconditioner: Operator | None
    m_solve: Operator | None
    op_inv: Operator | None
    derivative_preconditioner: Operator | None
    start: Block | None
    sigma: Array | None
    derivative_tol: Array  # of the linear systems; NaN is the default
    key: Array
