"""Mistakes with those who make operators, sparse ones and preconditioners: see `test_mistakes`.

name -> (call, type of the error, what was given, what is expected, what to do)
"""

import numpy as np
import scipy.sparse

from jax_peig.operators import from_scipy
from jax_peig.preconditioners import (
    block_jacobi,
    fourier,
    jacobi,
    laplacian_symbol,
    multigrid,
    polynomial,
    teter,
)
from tests.api.mistakes_of_operators import DENSE, DIAGONAL, SPARSE, by_numpy, traced
from tests.api.mistakes_of_values import FLOATING, ONES, unknown

MAKERS = {
    "from_scipy, type: an array": (
        lambda: from_scipy(DENSE),
        TypeError,
        "S is of type ndarray",
        "expected a SciPy sparse matrix",
        "Arrays are operators as they are",
    ),
    "from_scipy, shape: a sparse vector": (
        lambda: from_scipy(scipy.sparse.coo_array(DIAGONAL)),
        ValueError,
        "S has shape (12,)",
        "expected a matrix (n, m)",
        "Reshape it",
    ),
    "from_scipy, dtype: integers": (
        lambda: from_scipy(SPARSE.astype(int)),
        TypeError,
        "S has dtype int64",
        "expected one of float32, float64, complex64, complex128",
        "S.astype(float)",
    ),
    "from_scipy, name: an unknown option": (
        lambda: from_scipy(SPARSE, format="csr"),
        TypeError,
        "got an unexpected keyword argument 'format'",
        "",
        "",
    ),
    "from_scipy, traced: S": (
        lambda: traced(from_scipy, DENSE),
        TypeError,
        "S is of type ",
        "expected a SciPy sparse matrix",
        "",
    ),
    "SparseOperator.with_values, type: text": (
        lambda: from_scipy(SPARSE).with_values("x"),
        TypeError,
        "values is of type str",
        "expected an array",
        "",
    ),
    "SparseOperator.with_values, shape: another number of entries": (
        lambda: from_scipy(SPARSE).with_values(np.ones(3)),
        ValueError,
        "values have shape (3,)",
        "expected (12,), one for each stored entry",
        "by rows and then by columns",
    ),
    "polynomial, type: A is a list": (
        lambda: polynomial(DENSE.tolist(), 2, 1.0, 2.0),
        TypeError,
        "A is of type list",
        "expected an array",
        "Write jnp.asarray(A)",
    ),
    "polynomial, type: lower is text": (
        lambda: polynomial(DENSE, 2, "1", 2.0),
        TypeError,
        "lower is '1'",
        "expected a real number",
        "",
    ),
    "polynomial, shape: a rectangular array": (
        lambda: polynomial(DENSE[:3], 2, 1.0, 2.0),
        ValueError,
        "A has shape (3, 12)",
        "expected a square matrix",
        "",
    ),
    "polynomial, dtype: A holds integers": (
        lambda: polynomial(DENSE.astype(int), 2, 1.0, 2.0),
        TypeError,
        "A has dtype int64",
        "expected one of float32, float64, complex64, complex128",
        "A.astype(float)",
    ),
    "polynomial, name: an unknown option": (
        lambda: polynomial(DENSE, 2, 1.0, 2.0, sigma=0.0),
        TypeError,
        "got an unexpected keyword argument 'sigma'",
        "",
        "",
    ),
    "polynomial, traced: degree": (
        lambda: traced(lambda d: polynomial(DENSE, d, 1.0, 2.0)),
        ValueError,
        "degree is ",
        "expected a Python integer of at least 1",
        "",
    ),
    "polynomial, traced: NumPy in the product": (
        lambda: polynomial(by_numpy, 2, 1.0, 2.0) @ DIAGONAL,
        ValueError,
        "A applied to a vector (12,) of float64 failed: it gives a JAX array to NumPy",
        "",
        "Write it with jax.numpy",
    ),
}

