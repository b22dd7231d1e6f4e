"""The reference: materialise A and M, reduce by Cholesky, LAPACK's eigh.

It finds all n eigenpairs, so that the derivative's linear systems are solved by the full spectrum.
It takes n products with A and M, one more of each to see whether they are linear, O(n^2) memory
and O(n^3) time, and is the method of choice for small n.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from jax_peig._core import blocks, tolerances
from jax_peig._core.types import Array, Block
from jax_peig._operators.operator import Operator, is_matrix, matrix_of
from jax_peig._operators.probe import Probe, identity
from jax_peig._problem.convergence import Complement, Ritz, Spectrum, StoppingRule
from jax_peig._problem.problem import Found, HelperCheck, Inputs, Method, Problem, Structure

# Refinements with M. Each squares the wanted pairs' error, which Cholesky's factor makes as large
# as rounding times the condition number of M.
REFINEMENTS = 2
# Pairs beyond k that are kept where they lie on two sides of sigma; one is enough elsewhere.
FURTHER_PAIRS = 8


@dataclasses.dataclass(frozen=True)
class Dense(Method):
    """Form the matrices and call LAPACK: O(n^3) operations, O(n^2) memory, nothing to converge.

    It takes n matvecs with A and with M, and finds all n pairs: none can be missing. The systems of
    the derivative are solved by the full spectrum.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig import Dense, partial_eigh
    >>> result = partial_eigh(jnp.diag(jnp.array([3.0, 1.0, 2.0])), k=1, method=Dense())
    >>> print(result.eigenvalues, result.info.method)
    [1.] dense
    """

    name: ClassVar[str] = "dense"
    default_max_steps: ClassVar[int] = 1
    finds_all: ClassVar[bool] = True

    def block_width(self, n: int, k: int) -> int:
        """The width of the one block that A is applied to, the identity and a random vector."""
        del k
        return n + 1

    def solve(self, problem: Problem, inputs: Inputs) -> Found:
        """Find all pairs."""
        x = blocks.random_block(inputs.key, inputs.a.n, 1, problem.dtype)
        found = solve(inputs.a, inputs.m, x, problem.stopping_rule, inputs.sigma)
        return Found(*found, helpers=HelperCheck.nothing(problem.dtype))

    def derivative_solvers(self, structure: Structure) -> tuple[str, ...]:
        """The full spectrum, which needs no iteration."""
        del structure
        return ("eigenbasis",)


def solve(
    a: Operator, m: Operator | None, x: Block, rule: StoppingRule, sigma: Array | None
) -> tuple[Ritz, Probe, Probe]:
    """All eigenpairs of a small problem, and the properties of A and M from their matrices.

    The products with a random vector ``x`` (n, 1) show whether A and M are linear. With M, the
    wanted pairs are refined by first-order perturbation theory over the whole spectrum.

    Returns
    -------
    Ritz
        The wanted pairs and a few further ones; the rest is its ``complement``.
    Probe, Probe
        Of A and of M.
    """
    n, k = a.n, rule.k
    matrix, probe_a = _materialize(a, x)
    mass, probe_m = (None, identity(x.dtype)) if m is None else _materialize(m, x)
    values, vectors, definite = _all_pairs(matrix, mass)
    values, vectors = _ordered(values, vectors, rule, sigma)
    kept = min(k + (1 if sigma is None else FURTHER_PAIRS), n)
    wanted, block = values[:kept], vectors[:, :kept]
    ax, mx = matrix @ block, block
    if mass is not None:
        for _ in range(REFINEMENTS):
            r = blocks.residuals(ax, mass @ block, wanted)
            block = block - _first_order_error(values, vectors, r)
            wanted, block, ax, mx = _rayleigh_ritz(matrix, mass, block, rule, sigma)
    ritz = Ritz(
        values=wanted,
        vectors=block,
        AX=ax,
        MX=mx,
        steps=jnp.array(1),
        matvecs=jnp.array(_matvecs(a)),
        matvecs_M=jnp.array(0 if m is None else _matvecs(m)),
        stagnated=jnp.array(True),  # if not converged: LAPACK ends at rounding
        finite=probe_a.finite & probe_m.finite,
        definite=definite | ~probe_m.finite,
        complete=jnp.array(True),
        spectrum=Spectrum(rule.sign * values[-1], None) if m is None and sigma is None else None,
        complement=Complement(values[k:], vectors[:, k:]),
    )
    return ritz, probe_a, probe_m


def _matvecs(operator: Operator) -> int:
    """How many products with one vector `_materialize` stands for."""
    return operator.n + (0 if is_matrix(operator) else 1)


def _materialize(operator: Operator, x: Block) -> tuple[Array, Probe]:
    """The Hermitian part of the operator's matrix B, and its properties.

    ||A x - B x|| is zero for a linear product, and ||B x|| of the size of ||B||_F ||x|| / sqrt(n).
    """
    n, dtype = x.shape[0], x.dtype
    explicit = matrix_of(operator)
    if explicit is None:
        product = operator(jnp.concatenate([jnp.eye(n, dtype=dtype), x], axis=1))
        matrix, ax = product[:, :n], product[:, n:]
        part = blocks.herm(matrix)
        size = jnp.linalg.norm(matrix)
        safe = jnp.where(size > 0, size, 1)
        skew = jnp.linalg.norm(matrix - part) * 2 / safe
        excess = jnp.linalg.norm(ax - matrix @ x) / safe * n**0.5 / jnp.linalg.norm(x)
    else:  # the Hermitian part already, see `hermitian_part`
        part = explicit
        skew = excess = jnp.zeros((), jnp.finfo(dtype).dtype)
    norm = jnp.max(jnp.sum(jnp.abs(part), axis=1))
    finite = jnp.isfinite(norm) & jnp.isfinite(excess)
    return part, Probe(skew, excess, norm, jnp.zeros_like(norm), (-norm, norm), finite)


def _all_pairs(matrix: Array, mass: Array | None) -> tuple[Array, Block, Array]:
    """The eigenpairs of a matrix pencil, ascending, and whether M is positive definite."""
    if mass is None:
        values, vectors = blocks.eigh(matrix)
        return values, vectors, jnp.array(True)
    values, vectors, definite = _generalized_pairs(jnp.stack([matrix, mass]))
    return values, vectors, definite


@blocks.one_by_one
def _generalized_pairs(pencil: Array) -> tuple[Array, ...]:
    """Of A and M, stacked: with M = L L^H, L^{-1} A L^{-H} Y = Y diag(lam) and X = L^{-H} Y."""
    matrix, mass = pencil
    lower = jnp.linalg.cholesky(mass, symmetrize_input=False)
    half = solve_triangular(lower, matrix, lower=True)
    reduced = blocks.herm(solve_triangular(lower, half.conj().T, lower=True))
    values, y = jnp.linalg.eigh(reduced, symmetrize_input=False)
    vectors = solve_triangular(lower, y, lower=True, trans="C")
    # Cholesky gives NaN for a matrix that is not positive definite.
    return values, vectors, jnp.all(jnp.isfinite(lower))


def _first_order_error(values: Array, vectors: Block, r: Block) -> Block:
    """The error of the first eigenvectors along the others, sum_i x_i x_i^H r_j / (lam_i - lam_j).

    Components along each other, and along near neighbours, are left to Rayleigh-Ritz.
    """
    kept = r.shape[1]
    difference = values[:, None] - values[None, :kept]
    scale = jnp.maximum(jnp.abs(values)[:, None], jnp.abs(values)[None, :kept])
    skipped = jnp.abs(difference) <= tolerances.degeneracy(r.dtype) * scale
    skipped |= jnp.arange(values.shape[0])[:, None] < kept
    inverse = jnp.where(skipped, 0, 1 / jnp.where(skipped, 1, difference))
    return vectors @ (blocks.gram(vectors, r) * inverse.astype(r.dtype))


def _rayleigh_ritz(
    matrix: Array, mass: Array, block: Block, rule: StoppingRule, sigma: Array | None
) -> tuple[Array, Block, Block, Block]:
    """Ritz values and vectors X in the span of a nearly M-orthonormal block, A X and M X."""
    ax, mx = matrix @ block, mass @ block
    root, alive = blocks.inverse_root(blocks.gram(block, mx))
    theta, c = blocks.rayleigh_ritz(blocks.gram(block, ax), whitener=root, alive=alive)
    theta, c = _ordered(theta, c, rule, sigma)
    return theta, block @ c, ax @ c, mx @ c


def _ordered(
    values: Array, vectors: Block, rule: StoppingRule, sigma: Array | None
) -> tuple[Array, Block]:
    """Pairs of ascending values in the order wanted."""
    if sigma is not None:
        order = jnp.argsort(jnp.abs(values - sigma))
        return values[order], vectors[:, order]
    return values[:: rule.sign], vectors[:, :: rule.sign]
