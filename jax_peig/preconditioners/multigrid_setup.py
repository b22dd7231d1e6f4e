"""The levels of a multigrid cycle, made and checked on the host with NumPy and SciPy."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse

from jax_peig._core import tolerances
from jax_peig._core.checks import check_floating, is_array
from jax_peig.preconditioners._base import positive_integer

# Above this order the inverse of the coarsest level, a dense matrix, costs more than the cycle.
MAX_COARSEST = 5000
# Steps of the Lanczos process for rho. It fails to find 1 / 1.35 of the largest eigenvalue with a
# probability below 1.65 sqrt(n) exp(-sqrt(1 - 1/1.35) (2 steps - 1)), 5e-6 for n = 10^6:
# Kuczynski and Wozniakowski, SIAM J. Matrix Anal. Appl. 13, 1094 (1992), theorem 4.2.
RHO_STEPS = 20


class Grid(NamedTuple):
    """A level but the coarsest; double precision."""

    A: scipy.sparse.csr_array  # (n, n)
    P: scipy.sparse.csr_array  # (n, m)
    smoother: np.ndarray  # (n,): 1 / (rho d), d the diagonal of A, rho the radius of A / d


def by_pyamg(S: Any, near_nullspace: Any, max_coarse: int) -> list[tuple[Any, Any]]:
    """The levels (A_l, P_l) of PyAMG's smoothed aggregation."""
    check_hermitian(S, "multigrid: S")
    try:
        import pyamg
    except ImportError:
        raise ImportError(
            "multigrid: S is a matrix, whose coarse levels PyAMG makes, and PyAMG is not "
            "installed; pip install 'jax_peig[multigrid]', or give the levels, "
            "[(A_0, P_0), ..., (A_L, None)]."
        ) from None
    # PyAMG needs 32-bit indices, and SciPy's matrices in place of its arrays.
    blocks = scipy.sparse.bsr_matrix if S.format == "bsr" else scipy.sparse.csr_matrix
    matrix = blocks(S, dtype=np.promote_types(S.dtype, np.float64))
    matrix.indices, matrix.indptr = (i.astype(np.int32) for i in (matrix.indices, matrix.indptr))
    candidates = _candidates(near_nullspace, matrix)
    with _seeded():
        made = pyamg.smoothed_aggregation_solver(
            matrix, B=candidates, symmetry="hermitian", max_coarse=max_coarse
        )
    return pairs_of(made)


def pairs_of(given: Any) -> list[tuple[Any, Any]]:
    """The levels (A_l, P_l) of a PyAMG hierarchy or of a sequence, the last P being None."""
    if hasattr(given, "levels"):
        return [(level.A, getattr(level, "P", None)) for level in given.levels[:-1]] + [
            (given.levels[-1].A, None)
        ]
    expected = (
        "expected a SciPy sparse matrix, or levels [(A_0, P_0), ..., (A_L, None)] of them, or a "
        "hierarchy of PyAMG. "
    )
    if not isinstance(given, Sequence) or isinstance(given, str):
        advice = "Write scipy.sparse.csr_array(S)." if is_array(given) else ""
        raise TypeError(f"multigrid: S is of type {type(given).__name__}; {expected}{advice}")
    for number, level in enumerate(given):
        if not isinstance(level, Sequence) or len(level) != 2:
            raise TypeError(f"multigrid: level {number} is no pair (A, P); {expected}")
    if not given:
        raise ValueError(f"multigrid: there are no levels; {expected}")
    return [tuple(level) for level in given]


def grids(pairs: list[tuple[Any, Any]]) -> tuple[list[Grid], np.ndarray, np.dtype]:
    """The levels, checked, with their smoothers; the coarsest inverse (m, m); the dtype."""
    n, dtypes = None, []
    for number, (A, P) in enumerate(pairs):
        last = number + 1 == len(pairs)
        name = f"multigrid: A of level {number}"
        check_hermitian(A, name)
        if n not in (None, A.shape[0]):
            raise ValueError(f"{name} has order {A.shape[0]}; expected {n}, the columns of P.")
        if last:
            if P is not None:
                raise ValueError(
                    f"multigrid: P of level {number}, the last, is a {type(P).__name__}; expected "
                    "None. Give the coarsest matrix as one more level (A, None)."
                )
        else:
            _check_prolongation(P, A.shape[0], f"multigrid: P of level {number}")
            n = P.shape[1]
            dtypes.append(P.dtype)
        dtypes.append(A.dtype)
    dtype = np.result_type(*dtypes)
    double = np.promote_types(dtype, np.float64)
    matrices = [scipy.sparse.csr_array(A).astype(double) for A, _ in pairs]
    made = [
        _grid(A, scipy.sparse.csr_array(P).astype(double), number)
        for number, (A, (_, P)) in enumerate(zip(matrices[:-1], pairs[:-1], strict=True))
    ]
    return made, coarsest_inverse(matrices[-1]), dtype


