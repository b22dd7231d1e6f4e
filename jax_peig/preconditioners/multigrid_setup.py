"""The levels of a multigrid cycle, made and checked on the host with NumPy and SciPy."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse

from jax_peig._core import tolerances
from jax_peig._core.checks import check_floating, is_array

# Above this order the inverse of the coarsest level, a dense matrix, costs more than the cycle.
MAX_COARSEST = 5000
# Steps of the Lanczos process for rho. It fails to find 1 / 1.35 of the largest eigenvalue with a
# probability below 1.65 sqrt(n) exp(-sqrt(1 - 1/1.35) (2 steps - 1)), 5e-6 for n = 10^6:
# Kuczynski and Wozniakowski, SIAM J. Matrix Anal. Appl. 13, 1094 (1992), theorem 4.2.
RHO_STEPS = 20
# An entry a_ij joins two unknowns on level l where |a_ij| >= theta_l sqrt(a_ii a_jj): Vanek, Mandel
# and Brezina, Computing 56, 179 (1996). Between coefficients of 1 to 10^6 the condition number of
# T A is then 5 to 10, and 25 to 35 with theta = 0, PyAMG's default.
STRENGTH = [("symmetric", {"theta": 0.08 / 2**level}) for level in range(10)]


class Grid(NamedTuple):
    """A level but the coarsest; double precision."""

    A: scipy.sparse.csr_array  # (n, n)
    P: scipy.sparse.csr_array  # (n, m)
    smoother: np.ndarray  # (n,): 1 / (rho d), d the diagonal of A, rho the radius of A / d


def by_pyamg(S: Any, near_nullspace: Any, max_coarse: int) -> list[tuple[Any, Any]]:
    """The levels (A_l, P_l) of PyAMG's smoothed aggregation."""
    _hermitian(S, "multigrid: S")
    try:
        import pyamg
    except ImportError:
        raise ImportError(
            "multigrid: S is a matrix, whose coarse levels PyAMG makes, and PyAMG is not "
            "installed; expected levels [(A_0, P_0), ..., (A_L, None)] without it. Do "
            "pip install 'jax_peig[multigrid]'."
        ) from None
    # PyAMG takes 32-bit indices, and SciPy's matrices in place of its arrays.
    kind = scipy.sparse.bsr_matrix if S.format == "bsr" else scipy.sparse.csr_matrix
    matrix = kind(S, dtype=np.promote_types(S.dtype, np.float64))
    matrix.indices, matrix.indptr = (i.astype(np.int32) for i in (matrix.indices, matrix.indptr))
    candidates = _candidates(near_nullspace, matrix)
    with _seeded():
        made = pyamg.smoothed_aggregation_solver(
            matrix, B=candidates, symmetry="hermitian", strength=STRENGTH, max_coarse=max_coarse
        )
    pairs = levels_of(made)
    pairs[0] = (S, pairs[0][1])  # in the caller's precision
    return pairs


def levels_of(given: Any) -> list[tuple[Any, Any]]:
    """The levels (A_l, P_l) of a PyAMG hierarchy or of a sequence, the last P being None."""
    if hasattr(given, "levels"):
        return [(level.A, getattr(level, "P", None)) for level in given.levels]
    expected = (
        "expected a SciPy sparse matrix, levels [(A_0, P_0), ..., (A_L, None)] of such, or a "
        "hierarchy of PyAMG."
    )
    if not isinstance(given, Sequence) or isinstance(given, str):
        advice = " Write scipy.sparse.csr_array(S)." if is_array(given) else ""
        raise TypeError(f"multigrid: S is of type {type(given).__name__}; {expected}{advice}")
    if not given:
        raise ValueError(f"multigrid: S holds no level; {expected}")
    for number, level in enumerate(given):
        if not isinstance(level, Sequence) or len(level) != 2:
            raise TypeError(f"multigrid: level {number} of S is no pair (A, P); {expected}")
    return [(A, P) for A, P in given]


