"""What a guess of the eigenvectors is worth, and how an iteration starts from it.

A guess may miss an eigenvector entirely, and then nothing shows it. So every start from a guess
adds random vectors, or is followed by a completeness check.
"""

import jax.numpy as jnp

from jax_peig._core import blocks
from jax_peig._core.types import Array, Block
from jax_peig._operators.operator import Operator
from jax_peig._problem.convergence import Ritz, multiply

# The share of random noise in every column of a perturbed guess: it misses no eigenvector.
NOISE = 1e-4


def perturbed(m: Operator | None, guess: Block, random: Block, width: int) -> Block:
    """A block (n, width) that begins with the span of a guess and misses no eigenvector.

    Every column has a little of everything in it, and random columns replace dependent ones: guard
    vectors show that nothing is missing only of a block of full rank.
    """
    unit, noise = blocks.unit_columns(guess), blocks.unit_columns(random)
    span, _, _ = blocks.orthonormalize(unit, multiply(m, unit))
    span, count = blocks.unit_columns(span), guess.shape[1]
    return jnp.concatenate([span + NOISE * noise[:, :count], noise[:, count:width]], axis=1)


def filled_up(guess: Block, random: Block, width: int) -> Block:
    """The guess, and random columns in the place of those that it lacks of ``width``."""
    return jnp.concatenate([guess, random[:, guess.shape[1] : width]], axis=1)


def after(before: Ritz, ritz: Ritz) -> Ritz:
    """``ritz``, with the steps, matvecs and history of the run ``before`` added to its own."""
    history = ritz.history
    if history is not None and before.history is not None and history.shape[0]:
        # One after the other; the last rows are lost where there is no room.
        at = jnp.arange(history.shape[0])
        later = history[jnp.clip(at - before.steps, 0)]
        history = jnp.where((at < before.steps)[:, None], before.history, later)
    return ritz.having_spent(before.matvecs, before.matvecs_M)._replace(
        steps=ritz.steps + before.steps,
        definite=ritz.definite & before.definite,
        history=history,
    )


def first_columns(ritz: Ritz, width: int) -> Ritz:
    """The first ``width`` pairs."""

    def cut(block: Array) -> Array:
        return block[..., :width]

    return ritz._replace(
        values=cut(ritz.values),
        vectors=cut(ritz.vectors),
        AX=cut(ritz.AX),
        MX=cut(ritz.MX),
    )
