"""Estimates from a few random matvecs: whether an operator is Hermitian, its norm, its spectrum."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks
from jax_peig._core.types import Array, Block, BlockFunction, DTypeLike
from jax_peig._operators.operator import Operator, is_matrix

# Lanczos steps for an interval that is lengthened later if it turns out to be too short.
STEPS = 8
# Lanczos steps for an interval that has to be right at once.
SAFE_STEPS = 16
# The coefficients a and b of the vector a x + b y that shows whether a product is linear. They
# differ from conj(a) and conj(b), and their sum from one: a constant term and a conjugation show.
COMPLEX_COMBINATION = (0.8 + 0.6j, 0.5 - 1.2j)
REAL_COMBINATION = (0.8, -1.3)
# The Lanczos space is exhausted where the next vector is shorter than so many eps of the product.
EXHAUSTED = 100


class Probe(NamedTuple):
    """Estimates from matvecs with random vectors."""

    hermiticity_error: Array  # ||A - A^H||_F / ||A||_F, from one sample
    linearity_error: Array  # ||A (a x + b y) - a A x - b A y|| / ||A||, from one sample
    norm: Array  # largest |Ritz value|: a lower bound of ||A||_2, most often within 20 %
    lowest: Array  # smallest Ritz value: an upper bound of the smallest eigenvalue
    interval: tuple[Array, Array]  # encloses the spectrum, unless the start was very unlucky
    finite: Array


def identity(dtype: DTypeLike) -> Probe:
    """The probe of the identity."""
    one = jnp.ones((), jnp.finfo(dtype).dtype)
    zero = jnp.zeros_like(one)
    return Probe(zero, zero, one, one, (one, one), jnp.array(True))


def probe(operator: Operator | None, pair: Block, steps: int = STEPS) -> Probe:
    """Probe an operator with two random vectors (n, 2), by ``steps`` + `probe_matvecs` matvecs.

    None stands for the identity.

    With x, y random, of norm 1, x^H A y - (A x)^H y = x^H (A - A^H) y is of the size of
    ||A - A^H||_F / n, and ||A x|| and ||A y|| of that of ||A||_F / sqrt(n). For a linear product
    y^H A (a x + b y) is a y^H A x + b y^H A y.
    """
    n, dtype = pair.shape[0], pair.dtype
    if operator is None:
        return identity(dtype)
    x, y = jnp.split(pair / n**0.5, 2, axis=1)
    a, b = combination(dtype)
    product = operator(y if is_matrix(operator) else jnp.concatenate([y, a * x + b * y], axis=1))
    ay, combined = product[:, :1], product[:, 1:]
    scale = blocks.column_norms(ay)[0]
    found = _lanczos(operator, None, x, scale, steps, y)
    sizes = jnp.stack([found.first, scale])
    safe = jnp.where(sizes > 0, sizes, 1)

    def relative(difference: Array) -> Array:
        size = jnp.abs(difference) * n**0.5 / jnp.sqrt(safe[0]) / jnp.sqrt(safe[1])
        return jnp.where(jnp.all(sizes > 0), size, 0)

    skew = relative(jnp.vdot(x, ay) - found.beside)
    excess = jnp.zeros_like(skew)
    if not is_matrix(operator):
        excess = jnp.vdot(y, combined) - a * found.beside.conj() - b * jnp.vdot(y, ay)
        excess = relative(excess)
    norm = jnp.maximum(jnp.max(jnp.abs(found.ritz)), jnp.max(sizes))
    finite = found.finite & jnp.isfinite(skew) & jnp.isfinite(excess)
    return Probe(skew, excess, norm, found.ritz[0], found.interval, finite)


def probe_matvecs(operator: Operator) -> int:
    """How many matvecs a probe takes beside its Lanczos steps."""
    return 1 if is_matrix(operator) else 2


def combination(dtype: DTypeLike) -> tuple[Array, Array]:
    """The coefficients of a x + b y, complex where ``dtype`` is."""
    complex_ = jnp.issubdtype(dtype, jnp.complexfloating)
    a, b = COMPLEX_COMBINATION if complex_ else REAL_COMBINATION
    return jnp.array(a, dtype), jnp.array(b, dtype)


def linearity_error(operator: Operator | None, pair: Block) -> Array:
    """||A (a x + b y) - a A x - b A y|| / ||A x||, for two random vectors (n, 2); 3 matvecs."""
    a, b = combination(pair.dtype)
    if operator is None or is_matrix(operator):
        return jnp.zeros((), a.real.dtype)
    x, y = jnp.split(pair, 2, axis=1)
    product = operator(jnp.concatenate([x, y, a * x + b * y], axis=1))
    excess = product[:, 2:] - a * product[:, :1] - b * product[:, 1:2]
    sizes = blocks.column_norms(jnp.concatenate([excess, product[:, :1]], axis=1))
    return sizes[0] * blocks.reciprocal(sizes[1])


def spectral_interval(
    operator: BlockFunction, inner: BlockFunction, start: Block, steps: int
) -> tuple[Array, Array]:
    """An interval that encloses the spectrum of D A, unless ``start`` (n, 1) is very unlucky.

    A is Hermitian, and D (``inner``) Hermitian positive definite. It takes ``steps`` matvecs with
    A, and one more with D.
    """
    return _lanczos(operator, inner, start, None, steps).interval


def positive_interval(
    operator: BlockFunction, inner: BlockFunction, start: Block
) -> tuple[Array, Array]:
    """The smallest Ritz value of D A > 0, and a safe bound of its largest eigenvalue.

    It takes `SAFE_STEPS` matvecs with A, and one more with D. The bound is some 20 % too large.
    That of `spectral_interval` is closer, and up to a fifth too small for one start in eight.
    """
    found = _lanczos(operator, inner, start, None, SAFE_STEPS)
    return found.ritz[0], found.ritz[-1] + found.beta


class _Lanczos(NamedTuple):
    ritz: Array  # ascending
    beta: Array  # length of the vector that would be next
    interval: tuple[Array, Array]  # encloses the spectrum, most often
    finite: Array
    first: Array  # ||A x|| for the first vector x, where D = I
    beside: Array  # (A x)^H y for the vector y beside x


class _Vectors(NamedTuple):
    before: Block  # (n, 1), q_{j-1}
    q: Block
    dq: Block
    beta: Array


class _Row(NamedTuple):
    """A row of the tridiagonal matrix."""

    alpha: Array
    beta: Array  # of the next row
    beside: Array


def _lanczos(
    operator: BlockFunction,
    inner: BlockFunction | None,
    start: Array,
    scale: Array | None,
    steps: int,
    beside: Array | None = None,
) -> _Lanczos:
    """Ritz values of D A and bounds of its spectrum.

    beta_{j+1} q_{j+1} = A D q_j - alpha_j q_j - beta_j q_{j-1} with <u, v> = u^H D v, from
    ``start``, without reorthogonalisation. Where D = I, ``scale`` is about ||A x||. An eigenvalue
    lies within beta_{m+1} |s| of each Ritz value, where s is the last component of its vector
    (Paige, 1980). The extreme Ritz values, extended by that, enclose the spectrum in practice (Zhou
    and Li, 2011).
    """

    def weighted(block: Block) -> Block:
        return block if inner is None else inner(block)

    def length(q: Block, dq: Block, scale: Array | None) -> Array:
        if inner is None:
            assert scale is not None
            return blocks.scaled_norms(q, scale)[0]
        return jnp.sqrt(jnp.maximum(jnp.vdot(q, dq).real, 0))

    def step(carry: _Vectors, _: None) -> tuple[_Vectors, _Row]:
        before, q, dq, beta = carry
        product = operator(dq)
        alpha = jnp.vdot(dq, product).real
        r = product - alpha.astype(q.dtype) * q - beta.astype(q.dtype) * before
        dr = weighted(r)
        after = length(r, dr, scale)
        alive = after > EXHAUSTED * jnp.finfo(alpha.dtype).eps * (jnp.abs(alpha) + beta)
        after = jnp.where(alive, after, 0)
        unit = jnp.where(alive, 1 / jnp.where(alive, after, 1), 0).astype(q.dtype)
        # Only the first step needs it, but a first step of its own would be compiled twice.
        other = jnp.zeros_like(norm) if beside is None else jnp.vdot(product, beside)
        return _Vectors(q, r * unit, dr * unit, after), _Row(alpha, after, other)

    weight = weighted(start)
    zero = jnp.zeros((), jnp.finfo(start.dtype).dtype)
    size = length(start, weight, zero + 1)
    norm = size.astype(start.dtype)
    begin = _Vectors(jnp.zeros_like(start), start / norm, weight / norm, zero)
    _, (alpha, beta, others) = jax.lax.scan(step, begin, length=steps)
    first = size * jnp.hypot(alpha[0], beta[0])  # A q_1 = alpha_1 q_1 + beta_2 q_2
    # The rows after the space was exhausted repeat the first Rayleigh quotient.
    row, column = jnp.arange(steps)[:, None], jnp.arange(steps)[None, :]
    alpha = jnp.where(jnp.all((beta != 0)[None, :] | (column >= row), axis=1), alpha, alpha[0])
    tridiagonal = jnp.where(row == column, alpha[:, None], 0)
    tridiagonal += jnp.where(row + 1 == column, beta[:, None], 0)
    tridiagonal += jnp.where(row == column + 1, beta[None, :], 0)
    finite = jnp.all(jnp.isfinite(tridiagonal))
    ritz, s = blocks.eigh(jnp.where(finite, tridiagonal, 0))
    reach = beta[-1] * jnp.abs(s[-1])
    interval = (jnp.min(ritz - reach), jnp.max(ritz + reach))
    return _Lanczos(ritz, beta[-1], interval, finite, first, norm * others[0])
