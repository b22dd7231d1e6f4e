"""Sparse matrices as operators whose product with a vector or a block of vectors is fast.

`from_scipy` stores the entries of a SciPy matrix (n, m) in one of two layouts. Entries that fit
neither, those of long rows or of hardly filled diagonals, are listed:

    diagonals    y_r = sum_d v[d, r] x[r + o_d]      slices of x, padded by zeros
    rows         y_r = sum_j v[j, r] x[c[j, r]]      gathers of x, a fixed number of entries a row
    list         y[r_i] += v_i x[c_i]

The sums are written out, term by term. The compiler makes one loop over r of them, which reads each
entry once and stores nothing but y; one gather of all entries and a sum over j takes 5 to 50 times
longer on a CPU. The gradient with respect to the entries is made of slices and gathers as well.

A compiled program depends on the shapes and the offsets o_d alone: column indices are integer
leaves of the pytree, not constants of the program.

Microseconds of a product with a vector / 8 / 16 columns in a compiled loop (float64, 2 cores):

    matrix            n       SciPy CSR          BCOO               here
    5-point, 100^2    10,000   32 / 150 / 256     63 / 247 / 416     12 / 70 / 96     diagonals
    7-point, 24^3     13,824   58 / 277 / 472    120 / 444 / 807     23 / 98 / 142    diagonals
    6-regular graph   50,000  380 / 1856 / 3104  577 / 2401 / 7457  257 / 814 / 1061  rows
    power-law graph   20,000  156 / 695 / 1217   287 / 783 / 1452   165 / 470 / 603   rows and list
"""

import dataclasses
import functools
import operator
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from jax_peig._core.checks import check_floating
from jax_peig._core.types import Array, ArrayLike
from jax_peig._operators.sparse_storage import CHUNK, MAX_TERMS, arrange, row_of_each

