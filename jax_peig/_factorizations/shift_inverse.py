"""(A - sigma M)^{-1} as an operator: LU in JAX for dense matrices, SuperLU on the host for sparse.

Nothing is differentiated through: a solve is help for an eigensolver and for linear systems, whose
solutions do not depend on it.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.experimental.sparse import BCOO

from jax_peig._core.checks import check_floating, is_array
from jax_peig._core.types import Array, ArrayLike, OperatorLike
from jax_peig._factorizations.dense import (
    count_dense,
    factor_dense,
    factor_diagonal,
    solve_dense,
)
from jax_peig._factorizations.sparse import count_sparse, factor_sparse, solve_sparse
from jax_peig._factorizations.store import Question
from jax_peig._operators.given import order_and_dtype
from jax_peig._operators.operator import Operator, pytree_of
from jax_peig._operators.sparse import SparseOperator, from_scipy


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["pole", "negative", "parts", "dense"],
    meta_fields=["n", "question"],
)
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ShiftInverse:
    """(A - pole M)^{-1}, as `shift_invert` makes it; a pytree.

    Attributes
    ----------
    pole : real
        Sigma, or a number below it where A - sigma M is singular. NaN, as are all products, where
        no pole was found.
    negative : int
        How many eigenvalues lie below the pole; -1 where that is not known.
    n : int
        The order.
    """

    pole: Array
    negative: Array
    parts: Any  # see `dense` and `sparse`
    dense: Any  # dense A and M, for a factor with inertia; else None
    n: int
    question: Question | None  # None for dense matrices

    @property
    def ndim(self) -> int:
        """2, as a matrix has."""
        return 2

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return (self.n, self.n)

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the vectors."""
        return self.parts[0].dtype if self.question is None else np.dtype(self.question.dtype)

    def __matmul__(self, x: ArrayLike) -> Array:
        """(A - pole M)^{-1} x for x (n,), or (n, b) with one vector a column."""
        x = jnp.asarray(x)
        if x.ndim not in (1, 2) or x.shape[0] != self.n:
            raise ValueError(
                f"ShiftInverse @ x: the order is {self.n}, x has shape {x.shape}; expected "
                f"({self.n},) or ({self.n}, b)."
            )
        block = x.astype(self.dtype).reshape(self.n, -1)
        if self.question is not None:
            token, pencil = self.parts
            solution = solve_sparse(self.question, token, pencil, block)
        else:
            solution = solve_dense(self.parts, block)
        return solution.reshape(x.shape)

    def count_below(self, shift: Array) -> Array:
        """How many eigenvalues lie below a shift, by a further factorisation; -1: not known.

        For a factor that was made with ``inertia``.
        """
        if self.question is None:
            if self.dense is None:
                raise ValueError(
                    "ShiftInverse.count_below: the factor was made without inertia; expected that "
                    "of shift_invert(..., inertia=True)."
                )
            a, m = self.dense
            return count_dense(a, m, shift)
        return count_sparse(self.question, self.parts[1], shift)

    def __repr__(self) -> str:
        kind = "dense" if self.question is None else "sparse"
        return f"ShiftInverse(shape={self.shape}, dtype={self.dtype}, {kind}, pole={self.pole})"


