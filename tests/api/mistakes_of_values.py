"""Mistakes with functions of arrays: rows for `tests.api.test_mistakes`.

name -> (call, type of the error, what was given, what is expected, what to do)
"""

import jax.numpy as jnp
import numpy as np

from jax_peig import (
    Eigenspace,
    PartialEigh,
    SingularSpace,
    density,
    derivative_report,
    hermitian_function,
    partial_eigh,
    project_gauge,
    projector_apply,
    singular_apply,
    spectral_apply,
)
from jax_peig.bounds import interlacing, kato_temple, weyl_bounds
from tests.api.mistakes_of_operators import DENSE, DIAGONAL, N, traced

FLOATING = "expected one of float32, float64, complex64, complex128"
# Results as the solvers return them, without a solve.
SPACE = Eigenspace(jnp.eye(2), jnp.eye(N, 2), None)
BATCH = Eigenspace(jnp.ones((3, 2, 2)), jnp.ones((3, N, 2)), None)
SINGULAR = SingularSpace(jnp.eye(N, 2), jnp.eye(2), jnp.eye(N, 2), None)
PAIRS = PartialEigh(jnp.ones(2), jnp.eye(N, 2), None)
GRIDS = PartialEigh(jnp.ones(2), jnp.ones((3, 4, 2)), None)
ONES = np.ones(3)


def smallest(a):
    return partial_eigh(a, k=1).eigenvalues[0]


def by_numpy(a):
    return smallest(jnp.asarray(np.asarray(a)))


def unknown(call, option):
    """Python's own error for a keyword that a function does not have."""
    return call, TypeError, f"got an unexpected keyword argument '{option}'", "", ""


# Functions of h, as functions of (h, the Eigenspace or its R).
OF_H = {
    "hermitian_function": lambda h, space: hermitian_function(h, space.rayleigh),
    "density": density,
    "spectral_apply": lambda h, space: spectral_apply(h, space, DIAGONAL),
    "singular_apply": lambda h, _: singular_apply(h, SINGULAR, DIAGONAL),
}
OF_SPACE = {
    "density": lambda space: density(jnp.exp, space),
    "spectral_apply": lambda space: spectral_apply(jnp.exp, space, DIAGONAL),
    "projector_apply": lambda space: projector_apply(space, DIAGONAL),
}
OF_B = {
    "spectral_apply": lambda b: spectral_apply(jnp.exp, SPACE, b),
    "projector_apply": lambda b: projector_apply(SPACE, b),
}


def of_h(name, function):
    failed = "h of a scalar float64 failed: it "
    rows = {
        "type: h is a number": (
            3.0,
            "h is 3.0",
            "expected a function of one real scalar",
            "then R",
        ),
        "type: h is NumPy's": (
            np.exp,
            f"{failed}gives a JAX array to NumPy",
            "",
            "Write it with jax.numpy",
        ),
        "type: h is Python's": (
            lambda x: float(x) ** 2,
            f"{failed}makes a Python number",
            "",
            "Leave it an array",
        ),
        "type: h decides": (
            lambda x: x if x > 0 else -x,
            f"{failed}decides by the value",
            "",
            "Write jnp.where",
        ),
        "shape: h returns a vector": (
            lambda x: x * jnp.ones(2),
            "h of a scalar float64 returned",
            "expected a real scalar",
            "",
        ),
        "dtype: h returns a complex number": (
            lambda x: x.astype(complex),
            "h of a scalar float64 returned",
            "expected a real scalar",
            "",
        ),
    }
    return {
        f"{name}, {mistake}": (lambda h=h: function(h, SPACE), TypeError, *words)
        for mistake, (h, *words) in rows.items()
    }


def of_space(name, function):
    return {
        f"{name}, type: pairs in place of the space": (
            lambda: function(PAIRS),
            TypeError,
            "space is of type PartialEigh",
            "expected the Eigenspace that eigenspace(...) returns",
            "",
        ),
        f"{name}, shape: a batch of spaces": (
            lambda: function(BATCH),
            ValueError,
            "space has a basis of shape (3, 12, 2)",
            "expected (n, k)",
            "Batches go through jax.vmap",
        ),
    }


def of_b(name, function):
    expected = "expected a floating array (n,) or (n, c)"
    return {
        f"{name}, type: b is a list": (
            lambda: function([1.0] * N),
            TypeError,
            "b is of list",
            expected,
            "jnp.asarray(b, float)",
        ),
        f"{name}, shape: b of another length": (
            lambda: function(ONES),
            ValueError,
            "b has shape (3,)",
            "expected (n,) or (n, c)",
            "n = 12",
        ),
        f"{name}, dtype: b holds integers": (
            lambda: function(np.arange(N)),
            TypeError,
            "b is of int64",
            expected,
            "(b, float)",
        ),
    }


