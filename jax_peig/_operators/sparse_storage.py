"""How the entries of a sparse matrix are stored, decided on the host by the cost of a product.

Entries are stored by diagonals or by rows of a fixed width. Those that fit neither are listed.
`sparse` says how a product is computed of them.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse

# Costs are measured on a CPU, for vectors and blocks of up to 16 columns. The unit is one place of
# the row layout: a multiplication, a read of an index and a read of x there.
DIAGONAL_COST = 0.75  # of a place; there is no index to read, and x is read in order
LIST_COST = 4.0  # of a listed entry; it is added by a scatter
LIST_ROW_COST = 3.0  # of a row, where there is a list; y is written, copied and read again
# The sum of at most so many diagonals is written out: compile time grows with them (0.4 s for 128).
MAX_DIAGONALS = 128
# The sum of at most so many terms of a row is written out. Wider rows are summed in a loop, CHUNK
# terms at a time, which is as fast and takes the same time to compile for every width.
MAX_TERMS = 32
CHUNK = 16


class Arrangement(NamedTuple):
    """Where the entries of a canonical CSR matrix go; NumPy."""

    shape: tuple[int, int]  # of the stored array
    place: np.ndarray  # (nnz,) in the flattened array; negative for a listed entry
    columns: np.ndarray | None  # None by diagonals
    offsets: tuple[int, ...] | None  # None by rows


class _Candidate(NamedTuple):
    cost: float
    make: Callable[[], Arrangement]


def arrange(matrix: scipy.sparse.csr_array) -> Arrangement:
    """Choose diagonals or rows, whichever costs less."""
    return min(_diagonals(matrix), _rows(matrix), key=lambda c: c.cost).make()


def _diagonals(matrix: scipy.sparse.csr_array) -> _Candidate:
    """The arrangement by diagonals.

    A diagonal is stored where its n places cost less than to list its entries.
    """
    n, _ = matrix.shape
    rows = row_of_each(matrix)
    shifted = matrix.indices - rows + n  # column minus row, from 1 on
    counts = np.bincount(shifted, minlength=1)
    kept = np.flatnonzero(LIST_COST * counts > DIAGONAL_COST * n)
    cost = DIAGONAL_COST * n * kept.size + _list_cost(n, matrix.nnz - counts[kept].sum())

    def make() -> Arrangement:
        index = np.full(counts.size, -1)
        index[kept] = np.arange(kept.size)
        diagonal = index[shifted]
        place = np.where(diagonal < 0, -1, diagonal * n + rows)
        return Arrangement((kept.size, n), place, None, tuple(int(o) - n for o in kept))

    return _Candidate(cost if kept.size <= MAX_DIAGONALS else np.inf, make)


def _rows(matrix: scipy.sparse.csr_array) -> _Candidate:
    """The arrangement by rows of a fixed width.

    The cost n w + LIST_COST sum_r (length_r - w)^+ is least for the width w that n / LIST_COST rows
    exceed.
    """
    n, m = matrix.shape
    lengths = np.diff(matrix.indptr)
    longest = int(lengths.max(initial=0))
    width = int(np.sort(lengths)[n - 1 - int(n / LIST_COST)]) if n else 0
    width = max(width, min(longest, 1))
    cost = n * width + _list_cost(n, np.maximum(lengths - width, 0).sum())
    if n * longest <= cost:
        width, cost = longest, n * longest
    if width > MAX_TERMS:
        width = -(-width // CHUNK) * CHUNK

    def make() -> Arrangement:
        rows = row_of_each(matrix)
        j = np.arange(matrix.nnz) - matrix.indptr[rows]
        place = np.where(j < width, j * n + rows, -1)
        # A zero that fills up a row multiplies the last element of x that the row touches: it is
        # near in memory, and where it is NaN the row is NaN anyway.
        last = np.minimum(np.arange(n), m - 1)
        last[lengths > 0] = matrix.indices[matrix.indptr[1:][lengths > 0] - 1]
        columns = np.tile(last, width).astype(np.int32)
        columns[place[place >= 0]] = matrix.indices[place >= 0]
        return Arrangement((width, n), place, columns.reshape(width, n), None)

    return _Candidate(cost if width else np.inf, make)  # an empty sum is left to the diagonals


def _list_cost(n: int, count: int) -> float:
    """The cost of a list of so many entries beside n rows."""
    return LIST_ROW_COST * n + LIST_COST * count if count else 0.0


def row_of_each(matrix: scipy.sparse.csr_array) -> np.ndarray:
    """The row of each entry, (nnz,)."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
