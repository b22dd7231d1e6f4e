"""Bad values and combinations of arguments: one clear error, before anything is traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from jax_peig import BlockProduct, Derivative, partial_eigh

N = 12
DIAGONAL = np.arange(1.0, N + 1)
DENSE = np.diag(DIAGONAL)
HALF = np.ones(N, np.float32)
WRONG_AT_3 = np.where(np.arange(N) == 3, 0.0, DIAGONAL)


def product(v):
    """Multiply by an operator that only knows its product."""
    return 2 * v


def check(kind, words, call):
    """``call`` raises exactly ``kind``, with all of ``words`` in its text."""
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert type(caught.value) is kind, f"{type(caught.value)}: {text}"
    missing = [w for w in words if w not in text]
    assert not missing, f"{missing} not in: {text}"


# What is wrong with an argument of partial_eigh: (A, keywords) -> type, what the text has to name.
CASES = {
    "k missing": (DENSE, {}, TypeError, ["k is missing", "k=..."]),
    "k zero": (DENSE, {"k": 0}, ValueError, ["k = 0", "n = 12", "1 <= k <= n"]),
    "k negative": (DENSE, {"k": -1}, ValueError, ["k = -1", "1 <= k <= n"]),
    "k too large": (DENSE, {"k": 13}, ValueError, ["k = 13", "n = 12", "1 <= k <= n"]),
    "k float": (DENSE, {"k": 2.0}, TypeError, ["k is 2.0", "integer"]),
    "k bool": (DENSE, {"k": True}, TypeError, ["k is True", "integer"]),
    "k NumPy bool": (DENSE, {"k": np.True_}, TypeError, ["k is", "True", "integer"]),
    "k text": (DENSE, {"k": "2"}, TypeError, ["k is '2'", "integer"]),
    "M is k": (DENSE, {"M": 3}, TypeError, ["M is the integer 3", "k=3"]),
    "method None": (DENSE, {"k": 2, "method": None}, TypeError, ["method=None", "'auto'"]),
    "lobpcg, large k": (
        DENSE,
        {"k": 5, "method": "lobpcg"},
        ValueError,
        ["'lobpcg'", "k = 5", "n = 12", "3 k <= n", "method='dense'"],
    ),
    "tol text": (DENSE, {"k": 2, "tol": "x"}, TypeError, ["tol is 'x'", "str", "Python float"]),
    "tol bool": (DENSE, {"k": 2, "tol": True}, TypeError, ["tol is True", "bool", "Python float"]),
    "tol array": (DENSE, {"k": 2, "tol": np.ones(2)}, TypeError, ["tol is", "ndarray", "None for"]),
    "tol zero": (DENSE, {"k": 2, "tol": 0.0}, ValueError, ["tol is 0.0", "positive"]),
    "tol NaN": (DENSE, {"k": 2, "tol": float("nan")}, ValueError, ["tol is nan", "positive"]),
    "max_steps float": (
        DENSE,
        {"k": 2, "max_steps": 10.0},
        TypeError,
        ["max_steps is 10.0", "float", "Python int"],
    ),
    "max_steps zero": (DENSE, {"k": 2, "max_steps": 0}, ValueError, ["max_steps is 0", "positive"]),
    "degeneracy_tol negative": (
        DENSE,
        {"k": 2, "degeneracy_tol": -1.0},
        ValueError,
        ["degeneracy_tol is -1.0", "positive"],
    ),
    "degeneracy_tol text": (
        DENSE,
        {"k": 2, "degeneracy_tol": "x"},
        TypeError,
        ["degeneracy_tol is 'x'", "Python float"],
    ),
    "degeneracy_tol array": (
        DENSE,
        {"k": 2, "degeneracy_tol": np.ones(2)},
        TypeError,
        ["degeneracy_tol is", "Python float"],
    ),
    "derivative": (
        DENSE,
        {"k": 2, "derivative": "cg"},
        TypeError,
        ["derivative is 'cg'", "Derivative(...)"],
    ),
    "key a number": (DENSE, {"k": 2, "key": 0}, TypeError, ["key is 0", "jax.random.key(0)"]),
    "key an array": (
        DENSE,
        {"k": 2, "key": np.ones(2)},
        TypeError,
        ["key is array", "jax.random.key(0)"],
    ),
    "unknown keyword": (DENSE, {"k": 2, "wich": "largest"}, TypeError, ["wich", "unexpected"]),
    "n missing": (product, {"k": 2}, ValueError, ["n is missing", "n=...", "v0"]),
    "n float": (product, {"k": 2, "n": 3.5}, TypeError, ["n is 3.5", "integer"]),
    "n zero": (product, {"k": 2, "n": 0}, ValueError, ["n is 0", "at least 1"]),
    "n and A": (DENSE, {"k": 2, "n": 5}, ValueError, ["do not agree", "n: 5", "A: 12"]),
    "n and v0": (
        product,
        {"k": 2, "n": 4, "v0": np.ones(5)},
        ValueError,
        ["do not agree", "n: 4", "v0: 5"],
    ),
    "A and M": (DENSE, {"k": 2, "M": np.ones(5)}, ValueError, ["do not agree", "A: 12", "M: 5"]),
    "A and v0": (
        DENSE,
        {"k": 2, "v0": np.ones((2, N))},
        ValueError,
        ["do not agree", "A: 12", "v0: 2"],
    ),
    "v0 list": (DENSE, {"k": 2, "v0": [1.0] * N}, TypeError, ["v0 is a list", "(n,) or (n, b)"]),
    "v0 of three axes": (
        DENSE,
        {"k": 2, "v0": np.ones((N, 2, 2))},
        TypeError,
        ["v0 is a ndarray", "(12, 2, 2)", "(n,) or (n, b)"],
    ),
    "v0 without axes": (DENSE, {"k": 2, "v0": jnp.ones(())}, TypeError, ["v0", "()", "(n,)"]),
    "v0 integer": (
        DENSE,
        {"k": 2, "v0": np.ones(N, int)},
        TypeError,
        ["v0 has dtype int64", "floating"],
    ),
    "v0 complex, dtype real": (
        DENSE,
        {"k": 2, "v0": np.ones(N, complex), "dtype": np.float64},
        TypeError,
        ["v0 is complex", "dtype float64", "complex dtype"],
    ),
    "dtype integer": (
        product,
        {"k": 2, "n": N, "dtype": int},
        TypeError,
        ["dtype is int64", "float32", "complex128"],
    ),
    "dtype half": (
        product,
        {"k": 2, "n": N, "dtype": np.float16},
        TypeError,
        ["dtype is float16", "float32"],
    ),
    "dtype unknown": (
        product,
        {"k": 2, "n": N, "dtype": "nonsense"},
        TypeError,
        ["nonsense", "dtype", "float64"],
    ),
    "A boolean": (DENSE > 0, {"k": 2}, TypeError, ["A has dtype bool", ".astype(float)"]),
    "A half": (DENSE.astype(np.float16), {"k": 2}, TypeError, ["A has dtype float16", "float32"]),
    "A sparse integer": (
        scipy.sparse.csr_array(DENSE.astype(int)),
        {"k": 2},
        TypeError,
        ["A has dtype int64", ".astype(float)"],
    ),
    "A scalar": (np.ones(()), {"k": 1}, ValueError, ["A has shape ()", "square"]),
    "A empty": (np.ones((0, 0)), {"k": 1}, ValueError, ["k = 1", "n = 0"]),
    "A None": (None, {"k": 1, "n": 3}, TypeError, ["A is None", "expected an operator"]),
    "A complex, dtype real": (
        DENSE.astype(complex),
        {"k": 2, "dtype": np.float64},
        TypeError,
        ["A has dtype complex128", "float64", "dtype=complex128"],
    ),
    "A double, dtype single": (
        DENSE,
        {"k": 2, "dtype": np.float32},
        TypeError,
        ["A has dtype float64", "float32", "dtype=float64"],
    ),
    "M integer": (
        DENSE,
        {"k": 2, "M": np.ones(N, int)},
        TypeError,
        ["M has dtype int64", "M.astype(float)"],
    ),
    "M not square": (DENSE, {"k": 2, "M": DENSE[:3]}, ValueError, ["M has shape (3, 12)"]),
    "M diagonal zero": (
        DENSE,
        {"k": 2, "M": WRONG_AT_3},
        ValueError,
        ["M is not positive definite", "0.0 at 3", "positive", "degrees of freedom"],
    ),
    "M diagonal negative": (
        DENSE,
        {"k": 2, "M": jnp.asarray(-DIAGONAL)},
        ValueError,
        ["M is not positive definite", "-12.0 at 11", "positive"],
    ),
    "M with a zero on its diagonal": (
        DENSE,
        {"k": 2, "M": np.diag(WRONG_AT_3)},
        ValueError,
        ["M is not positive definite", "0.0 at 3"],
    ),
    "M diagonal complex": (
        DENSE.astype(complex),
        {"k": 2, "M": DIAGONAL + 2j * (np.arange(N) == 4)},
        ValueError,
        ["M is not Hermitian", "(5+2j) at 4", "real"],
    ),
    "M diagonal complex, A real": (
        DENSE,
        {"k": 2, "M": DIAGONAL * (1 + 1j)},
        ValueError,
        ["M is not Hermitian", "(12+12j) at 11", "real"],
    ),
    "preconditioner of another order": (
        DENSE,
        {"k": 2, "preconditioner": np.ones(5)},
        ValueError,
        ["preconditioner has shape (5,)", "n = 12"],
    ),
    "preconditioner complex, A real": (
        DENSE,
        {"k": 2, "preconditioner": np.ones(N, complex)},
        TypeError,
        ["preconditioner has dtype complex128", "float64"],
    ),
    "preconditioner of derivatives": (
        DENSE,
        {"k": 2, "derivative": Derivative(preconditioner=np.ones(5))},
        ValueError,
        ["Derivative.preconditioner has shape (5,)", "n = 12"],
    ),
    "A gives two arrays": (
        lambda v: (v, v),
        {"k": 2, "n": N},
        ValueError,
        ["A applied to a vector (12,)", "2 arrays", "expected one", "(12,)"],
    ),
    "A gives nothing": (
        lambda v: None,
        {"k": 2, "n": N},
        ValueError,
        ["A applied to a vector (12,)", "0 arrays", "expected one"],
    ),
    "A gives another shape": (
        lambda v: v[:2],
        {"k": 2, "n": N},
        ValueError,
        ["A applied to a vector (12,)", "(2,)", "expected (12,)", "BlockProduct", "check n"],
    ),
    "A gives another dtype": (
        lambda v: v.astype(jnp.float32),
        {"k": 2, "n": N},
        TypeError,
        ["A applied to a vector (12,) of float64", "float32", "dtype=float32"],
    ),
    "A of another order inside": (
        lambda v: DENSE @ v,
        {"k": 2, "n": 7},
        ValueError,
        ["A applied to a vector (7,)", "failed", "n = 7", "check n"],
    ),
    "A without argument": (
        lambda: 3,
        {"k": 2, "n": N},
        ValueError,
        ["A applied to a vector (12,)", "failed"],
    ),
    "block product gives a vector": (
        BlockProduct(lambda v: v[:, 0]),
        {"k": 2, "n": N},
        ValueError,
        ["A applied to a block (12,", "returned shape (12,)"],
    ),
    "M gives another shape": (
        DENSE,
        {"k": 2, "M": lambda v: v[:2]},
        ValueError,
        ["M applied to a vector (12,)", "(2,)", "expected (12,)"],
    ),
    "preconditioner gives another dtype": (
        DENSE,
        {"k": 2, "preconditioner": lambda v: v.astype(jnp.float32)},
        TypeError,
        ["preconditioner applied to a vector (12,)", "float32"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_wrong_arguments_are_named(case):
    operator, keywords, kind, words = CASES[case]
    check(kind, words, lambda: partial_eigh(operator, **keywords))


def test_unknown_positional_argument():
    check(TypeError, ["positional"], lambda: partial_eigh(DENSE, None, 2, "largest"))


# Whatever can be known without the product is complained of without a product.
EARLY = {
    "k": {"k": 13, "n": N},
    "k missing": {"n": N},
    "which": {"k": 2, "n": N, "which": "SA"},
    "method": {"k": 2, "n": N, "method": "qr"},
    "lobpcg, large k": {"k": 5, "n": N, "method": "lobpcg"},
    "tol": {"k": 2, "n": N, "tol": -1.0},
    "max_steps": {"k": 2, "n": N, "max_steps": 0},
    "degeneracy_tol": {"k": 2, "n": N, "degeneracy_tol": -1.0},
    "derivative": {"k": 2, "n": N, "derivative": "cg"},
    "n missing": {"k": 2},
    "v0": {"k": 2, "n": N, "v0": np.ones((N, 1, 1))},
    "dtype": {"k": 2, "n": N, "dtype": int},
    "M": {"k": 2, "n": N, "M": -DIAGONAL},
    "orders": {"k": 2, "n": N, "M": np.ones(5)},
}


@pytest.mark.parametrize("case", EARLY)
def test_errors_come_before_tracing(case):
    seen = []

    def recording(v):
        seen.append(v)
        return v

    with pytest.raises((TypeError, ValueError)):
        partial_eigh(recording, **EARLY[case])
    assert not seen


@pytest.mark.parametrize("case", ["k too large", "A scalar", "M integer", "n and A", "v0 list"])
def test_the_same_errors_under_jit(case):
    operator, keywords, kind, words = CASES[case]
    keywords = dict(keywords)
    mass = keywords.pop("M", None)

    def solve(a, m):
        return partial_eigh(a, m, **keywords).eigenvalues

    check(kind, words, lambda: jax.jit(solve)(operator, mass))


DERIVATIVES = {
    "solver": (
        {"solver": "lu"},
        ValueError,
        ["solver 'lu'", "'auto', 'semi_iteration', 'cg', 'minres', 'gmres'"],
    ),
    "solver None": ({"solver": None}, ValueError, ["solver None", "callable"]),
    "solver an array": ({"solver": np.ones(2)}, ValueError, ["solver array", "callable"]),
    "on_gauge an array": ({"on_gauge": np.ones(2)}, ValueError, ["on_gauge=array", "'nan'"]),
    "on_gauge": ({"on_gauge": "x"}, ValueError, ["on_gauge='x'", "'nan', 'warn', 'ignore'"]),
    "on_unconverged": (
        {"on_unconverged": True},
        ValueError,
        ["on_unconverged=True", "'nan', 'warn', 'ignore'"],
    ),
    "tol zero": ({"tol": 0.0}, ValueError, ["Derivative: tol is 0.0", "positive"]),
    "tol text": ({"tol": "x"}, TypeError, ["Derivative: tol is 'x'", "Python float"]),
    "max_steps": ({"max_steps": 1.5}, TypeError, ["Derivative: max_steps is 1.5", "Python int"]),
    "max_steps negative": ({"max_steps": -2}, ValueError, ["max_steps is -2", "positive"]),
    "unknown keyword": ({"sover": "cg"}, TypeError, ["sover", "unexpected"]),
}


@pytest.mark.parametrize("case", DERIVATIVES)
def test_wrong_derivative_options_are_named(case):
    keywords, kind, words = DERIVATIVES[case]
    check(kind, words, lambda: Derivative(**keywords))


def test_derivative_options_are_a_frozen_value():
    same = Derivative(solver="cg", tol=1e-9), Derivative(solver="cg", tol=1e-9)
    assert same[0] == same[1]
    assert hash(same[0]) == hash(same[1])
    assert same[0] != Derivative(solver="minres", tol=1e-9)
    with pytest.raises(AttributeError):
        same[0].tol = 1e-3


# What is allowed, and has to stay so: no error where there is nothing to complain of.
ALLOWED = {
    "NumPy k": (DENSE, {"k": np.int64(2)}),
    "NumPy tol": (DENSE, {"k": 2, "tol": np.float64(1e-3)}),
    "degeneracy_tol zero": (DENSE, {"k": 2, "degeneracy_tol": 0}),
    "n with a matrix": (DENSE, {"k": 2, "n": N}),
    "A real, M complex": (DENSE, {"k": 2, "M": np.ones(N, complex)}),
    "A single, dtype double": (DENSE.astype(np.float32), {"k": 2, "dtype": np.float64}),
    "A single, M double": (DENSE.astype(np.float32), {"k": 2, "M": np.ones(N)}),
    "A real, v0 complex": (DENSE, {"k": 2, "v0": np.ones(N, complex)}),
    "preconditioner single": (DENSE, {"k": 2, "preconditioner": HALF}),
    "v0 of one column": (DENSE, {"k": 2, "v0": np.ones((N, 1))}),
    "v0 gives n": (product, {"k": 2, "v0": np.ones(N)}),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_allowed(case):
    operator, keywords = ALLOWED[case]
    w = partial_eigh(operator, **keywords).eigenvalues
    expected = [2.0, 2.0] if operator is product else [1.0, 2.0]
    np.testing.assert_allclose(w, expected, rtol=1e-10)