GRID = "expected an array (N1, ..., Nd)"
PRECONDITIONERS = {
    "jacobi, type: the diagonal is a list": (
        lambda: jacobi([1.0]),
        TypeError,
        "diagonal is a list",
        "expected an array (n,)",
        "as jnp.diagonal(A)",
    ),
    "jacobi, type: shift is text": (
        lambda: jacobi(ONES, "x"),
        TypeError,
        "shift is 'x'",
        "expected a real number",
        "",
    ),
    "jacobi, shape: the matrix": (
        lambda: jacobi(DENSE),
        ValueError,
        "diagonal has shape (12, 12)",
        "expected an array (n,)",
        "as jnp.diagonal(A)",
    ),
    "jacobi, dtype: integers": (
        lambda: jacobi(np.arange(3)),
        TypeError,
        "diagonal has dtype int64",
        FLOATING,
        "Convert it",
    ),
    "jacobi, name: an unknown option": unknown(lambda: jacobi(ONES, sigma=1.0), "sigma"),
    "block_jacobi, type: a function": (
        lambda: block_jacobi(by_numpy, size=2),
        TypeError,
        "blocks is a function",
        "expected an array (n, n) with a size",
        "",
    ),
    "block_jacobi, shape: a rectangular sparse matrix": (
        lambda: block_jacobi(SPARSE[:3], size=2),
        ValueError,
        "blocks has shape (3, 12)",
        "expected a square matrix",
        "",
    ),
    "block_jacobi, dtype: integers": (
        lambda: block_jacobi(SPARSE.astype(int), size=2),
        TypeError,
        "blocks has dtype int64",
        FLOATING,
        "blocks.astype(float)",
    ),
    "block_jacobi, name: an unknown option": unknown(
        lambda: block_jacobi(DENSE, block_size=2), "block_size"
    ),
    "block_jacobi, traced: size": (
        lambda: traced(lambda s: block_jacobi(DENSE, s)),
        ValueError,
        "size is ",
        "expected a Python integer of at least 1",
        "",
    ),
    "fourier, type: the symbol is text": (
        lambda: fourier("x"),
        TypeError,
        "symbol is a str",
        GRID,
        "",
    ),
    "fourier, shape: no axis": (
        lambda: fourier(np.ones(())),
        ValueError,
        "symbol has shape ()",
        GRID,
        "",
    ),
    "fourier, dtype: integers": (
        lambda: fourier(np.arange(3)),
        TypeError,
        "symbol has dtype int64",
        FLOATING,
        "Convert it",
    ),
    "fourier, name: an unknown option": unknown(lambda: fourier(ONES, shift=1.0), "shift"),
    "laplacian_symbol, type: spacing is text": (
        lambda: laplacian_symbol(4, "x"),
        TypeError,
        "spacing is 'x'",
        "expected a Python number",
        "",
    ),
    "laplacian_symbol, shape: no axis": (
        lambda: laplacian_symbol(()),
        ValueError,
        "shape is ()",
        "expected the points along each axis",
        "",
    ),
    "laplacian_symbol, dtype: a complex spacing": (
        lambda: laplacian_symbol(4, 1j),
        TypeError,
        "spacing is 1j",
        "expected a Python number",
        "",
    ),
    "laplacian_symbol, name: an unknown kind": (
        lambda: laplacian_symbol(4, kind="fd"),
        ValueError,
        "kind='fd'",
        "expected 'spectral' or 'finite difference'",
        "",
    ),
    "laplacian_symbol, traced: shape": (
        lambda: traced(laplacian_symbol),
        ValueError,
        "shape is ",
        "expected a Python integer of at least 1",
        "",
    ),
    "laplacian_symbol, traced: spacing": (
        lambda: traced(lambda h: laplacian_symbol(4, h), 0.5),
        TypeError,
        "spacing is ",
        "expected a Python number",
        "which is not traced",
    ),
    "multigrid, type: an array": (
        lambda: multigrid(DENSE),
        TypeError,
        "S is of type ndarray",
        "expected a SciPy sparse matrix",
        "Write scipy.sparse.csr_array(S)",
    ),
    "multigrid, type: near_nullspace is a list": (
        lambda: multigrid(SPARSE, near_nullspace=[1.0]),
        TypeError,
        "near_nullspace is a list",
        "expected an array (12, c)",
        "",
    ),
    "multigrid, shape: a rectangular matrix": (
        lambda: multigrid(SPARSE[:3]),
        ValueError,
        "S has shape (3, 12)",
        "expected a square matrix (n, n)",
        "",
    ),
    "multigrid, shape: near_nullspace is one vector": (
        lambda: multigrid(SPARSE, near_nullspace=DIAGONAL),
        ValueError,
        "near_nullspace has shape (12,)",
        "expected (12, c)",
        "vectors as columns",
    ),
    "multigrid, dtype: integers": (
        lambda: multigrid(SPARSE.astype(int)),
        TypeError,
        "S has dtype int64",
        FLOATING,
        "S.astype(float)",
    ),
    "multigrid, name: an unknown option": unknown(lambda: multigrid(SPARSE, B=DENSE), "B"),
    "multigrid, traced: S": (
        lambda: traced(multigrid, DENSE),
        TypeError,
        "S is of type ",
        "expected a SciPy sparse matrix",
        "Write scipy.sparse.csr_array(S)",
    ),
    "multigrid, traced: max_coarse": (
        lambda: traced(lambda m: multigrid(SPARSE, max_coarse=m)),
        ValueError,
        "max_coarse is ",
        "expected a Python integer of at least 1",
        "",
    ),
    "teter, type: reference is text": (
        lambda: teter(ONES, "x"),
        TypeError,
        "reference is 'x'",
        "expected a real number",
        "",
    ),
    "teter, shape: no axis": (
        lambda: teter(np.ones(()), 1.0),
        ValueError,
        "kinetic has shape ()",
        GRID,
        "",
    ),
    "teter, dtype: integers": (
        lambda: teter(np.arange(3), 1.0),
        TypeError,
        "kinetic has dtype int64",
        FLOATING,
        "Convert it",
    ),
    "teter, name: an unknown option": unknown(lambda: teter(ONES, 1.0, kind="x"), "kind"),
}

MISTAKES = {**MAKERS, **PRECONDITIONERS}
