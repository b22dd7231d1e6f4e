"""Matrices of Matrix Market files, read and checked: Hermitian, and positive definite."""

import codecs
import gzip
import inspect
import io
import pathlib
import zlib
from typing import Any

import numpy as np
import scipy.io
import scipy.linalg
import scipy.sparse

from jax_peig._core.checks import first_line

# SciPy changes what mmread returns for a sparse file, and warns; older ones do not know the choice.
_CHOICES = inspect.signature(scipy.io.mmread).parameters
AS_SPARSE_ARRAYS = {"spmatrix": False} if "spmatrix" in _CHOICES else {}

# Up to this order a file's matrices are treated as dense ones.
DENSE_ORDER = 2000


class InputError(Exception):
    """Arguments or files that cannot be used; its text is the line for stderr."""


def read_problem(path: str, mass_path: str | None) -> tuple[Any, Any]:
    """Return K, and M or None, of one shape and dtype, M positive definite as far as is seen."""
    k_matrix = read_hermitian(path)
    if mass_path is None:
        return k_matrix, None
    m_matrix = read_hermitian(mass_path)
    if m_matrix.shape != k_matrix.shape:
        raise InputError(
            f"{path} is {_shape(k_matrix)} but {mass_path} is {_shape(m_matrix)}; "
            "expected the same shape"
        )
    _require_positive_definite(m_matrix, mass_path)
    dtype = np.result_type(k_matrix.dtype, m_matrix.dtype)
    return k_matrix.astype(dtype), m_matrix.astype(dtype)


def read_hermitian(path: str) -> Any:
    """Read a Hermitian matrix from a Matrix Market file.

    Parameters
    ----------
    path : str
        Of an .mtx (or .mtx.gz) file: coordinate or array, real, complex, integer (converted to
        real) or pattern (each stored entry is taken as 1, and a line on stdout says so).

    Returns
    -------
    ndarray (n, n), or scipy.sparse.csr_array (n, n) for a sparse matrix of order above 2000
        float64 or complex128; the Hermitian part where the two halves differ by rounding.

    Raises
    ------
    InputError
        With the one line that says what is wrong with the file.
    """
    matrix, pattern = _read(path)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(
            f"{path}: the matrix is {_shape(matrix)}; expected a square one (singular values of "
            "others: jax_peig.partial_svd in Python)"
        )
    n = matrix.shape[0]
    if n == 0:
        raise InputError(f"{path}: the matrix is 0 x 0; expected at least one row")
    if pattern:
        print(f"note: {path} is a pattern, without values: each stored entry is taken as 1")
    dtype = np.complex128 if np.iscomplexobj(matrix) else np.float64
    if scipy.sparse.issparse(matrix):
        matrix = scipy.sparse.csr_array(matrix).astype(dtype)
        values = matrix.data
        if n <= DENSE_ORDER:
            values = matrix = matrix.toarray()
    else:
        values = matrix = np.asarray(matrix).astype(dtype)
    if not np.all(np.isfinite(values)):
        raise InputError(f"{path}: the matrix has an entry that is not finite")
    return _hermitian_part(matrix, path)


def _read(path: str) -> tuple[Any, bool]:
    """Return what SciPy reads of a file, and whether it is a pattern."""
    if not pathlib.Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
            text, pattern = _well_formed(file.read())
        matrix = scipy.io.mmread(io.BytesIO(text), **AS_SPARSE_ARRAYS)
    except (OSError, ValueError, OverflowError, MemoryError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be read as a Matrix Market file ({first_line(error)})"
        ) from error
    return matrix, pattern


def _hermitian_part(matrix: Any, path: str) -> Any:
    """Return (A + A^H) / 2; raise InputError where A differs from it by more than rounding."""
    adjoint = matrix.conj().T
    largest, difference = float(abs(matrix).max()), float(abs(matrix - adjoint).max())
    if difference > 100 * np.finfo(np.float64).eps * largest:
        kind = "Hermitian" if np.iscomplexobj(matrix) else "symmetric"
        raise InputError(
            f"{path}: the matrix is not {kind}: an entry and its mirror image differ by "
            f"{difference:.1e}, where the largest entry is {largest:.1e}"
        )
    return (matrix + adjoint) / 2