def grids(pairs: list[tuple[Any, Any]]) -> tuple[list[Grid], np.ndarray]:
    """The levels, checked, with their smoothers, and the coarsest level's inverse (m, m)."""
    made: list[Grid] = []
    order = None
    for number, (given, given_P) in enumerate(pairs):
        name = f"multigrid: A of level {number}"
        A = _hermitian(given, name)
        if order not in (None, A.shape[0]):
            raise ValueError(
                f"{name} has order {A.shape[0]}; expected {order}, the number of P's columns on "
                "the level before."
            )
        if number + 1 < len(pairs):
            P = _prolongation(given_P, A.shape[0], f"multigrid: P of level {number}")
            order = P.shape[1]
            made.append(_grid(A, P, number))
        elif given_P is not None:
            raise ValueError(
                f"multigrid: P of level {number}, the last, is of type {type(given_P).__name__}; "
                "expected None. Give the coarsest matrix as one more level, (A, None)."
            )
    return made, coarsest_inverse(A)


def dtype_of(pairs: list[tuple[Any, Any]]) -> np.dtype:
    """The precision of the finest A; complex where any matrix is."""
    matrices = [x for pair in pairs for x in pair if x is not None]
    imaginary = any(x.dtype.kind == "c" for x in matrices)
    return np.promote_types(matrices[0].dtype, np.complex64 if imaginary else np.float32)


def _hermitian(A: Any, name: str) -> scipy.sparse.csr_array:
    """A in CSR form, if it is square, floating, finite, and Hermitian but for rounding."""
    matrix = _sparse(A, name)
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name} has shape {matrix.shape}; expected a square matrix (n, n).")
    size = np.abs(matrix.data).max(initial=0)
    asymmetry = np.abs((matrix - matrix.conj().T).data).max(initial=0)
    if asymmetry > tolerances.hermiticity(A.dtype) * size:
        raise ValueError(f"{name} is not Hermitian; expected A = A^H. Write (A + A.conj().T) / 2.")
    return matrix


def _prolongation(P: Any, n: int, name: str) -> scipy.sparse.csr_array:
    P = _sparse(P, name)
    if P.shape[0] != n:
        raise ValueError(f"{name} has shape {P.shape}; expected ({n}, m), as its A has order {n}.")
    return P


def _sparse(x: Any, name: str) -> scipy.sparse.csr_array:
    """A SciPy sparse matrix in CSR form and double precision, if it is a floating, finite one."""
    if not scipy.sparse.issparse(x):
        raise TypeError(
            f"{name} is of type {type(x).__name__}; expected a SciPy sparse matrix. Write "
            "scipy.sparse.csr_array(...)."
        )
    check_floating(x.dtype, name)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; expected a matrix.")
    matrix = scipy.sparse.csr_array(x, dtype=np.promote_types(x.dtype, np.float64))
    if not np.all(np.isfinite(matrix.data)):
        raise ValueError(f"{name} holds NaN or inf; expected finite numbers.")
    return matrix


def _candidates(given: Any, matrix: Any) -> np.ndarray | None:
    """PyAMG's B: the near-null-space (n, c); None is one constant vector for each unknown."""
    if given is None:
        return None
    n, name = matrix.shape[0], "multigrid: near_nullspace"
    if not is_array(given):
        raise TypeError(f"{name} is a {type(given).__name__}; expected an array ({n}, c).")
    check_floating(given.dtype, name)
    if given.dtype.kind == "c" and matrix.dtype.kind != "c":
        raise TypeError(
            f"{name} has dtype {given.dtype}, and S is real; expected real vectors. Give S a "
            "complex dtype, or their real and imaginary parts as columns."
        )
    vectors = np.array(given, dtype=matrix.dtype)
    if vectors.ndim != 2 or vectors.shape[0] != n or not vectors.shape[1]:
        raise ValueError(
            f"{name} has shape {vectors.shape}; expected ({n}, c), vectors as columns."
        )
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
    v = rng.standard_normal(A.shape[0]).astype(A.dtype) * (root > 0)
    v /= np.linalg.norm(v)
    before, alpha, beta, old = 0.0, [], [], np.zeros_like(v)
    for _ in range(min(RHO_STEPS, A.shape[0])):
        w = root * (A @ (root * v)) - before * old
        alpha.append(np.vdot(v, w).real)
        w -= alpha[-1] * v
        before = float(np.linalg.norm(w))
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
