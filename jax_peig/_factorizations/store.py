"""Sparse factorisations on the host: made once, found again by their contents, bounded in bytes.

A compiled program hashes the entries of a pencil once and carries the hash, its token. Every
program that is called with the same entries, of a value, a gradient or a Hessian-vector product,
finds the same factor of A - pole M.

The pole is the shift that was asked for, unless A - shift M is singular to rounding, or not
positive definite where that was asked for. It then lies below the shift by the first of the steps

    `FIRST_STEP` ||A|| / ||M|| times 1, 10, 100, ...

that mends this.
"""

import hashlib
import threading
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

# How far the pole moves at first, relative to ||A|| / ||M||, and how often it moves on.
FIRST_STEP = 1e-8
MOVES = 13
# The backward error of a solve, in eps, above which the factor is made again with row pivoting.
BACKWARD_ERROR = 1e4
# SuperLU stores a value and an index for each nonzero.
INDEX_BYTES = 4

UNKNOWN = -1  # the inertia of a factor with row pivoting


class Entries(NamedTuple):
    """A matrix by its entries, in any order; entries outside the matrix do not count."""

    rows: Any  # (nnz,) integer
    columns: Any
    values: Any


class Pencil(NamedTuple):
    """What is factorised: A - shift M, M = I where it is None."""

    a: Entries
    m: Entries | None
    shift: Any  # ()


class Question(NamedTuple):
    """What is asked of a factor; hashable."""

    n: int
    dtype: str  # of the vectors
    definite: bool = False  # the pole has to lie below the spectrum
    inertia: bool = False  # the number of eigenvalues below the pole is wanted


class Factor(NamedTuple):
    """A factorisation of A - pole M."""

    lu: Any  # None where A - s M is singular for every s
    pole: float
    negative: int  # eigenvalues below the pole, or `UNKNOWN`
    nbytes: int

    def solve(self, block: np.ndarray) -> np.ndarray:
        """(A - pole M)^{-1} B for B (n, b); NaN where there is no factor. Zero columns are free."""
        if self.lu is None:
            return np.full_like(block, np.nan)
        wide = np.promote_types(block.dtype, np.float64)
        filled = np.any(block != 0, axis=0)
        if filled.all():
            return self.lu.solve(np.asfortranarray(block, dtype=wide))
        out = np.zeros(block.shape, wide, order="F")
        if filled.any():
            out[:, filled] = self.lu.solve(np.asfortranarray(block[:, filled], dtype=wide))
        return out