def shift_invert(
    A: OperatorLike,
    sigma: ArrayLike | float | None = None,
    M: OperatorLike = None,
    *,
    definite: bool = False,
    inertia: bool = False,
) -> ShiftInverse:
    """Factorise A - sigma M, for solves with it: the ``OPinv`` of `partial_eigh`.

    `partial_eigh` does it by itself where a ``sigma`` and matrices are given.

    Parameters
    ----------
    A : array (n, n) or (n,), SciPy sparse matrix, SparseOperator or BCOO
        Hermitian; (n,) is a diagonal.
    sigma : real
        The shift. Default, with ``definite``: 0.
    M : as A, optional
        Hermitian positive semidefinite. Default: the identity.
    definite : bool
        Move the shift downwards until A - sigma M is positive definite.
    inertia : bool
        Count the eigenvalues below the pole. A sparse factor takes twice the memory then.

    Returns
    -------
    ShiftInverse
        An operator for vectors (n,) and blocks (n, b), by ``@``, with its ``pole``.

    Raises
    ------
    TypeError, ValueError
        For matrices that are known by their products alone, and for other bad arguments. For
        degrees of freedom that A and M do not refer to, outside ``jit``. For sparse matrices on an
        accelerator or on several devices.
    NotImplementedError
        For sparse matrices under ``vmap`` over their entries or sigma.

    Differentiability
    -----------------
    * In: nothing; the derivatives of the solves are zero.
    * Modes: forward and reverse.
    * Orders: any.
    * Refused: never.

    Notes
    -----
    *The pole.* Where A - sigma M is singular to rounding, as a stiffness with rigid motions at
    sigma = 0, the shift moves downwards by 1e-8 ||A|| / ||M||, and by ten times more until a factor
    is found; in single precision by 1.2e-6 at first.

    *Dense* matrices are factorised in JAX, by LU with row pivoting, in n^3 2/3 operations.

    *Sparse* matrices are factorised by SuperLU on the host, in double precision, through
    ``jax.pure_callback``: under ``jit`` too, and once for the same entries, also in another
    compiled program. ``jax_peig.operators.factors`` keeps the factors: ``factors.max_bytes`` bounds
    them, ``factors.clear()`` drops them. A program with such solves cannot be exported. For other
    solvers, and on accelerators, give a function as ``OPinv``.

    *Symmetric order.* SuperLU takes its pivots from the diagonal where the solves are accurate, and
    by rows where they are not. Only the first tells the inertia.

    Examples
    --------
    >>> import numpy as np, scipy.sparse
    >>> from jax_peig import operators, partial_eigh
    >>> A = scipy.sparse.diags_array(np.arange(1.0, 1001.0, dtype=np.float32))
    >>> solve = operators.shift_invert(A, 500.2)
    >>> w, X, info = partial_eigh(A, k=3, sigma=500.2, OPinv=solve)
    >>> [round(float(x), 2) for x in w]
    [500.0, 501.0, 499.0]
    """
    caller = "shift_invert"
    matrices = _matrices(A, M, caller)
    if sigma is None and not definite:
        raise TypeError(f"{caller}: sigma is missing; give the shift, a real number.")
    real = sigma is None or isinstance(sigma, (int, float, np.generic)) or is_array(sigma)
    if not real or jnp.iscomplexobj(sigma) or getattr(sigma, "shape", ()) != ():
        raise TypeError(f"{caller}: sigma is {sigma!r}; expected a real number.")
    return factorize_shifted(matrices, sigma, definite=definite, inertia=inertia)


def count_between(A: OperatorLike, a: float, b: float, M: OperatorLike = None) -> int:
    """Count the eigenvalues of A x = lam M x in [a, b), by two factorisations.

    By Sylvester's law of inertia A - s M has as many negative pivots as there are eigenvalues below
    s. With the count for k and ``sigma=(a + b) / 2``, the k pairs that `partial_eigh` returns are
    all those of the interval.

    Parameters
    ----------
    A, M : as in `shift_invert`
        With known entries.
    a, b : float
        The ends, a < b. An eigenvalue at an end, to rounding, counts at a and not at b.

    Returns
    -------
    int

    Raises
    ------
    TypeError, ValueError
        As `shift_invert`, and for ends that are no numbers or not in order. Where SuperLU had to
        take pivots by rows, which tells no inertia: move the end a little.

    Differentiability
    -----------------
    * In: nothing: the count is an integer, made outside ``jit``.
    * Modes: none.
    * Orders: none.
    * Refused: under ``jit``, where a number is needed.

    Examples
    --------
    >>> import numpy as np, scipy.sparse
    >>> from jax_peig import operators, partial_eigh
    >>> A = scipy.sparse.diags_array(np.arange(1.0, 1001.0, dtype=np.float32))
    >>> k = operators.count_between(A, 99.5, 103.5)
    >>> w, X, info = partial_eigh(A, k=k, sigma=101.5)
    >>> k, [round(float(x)) for x in sorted(w)]
    (4, [100, 101, 102, 103])
    """
    caller = "count_between"
    for end, name in ((a, "a"), (b, "b")):
        real = isinstance(end, (int, float, np.floating)) and not isinstance(end, bool)
        if not real:
            raise TypeError(
                f"{caller}: {name} is {end!r}; expected a real number, outside jit. The count is a "
                "shape of what follows."
            )
    if not a < b:
        raise ValueError(f"{caller}: a = {a}, b = {b}; expected a < b.")
    matrices = _matrices(A, M, caller)
    below = []
    for end in (a, b):
        negative = factorize_shifted(matrices, end, inertia=True).negative
        if isinstance(negative, jax.core.Tracer):
            raise TypeError(
                f"{caller}: the matrices are traced; expected concrete ones, outside jit. The "
                "count is a shape of what follows."
            )
        if int(negative) < 0:
            raise ValueError(
                f"{caller}: the pivots of A - {end} M do not tell its inertia; expected a regular "
                "matrix that needs no pivoting by rows. Move the end a little."
            )
        below.append(int(negative))
    return below[1] - below[0]


