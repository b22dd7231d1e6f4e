"""Preconditioners that are polynomials in A: products with A alone."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_peig._core import blocks
from jax_peig._core.checks import is_concrete
from jax_peig._core.types import Block, OperatorLike
from jax_peig._linear_solvers.semi_iteration import semi_iteration
from jax_peig._operators.given import classify, order_and_dtype
from jax_peig._operators.operator import as_operator
from jax_peig.preconditioners._base import Preconditioner, positive_integer, real_number


def polynomial(
    A: OperatorLike, degree: int, lower: Any, upper: Any, *, shift: Any = 0.0
) -> Preconditioner:
    """Make T = p(A - sigma), p a polynomial close to 1/t on an interval: Chebyshev's iteration.

    Parameters
    ----------
    A : operator
        Hermitian, in any form that `partial_eigh` takes.
    degree : int
        The degree of p, at least 1. An even degree is safer, see below.
    lower, upper : float
        The interval of A's spectrum where p is close to 1/t. Give a bound on the largest eigenvalue
        as upper. Give as lower, measured from sigma, twice the largest wanted eigenvalue, or
        upper / (degree + 1)^2 where this is more.
    shift : float, optional
        sigma, at or below the smallest eigenvalue, and below ``lower``. Default: 0.

    Returns
    -------
    Preconditioner
        It costs ``degree`` matvecs with A a vector. So it saves steps and hardly any matvecs, which
        helps where a matvec is cheap beside a step's inner products. "lobpcg" makes its own where
        none is given, with an interval that follows the iteration. This one is for "davidson", for
        the derivative's CG, and for a cheaper operator near A.

    Differentiability
    -----------------
    * In: ``lower``, ``upper``, ``shift``, and all that A holds or closes over, by ``T @ v``.
      `partial_eigh` takes T as a constant.
    * Modes: forward and reverse.
    * Orders: any.
    * Refused: never.

    Notes
    -----
    Let t be an eigenvalue of A - sigma, a = lower - sigma, b = upper - sigma, c = (b + a) / 2,
    e = (b - a) / 2, m = degree + 1, and T_m the Chebyshev polynomial. Then

        1 - t p(t) = q(t) = T_m((c - t) / e) / T_m(c / e)

    is the smallest on [a, b] of all q of degree m with q(0) = 1. p is positive

    * on [a, b], where |q| <= 1 / T_m(c/e) < 1, about 2 exp(-2 m sqrt(a/b));
    * on (0, a), where 1 < (c - t)/e < c/e and T_m increases: 0 < q < 1;
    * on t < 0, where q > 1 likewise, and (1 - q) / t > 0; at 0, where p = -q'(0) > 0;
    * above b for an even degree, where q < 0; for an odd one below a + b, where q = 1.

    So T is positive definite for every Hermitian A if the degree is even, and for an A below
    lower + upper - sigma if it is odd. Beyond an upper that is too small, p grows like t^degree:
    the answer is right, but T does not help. On [0, a) q is convex, and p decreases from
    p(0) = m tanh(m x) / sqrt(a b), cosh x = c/e. Saad, section 12.3.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig import partial_eigh
    >>> from jax_peig.preconditioners import polynomial
    >>> def chain(u):
    ...     return -jnp.diff(jnp.diff(u, prepend=0.0, append=0.0))
    >>> T = polynomial(chain, degree=8, lower=0.3, upper=4.0)
    >>> plain = partial_eigh(chain, k=2, n=60, method="davidson")
    >>> helped = partial_eigh(chain, k=2, n=60, method="davidson", preconditioner=T)
    >>> bool(3 * helped.info.steps < plain.info.steps)
    True
    """
    n, _ = order_and_dtype(A, "polynomial: A")
    given = classify(A, "polynomial: A")
    if given.kind == "array":
        A = blocks.herm(jnp.asarray(A)) if A.ndim == 2 else jnp.asarray(A).real
    elif given.kind == "matmul":
        A = given.operator
    degree = positive_integer(degree, "polynomial: degree")
    a, b = real_number(lower, "polynomial: lower"), real_number(upper, "polynomial: upper")
    sigma = real_number(shift, "polynomial: shift")
    if is_concrete(a, b, sigma) and not np.asarray(sigma) < np.asarray(a) < np.asarray(b):
        raise ValueError(
            f"polynomial: shift = {sigma}, lower = {a}, upper = {b}; expected shift < lower < "
            "upper: a bound on the largest eigenvalue as upper, a shift at or below the smallest."
        )
    return Preconditioner((A, a, b, sigma), _Polynomial(degree), n)


@dataclasses.dataclass(frozen=True)
class _Polynomial:
    degree: int

    def __call__(self, leaves: tuple[Any, ...], block: Block) -> Block:
        n, width = block.shape
        product = as_operator(leaves[0], n, block.dtype, "polynomial: A", widths=(width,))
        lower, upper, sigma = leaves[1:]

        def shifted(z: Block) -> Block:
            return product(z) - sigma.astype(z.dtype) * z

        return semi_iteration(shifted, block, lower - sigma, upper - sigma, self.degree + 1)
