"""Hermitian operators: the Hermitian part of a matrix, and products that need no transpose."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jax_peig._core import tolerances
from jax_peig._core.linear_map import Arrays, LinearMap, MaybeArrays, bind
from jax_peig._core.types import Array, Block, DTypeLike
from jax_peig._operators.operator import MatrixProduct, Operator


def hermitian_part(operator: Operator) -> Operator:
    """Take the Hermitian part of a matrix, as ``jnp.linalg.eigh`` does.

    The gradient with respect to the matrix is then Hermitian. Other operators are returned as
    they are.
    """
    if not (isinstance(operator.product, MatrixProduct) and operator.product.given_as):
        return operator
    (matrix,) = operator.leaves
    adjoint = matrix.conj() if matrix.ndim == 1 else matrix.conj().T
    return Operator(MatrixProduct(None), ((matrix + adjoint) / 2,), operator.n)


def imaginary_beyond_rounding(diagonal: Any, dtype: DTypeLike) -> Any:
    """Say which entries of a diagonal, computed in ``dtype``, are further from real than rounding.

    The result is (n,), of NumPy or JAX as ``diagonal`` is. A product such as B B^H leaves imaginary
    parts of some eps times its largest entry, and the largest entry of a positive definite matrix
    stands on the diagonal.
    """
    return abs(diagonal.imag) > tolerances.hermiticity(dtype) * abs(diagonal).max()


def has_imaginary_diagonal(operator: Operator | None) -> Array:
    """Say whether a matrix was given whose diagonal is further from real than rounding.

    An asymmetry off the diagonal may be a matter of storage, such as one triangle alone. An
    imaginary diagonal is an error. The answer is False for other operators, and once the Hermitian
    part has been taken.
    """
    if operator is None or not isinstance(operator.product, MatrixProduct):
        return jnp.array(False)
    (matrix,), dtype = operator.leaves, operator.product.given_as
    if dtype is None or not jnp.iscomplexobj(matrix):
        return jnp.array(False)
    diagonal = jax.lax.stop_gradient(matrix if matrix.ndim == 1 else jnp.diagonal(matrix))
    return jnp.any(imaginary_beyond_rounding(diagonal, dtype))


def asymmetry(given: Operator | None, part: Operator | None, norm: Array) -> Array | None:
    """||A - A^H||_F / ||A||_F of a matrix, from its Hermitian ``part``; None for other operators.

    ``norm`` is a rough norm of the part. The matrix is scaled by it where its squares could leave
    the range of numbers, and only there: a pass over the matrix costs as much as some products.
    """
    if given is None or part is None or given.product == part.product:
        return None
    (matrix,), (hermitian,) = jax.lax.stop_gradient((given.leaves, part.leaves))

    def relative(matrix: Array, hermitian: Array) -> Array:
        size = jnp.linalg.norm(matrix)
        return 2 * jnp.linalg.norm(matrix - hermitian) / jnp.where(size > 0, size, 1)

    def scaled(matrix: Array, hermitian: Array) -> Array:
        scale = (1 / jnp.where(norm > 0, norm, 1)).astype(matrix.dtype)
        return relative(matrix * scale, hermitian * scale)

    limits = jnp.finfo(norm.dtype)
    near_one = (norm > limits.tiny**0.25) & (norm < limits.max**0.25)
    return jax.lax.cond(near_one, relative, scaled, matrix, hermitian)


@dataclasses.dataclass(frozen=True)
class _HermitianProduct(LinearMap):
    """V -> A V, or its transpose V -> conj(A conj(V)), which needs no transpose of A."""

    product: Callable[[tuple[Any, ...], Block], Block]
    conjugated: bool = False

    def __call__(self, residuals: Arrays, inputs: MaybeArrays) -> Arrays:
        (block,) = inputs
        assert block is not None
        if self.conjugated:
            return [self.product(tuple(residuals), block.conj()).conj()]
        return [self.product(tuple(residuals), block)]

    def transposed(self) -> "_HermitianProduct":
        return dataclasses.replace(self, conjugated=not self.conjugated)


def apply_hermitian(operator: Operator | None, block: Block) -> Array:
    """A V for a Hermitian A, or V for None; where JAX transposes it, symmetry is used."""
    if operator is None:
        return block
    (out,) = bind(_HermitianProduct(operator.product), operator.leaves, [block])
    return out
