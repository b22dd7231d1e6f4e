"""Algebraic multigrid: a symmetric V-cycle over levels that PyAMG, or the caller, makes."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from jax_peig._core.types import Array, Block
from jax_peig._operators.sparse import SparseOperator, from_scipy
from jax_peig.preconditioners import multigrid_setup as setup
from jax_peig.preconditioners._base import Preconditioner, positive_integer

# The smoother is two steps of Chebyshev's iteration for the eigenvalues of D^-1 A between LOWER rho
# and UPPER rho: with D^-1 / rho in place of D^-1 the interval is the same on all levels. The steps
# are x <- x + d, r <- r - A d, d <- alpha d + beta D^-1 r; Saad, algorithm 12.1.
LOWER, UPPER = 1 / 4, 1.1
_CENTRE, _HALF = (UPPER + LOWER) / 2, (UPPER - LOWER) / 2
_ALPHA = 1 / (2 * (_CENTRE / _HALF) ** 2 - 1)
FIRST, SECOND = (0.0, 1 / _CENTRE), (_ALPHA, 2 * _CENTRE / _HALF**2 * _ALPHA)
# (alpha, beta) of a cycle's four steps. The coarse correction replaces the d of the second.
FACTORS = (SECOND, (0.0, 0.0), FIRST, SECOND)
CORRECTION = 2


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["A", "prolongation", "restriction", "smoother"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Level:
    """A level but the coarsest."""

    A: SparseOperator  # (n, n)
    prolongation: SparseOperator  # (n, m)
    restriction: SparseOperator  # (m, n), its conjugate transpose
    smoother: Array  # (n,): D^-1 / rho, D = diag(A)


def multigrid(S: Any, *, near_nullspace: Any = None, max_coarse: int = 500) -> Preconditioner:
    """Make T = one V-cycle of algebraic multigrid, close to the inverse of a sparse matrix.

    Parameters
    ----------
    S : SciPy sparse matrix (n, n), or levels
        A, Hermitian positive semi-definite, of any of the four floating dtypes; with sigma, the
        matrix A - sigma M. Its coarse levels are made by smoothed aggregation, in PyAMG:
        ``pip install 'jax_peig[multigrid]'``. In BSR format the unknowns of a block are aggregated
        together. PyAMG is not needed where the levels are given,
        ``[(A_0, P_0), (A_1, P_1), ..., (A_L, None)]``, SciPy sparse matrices: P_l (n_l, n_{l+1})
        interpolates, and A_{l+1} is P_l^H A_l P_l or close to it. A hierarchy of PyAMG, such as
        ``pyamg.ruge_stuben_solver(S)``, is taken as well.
    near_nullspace : (n, c) array, optional
        Vectors as columns that A almost annihilates, PyAMG's B: for elasticity the rigid motions.
        For a matrix S only. Default: the constant vector, for BSR one for each unknown of a block.
    max_coarse : int, optional
        Coarsening of a matrix S ends at this order. The inverse of the coarsest level is dense.

    Returns
    -------
    Preconditioner
        It works in the precision of S, and T v has the precision of v. Where S is complex it
        serves complex vectors only.

    Raises
    ------
    TypeError, ValueError
        For matrices of another type, dtype or shape, or that do not fit together; that are not
        Hermitian, or seen to be indefinite: where a diagonal entry or an eigenvalue of the coarsest
        level is negative.
    ImportError
        For a matrix S where PyAMG is not installed.

    Differentiability
    -----------------
    * In: nothing: T is made on the host and is a constant, and ``T @ v`` is linear in v.
    * Modes: forward and reverse.
    * Orders: any, in v.
    * Refused: a traced S, by a TypeError.

    Notes
    -----
    *When.* For the smallest eigenvalues of discretised elliptic operators. The steps of "lobpcg"
    then hardly grow with n. The derivative's CG takes the same T.

    *The cycle.* On every level but the coarsest two steps of Chebyshev's iteration for D^-1 A,
    D = diag(A), reduce the error's components between rho/4 and 1.1 rho, rho being the largest
    eigenvalue, which 20 Lanczos steps estimate. The residual goes to the next level, its correction
    comes back, and two more steps follow. With q the polynomial of two steps, E the error's
    propagation, and B the next level's cycle,

        T A = I - E,    E = q(D^-1 A) (I - P B P^H A) q(D^-1 A).

    E is symmetric in the inner product of A, and so is T. T is positive definite if |q| < 1 on the
    spectrum of D^-1 A, whatever semi-definite B and whatever P: this holds below 1.35 rho. The
    coarsest inverse takes eigenvalues that are zero for the smallest that is not, so that A may
    be singular. Adams, Brezina, Hu and Tuminaro, J. Comput. Phys. 188, 593 (2003); Vanek, Mandel
    and Brezina, Computing 56, 179 (1996).

    *Cost.* On every level four products with A, and one each with P and P^H. With the coarse levels
    and the sums of vectors a cycle takes as long as some fifteen products with a five-point A, and
    T the memory of three such A. A program holds each matrix's product once. It is compiled again
    where the sizes or the diagonals of a level differ.

    *Precision.* T of ``S.astype(np.float32)`` takes about 0.6 of the time, and vectors in double
    precision still converge to double precision: a preconditioner need not be exact.

    Examples
    --------
    The levels of a chain of 63 masses between walls, by linear interpolation; PyAMG's need the
    matrix alone.

    >>> import numpy as np, scipy.sparse as sp
    >>> from jax_peig import partial_eigh
    >>> from jax_peig.preconditioners import multigrid
    >>> S = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(63, 63)).tocsr()
    >>> A, levels = S, []
    >>> for m in (31, 15):
    ...     shape = (2 * m + 1, 2 * m + 1)
    ...     P = sp.diags_array([0.5, 1.0, 0.5], offsets=[-1, 0, 1], shape=shape).tocsc()[:, 1::2]
    ...     levels.append((A, P))
    ...     A = (P.T @ A @ P).tocsr()
    >>> T = multigrid([*levels, (A, None)])
    >>> found = partial_eigh(S, k=2, method="lobpcg", preconditioner=T)
    >>> exact = 2 - 2 * np.cos(np.pi * np.array([1, 2]) / 64)
    >>> bool(np.allclose(found.eigenvalues, exact, atol=1e-6))
    True
    """
    max_coarse = positive_integer(max_coarse, "multigrid: max_coarse")
    if scipy.sparse.issparse(S):
        pairs = setup.by_pyamg(S, near_nullspace, max_coarse)
    elif near_nullspace is None:
        pairs = setup.levels_of(S)
    else:
        raise ValueError(
            "multigrid: near_nullspace is given with levels; expected None, as the levels hold "
            "their P already. Give the matrix S, or make the levels with it."
        )
    grids, inverse = setup.grids(pairs)
    dtype = setup.dtype_of(pairs)
    levels = tuple(_level(grid, dtype) for grid in grids)
    n = pairs[0][0].shape[0]
    return Preconditioner((levels, jnp.asarray(inverse.astype(dtype))), _product, n)


def _level(grid: setup.Grid, dtype: np.dtype) -> Level:
    A, P = grid.A.astype(dtype), grid.P.astype(dtype)
    smoother = jnp.asarray(grid.smoother.astype(np.finfo(dtype).dtype))
    return Level(from_scipy(A), from_scipy(P), from_scipy(P.conj().T), smoother)


def _product(leaves: tuple[tuple[Level, ...], Array], block: Block) -> Block:
    levels, inverse = leaves
    if jnp.iscomplexobj(inverse) and not jnp.iscomplexobj(block):
        raise TypeError(
            f"multigrid of {inverse.dtype} applied to {block.dtype}; expected complex vectors: "
            "give a complex dtype, or the real part of S."
        )
    if jnp.iscomplexobj(block) and not jnp.iscomplexobj(inverse):  # a real T acts on each part
        parts = _product(leaves, jnp.concatenate([block.real, block.imag], axis=1))
        return jax.lax.complex(*jnp.split(parts, 2, axis=1))
    return _solve(levels, inverse, block.astype(inverse.dtype)).astype(block.dtype)


@jax.jit  # traced and lowered once, however often a program applies T
def _solve(levels: tuple[Level, ...], inverse: Array, b: Block) -> Block:
    return _cycle(levels, inverse, b)


def _cycle(levels: tuple[Level, ...], inverse: Array, b: Block) -> Block:
    """A x = b from x = 0 by one cycle.

    The two steps before the coarse correction and the two after it are one loop, so that a program
    holds each product once. Unrolled, it compiles three times longer, and takes five times longer
    on a CPU: the compiler computes A d again for each use of r.
    """
    if not levels:
        return inverse @ b
    level, *coarse = levels
    smoother = level.smoother.astype(b.dtype)[:, None]
    factors = jnp.array(FACTORS, level.smoother.dtype).astype(b.dtype)

    def corrected(r: Block, _: Block) -> Block:
        return level.prolongation @ _cycle(tuple(coarse), inverse, level.restriction @ r)

    def step(i: Array, state: tuple[Block, Block, Block]) -> tuple[Block, Block, Block]:
        x, r, d = state
        d = jax.lax.cond(i == CORRECTION, corrected, lambda _, d: d, r, d)
        r = r - level.A @ d
        alpha, beta = factors[i]
        return x + d, r, alpha * d + beta * (smoother * r)

    state = (jnp.zeros_like(b), b, FIRST[1] * (smoother * b))
    x, _, d = jax.lax.fori_loop(0, len(FACTORS), step, state)
    return x + d
