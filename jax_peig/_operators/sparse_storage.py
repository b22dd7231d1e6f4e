"""How the entries of a sparse matrix are stored, decided on the host by what products cost.

By diagonals or by rows of a fixed width, and in a list what does not fit either; `operators` says
what is computed of them.
"""

from typing import NamedTuple

import numpy as np

# Costs in units of a place of the row layout: one multiplication, one read of an index and one of x
# there. Measured in loops of products on a CPU, for vectors and blocks of 8 and 16 columns.
DIAGONAL_COST = 0.75  # 0.5 for vectors to 1 for 16 columns: no index to read, x read in order
LIST_COST = 4.0  # the scatter: 2.5 to 4, and 10 for wide blocks of large matrices
LIST_ROW_COST = 3.0  # having a list at all, for each row: y is written, copied and read again
# Sums of more diagonals are not written out: compile time grows with them (0.4 s for 128).
MAX_DIAGONALS = 128
# Wider rows are not written out either: a loop over CHUNK terms at a time is as fast from there on,
# and takes no longer to compile the wider they are.
MAX_TERMS = 32
CHUNK = 16


class Arrangement(NamedTuple):
    """Where the entries of a canonical CSR matrix go; NumPy."""

    shape: tuple[int, int]  # of the stored array
    place: np.ndarray  # (nnz,) in it, counted through; negative for what is listed
    columns: np.ndarray | None
    offsets: tuple[int, ...] | None


def arrange(matrix) -> Arrangement:
    """Diagonals or rows, whichever costs less."""
    candidates = (_diagonals(matrix), _rows(matrix))
    return min(candidates, key=lambda c: c[0])[1]()


def _diagonals(matrix):
    """The cost by diagonals, and the arrangement.

    A diagonal is stored where its n places cost less than to list its entries.
    """
    n, _ = matrix.shape
    rows = row_of_each(matrix)
    shifted = matrix.indices - rows + n  # column minus row, from 1 on
    counts = np.bincount(shifted, minlength=1)
    kept = np.flatnonzero(LIST_COST * counts > DIAGONAL_COST * n)
    cost = DIAGONAL_COST * n * kept.size + _list_cost(n, matrix.nnz - counts[kept].sum())

    def arrangement():
        index = np.full(counts.size, -1)
        index[kept] = np.arange(kept.size)
        diagonal = index[shifted]
        place = np.where(diagonal < 0, -1, diagonal * n + rows)
        return Arrangement((kept.size, n), place, None, tuple(int(o) - n for o in kept))

    return cost if kept.size <= MAX_DIAGONALS else np.inf, arrangement


def _rows(matrix):
    """The cost by rows of a fixed width, and the arrangement.

    The cost, n w + LIST_COST sum_r (length_r - w)^+, is least for the w that n / LIST_COST rows
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

    def arrangement():
        rows = row_of_each(matrix)
        j = np.arange(matrix.nnz) - matrix.indptr[rows]
        place = np.where(j < width, j * n + rows, -1)
        # The zeros are multiplied with the row's own last element of x: it is near, and where it
        # is NaN the row is so anyway.
        last = np.minimum(np.arange(n), m - 1)
        last[lengths > 0] = matrix.indices[matrix.indptr[1:][lengths > 0] - 1]
        columns = np.tile(last, width).astype(np.int32)
        columns[place[place >= 0]] = matrix.indices[place >= 0]
        return Arrangement((width, n), place, columns.reshape(width, n), None)

    return cost if width else np.inf, arrangement  # an empty sum is left to the diagonals


def _list_cost(n: int, count: int) -> float:
    return LIST_ROW_COST * n + LIST_COST * count if count else 0.0


def row_of_each(matrix) -> np.ndarray:
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