SPECTRAL = {
    "hermitian_function, type: R is a list": (
        lambda: hermitian_function(jnp.exp, [[1.0]]),
        TypeError,
        "R is of list",
        "expected an array of float32",
        "jnp.asarray(R, float)",
    ),
    "hermitian_function, shape: R is rectangular": (
        lambda: hermitian_function(jnp.exp, DENSE[:3]),
        ValueError,
        "R has shape (3, 12)",
        "expected (k, k)",
        "Use jax.vmap for batches",
    ),
    "hermitian_function, dtype: R holds integers": (
        lambda: hermitian_function(jnp.exp, DENSE.astype(int)),
        TypeError,
        "R is of int64",
        "expected an array of float32",
        "jnp.asarray(R, float)",
    ),
    "hermitian_function, name: an unknown option": unknown(
        lambda: hermitian_function(jnp.exp, DENSE, k=2), "k"
    ),
    "density, name: an unknown option": unknown(lambda: density(jnp.exp, SPACE, k=2), "k"),
    "spectral_apply, name: an unknown option": unknown(
        lambda: spectral_apply(jnp.exp, SPACE, DIAGONAL, k=2), "k"
    ),
    "singular_apply, type: a space of eigenvectors": (
        lambda: singular_apply(jnp.exp, SPACE, DIAGONAL),
        TypeError,
        "space is of type Eigenspace",
        "expected the SingularSpace that singular_space(...) returns",
        "",
    ),
    "singular_apply, name: sides": (
        lambda: singular_apply(None, SINGULAR, DIAGONAL, sides="left"),
        ValueError,
        "sides is 'left'",
        "expected one of UV, VU, UU, VV",
        "",
    ),
    "singular_apply, shape: b of another length": (
        lambda: singular_apply(None, SINGULAR, ONES),
        ValueError,
        "b has shape (3,)",
        "expected 12 rows",
        "sides='UV'",
    ),
    "singular_apply, shape: a batch of spaces": (
        lambda: singular_apply(None, SINGULAR._replace(left=jnp.ones((3, N, 2))), DIAGONAL),
        ValueError,
        "space has left vectors of shape (3, 12, 2)",
        "expected (m, k)",
        "Batches go through jax.vmap",
    ),
    "singular_apply, dtype: b holds integers": (
        lambda: singular_apply(None, SINGULAR, np.arange(N)),
        TypeError,
        "b is of int64",
        "expected a floating array",
        "(b, float)",
    ),
    "projector_apply, name: an unknown option": unknown(
        lambda: projector_apply(SPACE, DIAGONAL, M=DENSE), "M"
    ),
    "project_gauge, type: a part of the result": (
        lambda: project_gauge(PAIRS[:2], jnp.ones((N, 2))),
        TypeError,
        "result is of type tuple",
        "expected the PartialEigh that partial_eigh(...) returns",
        "",
    ),
    "project_gauge, type: an Eigenspace": (
        lambda: project_gauge(SPACE, jnp.ones((N, 2))),
        TypeError,
        "result is of type Eigenspace",
        "expected the PartialEigh that partial_eigh(...) returns",
        "",
    ),
    "project_gauge, type: the cotangent is a list": (
        lambda: project_gauge(PAIRS, [1.0]),
        TypeError,
        "cotangent is of list",
        "expected a floating array (12, 2)",
        "jnp.asarray(cotangent, float)",
    ),
    "project_gauge, shape: flat, of pairs that are not": (
        lambda: project_gauge(GRIDS, jnp.ones((N, 2))),
        ValueError,
        "cotangent has the structure (12, 2)",
        "expected that of the eigenvectors, (3, 4, 2)",
        "",
    ),
    "spectral_apply, shape: b is flat, and the basis is not": (
        lambda: spectral_apply(
            jnp.exp, Eigenspace(jnp.eye(2), jnp.ones((3, 4, 2)), None), DIAGONAL
        ),
        ValueError,
        "b has the structure (12,)",
        "expected that of a vector, (3, 4)",
        "or each leaf with one more axis",
    ),
    "project_gauge, shape: more columns": (
        lambda: project_gauge(PAIRS, jnp.ones((N, 3))),
        ValueError,
        "cotangent has shape (12, 3)",
        "expected that of the eigenvectors, (12, 2)",
        "",
    ),
    "project_gauge, dtype: integers": (
        lambda: project_gauge(PAIRS, np.ones((N, 2), int)),
        TypeError,
        "cotangent is of int64",
        "expected a floating array (12, 2)",
        "jnp.asarray(cotangent, float)",
    ),
    "project_gauge, name: an unknown option": unknown(
        lambda: project_gauge(PAIRS, jnp.ones((N, 2)), k=2), "k"
    ),
}