# Indices have 32 bits.
MAX_PLACES = 2**31 - 1


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["stored", "listed", "columns", "where", "slots"],
    meta_fields=["shape", "offsets"],
)
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SparseOperator:
    """A sparse matrix (n, m) for products with vectors (m,) and blocks (m, b).

    `from_scipy` makes one. It is a pytree and passes through ``jit``, ``vmap`` and `partial_eigh`.
    Its pattern is fixed. Its entries can be differentiated, by way of `with_values`.

    Attributes
    ----------
    stored : (d, n) array
        The entries by diagonals, or the first d entries of each row; zero where there is none.
    listed : (l,) array
        The other entries, by rows.
    columns : (d, n) integer array or None
        The element of x that each entry of a row multiplies. None where diagonals are stored.
    where : (2, l) integer array
        Row and column of the listed entries.
    slots : (nnz,) integer array
        The places of the entries in canonical CSR order, counted through ``stored`` and
        ``listed``.
    shape : (int, int)
        n and m.
    offsets : tuple of int or None
        Column minus row of each diagonal. None where rows are stored.
    """

    stored: Array
    listed: Array
    columns: Array | None
    where: Array
    slots: Array
    shape: tuple[int, int]
    offsets: tuple[int, ...] | None

    @property
    def ndim(self) -> int:
        """2, as a matrix has."""
        return 2

    @property
    def dtype(self) -> np.dtype:
        """The entries' dtype."""
        return self.stored.dtype

    @property
    def nnz(self) -> int:
        """The number of entries, explicit zeros among them."""
        return self.slots.shape[0]

    @property
    def values(self) -> Array:
        """The entries (nnz,) in the order of the canonical CSR form: by rows, then by columns."""
        return _take(jnp.concatenate([self.stored.reshape(-1), self.listed]), self.slots)

    def with_values(self, values: ArrayLike) -> "SparseOperator":
        """The matrix of the same pattern with other entries, a differentiable function of them.

        Parameters
        ----------
        values : (nnz,) array
            In the order of the canonical CSR form, that of ``S.data`` after
            ``S = scipy.sparse.csr_array(S); S.sum_duplicates()``. Real or complex, of any of the
            four floating dtypes, which becomes the operator's.

        Returns
        -------
        SparseOperator
            Compiled programs are shared with this one, where the dtype is the same.

        Raises
        ------
        TypeError, ValueError
            For another dtype or shape.
        """
        values = _array(values, "SparseOperator.with_values: values")
        check_floating(values.dtype, "SparseOperator.with_values: values")
        if values.shape != (self.nnz,):
            raise ValueError(
                f"SparseOperator.with_values: values have shape {values.shape}; expected "
                f"({self.nnz},), one for each stored entry, by rows and then by columns."
            )
        places = self.stored.size
        flat = jnp.zeros(places + self.listed.shape[0], values.dtype)
        flat = flat.at[self.slots].set(values, mode="promise_in_bounds", unique_indices=True)
        stored, listed = flat[:places].reshape(self.stored.shape), flat[places:]
        return dataclasses.replace(self, stored=stored, listed=listed)

    def __matmul__(self, x: ArrayLike) -> Array:
        """A x for x (m,), or (m, b) with one vector a column.

        The result has the dtype to which the entries and x promote. The cost is about one
        multiplication and one read for each entry and column.

        Raises
        ------
        TypeError, ValueError
            For an x of another dtype or shape.
        """
        x = _array(x, "SparseOperator @ x: x")
        check_floating(x.dtype, "SparseOperator @ x: x")
        if x.ndim not in (1, 2) or x.shape[0] != self.shape[1]:
            raise ValueError(
                f"SparseOperator @ x: the operator has shape {self.shape}, x {x.shape}; expected "
                f"({self.shape[1]},) or ({self.shape[1]}, b). Batches go through jax.vmap."
            )
        return _product(self, x)

    @property
    def T(self) -> "SparseOperator":  # noqa: N802
        """The transpose. Its product gathers, where ``jax.linear_transpose`` would scatter.

        It is arranged anew on the host. Take it once, and outside ``jit``, from an operator whose
        pattern is concrete; the entries may be traced.
        """
        rows, columns = self._coordinates()
        order = np.lexsort((rows, columns))
        ones = np.ones(self.nnz, np.float32)
        shape = (self.shape[1], self.shape[0])
        pattern = scipy.sparse.csr_array((ones, (columns[order], rows[order])), shape=shape)
        return from_scipy(pattern).with_values(self.values[order])

    @property
    def H(self) -> "SparseOperator":  # noqa: N802
        """The conjugate transpose; see `T`."""
        transpose = self.T
        return dataclasses.replace(
            transpose, stored=transpose.stored.conj(), listed=transpose.listed.conj()
        )

    def todense(self) -> Array:
        """The matrix (n, m) as an array, differentiable as the product is."""
        return self @ jnp.eye(self.shape[1], dtype=self.dtype)

    def _coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of each entry, in the order of `values`, on the host."""
        if any(
            isinstance(leaf, jax.core.Tracer) for leaf in (self.columns, self.where, self.slots)
        ):
            raise TypeError(
                "SparseOperator.T: the pattern is traced; expected a concrete one. Take the "
                "transpose outside jit, and pass it as one more argument."
            )
        rows, columns = self.coordinates()
        return np.asarray(rows), np.asarray(columns)

    def coordinates(self) -> tuple[Array, Array]:
        """Row and column of each entry, (nnz,) each, in the order of `values`."""
        rows = jnp.arange(self.shape[0], dtype=self.where.dtype)[None, :]
        columns = self.columns
        if columns is None:
            columns = rows + jnp.asarray(self.offsets, rows.dtype)[:, None]
        rows = jnp.broadcast_to(rows, columns.shape)
        stored = jnp.stack([rows.reshape(-1), columns.reshape(-1)])
        rows, columns = jnp.concatenate([stored, self.where], axis=1)[:, self.slots]
        return rows, columns

    def __repr__(self) -> str:
        kind = "diagonals" if self.offsets is not None else "a row"
        layout = f"{self.stored.shape[0]} {kind}, {self.listed.shape[0]} listed"
        return (
            f"SparseOperator(shape={self.shape}, nnz={self.nnz}, dtype={self.dtype}, "
            f"layout={layout!r})"
        )


def from_scipy(S: Any) -> SparseOperator:
    """Make an operator with a fast, differentiable product of a SciPy sparse matrix.

    Parameters
    ----------
    S : SciPy sparse matrix or array (n, m)
        Of any format, float32, float64, complex64 or complex128. Duplicates are summed; explicit
        zeros stay entries of the pattern, as far as SciPy's conversion to CSR keeps them. Without
        ``jax_enable_x64`` double precision becomes single, as it does in ``jnp.asarray``.

    Returns
    -------
    SparseOperator
        ``A @ x`` for x (m,) and (m, b), ``A.with_values(values)``, ``A.values``, ``A.T``, ``A.H``,
        ``A.todense()``.

    Raises
    ------
    TypeError
        Where S is not a SciPy sparse matrix, or of another dtype.
    ValueError
        Where S has not two dimensions, or more than 2^31 - 1 places to store.

    Differentiability
    -----------------
    * In: nothing: S is made on the host. The entries of its product are differentiable by
      ``A.with_values(values)``, and x in ``A @ x``.
    * Modes: forward and reverse.
    * Orders: any.
    * Refused: never.

    Notes
    -----
    *Cost.* The matrix is arranged on the host, in the time of some hundred products with a vector:
    convert it once, not in a loop. It takes the memory of CSR, 4 bytes more for each entry, and the
    zeros between the entries, which are mostly fewer than the entries and at most about eight
    times as many.

    *Compilation.* Operators of equal dtype and arrangement share compiled programs, whatever their
    entries: so do all matrices of one pattern, patterns with the same diagonals, and patterns
    stored by rows with the same width and as many listed entries.

    *Derivatives* treat the entries as independent. `partial_eigh` takes A as Hermitian, and does
    not check that a change of the entries keeps it so. Contract a gradient g of ``jax.grad`` with
    Hermitian changes only, Re sum_rc g_rc dA_rc; this happens by itself where the entries are
    functions of parameters, each value of which gives a Hermitian matrix. Of g alone only the
    Hermitian part (g + g^H) / 2 has a meaning. Differentiate with respect to parameters of
    `with_values`, not to the operator, which would have slopes for the zeros between the entries
    too. A gradient with respect to x is a scatter in the layout by rows, ten times slower than the
    product: use `T` where this matters.

    *Not finite.* An inf or NaN in x may reach rows that do not touch it, because the zeros between
    the entries multiply it.

    Examples
    --------
    A chain of masses between walls, and how its softest mode reacts to the springs. Entry (r, c) of
    the stiffness is the sum of the two springs at r on the diagonal, minus the one between r and c
    beside it, and so Hermitian for all springs:

    >>> import jax, jax.numpy as jnp, numpy as np, scipy.sparse
    >>> from jax_peig import partial_eigh
    >>> from jax_peig.operators import from_scipy
    >>> n = 30
    >>> S = scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n)).tocsr()
    >>> chain, (rows, columns) = from_scipy(S), S.nonzero()
    >>> def softest(springs):
    ...     beside = springs[np.maximum(rows, columns)]
    ...     entries = jnp.where(rows == columns, springs[rows] + springs[rows + 1], -beside)
    ...     return partial_eigh(chain.with_values(entries), k=1).eigenvalues[0]
    >>> w, slopes = jax.value_and_grad(softest)(jnp.ones(n + 1))
    >>> print(w.round(5), slopes.sum().round(5))  # w is linear in the springs' common factor
    0.01026 0.01026
    """
    if not scipy.sparse.issparse(S):
        raise TypeError(
            f"from_scipy: S is of type {type(S).__name__}; expected a SciPy sparse matrix, such "
            "as scipy.sparse.csr_array(S). Arrays are operators as they are."
        )
    check_floating(S.dtype, "from_scipy: S")
    if S.ndim != 2:
        raise ValueError(
            f"from_scipy: S has shape {tuple(S.shape)}; expected a matrix (n, m). "
            "Reshape it, or use an array."
        )
    matrix = scipy.sparse.csr_array(S, copy=True)
    matrix.sum_duplicates()  # and sorts the columns of each row
    shape, place, columns, offsets = arrange(matrix)
    places = shape[0] * shape[1]
    if places + matrix.nnz > MAX_PLACES:
        raise ValueError(
            f"from_scipy: S has {matrix.nnz} entries and needs {places} places to store them; "
            "expected less than 2^31 together. Write its product as a function."
        )
    listed = place < 0
    stored = np.zeros(places, matrix.dtype)
    stored[place[~listed]] = matrix.data[~listed]
    where = np.stack([row_of_each(matrix)[listed], matrix.indices[listed]])
    slots = np.where(listed, places - 1 + np.cumsum(listed), place)
    return SparseOperator(
        stored=jnp.asarray(stored.reshape(shape)),
        listed=jnp.asarray(matrix.data[listed]),
        columns=None if columns is None else jnp.asarray(columns),
        where=jnp.asarray(where.astype(np.int32)),
        slots=jnp.asarray(slots.astype(np.int32)),
        shape=(int(S.shape[0]), int(S.shape[1])),
        offsets=offsets,
    )


def _array(x: Any, name: str) -> Array:
    try:
        return jnp.asarray(x)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is of type {type(x).__name__}; expected an array.") from None


# -- the products ---------------------------------------------------------------------------------


@functools.partial(jax.jit, inline=True)  # one program where it is called outside of others
@functools.partial(jax.checkpoint, prevent_cse=False)  # x is kept for a gradient, not its gathers
def _product(matrix: SparseOperator, x: Array) -> Array:
    dtype = np.promote_types(matrix.dtype, x.dtype)
    stored, listed, x = (array.astype(dtype) for array in (matrix.stored, matrix.listed, x))
    if matrix.columns is None:
        y = _by_diagonals(stored, matrix.offsets or (), x)
    else:
        y = _by_rows(stored, matrix.columns, x)
    if not listed.size:
        return y
    rows, columns = matrix.where
    added = _times(listed, _take(x, columns))
    return y.at[rows].add(added, mode="promise_in_bounds", indices_are_sorted=True)


def _by_diagonals(diagonals: Array, offsets: tuple[int, ...], x: Array) -> Array:
    """y_r = sum_d diagonals[d, r] x[r + offsets[d]], x being zero outside."""
    n, m = diagonals.shape[1], x.shape[0]
    if not offsets:
        return jnp.zeros((n, *x.shape[1:]), x.dtype)
    before, after = max(0, -offsets[0]), max(0, offsets[-1] + n - m)
    padded = jnp.pad(x, [(before, after)] + [(0, 0)] * (x.ndim - 1))
    return _sum(
        _times(diagonals[d], jax.lax.slice_in_dim(padded, before + o, before + o + n))
        for d, o in enumerate(offsets)
    )


def _by_rows(values: Array, columns: Array, x: Array) -> Array:
    """y_r = sum_j values[j, r] x[columns[j, r]]."""
    width, n = values.shape
    if width <= MAX_TERMS:
        return _sum(_times(values[j], _take(x, columns[j])) for j in range(width))

    def chunk(y: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        values, columns = part
        return y + _by_rows(values, columns, x), None

    chunks = (width // CHUNK, CHUNK, n)  # the width is a multiple then
    zero = jnp.zeros((n, *x.shape[1:]), x.dtype)
    return jax.lax.scan(chunk, zero, (values.reshape(chunks), columns.reshape(chunks)))[0]


def _sum(terms: Iterable[Array]) -> Array:
    return functools.reduce(operator.add, terms)


def _times(v: Array, x: Array) -> Array:
    return v * x if x.ndim == 1 else v[:, None] * x


def _take(x: Array, indices: Array) -> Array:
    """x[indices], known to be inside: no comparison, no clamp."""
    return x.at[indices].get(mode="promise_in_bounds", wrap_negative_indices=False)
