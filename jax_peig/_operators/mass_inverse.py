"""A rough inverse of M, from products with M alone.

Where the row sums of M (the lumped mass, one product of M with ones) are positive and resemble M,
their reciprocals are one: finite elements. Elsewhere a Chebyshev polynomial in M is.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jax_peig._core.types import Array, Block
from jax_peig._linear_solvers.semi_iteration import semi_iteration
from jax_peig._operators.operator import Operator
from jax_peig._operators.probe import SAFE_STEPS, positive_interval

# The lumped mass stands for M while the spectrum of their quotient spreads no more than this.
RESEMBLANCE = 30.0
# The error of the polynomial elsewhere. A rougher inverse has other low modes than M^{-1} A, and
# the filter turns to them: with an error of 0.3 it did not converge for condition numbers above 30.
ERROR = 0.01
MAX_DEGREE = 200


class ApproximateInverse(NamedTuple):
    """D = q(D_0 M) D_0, Hermitian positive definite; a pytree that multiplies blocks.

    D_0 is a diagonal and q a polynomial of degree ``degree`` - 1 with q(t) t near 1 on
    [lower, upper]; where that is the number one, D is D_0.
    """

    mass: Operator
    caller: Operator | None  # M_solve, in place of all else
    diagonal: Array  # (n,)
    lower: Array
    upper: Array
    degree: Array  # products with M are degree - 1 for each vector
    matvecs: Array  # with M, that it took to make

    def __call__(self, block: Block, /) -> Block:
        """D V: ``degree`` steps of the semi-iteration for D_0 M Y = D_0 V."""
        if self.caller is not None:
            return self.caller(block)
        weights = self.diagonal[:, None].astype(block.dtype)

        def scaled(block):
            return weights * self.mass(block)

        return semi_iteration(scaled, weights * block, self.lower, self.upper, self.degree)

    def without_polynomial(self) -> "ApproximateInverse":
        """D_0, or what the caller gave."""
        one = jnp.ones_like(self.lower)
        return self._replace(lower=one, upper=one, degree=jnp.array(1))

    def before(self, block: Block, image: Block) -> Block:
        """D^{-1} V of a D without a polynomial; ``image`` is M V, what it is for the caller's."""
        if self.caller is not None:
            return image
        return block / self.diagonal[:, None].astype(block.dtype)


def approximate_inverse(
    m: Operator, norm: Array, start: Block, smooth: bool = True
) -> ApproximateInverse:
    """Make a rough inverse of a Hermitian positive definite M; ``norm`` estimates ||M||.

    Lanczos steps begin with ``start``, (n, 1), random. Row sums serve where the vectors looked for
    are ``smooth``.
    """
    dtype = start.dtype
    ones = jnp.ones((m.n, 1), dtype)
    sums = m(ones)[:, 0].real
    positive = jnp.all(sums > 0)
    size = jnp.where(norm > 0, norm, 1)
    diagonal = jnp.where(positive, 1 / jnp.where(positive, sums, 1), 1 / size)

    def scaled(block):
        return diagonal[:, None].astype(dtype) * block

    # Beyond ``upper`` the polynomial would change its sign, and D be indefinite.
    lowest, upper = positive_interval(m, scaled, start)
    lowest = jnp.maximum(lowest, upper * 1e-4)
    spread = upper / lowest
    degree = jnp.ceil(jnp.sqrt(spread) * jnp.log(2 / ERROR) / 2)
    degree = jnp.clip(degree, 2, MAX_DEGREE).astype(int)
    lumped = positive & (spread <= (RESEMBLANCE if smooth else 1))
    degree = jnp.where(lumped, 1, degree)
    lower, upper = jnp.where(lumped, 1, lowest), jnp.where(lumped, 1, upper)
    return ApproximateInverse(m, None, diagonal, lower, upper, degree, jnp.array(SAFE_STEPS + 1))


def diagonal_inverse(m: Operator, weights: Array) -> ApproximateInverse:
    """The exact inverse of a diagonal M, given by ``weights`` (n,)."""
    safe = jnp.where(weights.real > 0, weights.real, 1)
    one = jnp.ones((), safe.dtype)
    return ApproximateInverse(m, None, 1 / safe, one, one, jnp.array(1), jnp.array(0))


def given_inverse(m: Operator, m_solve: Operator) -> ApproximateInverse:
    """The caller's."""
    return ApproximateInverse(m, m_solve, *(jnp.ones(()),) * 3, jnp.array(1), jnp.array(0))
