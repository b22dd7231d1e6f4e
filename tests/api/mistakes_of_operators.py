"""Mistakes with functions that solve a problem of A: rows for `tests.api.test_mistakes`.

name -> (call, type of the error, what was given, what is expected, what to do)
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.sparse.linalg

import jax_peig
from jax_peig import BlockProduct, minres, partial_eigh, partial_svd, singular_value_threshold

N = 12
DIAGONAL = np.arange(1.0, N + 1)
DENSE = np.diag(DIAGONAL)
SWAPPED = DENSE.dtype.newbyteorder()
SPARSE = scipy.sparse.csr_array(DENSE)
ONE = np.ones(N)
HOST = scipy.sparse.linalg.aslinearoperator(DENSE)


def traced(f, x=2):
    """Call f with a traced value in place of x."""
    return jax.eval_shape(f, x)


def by_numpy(v):
    return np.dot(DENSE, v)


def by_scipy(v):
    return SPARSE @ v


def by_value(v):
    return v if v[0] > 0 else -v


EIGEN = {
    "partial_eigh": partial_eigh,
    "eigenspace": jax_peig.eigenspace,
    "spectral_sum": functools.partial(jax_peig.spectral_sum, jnp.exp),
    "crossing": jax_peig.crossing,
}
SINGULAR = {
    "partial_svd": partial_svd,
    "singular_space": jax_peig.singular_space,
    "low_rank": jax_peig.low_rank,
    "singular_sum": functools.partial(jax_peig.singular_sum, jnp.exp),
    "ky_fan_norm": jax_peig.ky_fan_norm,
    "nuclear_norm": lambda a, k, **options: jax_peig.nuclear_norm(a, k, **options),
    "singular_value_threshold": lambda a, k, **options: singular_value_threshold(
        a, 1.0, k, **options
    ),
}
# The order of a function of one vector, as each family is told it.
ORDER = {**{name: {"n": N} for name in EIGEN}, **{name: {"shape": (N, N)} for name in SINGULAR}}
METHODS = "expected one of ('auto', 'dense', 'chebyshev', 'lobpcg', 'davidson', 'shift_invert')"
TRACED_PRODUCTS = {
    "NumPy": (by_numpy, "it gives a JAX array to NumPy", "Write it with jax.numpy"),
    "SciPy sparse": (by_scipy, "it multiplies by a SciPy sparse matrix", "operators.from_scipy(S)"),
    "if": (by_value, "it decides by the value of an array", "Write jnp.where"),
    "float": (lambda v: float(v[0]) * v, "it makes a Python number of an array", "Leave it an arr"),
    "mask": (lambda v: v[v > 0], "it picks entries by a mask", "Write jnp.where(mask, x, 0)"),
    "index": (
        lambda v: DIAGONAL.tolist()[v[0].astype(int)] * v,
        "it takes the value of an array as a Python integer",
        "Index a jax.numpy array",
    ),
}


def of_every(name, solve):
    """The mistakes that can be made with every function of A and k."""

    def call(a, k=2, **options):
        return lambda: solve(a, k=k, **options)

    rows = {
        "type: A is a list": (
            call(DENSE.tolist()),
            TypeError,
            "A is of type list",
            "expected an array",
            "Write jnp.asarray(A)",
        ),
        "type: A is a LinearOperator": (
            call(HOST),
            TypeError,
            "A is a scipy.sparse.linalg.LinearOperator",
            "expected a function of JAX arrays",
            "Write the product with jax.numpy",
        ),
        "type: A is a name": (
            call("A"),
            TypeError,
            "A is of type str",
            "expected an array",
            "give the object itself",
        ),
        "type: a BlockProduct of an array": (
            call(BlockProduct(DENSE), **ORDER[name]),
            TypeError,
            "A is a BlockProduct that holds a ndarray",
            "expected a function of a block",
            "Arrays are operators as they are",
        ),
        "shape: a batch of matrices": (
            call(DENSE[None]),
            ValueError,
            "A has shape (1, 12, 12)",
            "expected (m, n)" if name in SINGULAR else "expected a square matrix",
            "Batches go through jax.vmap",
        ),
        "dtype: A holds integers": (
            call(DENSE.astype(int)),
            TypeError,
            "A has dtype int64",
            "expected one of float32, float64, complex64, complex128",
            "A.astype(float)",
        ),
        "dtype: A in the other order of bytes": (
            call(DENSE.astype(SWAPPED)),
            TypeError,
            f"A has dtype {SWAPPED}",
            "expected one of float32, float64, complex64, complex128",
            "A.astype(float)",
        ),
        "name: a method of SciPy": (
            call(DENSE, method="arpack"),
            ValueError,
            "method='arpack'",
            METHODS,
            "Dense(), Chebyshev(), LOBPCG(), Davidson()",
        ),
        "name: an option of SciPy": (
            call(DENSE, maxiter=9),
            TypeError,
            *_unknown(name, "maxiter"),
        ),
        "traced: k": (
            lambda: traced(lambda k: solve(DENSE, k=k)),
            TypeError,
            "rank is " if name == "nuclear_norm" else "k is ",
            "expected a Python integer",
            "",
        ),
        "traced: tol": (
            lambda: traced(lambda tol: solve(DENSE, k=2, tol=tol)),
            TypeError,
            "tol is ",
            "expected a Python float",
            "it is compiled into the program",
        ),
    }
    for what, (product, given, do) in TRACED_PRODUCTS.items():
        made = call(product, **ORDER[name])
        rows[f"traced: {what} in the product"] = (made, ValueError, given, "", do)
    return {f"{name}, {mistake}": row for mistake, row in rows.items()}


def _unknown(name, option):
    if name == "partial_eigh":  # Python's own words
        return f"got an unexpected keyword argument '{option}'", "", ""
    whose = "partial_svd" if name in SINGULAR else "partial_eigh"
    return f"unknown option '{option}'", f"expected options of {whose}: ", "max_steps"


def which(word, do):
    return (
        lambda: partial_eigh(DENSE, k=2, which=word),
        ValueError,
        f"which={word!r}",
        "expected one of ('smallest', 'largest', 'nearest')",
        do,
    )


EIGH = {
    "partial_eigh, name: which as eigsh has it, SA": which("SA", "Write which='smallest'."),
    "partial_eigh, name: which as eigsh has it, LA": which("LA", "Write which='largest'."),
    "partial_eigh, name: which as eigsh has it, SM": which("SM", "Write sigma=0.0"),
    "partial_eigh, name: which as eigsh has it, LM": which(
        "LM", "Write which='largest' or which='smallest' (the largest in modulus stand at an end)"
    ),
    "partial_eigh, name: which as eigsh has it, BE": which("BE", "Write two calls"),
    "partial_eigh, name: which as eigs has it": which("sr", "Write which='smallest'."),
    "partial_eigh, name: which in capitals": which("Smallest", "Write which='smallest'."),
    "partial_eigh, name: which misspelt": which("largst", "Write which='largest'."),
    "partial_eigh, type: which is a number": (
        lambda: partial_eigh(DENSE, k=2, which=3),
        TypeError,
        "which=3",
        "expected one of ('smallest', 'largest', 'nearest')",
        "",
    ),
    "partial_eigh, traced: which": (
        lambda: traced(lambda w: partial_eigh(DENSE, k=2, which=w)),
        TypeError,
        "which=",
        "expected one of ('smallest', 'largest', 'nearest')",
        "It is compiled into the program",
    ),
    "partial_eigh, traced: n": (
        lambda: traced(lambda n: partial_eigh(by_numpy, k=2, n=n)),
        TypeError,
        "n is ",
        "expected a Python integer",
        "",
    ),
    "partial_eigh, traced: dtype": (
        lambda: traced(lambda t: partial_eigh(DENSE, k=2, dtype=t)),
        TypeError,
        "dtype is ",
        "expected one of float32, float64, complex64, complex128",
        "",
    ),
    "partial_eigh, type: M is a LinearOperator, n missing": (
        lambda: partial_eigh(by_numpy, HOST, k=2),
        TypeError,
        "M is a scipy.sparse.linalg.LinearOperator",
        "expected a function of JAX arrays",
        "Write the product with jax.numpy",
    ),
    "partial_eigh, type: OPinv is a LinearOperator": (
        lambda: partial_eigh(DENSE, k=2, sigma=1.0, OPinv=HOST),
        TypeError,
        "OPinv is a scipy.sparse.linalg.LinearOperator",
        "expected a function of JAX arrays",
        "Write the product with jax.numpy",
    ),
    "partial_eigh, type: M is a number": (
        lambda: partial_eigh(DENSE, 2.0, k=2),
        TypeError,
        "M is of type float",
        "expected an array",
        "Write lambda v: 2.0 * v",
    ),
    "partial_eigh, type: a preconditioner's name": (
        lambda: partial_eigh(DENSE, k=2, preconditioner="jacobi"),
        TypeError,
        "preconditioner is of type str",
        "expected an array",
        "give the object itself",
    ),
    "partial_eigh, dtype: A is a key": (
        lambda: partial_eigh(jax.random.key(0), k=1),
        TypeError,
        "A has dtype key<fry>",
        "expected one of float32, float64, complex64, complex128",
        "Convert it",
    ),
    "partial_eigh, shape: a rectangular array": (
        lambda: partial_eigh(DENSE[:3], k=2),
        ValueError,
        "A has shape (3, 12)",
        "expected a square matrix (n, n), or (n,)",
        "Take jax_peig.partial_svd for a rectangular A",
    ),
    "partial_eigh, shape: a rectangular sparse matrix": (
        lambda: partial_eigh(SPARSE[:3], k=2),
        ValueError,
        "A has shape (3, 12)",
        "expected a square matrix (n, n), or (n,)",
        "Take jax_peig.partial_svd for a rectangular A",
    ),
    "partial_eigh, shape: two functions without n": (
        lambda: partial_eigh(by_numpy, by_scipy, k=2),
        ValueError,
        "n is missing; A is a function and M a function, and neither tells its order",
        "give n=...",
        "or a starting guess v0, or A as an array",
    ),
    "partial_eigh, traced: NumPy in the preconditioner": (
        lambda: partial_eigh(DENSE, k=2, preconditioner=by_numpy),
        ValueError,
        "preconditioner applied to a vector (12,) of float64 failed: it gives a JAX array to NumPy",
        "",
        "Write it with jax.numpy",
    ),
    "partial_eigh, type: like holds a number": (
        lambda: partial_eigh(by_value, k=2, like={"u": ONE, "v": 1.0}),
        TypeError,
        "like holds a float",
        "expected arrays, or jax.ShapeDtypeStruct",
        "with jnp.asarray",
    ),
    "partial_eigh, type: like is empty": (
        lambda: partial_eigh(by_value, k=2, like={}),
        TypeError,
        "like has no leaves",
        "expected a vector, an array or a pytree of arrays",
        "",
    ),
    "partial_eigh, dtype: like of two dtypes": (
        lambda: partial_eigh(by_value, k=2, like=[ONE, ONE.astype(complex)]),
        TypeError,
        "like has leaves of dtype complex128, float64",
        "expected one of float32, float64, complex64, complex128, the same for all",
        "Convert them",
    ),
    "partial_eigh, dtype: a pytree v0 of integers": (
        lambda: partial_eigh(by_value, k=2, v0=[ONE.astype(int)]),
        TypeError,
        "v0 has leaves of dtype int64",
        "expected one of float32",
        "Convert them",
    ),
    "partial_eigh, shape: v0 of another shape than like": (
        lambda: partial_eigh(by_value, k=2, like=np.ones((3, 4)), v0=ONE),
        ValueError,
        "v0 has the structure (12,)",
        "expected that of like, (3, 4)",
        "or each leaf with one more axis, the last",
    ),
    "partial_eigh, shape: an array v0 of three axes": (
        lambda: partial_eigh(by_value, k=2, v0=np.ones((3, 2, 2))),
        TypeError,
        "v0 is a ndarray of shape (3, 2, 2)",
        "expected an array (n,) or (n, b)",
        "by like=...",
    ),
    "partial_eigh, shape: like of another order than A": (
        lambda: partial_eigh(DENSE, k=2, like=np.ones((3, 3))),
        ValueError,
        "the orders do not agree (A: 12, like: 9)",
        "expected one n",
        "",
    ),
    "partial_eigh, shape: A maps to another structure": (
        lambda: partial_eigh(lambda v: v["u"], k=2, like={"u": ONE}),
        ValueError,
        "A applied to a vector (12,) of float64 failed: its structure is (12,)",
        "expected {'u': (12,)}",
        "the shapes inside the product",
    ),
    "partial_eigh, dtype: A maps to two dtypes": (
        lambda: partial_eigh(
            lambda v: {"u": v["u"], "v": v["v"].astype("float32")}, k=2, like={"u": ONE, "v": ONE}
        ),
        ValueError,
        "its leaves have the dtypes float32, float64",
        "expected one dtype",
        "",
    ),
    "partial_svd, name: like": (
        lambda: partial_svd(DENSE, 2, like=ONE),
        TypeError,
        "unknown option 'like'",
        "",
        "",
    ),
    "spectral_sum, type: h is a number": (
        lambda: jax_peig.spectral_sum(3.0, DENSE, k=2),
        TypeError,
        "h is 3.0",
        "expected a function of one real scalar",
        "then R",
    ),
}

SVD = {
    "partial_svd, name: which": (
        lambda: partial_svd(DENSE, 2, which="SM"),
        TypeError,
        "unknown option 'which'",
        "expected none: the k largest singular values are computed",
        "Leave which away",
    ),
    "partial_svd, traced: shape": (
        lambda: traced(lambda s: partial_svd(by_numpy, 2, shape=s), np.array([N, N])),
        TypeError,
        "shape is ",
        "expected two integers (m, n)",
        "",
    ),
    "partial_svd, type: a function that is not linear": (
        lambda: partial_svd(jnp.sin, 2, shape=(N, N)),
        ValueError,
        "A is a function that JAX cannot transpose (Transpose rule",
        "expected a linear one",
        "Write A in linear operations",
    ),
    "partial_svd, type: the square of a vector": (
        lambda: partial_svd(lambda v: v * v, 2, shape=(N, N)),
        ValueError,
        "A is a function that JAX cannot transpose",
        "expected a linear one",
        "Write A in linear operations",
    ),
}

MINRES = {
    "minres, type: A is a list": (
        lambda: minres(DENSE.tolist(), DIAGONAL),
        TypeError,
        "A is of type list",
        "expected an array",
        "Write jnp.asarray(A)",
    ),
    "minres, type: A is a LinearOperator": (
        lambda: minres(HOST, DIAGONAL),
        TypeError,
        "A is a scipy.sparse.linalg.LinearOperator",
        "expected a function of JAX arrays",
        "Write the product with jax.numpy",
    ),
    "minres, type: b is text": (
        lambda: minres(DENSE, "b"),
        TypeError,
        "b holds a str",
        "expected a pytree of floating arrays",
        "Convert it",
    ),
    "minres, shape: b of another length": (
        lambda: minres(DENSE, np.ones(5)),
        ValueError,
        "A has shape (12, 12) and b 5 entries",
        "expected (5, 5)",
        "Batches go through jax.vmap",
    ),
    "minres, shape: the diagonal of A": (
        lambda: minres(DIAGONAL, DIAGONAL),
        ValueError,
        "A has shape (12,) and b 12 entries",
        "expected (12, 12)",
        "",
    ),
    "minres, shape: a sparse A of another order": (
        lambda: minres(SPARSE, np.ones(5)),
        ValueError,
        "A applied to b failed",
        "Expected a product with x of the structure of b",
        "check shapes and dtypes",
    ),
    "minres, dtype: b holds integers": (
        lambda: minres(DENSE, np.arange(N)),
        TypeError,
        "b has dtype int64",
        "expected a floating one",
        ".astype(float)",
    ),
    "minres, dtype: A is complex and b is not": (
        lambda: minres(lambda x: x.astype(complex), DIAGONAL),
        TypeError,
        "the result of A is complex and b is float64",
        "",
        "give a complex b",
    ),
    "minres, name: an option of SciPy": (
        lambda: minres(DENSE, DIAGONAL, rtol=1e-5),
        TypeError,
        "got an unexpected keyword argument 'rtol'",
        "",
        "",
    ),
    "minres, traced: maxiter": (
        lambda: traced(lambda m: minres(DENSE, DIAGONAL, maxiter=m)),
        TypeError,
        "maxiter is ",
        "expected a Python int",
        "it is compiled into the program",
    ),
    "minres, traced: NumPy in the preconditioner": (
        lambda: minres(DENSE, DIAGONAL, M=by_numpy),
        ValueError,
        "M applied to b failed: it gives a JAX array to NumPy",
        "",
        "Write it with jax.numpy",
    ),
}
for _what, (_product, _given, _do) in TRACED_PRODUCTS.items():
    MINRES[f"minres, traced: {_what} in the product"] = (
        functools.partial(minres, _product, DIAGONAL),
        ValueError,
        _given,
        "",
        _do,
    )

MISTAKES = {**EIGH, **SVD, **MINRES}
for _name, _solve in {**EIGEN, **SINGULAR}.items():
    MISTAKES.update(of_every(_name, _solve))
