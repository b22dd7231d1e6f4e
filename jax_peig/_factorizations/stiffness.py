"""Whether known entries are stiff, and what a factorisation of them would cost.

A few Lanczos steps show how far a polynomial in A is from the smallest eigenvalue, and the pattern
how much a factorisation fills in. Both run on the host, for arrays of one CPU and outside ``jit``.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.sparse
from jax.experimental.sparse import BCOO
from scipy.sparse import csgraph

from jax_peig._core.checks import is_array
from jax_peig._factorizations.sparse import factors
from jax_peig._factorizations.store import FIRST_STEP, Entries, matrix_of
from jax_peig._operators.sparse import SparseOperator

# Lanczos steps at most, and after how many it is looked whether they suffice.
STEPS = 120
LOOK = 30
# A residual relative to ||A|| above which the methods that multiply take thousands of matvecs.
UNRESOLVED = 3e-5
FEWEST_MATVECS = 6000
# The pole of the solves is zero: farther from the spectrum, relative to what is unresolved there,
# it takes many more solves.
FAR = 10
# The smallest eigenvalue of an M of unit diagonal, relative to the largest, below which M may be
# semidefinite or indefinite, of which a factorisation of A - s M would not tell.
DEFINITE = 1e-3
# Nested dissection fills the entries of A log2(w) times for separators of w nodes, and these
# separators as dense matrices, some in a row.
DENSE_SEPARATORS = 9
# Times in the unit of a matvec's for an entry of A, as measured: that of 60 solves with an entry of
# the factors, what wide separators add to it by elimination, and that of all Lanczos vectors and
# of a matvec for a row.
SOLVES = 200
ELIMINATION = 1 / 8
BASIS = 12_000
VECTORS = 3
# A factor's entry is a value and an index, and is kept twice where its pivots were counted.
FACTOR_BYTES = 24


class Stiffness(NamedTuple):
    """What was found of A x = lam M x."""

    smallest: float  # the smallest Ritz value after the Lanczos steps, relative to ||A||
    residual: float  # its residual, relative to ||A||
    tol: float  # of the eigensolver
    matvecs: float  # the time of a factorisation and its solves
    nbytes: float  # the memory of the factors

    @property
    def stiff(self) -> bool:
        """Whether the smallest eigenvalue is far from resolved, and near zero."""
        unresolved = self.residual > max(UNRESOLVED, self.tol)
        return unresolved and self.smallest < FAR * self.residual

    @property
    def factorable(self) -> bool:
        """Whether a factorisation is worth its time, and fits into the store of factors."""
        return self.matvecs < FEWEST_MATVECS and self.nbytes <= factors.max_bytes

    def __str__(self) -> str:
        return (
            f"{STEPS} Lanczos steps leave a residual of {self.residual:.0e} ||A|| at the smallest "
            f"eigenvalue, and a factorisation with its solves takes about {self.matvecs:.0f} "
            "matvecs"
        )


def is_on_host(tree: Any) -> bool:
    """Whether all arrays are concrete, on one CPU, and no program is being traced."""
    if jax.default_backend() != "cpu" or isinstance(jnp.zeros(()), jax.core.Tracer):
        return False
    return all(map(_at_hand, jax.tree.leaves(tree)))


def _at_hand(leaf: Any) -> bool:
    if isinstance(leaf, jax.core.Tracer):
        return False
    if not isinstance(leaf, jax.Array):
        return True
    return [device.platform for device in leaf.devices()] == ["cpu"]


def stiffness_of(A: Any, M: Any, n: int, tol: float) -> Stiffness | None:
    """Find it for matrices (n, n); None where A or M looks indefinite, or M nearly singular."""
    a = _host_matrix(A, n)
    m = None if M is None else _host_matrix(M, n)
    mass = np.ones(n) if m is None else (m if m.ndim == 1 else m.diagonal()).real
    if not np.all(mass > 0):
        return None
    scale = 1 / np.sqrt(mass)
    smallest, residual = _smallest(a, scale)
    full = m is not None and m.ndim == 2
    if not smallest > -FIRST_STEP or (full and not _smallest(m, scale)[0] > DEFINITE):
        return None
    entries, width, filled = _fill(a, m, n)
    time = filled * (SOLVES + ELIMINATION * width) + BASIS * n
    matvecs = time / (entries + VECTORS * n)
    return Stiffness(smallest, residual, tol, matvecs, FACTOR_BYTES * filled)


def _host_matrix(x: Any, n: int) -> Any:
    """A SciPy sparse matrix, or a NumPy array, of which the Hermitian part is meant."""
    if scipy.sparse.issparse(x):
        return scipy.sparse.csr_array(x)
    if is_array(x):
        x = np.asarray(x)
        return (x + x.conj().T) / 2
    x = jax.tree.map(np.asarray, x)
    if isinstance(x, BCOO):
        entries = Entries(x.indices[:, 0], x.indices[:, 1], x.data)
    else:
        assert isinstance(x, SparseOperator)
        entries = _entries(x)
    return scipy.sparse.csr_array(matrix_of(entries, n))


def _entries(x: SparseOperator) -> Entries:
    """`SparseOperator.coordinates` and ``values`` by NumPy, which compiles nothing."""
    rows = np.arange(x.shape[0])[None, :]
    columns = rows + np.asarray(x.offsets)[:, None] if x.columns is None else x.columns
    places = np.stack([np.broadcast_to(rows, columns.shape), columns]).reshape(2, -1)
    rows, columns = np.concatenate([places, x.where], axis=1)[:, x.slots]
    return Entries(rows, columns, np.concatenate([x.stored.reshape(-1), x.listed])[x.slots])


@np.errstate(all="ignore")
def _smallest(a: Any, scale: np.ndarray) -> tuple[float, float]:
    """The smallest Ritz value of D A D and its residual, relative to the largest; or NaN.

    Lanczos without reorthogonalisation: copies of converged Ritz values do no harm here.
    """
    q = np.random.default_rng(0).standard_normal(len(scale))
    q, before, beta = q / _length(q), np.zeros_like(q), 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    for step in range(1, STEPS + 1):
        w = scale * (a @ (scale * q)) - beta * before
        diagonal.append(np.sum(q.conj() * w).real)
        w -= diagonal[-1] * q
        beta = _length(w)
        if not np.isfinite(beta):
            return np.nan, np.nan
        if step % LOOK == 0 or beta == 0:
            theta, s = scipy.linalg.eigh_tridiagonal(diagonal, beside)
            norm = np.max(np.abs(theta)) or 1.0
            smallest, residual = theta[0] / norm, beta * abs(s[-1, 0]) / norm
            if residual < UNRESOLVED:
                break
        beside.append(beta)
        before, q = q, w / beta
    return float(smallest), float(residual)


def _length(x: np.ndarray) -> float:
    """By a sum, not by BLAS, whose threads cost more than they gain."""
    return float(np.sqrt(np.sum(np.abs(x) ** 2)))


def _fill(a: Any, m: Any, n: int) -> tuple[int, float, float]:
    """The entries of A - s M, the width of its separators, and the entries of its factors.

    The width is the mean one of the band that reverse Cuthill-McKee makes.
    """
    if not all(x is None or scipy.sparse.issparse(x) or x.ndim == 1 for x in (a, m)):
        return n * n, float(n), float(n * n)
    pattern = abs(a) + abs(m) if scipy.sparse.issparse(m) else a
    place = np.empty(n, np.int64)
    place[csgraph.reverse_cuthill_mckee(pattern, symmetric_mode=True)] = np.arange(n)
    rows, columns = pattern.nonzero()
    band = np.zeros(n, np.int64)
    np.maximum.at(band, rows, place[rows] - place[columns])
    width = float(np.mean(band))
    filled = pattern.nnz * np.log2(width + 2) + DENSE_SEPARATORS * width**2
    return pattern.nnz, width, min(filled, float(n * n))