REPORT = {
    "derivative_report, type: f is a number": (
        lambda: derivative_report(3, ONES),
        TypeError,
        "f is 3",
        "expected a function that calls partial_eigh",
        "then its arguments",
    ),
    "derivative_report, type: f returns pairs": (
        lambda: derivative_report(lambda a: PAIRS, ONES),
        TypeError,
        "f returns a PartialEigh",
        "expected a real scalar",
        "Report a number that depends on it",
    ),
    "derivative_report, type: an argument is text": (
        lambda: derivative_report(smallest, "a"),
        TypeError,
        "argument 0 of f is of str",
        "expected floating numbers",
        "or choose other arguments by argnums",
    ),
    "derivative_report, shape: f returns a vector": (
        lambda: derivative_report(lambda a: a, ONES),
        TypeError,
        "f returns shape (3,) of float64",
        "expected a real scalar",
        "Report a number that depends on it",
    ),
    "derivative_report, dtype: an argument holds integers": (
        lambda: derivative_report(smallest, DENSE.astype(int)),
        TypeError,
        "argument 0 of f is of int64",
        "expected floating numbers",
        "Convert it",
    ),
    "derivative_report, name: no such argument": (
        lambda: derivative_report(smallest, DENSE, argnums=2),
        ValueError,
        "argnums is 2, and f is given 1 arguments",
        "expected their numbers",
        "counted from 0",
    ),
    "derivative_report, name: an argument by its name": (
        lambda: derivative_report(smallest, DENSE, argnums="a"),
        TypeError,
        "argnums is 'a'",
        "expected a Python integer",
        "",
    ),
    "derivative_report, traced: an argument": (
        lambda: traced(lambda a: derivative_report(smallest, a).gradient, DENSE),
        TypeError,
        "an argument of f is traced",
        "expected concrete ones",
        "Call it outside of jit, grad and vmap",
    ),
    "derivative_report, traced: NumPy in f": (
        lambda: derivative_report(by_numpy, np.eye(2)),
        TypeError,
        "f cannot be differentiated: it gives a JAX array to NumPy",
        "",
        "Write it with jax.numpy",
    ),
}

BOUNDS = {}
for _name, _bound in {
    "weyl_bounds": lambda w: weyl_bounds(w, 1.0),
    "interlacing": interlacing,
    "kato_temple": lambda w: kato_temple(w, 1.0, 1.0),
}.items():
    for _kind, _w, _given in (
        ("type: w is a list", [1.0], "w is of list"),
        ("dtype: w holds integers", np.arange(3), "w is of int64"),
        ("dtype: w is complex", 1j * ONES, "w is of complex128"),
    ):
        BOUNDS[f"{_name}, {_kind}"] = (
            lambda bound=_bound, w=_w: bound(w),
            TypeError,
            _given,
            "expected real floating numbers",
            "jnp.asarray(w, float)",
        )
BOUNDS |= {
    "weyl_bounds, shape: another number of errors": (
        lambda: weyl_bounds(ONES, np.ones(2)),
        ValueError,
        "w has shape (3,) and error (2,)",
        "expected equal ones",
        "or a scalar error",
    ),
    "interlacing, shape: a scalar": (
        lambda: interlacing(1.0),
        ValueError,
        "w is a scalar",
        "expected (..., k)",
        "",
    ),
    "kato_temple, shape: another number of residuals": (
        lambda: kato_temple(ONES, np.ones(2), 1.0),
        ValueError,
        "w has shape (3,) and residual (2,)",
        "expected equal ones",
        "or a scalar residual",
    ),
    "kato_temple, shape: another number of gaps": (
        lambda: kato_temple(ONES, ONES, np.ones(2)),
        ValueError,
        "w has shape (3,) and gap (2,)",
        "expected equal ones",
        "or a scalar gap",
    ),
    "weyl_bounds, name: an unknown option": unknown(lambda: weyl_bounds(ONES, 1.0, k=2), "k"),
    "interlacing, name: an unknown option": unknown(lambda: interlacing(ONES, sign=-1), "sign"),
    "kato_temple, name: an unknown option": unknown(lambda: kato_temple(ONES, 1.0, 1.0, k=2), "k"),
    "interlacing, traced: rank": (
        lambda: traced(lambda r: interlacing(ONES, r)),
        TypeError,
        "rank is ",
        "expected a Python integer",
        "",
    ),
    "interlacing, traced: positive": (
        lambda: traced(lambda p: interlacing(ONES, positive=p), True),
        TypeError,
        "positive is ",
        "expected True or False",
        "",
    ),
}

MISTAKES = {**SPECTRAL, **REPORT, **BOUNDS}
for _family, _functions in ((of_h, OF_H), (of_space, OF_SPACE), (of_b, OF_B)):
    for _name, _function in _functions.items():
        MISTAKES.update(_family(_name, _function))
