"""The reference: materialise A and M, reduce by Cholesky, LAPACK's eigh.

All n eigenpairs are found, so that the derivative's linear systems are solved by the full spectrum.
n products with A and M, O(n^2) memory, O(n^3) time: the method of choice for small n.
"""

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from jax_peig import _blocks
from jax_peig._eigensolvers.ritz import Complement, Ritz
from jax_peig._operators import Operator
from jax_peig._probe import Probe, identity
from jax_peig._types import Array


def solve(
    a: Operator, m: Operator | None, k: int, dtype, largest: bool
) -> tuple[Ritz, Probe, Probe]:
    """All eigenpairs of a small problem, and what the matrices themselves tell of A and M.

    With M = L L^H the pencil becomes C = L^{-1} A L^{-H}, C Y = Y diag(lam), X = L^{-H} Y.
    """
    n = a.n
    eye = jnp.eye(n, dtype=dtype)
    matrix, probe_a = _materialize(a, eye)
    definite = jnp.array(True)
    if m is None:
        probe_m = identity(dtype)
        values, vectors = jnp.linalg.eigh(matrix, symmetrize_input=False)
    else:
        mass, probe_m = _materialize(m, eye)
        lower = jnp.linalg.cholesky(mass, symmetrize_input=False)
        # Cholesky gives NaN for a matrix that is not positive definite.
        definite = jnp.all(jnp.isfinite(lower)) | ~probe_m.finite
        half = solve_triangular(lower, matrix, lower=True)
        reduced = _blocks.herm(solve_triangular(lower, half.conj().T, lower=True))
        values, y = jnp.linalg.eigh(reduced, symmetrize_input=False)
        vectors = solve_triangular(lower, y, lower=True, trans="C")
    if largest:
        values, vectors = values[::-1], vectors[:, ::-1]
    kept = min(k + 1, n)
    block = vectors[:, :kept]
    ritz = Ritz(
        values=values[:kept],
        vectors=block,
        AX=matrix @ block,
        MX=block if m is None else mass @ block,
        steps=jnp.array(1),
        products=jnp.array(n),
        products_M=jnp.array(0 if m is None else n),
        stagnated=jnp.array(False),
        finite=probe_a.finite & probe_m.finite,
        definite=definite,
        complement=Complement(values[k:], vectors[:, k:]),
    )
    return ritz, probe_a, probe_m


def _materialize(operator: Operator, eye: Array) -> tuple[Array, Probe]:
    """The Hermitian part of the operator's matrix, and its exact properties."""
    matrix = operator(eye)
    part = _blocks.herm(matrix)
    size = jnp.linalg.norm(matrix)
    error = jnp.linalg.norm(matrix - part) * 2 / jnp.where(size > 0, size, 1)
    norm = jnp.max(jnp.sum(jnp.abs(part), axis=1))
    finite = jnp.all(jnp.isfinite(matrix))
    return part, Probe(error, norm, jnp.zeros_like(norm), finite)