class Matrices(NamedTuple):
    """A and M as a caller gave them, their order, the dtype of the vectors, and who gave them."""

    a: Any
    m: Any
    n: int
    dtype: np.dtype
    caller: str


def factorize_shifted(
    matrices: Matrices, sigma: Any, *, definite: bool = False, inertia: bool = False
) -> ShiftInverse:
    """`shift_invert` of matrices that are known to fit each other."""
    n, dtype = matrices.n, matrices.dtype
    shift = jnp.asarray(0.0 if sigma is None else sigma, jnp.finfo(dtype).dtype)
    given = (_explicit(matrices.a), _explicit(matrices.m))
    a, m, shift = jax.lax.stop_gradient((*given, shift))
    if is_array(a) and (m is None or is_array(m)):
        a, m = a.astype(dtype), None if m is None else m.astype(dtype)
        factor = factor_diagonal if a.ndim == 1 and (m is None or m.ndim == 1) else factor_dense
        pole, negative, parts = factor(a, m, shift, definite, inertia)
        return ShiftInverse(pole, negative, parts, (a, m) if inertia else None, n, None)
    question = Question(n, dtype.name, definite, inertia)
    pole, negative, told = factor_sparse(matrices.caller, (a, m), shift, question)
    return ShiftInverse(pole, negative, told, None, n, question)


def shift_inverse_of(operator: Operator | None) -> ShiftInverse | None:
    """The factorisation that an operator multiplies by; None for others."""
    given = None if operator is None else pytree_of(operator)
    return given if isinstance(given, ShiftInverse) else None


def can_factorize(*matrices: Any) -> bool:
    """Whether `shift_invert` takes such matrices: their entries are known."""
    kinds = (SparseOperator, BCOO)
    return all(
        x is None or isinstance(x, kinds) or is_array(x) or scipy.sparse.issparse(x)
        for x in matrices
    )


def _matrices(A: Any, M: Any, caller: str) -> Matrices:
    """A and M, checked: their entries are known, and they fit each other."""
    if A is None:
        raise TypeError(f"{caller}: A is None; expected a matrix.")
    for x, name in ((A, "A"), (M, "M")):
        if not can_factorize(x):
            raise TypeError(
                f"{caller}: {name} is a {type(x).__name__}; expected an array, a SciPy sparse "
                "matrix, a SparseOperator or a BCOO. Products alone cannot be factorised."
            )
    n, dtype = _known(A, f"{caller}: A")
    if M is not None:
        order, other = _known(M, f"{caller}: M")
        if order != n:
            raise ValueError(f"{caller}: A has order {n}, M {order}; expected one order.")
        dtype = np.promote_types(dtype, other)
    check_floating(dtype, f"{caller}: A")
    return Matrices(A, M, n, np.dtype(jnp.zeros((), dtype).dtype), caller)


def _known(x: Any, name: str) -> tuple[int, np.dtype]:
    order, dtype = order_and_dtype(x, name)
    assert order is not None
    assert dtype is not None
    return order, dtype


def _explicit(x: Any) -> Any:
    """A matrix as a JAX array, a SparseOperator, a BCOO or None."""
    if scipy.sparse.issparse(x):
        return from_scipy(x)
    return jnp.asarray(x) if is_array(x) else x
