"""Hermitian operators: the Hermitian part of a matrix, and products that need no transpose."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jax_peig._core import tolerances
from jax_peig._core.linear_map import LinearMap, bind
from jax_peig._core.types import Array, Block, DTypeLike
from jax_peig._operators.operator import MatrixProduct, Operator


def hermitian_part(operator: Operator) -> Operator:
    """An array's Hermitian part, as ``jnp.linalg.eigh`` takes it.

    The gradient with respect to the array is Hermitian then. Other operators are what they are.
    """
    if not (isinstance(operator.product, MatrixProduct) and operator.product.given_as):
        return operator
    (matrix,) = operator.leaves
    adjoint = matrix.conj() if matrix.ndim == 1 else matrix.conj().T
    return Operator(MatrixProduct(None), ((matrix + adjoint) / 2,), operator.n)


def imaginary_beyond_rounding(diagonal: Any, dtype: DTypeLike) -> Any:
    """Which entries of a diagonal, computed in ``dtype``, are too far from real for rounding, (n,).

    NumPy or JAX, as ``diagonal`` is. A product such as B B^H leaves imaginary parts of some eps
    times the largest entry, which in a positive definite matrix stands on the diagonal.
    """
    return abs(diagonal.imag) > tolerances.hermiticity(dtype) * abs(diagonal).max()


def has_imaginary_diagonal(operator: Operator | None) -> Array:
    """Whether a matrix was given whose diagonal is not real but for rounding.

    Off the diagonal an asymmetry may be a matter of storage, one triangle alone; on it the matrix
    is wrong. For other operators, and once the Hermitian part is taken, the answer is False.
    """
    if operator is None or not isinstance(operator.product, MatrixProduct):
        return jnp.array(False)
    (matrix,), dtype = operator.leaves, operator.product.given_as
    if dtype is None or not jnp.iscomplexobj(matrix):
        return jnp.array(False)
    diagonal = jax.lax.stop_gradient(matrix if matrix.ndim == 1 else jnp.diagonal(matrix))
    return jnp.any(imaginary_beyond_rounding(diagonal, dtype))


def asymmetry(given: Operator | None, part: Operator | None, norm: Array) -> Array | None:
    """||A - A^H||_F / ||A||_F of an array, by its Hermitian ``part``; None for other operators.

    ``norm`` is that of the part, roughly: the array is scaled by it where its squares could leave
    the range of numbers, and only there, since a pass over it costs as much as some products.
    """
    if given is None or part is None or given.product == part.product:
        return None
    (matrix,), (hermitian,) = jax.lax.stop_gradient((given.leaves, part.leaves))

    def relative(matrix, hermitian):
        size = jnp.linalg.norm(matrix)
        return 2 * jnp.linalg.norm(matrix - hermitian) / jnp.where(size > 0, size, 1)

    def scaled(matrix, hermitian):
        scale = (1 / jnp.where(norm > 0, norm, 1)).astype(matrix.dtype)
        return relative(matrix * scale, hermitian * scale)

    limits = jnp.finfo(norm.dtype)
    near_one = (norm > limits.tiny**0.25) & (norm < limits.max**0.25)
    return jax.lax.cond(near_one, relative, scaled, matrix, hermitian)


@dataclasses.dataclass(frozen=True)
class _HermitianProduct(LinearMap):
    """V -> A V, or its transpose V -> conj(A conj(V)): A is Hermitian, nothing is transposed."""

    product: Callable[[tuple[Any, ...], Block], Block]
    conjugated: bool = False

    def __call__(self, residuals, inputs):
        (block,) = inputs
        if self.conjugated:
            return [self.product(tuple(residuals), block.conj()).conj()]
        return [self.product(tuple(residuals), block)]

    def transposed(self):
        return dataclasses.replace(self, conjugated=not self.conjugated)


def apply_hermitian(operator: Operator | None, block: Block) -> Array:
    """A V for a Hermitian A (V itself for None), transposed by symmetry wherever JAX transposes."""
    if operator is None:
        return block
    (out,) = bind(_HermitianProduct(operator.product), operator.leaves, [block])
    return out