def check_hermitian(A: Any, name: str) -> None:
    """Check that a sparse matrix is square, floating, finite, and Hermitian but for rounding."""
    if not scipy.sparse.issparse(A):
        raise TypeError(
            f"{name} is of type {type(A).__name__}; expected a SciPy sparse matrix. Write "
            "scipy.sparse.csr_array(S)."
        )
    check_floating(A.dtype, name)
    if A.ndim != 2 or A.shape[0] != A.shape[1] or not A.shape[0]:
        raise ValueError(f"{name} has shape {tuple(A.shape)}; expected a square matrix (n, n).")
    size = abs(A).max()
    if not np.isfinite(size):
        raise ValueError(f"{name} holds NaN or inf; expected finite numbers.")
    if abs(A - A.conj().T).max() > tolerances.hermiticity(A.dtype) * size:
        raise ValueError(f"{name} is not Hermitian; expected A = A^H. Write (A + A.conj().T) / 2.")


def _check_prolongation(P: Any, n: int, name: str) -> None:
    if not scipy.sparse.issparse(P):
        raise TypeError(
            f"{name} is of type {type(P).__name__}; expected a SciPy sparse matrix ({n}, m), and "
            "None at the last level only."
        )
    check_floating(P.dtype, name)
    if P.ndim != 2 or P.shape[0] != n or not P.shape[1]:
        raise ValueError(f"{name} has shape {tuple(P.shape)}; expected ({n}, m), m < {n}.")
    if not np.isfinite(abs(P).max()):
        raise ValueError(f"{name} holds NaN or inf; expected finite numbers.")


def _candidates(given: Any, matrix: Any) -> np.ndarray | None:
    """PyAMG's B: the near-null-space (n, c); None is one constant vector for each unknown."""
    if given is None:
        return None
    n, name = matrix.shape[0], "multigrid: near_nullspace"
    if not is_array(given):
        raise TypeError(f"{name} is a {type(given).__name__}; expected an array ({n}, c).")
    check_floating(given.dtype, name)
    vectors = np.array(given, dtype=matrix.dtype)
    if vectors.ndim != 2 or vectors.shape[0] != n or not vectors.shape[1]:
        raise ValueError(f"{name} has shape {vectors.shape}; expected ({n}, c), vectors as columns.")
    if not np.all(np.isfinite(vectors)):
        raise ValueError(f"{name} holds NaN or inf; expected finite numbers.")
    return vectors


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Give PyAMG, which draws from NumPy's global generator, the same numbers every time."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _grid(A: scipy.sparse.csr_array, P: scipy.sparse.csr_array, number: int) -> Grid:
    diagonal = A.diagonal().real
    largest = diagonal.max()
    if diagonal.min() < 0 or (number == 0 and diagonal.min() == 0):
        raise ValueError(
            f"multigrid: A of level {number} has {diagonal.min()} on its diagonal; expected a "
            "positive definite matrix. Shift it to or below the smallest eigenvalue."
        )
    # A candidate that vanishes on an aggregate gives a column of P and a row of A that are zero.
    used = diagonal > (0 if number == 0 else tolerances.rank(float) * largest)
    inverse = np.where(used, 1 / np.where(used, diagonal, 1), 0)
    return Grid(A, P, inverse / spectral_radius(A, inverse))


def spectral_radius(A: scipy.sparse.csr_array, inverse: np.ndarray) -> float:
    """The largest eigenvalue of D^-1 A by the Lanczos process, at most that of the row sums."""
    root = np.sqrt(inverse)
    rng = np.random.default_rng(0)
    v, before = rng.standard_normal(A.shape[0]).astype(A.dtype), 0.0
    v = v * (root > 0)
    v /= np.linalg.norm(v)
    alpha, beta, old = [], [], np.zeros_like(v)
    for _ in range(min(RHO_STEPS, A.shape[0])):
        w = root * (A @ (root * v)) - before * old
        alpha.append(np.vdot(v, w).real)
        w -= alpha[-1] * v
        before = np.linalg.norm(w)
        if before <= tolerances.rank(float) * max(alpha):
            break
        beta.append(before)
        old, v = v, w / before
    found = scipy.linalg.eigvalsh_tridiagonal(alpha, beta[: len(alpha) - 1])[-1]
    sums = (inverse * (abs(A) @ np.ones(A.shape[0]))).max()
    return min(found, sums)


def coarsest_inverse(A: scipy.sparse.csr_array) -> np.ndarray:
    """A^-1, where the eigenvalues that are zero count as the smallest that is not."""
    if A.shape[0] > MAX_COARSEST:
        raise ValueError(
            f"multigrid: the coarsest level has order {A.shape[0]}; expected at most "
            f"{MAX_COARSEST}, as its inverse is dense. Give more levels."
        )
    lam, u = np.linalg.eigh(A.toarray())
    zero = A.shape[0] * tolerances.rank(float) * np.abs(lam).max()
    if lam[0] < -zero:
        raise ValueError(
            f"multigrid: the coarsest level has the eigenvalue {lam[0]}; expected a positive "
            "semi-definite matrix. Shift it to or below the smallest eigenvalue."
        )
    positive = lam[lam > zero]
    return (u / np.where(lam > zero, lam, positive[0] if positive.size else 1)) @ u.conj().T
