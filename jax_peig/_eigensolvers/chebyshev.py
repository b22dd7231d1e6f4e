"""Chebyshev-filtered subspace iteration (Zhou, Saad, Tiago and Chelikowsky, 2006).

Every step multiplies a block X of Ritz vectors by a polynomial p in the operator, which is small on
the unwanted part of the spectrum and grows fast below it. Rayleigh-Ritz finds the best vectors in
the result:

    Y = p(C) X,  H = Y^H A Y,  G = Y^H M Y,   X <- Y Z  with  H Z = G Z diag(theta),  Z^H G Z = I

The filter (``chebyshev_filter.py``) is a loop of products and additions alone. It has no inner
products, and the compiler fuses it with the product: hence its speed where a product is cheap. The
block is wider than k by guard vectors. They decide the growth of p at the k-th pair, show the
(k+1)-th eigenvalue, and find further copies of repeated ones.

C is A itself where M = I (``spectral_transformation.py``). Eigenvalues nearest to sigma are the
smallest of a transformed C, while Rayleigh-Ritz stays that of (A, M).
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jax_peig._core.types import Array, Block
from jax_peig._eigensolvers import chebyshev_filter
from jax_peig._eigensolvers.chebyshev_filter import Bounds
from jax_peig._eigensolvers.chebyshev_iteration import GUESS_STEPS, improve, solve
from jax_peig._operators.probe import STEPS
from jax_peig._problem import warm_start
from jax_peig._problem.convergence import Ritz, StoppingRule
from jax_peig._problem.iterative import IterativeMethod, Task
from jax_peig._problem.problem import Structure


@dataclasses.dataclass(frozen=True)
class Chebyshev(IterativeMethod):
    """Chebyshev-filtered subspace iteration: many cheap matvecs, hardly an inner product.

    The fastest method where a product with A costs little, and the only one without a solve for
    interior eigenvalues. It gains nothing from a preconditioner.

    Parameters
    ----------
    max_steps : int, optional
        Bound on the steps, each of up to 200 matvecs a column, with sigma 2000. Default: 200.
    mixed_precision : bool
        Whether products inside the filter are taken in float32 (complex64), with all that the
        product closes over. Residuals, Rayleigh-Ritz, every test and the result keep the vectors'
        dtype, and reach the same accuracy. Products that are bound by memory take half the time.
        Not with sigma. Numbers in the product beyond 1e38 overflow there: NaN, and the status
        tells. Default: False.

    Raises
    ------
    TypeError, ValueError
        For a bound that is no positive integer, or a flag that is no bool. The call raises
        TypeError for a product that cannot be taken in float32: one that calls the host, say.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig import Chebyshev, partial_eigh
    >>> result = partial_eigh(jnp.arange(1.0, 61.0), k=2, method=Chebyshev())
    >>> print(result.eigenvalues.round(4), result.info.method)
    [1. 2.] chebyshev
    """

    name: ClassVar[str] = "chebyshev"
    default_max_steps: ClassVar[int] = 200
    mixed_precision: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.mixed_precision, bool):
            raise TypeError(
                f"Chebyshev: mixed_precision is {self.mixed_precision!r}; expected True or False."
            )

    def unsuited(self, structure: Structure) -> str | None:
        """Why the method cannot solve such a problem, and what to do; None where it can."""
        if structure.op_inv:
            return "with OPinv; expected 'shift_invert', which solves with it."
        if structure.interior and self.mixed_precision:
            return "in mixed precision with which='nearest'; leave mixed_precision out."
        return None

    def block_width(self, n: int, k: int) -> int:
        """The width of the block."""
        return chebyshev_filter.block_width(n, k)

    def knows_spectrum(self, structure: Structure) -> bool:
        """Whether the solve leaves the interval that the derivative's semi-iteration needs."""
        return not structure.interior

    def cold(self, task: Task) -> Ritz:
        """Find the pairs from a random block."""
        return self.run(task, task.random, task.rule)

    def warm(self, task: Task, guess: Block) -> Ritz:
        """Find the pairs from a guess.

        Interior values start from the guess beside a whole random block, since no completeness
        check follows.
        Without M the guess alone is filtered and then checked. With M the guess is LOBPCG's, see
        `choose.resolve`; where that method does not suit the problem it is not used.
        """
        (n, width), given = task.random.shape, guess.shape[1]
        if task.inputs.sigma is None:
            if task.inputs.m is None:
                return self.checked(task, warm_start.filled_up(guess, task.random, task.rule.k))
            return self.cold(task)
        if width + given > n:
            return self.cold(task)
        block = jnp.concatenate([guess, task.random], axis=1)
        return self.run(task, block, task.rule._replace(guessed=given))

    def checked(self, task: Task, guess: Block) -> Ritz:
        """The filtered guess where the completeness check passes; else a cold start."""
        ritz, good = improve(
            task.pencil, guess, task.interval, task.rule, task.key, mixed=self.mixed_precision
        )
        left = task.rule.max_steps - GUESS_STEPS
        if left <= 0:
            return ritz._replace(stagnated=jnp.array(False))

        def again() -> Ritz:
            # Under vmap both branches run: this one does nothing for a member that is good.
            worthwhile = task.pencil.worthwhile & ~good
            rest = task._replace(
                pencil=task.pencil._replace(worthwhile=worthwhile),
                rule=task.rule._replace(max_steps=left),
            )
            cold = warm_start.first_columns(self.cold(rest), ritz.values.shape[0])
            return warm_start.after(ritz, cold)

        return jax.lax.cond(good | ~task.pencil.worthwhile, lambda: ritz, again)

    def run(self, task: Task, block: Block, rule: StoppingRule) -> Ritz:
        """Iterate from a block."""
        inputs = task.inputs
        bounds, matvecs, matvecs_M = self.bounds(task)
        ritz = solve(
            task.pencil, bounds, block, rule, task.key,
            sigma=inputs.sigma, mixed=self.mixed_precision,
        )  # fmt: skip
        return ritz.having_spent(matvecs, matvecs_M)

    def bounds(self, task: Task) -> tuple[Bounds, Array | int, Array | int]:
        """What the filter has to know, and the matvecs with A and M that it took."""
        if task.inputs.m is None:
            return Bounds(None, task.interval), 0, 0
        inverse = task.mass_inverse()
        matvecs_M = inverse.matvecs + (STEPS + 1) * (inverse.degree - 1)
        return Bounds(inverse, task.interval_with(inverse, STEPS)), STEPS, matvecs_M
