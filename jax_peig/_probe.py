"""What a few random products tell of an operator: is it Hermitian, how large is it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig import _blocks
from jax_peig._operators import Operator
from jax_peig._types import Array

LANCZOS_STEPS = 8
PRODUCTS = LANCZOS_STEPS + 1


class Probe(NamedTuple):
    """Estimates from `PRODUCTS` products with random vectors."""

    hermiticity_error: Array  # ||A - A^H||_F / ||A||_F, from one sample
    norm: Array  # largest |Ritz value|: a lower bound of ||A||_2, most often within 20 %
    lowest: Array  # smallest Ritz value: an upper bound of the smallest eigenvalue
    finite: Array


def identity(dtype) -> Probe:
    """What a probe of the identity would find."""
    one = jnp.ones((), jnp.finfo(dtype).dtype)
    return Probe(jnp.zeros_like(one), one, one, jnp.array(True))


def probe(operator: Operator | None, key: Array, n: int, dtype) -> Probe:
    """Probe an operator; None stands for the identity.

    With x, y random, x^H A y - (A x)^H y = x^H (A - A^H) y, of the size of ||A - A^H||_F, and
    ||A x|| of that of ||A||_F; the sample is divided by ||A x|| ||y|| / sqrt(n), ||y|| = sqrt(n).
    """
    real = jnp.finfo(dtype).dtype
    if operator is None:
        return identity(dtype)
    pair = _blocks.random_block(key, n, 2, dtype)
    x, y = pair[:, :1], pair[:, 1:]
    ax, ay = operator(x), operator(y)
    skew = jnp.abs(jnp.vdot(x, ay) - jnp.vdot(ax, y))
    size = _blocks.column_norms(jnp.concatenate([ax, ay], axis=1))
    safe = jnp.where(size > 0, size, 1)
    error = jnp.where(jnp.all(size > 0), skew / jnp.sqrt(safe[0]) / jnp.sqrt(safe[1]), 0)
    alpha, beta = _lanczos(operator, x, ax)
    tridiagonal = jnp.diag(alpha) + jnp.diag(beta[:-1], 1) + jnp.diag(beta[:-1], -1)
    finite = jnp.all(jnp.isfinite(tridiagonal)) & jnp.isfinite(error)
    ritz = jnp.linalg.eigvalsh(jnp.where(finite, tridiagonal, 0))
    norm = jnp.maximum(jnp.max(jnp.abs(ritz)), jnp.max(size) / jnp.sqrt(n).astype(real))
    return Probe(error.astype(real), norm, ritz[0], finite)


def _lanczos(operator: Operator, start: Array, product: Array) -> tuple[Array, Array]:
    """The three-term recurrence from ``start``, whose product is known; no reorthogonalisation.

    beta_{j+1} q_{j+1} = A q_j - alpha_j q_j - beta_j q_{j-1}; returns all alpha_j and beta_{j+1}.
    """

    def advance(before, q, product, beta):
        alpha = jnp.vdot(q, product).real
        r = product - alpha.astype(q.dtype) * q - beta.astype(q.dtype) * before
        after = _blocks.column_norms(r)[0]
        # Below the rounding of the product the space is exhausted.
        alive = after > 100 * jnp.finfo(alpha.dtype).eps * (jnp.abs(alpha) + beta)
        after = jnp.where(alive, after, 0)
        following = r / jnp.where(alive, after, 1).astype(q.dtype) * alive.astype(q.dtype)
        return (q, following, after), (alpha, after)

    def step(carry, _):
        before, q, beta = carry
        return advance(before, q, operator(q), beta)

    norm = _blocks.column_norms(start)[0].astype(start.dtype)
    zero = jnp.zeros((), jnp.finfo(start.dtype).dtype)
    carry, first = advance(jnp.zeros_like(start), start / norm, product / norm, zero)
    _, rest = jax.lax.scan(step, carry, length=LANCZOS_STEPS - 1)
    alpha, beta = (jnp.concatenate([f[None], r]) for f, r in zip(first, rest, strict=True))
    # Where the space was exhausted early the rest repeats the first Rayleigh quotient.
    ended = jnp.cumsum(beta == 0) > 0
    exhausted = jnp.concatenate([jnp.zeros(1, bool), ended[:-1]])
    return jnp.where(exhausted, alpha[0], alpha), beta
