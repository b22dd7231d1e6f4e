"""An approximate inverse of M: the caller's, or one that matvecs with M alone give.

Where the row sums of M (the lumped mass, one matvec of M with ones) are positive and resemble M,
as for finite elements, their reciprocals are the inverse. Elsewhere a Chebyshev polynomial in M is.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jax_peig._core.types import Array, Block
from jax_peig._linear_solvers.semi_iteration import semi_iteration
from jax_peig._operators.operator import Operator
from jax_peig._operators.probe import SAFE_STEPS, positive_interval

# The lumped mass stands for M while the spectrum of their quotient spreads no more than this.
RESEMBLANCE = 30.0
# The error of the polynomial elsewhere. A poorer inverse has other low modes than M^{-1} A, and the
# filter turns to them: with an error of 0.3 it did not converge for condition numbers above 30.
ERROR = 0.01
MAX_DEGREE = 200
# The polynomial's interval reaches down to no less than this part of its upper end.
LEAST_LOWER = 1e-4


class ApproximateInverse(NamedTuple):
    """D = q(D_0 M) D_0, Hermitian positive definite; a pytree that multiplies blocks.

    D_0 is a diagonal, and q a polynomial of degree ``degree`` - 1 with q(t) t near 1 on
    [lower, upper]. Where ``degree`` is one and the interval is the number one, D is D_0.
    """

    mass: Operator
    given: Operator | None  # the caller's M_solve, which is D: nothing else counts then
    diagonal: Array  # (n,)
    lower: Array
    upper: Array
    degree: Array  # D takes degree - 1 matvecs with M for each vector
    matvecs: Array  # with M, that it took to make

    def __call__(self, block: Block, /) -> Block:
        """D V: ``degree`` steps of the semi-iteration for D_0 M Y = D_0 V."""
        if self.given is not None:
            return self.given(block)
        weights = self.diagonal[:, None].astype(block.dtype)

        def scaled(block: Block, /) -> Block:
            return weights * self.mass(block)

        return semi_iteration(scaled, weights * block, self.lower, self.upper, self.degree)

    def one_step(self) -> "ApproximateInverse":
        """D_0, which takes no matvec with M; the caller's inverse stays as it is."""
        one = jnp.ones_like(self.lower)
        return self._replace(lower=one, upper=one, degree=jnp.array(1))

    def approximate_mass(self, block: Block, image: Block) -> Block:
        """D_0^{-1} V, which approximates M V; for the caller's inverse it is ``image``, M V."""
        if self.given is not None:
            return image
        return block / self.diagonal[:, None].astype(block.dtype)


def given_inverse(m: Operator, m_solve: Operator) -> ApproximateInverse:
    """The caller's inverse of M."""
    one = jnp.ones(())
    return ApproximateInverse(m, m_solve, one, one, one, jnp.array(1), jnp.array(0))


def diagonal_inverse(m: Operator, weights: Array) -> ApproximateInverse:
    """The exact inverse of a diagonal M, given by ``weights`` (n,)."""
    safe = jnp.where(weights.real > 0, weights.real, 1)
    one = jnp.ones((), safe.dtype)
    return ApproximateInverse(m, None, 1 / safe, one, one, jnp.array(1), jnp.array(0))


def approximate_inverse(
    m: Operator, norm: Array, start: Block, smooth: bool = True
) -> ApproximateInverse:
    """Make an approximate inverse of a Hermitian positive definite M.

    Parameters
    ----------
    norm : real
        An estimate of ||M||.
    start : (n, 1)
        Random; Lanczos steps begin with it.
    smooth : bool
        Whether the wanted vectors are smooth. Row sums serve only then.
    """
    dtype = start.dtype
    sums = m(jnp.ones((m.n, 1), dtype))[:, 0].real
    positive = jnp.all(sums > 0)
    size = jnp.where(norm > 0, norm, 1)
    diagonal = jnp.where(positive, 1 / jnp.where(positive, sums, 1), 1 / size)

    def scaled(block: Block, /) -> Block:
        return diagonal[:, None].astype(dtype) * block

    # Beyond ``upper`` the polynomial would change its sign, and D be indefinite.
    lowest, upper = positive_interval(m, scaled, start)
    lowest = jnp.maximum(lowest, upper * LEAST_LOWER)
    spread = upper / lowest
    lumped = positive & (spread <= (RESEMBLANCE if smooth else 1))
    degree = jnp.where(lumped, 1, _polynomial_degree(spread))
    lower, upper = jnp.where(lumped, 1, lowest), jnp.where(lumped, 1, upper)
    return ApproximateInverse(m, None, diagonal, lower, upper, degree, jnp.array(SAFE_STEPS + 1))


def _polynomial_degree(spread: Array) -> Array:
    """The degree that leaves an error of `ERROR`, for upper / lower = ``spread``."""
    degree = jnp.ceil(jnp.sqrt(spread) * jnp.log(2 / ERROR) / 2)
    return jnp.clip(degree, 2, MAX_DEGREE).astype(int)