class FactorStore:
    """Factors by token, the last used ones of at most ``max_bytes`` bytes together.

    It may be used from several threads. A factor that was dropped is made again when it is needed.

    Attributes
    ----------
    max_bytes : int
        Bound on the memory of the factors; a single factor may be larger. May be changed.
    factorizations : int
        How many factorisations were made so far, with those that looked for a pole.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.factorizations = 0
        self._factors: OrderedDict[bytes, Factor] = OrderedDict()
        self._lock = threading.RLock()

    @property
    def nbytes(self) -> int:
        """The memory of the factors that are kept, in bytes."""
        with self._lock:
            return sum(factor.nbytes for factor in self._factors.values())

    def __len__(self) -> int:
        with self._lock:
            return len(self._factors)

    def clear(self) -> None:
        """Drop all factors."""
        with self._lock:
            self._factors.clear()

    def find(self, token: bytes) -> Factor | None:
        """The factor of a token, if it is kept."""
        with self._lock:
            factor = self._factors.get(token)
            if factor is not None:
                self._factors.move_to_end(token)
            return factor

    def make(self, token: bytes, question: Question, pencil: Pencil) -> Factor:
        """The factor of a token, from the store or made now.

        One thread factorises at a time: another that needs the same factor finds it.
        """
        with self._lock:
            factor = self.find(token)
            if factor is None:
                factor, tried = factorize(question, pencil)
                self.factorizations += tried
                self._factors[token] = factor
                while len(self._factors) > 1 and self.nbytes > self.max_bytes:
                    self._factors.popitem(last=False)
            return factor


def token_of(question: Question, pencil: Pencil) -> bytes:
    """A hash of all that the factor depends on, 16 bytes."""
    digest = hashlib.sha256(repr(question).encode())  # processors have instructions for it
    for entries in (pencil.a, pencil.m):
        digest.update(b"none" if entries is None else b"entries")
        for array in entries or ():
            digest.update(str(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
    digest.update(np.asarray(pencil.shift).tobytes())
    return digest.digest()[:16]


# -- one factorisation -----------------------------------------------------------------------------


def factorize(question: Question, pencil: Pencil) -> tuple[Factor, int]:
    """Factorise A - pole M, and say how many factorisations that took."""
    a = matrix_of(pencil.a, question.n)
    m = scipy.sparse.eye_array(question.n, format="csc")
    if pencil.m is not None:
        m = matrix_of(pencil.m, question.n)
    shift = float(pencil.shift)
    finite = np.all(np.isfinite(a.data)) and np.all(np.isfinite(m.data)) and np.isfinite(shift)
    if not finite or unreferenced(a, m).size:
        return Factor(None, np.nan, UNKNOWN, 0), 0
    real = np.finfo(question.dtype).dtype
    rounding = max(FIRST_STEP, 10 * float(np.finfo(real).eps))
    step = rounding * _norm(a) / _norm(m)
    for tried in range(MOVES + 1):
        pole = float(real.type(shift - (step * 10.0 ** (tried - 1) if tried else 0)))
        factor = _factorize_once(a - pole * m, pole, question)
        if factor is not None and (factor.negative == 0 or not question.definite):
            return factor, tried + 1
    return Factor(None, np.nan, UNKNOWN, 0), MOVES + 1


def matrix_of(entries: Entries, n: int) -> Any:
    """The CSC matrix (n, n) of double precision."""
    rows, columns, values = (np.asarray(x) for x in entries)
    inside = (rows < n) & (columns < n)
    if not inside.all():
        rows, columns, values = rows[inside], columns[inside], values[inside]
    wide = np.promote_types(values.dtype, np.float64)
    return scipy.sparse.csc_array((values.astype(wide), (rows, columns)), shape=(n, n))


def unreferenced(a: Any, m: Any) -> np.ndarray:
    """The degrees of freedom that neither A nor M has an entry for: A - s M is always singular."""
    size = abs(a).sum(axis=0) + abs(a).sum(axis=1) + abs(m).sum(axis=0)
    return np.flatnonzero(np.asarray(size) == 0)


def _norm(matrix: Any) -> float:
    norm = float(abs(matrix).sum(axis=0).max())
    return norm if norm > 0 else 1.0


def _factorize_once(matrix: Any, pole: float, question: Question) -> Factor | None:
    """The factor of a matrix; None where it is singular to rounding."""
    symmetric = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0}
    for options in (symmetric | {"options": {"SymmetricMode": True}}, {}):
        try:
            lu = scipy.sparse.linalg.splu(matrix, **options)
        except RuntimeError:  # an exactly singular pivot
            continue
        singular, accurate = _examine(matrix, lu)
        if singular:
            return None
        if accurate:
            entry = np.dtype(matrix.dtype).itemsize + INDEX_BYTES
            counted = question.definite or question.inertia
            negative = _negative_pivots(lu) if counted else UNKNOWN
            stored = lu.nnz * (2 if counted else 1)  # SciPy keeps what is read of the pivots
            return Factor(lu, pole, negative, stored * entry)
    return None


def _examine(matrix: Any, lu: Any) -> tuple[bool, bool]:
    """Whether a factor is singular to rounding, and whether its solves are accurate.

    A solve with a random vector b lengthens it by some 1 / (|lam_min| sqrt(n)).
    """
    n = matrix.shape[0]
    b = np.random.default_rng(0).standard_normal(n).astype(matrix.dtype)
    x = lu.solve(b)
    if not np.all(np.isfinite(x)):
        return True, False
    norm, eps = _norm(matrix), float(np.finfo(np.float64).eps)
    lengthened = np.linalg.norm(x) / np.linalg.norm(b)
    singular = bool(lengthened * n**0.5 * n * eps * norm > 1)
    error = np.linalg.norm(matrix @ x - b) / (norm * np.linalg.norm(x) + np.linalg.norm(b))
    return singular, bool(error <= BACKWARD_ERROR * eps)


def _negative_pivots(lu: Any) -> int:
    """The number of negative eigenvalues, by Sylvester's law; `UNKNOWN` with row pivoting.

    L D L^H is a congruence only where rows and columns were permuted alike.
    """
    if not np.array_equal(lu.perm_r, lu.perm_c):
        return UNKNOWN
    return int(np.sum(lu.U.diagonal().real < 0))