def _well_formed(data: bytes) -> tuple[bytes, bool]:
    """Return a Matrix Market file without its comments, and whether it is a pattern.

    SciPy's fast reader can crash (not raise) where a line has too many or too few numbers, so
    these are counted first, and a ValueError says what does not fit.
    """
    head, *rest = data.splitlines() or [b""]
    words = _header(head, data)
    lines = [line for line in rest if line.strip() and not line.lstrip().startswith(b"%")]
    sizes = [int(word) for word in (lines[0].split() if lines else [])]
    coordinate = words[2] == b"coordinate"
    if len(sizes) != 2 + coordinate or min(sizes) < 0:
        raise ValueError(f"expected {2 + coordinate} sizes in the first line of numbers")
    rows, columns = sizes[:2]
    triangle = {b"general": rows * columns, b"skew-symmetric": rows * (rows - 1) // 2}
    count = sizes[2] if coordinate else triangle.get(words[4], rows * (rows + 1) // 2)
    if len(lines) - 1 != count:
        raise ValueError(f"expected {count} lines of entries, found {len(lines) - 1}")
    width = {b"pattern": 0, b"complex": 2}.get(words[3], 1) + 2 * coordinate
    if any(len(line.split()) != width for line in lines[1:]):
        raise ValueError(f"expected {width} numbers in each line of entries")
    if coordinate:
        _check_places(lines[1:], (rows, columns))
    return b"\n".join([head, *lines, b""]), words[3] == b"pattern"


def _header(head: bytes, data: bytes) -> list[bytes]:
    """Return the five words of the first line, in lower case."""
    start, words = b"%%matrixmarket", head.lower().split()
    if len(words) == 5 and words[0] == start and b"\0" not in data:
        return words
    squeezed = b"".join(data.removeprefix(codecs.BOM_UTF8)[:200].lower().split())
    if squeezed.startswith(start) and words[:1] != [start]:
        raise ValueError(
            "the first line has to start with %%MatrixMarket, written as one word, with no empty "
            "line and no byte order mark before it"
        )
    raise ValueError("expected a first line of %%MatrixMarket and four words, then plain text")


def _check_places(entries: list[bytes], shape: tuple[int, int]) -> None:
    """Raise ValueError for a row or column that the matrix does not have."""
    for line in entries:
        words = line.split(None, 2)[:2]
        if not all(word.lstrip(b"+-").isdigit() for word in words):
            found = b" ".join(words).decode(errors="replace")
            raise ValueError(f"an entry stands at {found!r}; expected two whole numbers")
        place = [int(word) for word in words]
        if min(place) == 0:
            raise ValueError("indices start at 1; this file's start at 0: add 1 to each of them")
        if min(place) < 1 or place[0] > shape[0] or place[1] > shape[1]:
            raise ValueError(
                f"an entry stands at row {place[0]}, column {place[1]}; expected rows 1 to "
                f"{shape[0]} and columns 1 to {shape[1]}"
            )


def _require_positive_definite(matrix: Any, path: str) -> None:
    """Raise InputError unless ``matrix`` is numerically positive definite.

    Dense: by the Cholesky factor of the matrix scaled to a unit diagonal, d_i = a_ii^(-1/2),
    which exists exactly when that of the matrix itself does. Sparse: by the diagonal alone, a
    necessary condition; what that lets through is left to the solver's status.
    """
    diagonal = np.real(matrix.diagonal())
    fault = ""
    if np.min(diagonal) <= 0.0:
        row = int(np.argmin(diagonal))
        fault = f"its diagonal entry {row + 1} is {diagonal[row]:.3g}"
    elif isinstance(matrix, np.ndarray):
        d = 1.0 / np.sqrt(diagonal)
        try:
            scipy.linalg.cholesky(d[:, None] * matrix * d[None, :], lower=True)
        except np.linalg.LinAlgError:
            fault = "it has no Cholesky factor"
    if fault:
        raise InputError(f"{path}: the matrix M is not positive definite: {fault}")


def _shape(matrix: Any) -> str:
    return " x ".join(str(size) for size in matrix.shape)
