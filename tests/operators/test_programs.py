"""Which traced functions are one program, and that a program computes what its function does.

Nothing is compiled here. Two programs that are taken for one would give wrong results without a
word, so most of these tests are of functions that differ in one place.
"""

import functools
import gc
import types
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jax_peig._operators import program as module
from jax_peig._operators.program import program_of

N = 5
X = jnp.linspace(0.5, 1.5, N)
D = jnp.arange(1.0, N + 1)


def program(function, like=X):
    return program_of(jax.make_jaxpr(function)(like))


def is_one(first, second, like=X):
    """Whether two functions are one program; both are alive, as in a cache."""
    one, two = program(first, like)[0], program(second, like)[0]
    return one is two


def ruled(value, rule, symbolic_zeros=False):
    """x -> value(x) with a custom_jvp rule: the tangent is rule(x) times that of x."""
    f = jax.custom_jvp(value)

    def jvp(primals, tangents):
        return f(*primals), rule(*primals) * tangents[0]

    f.defjvp(jvp, symbolic_zeros=symbolic_zeros)
    return lambda x: f(x)


def ruled_backwards(value, forth, back):
    f = jax.custom_vjp(value)
    f.defvjp(lambda x: (f(x), forth(x)), lambda r, ct: (back(r) * ct,))
    return lambda x: f(x)


def solve_by(solver):
    return lambda x: lax.custom_linear_solve(lambda v: D * v, x, solver, symmetric=True)


def loop(body, length=3):
    return lambda x: lax.scan(lambda c, _: (body(c), None), x, None, length=length)[0]


# -- one program ----------------------------------------------------------------------------------

# p -> a function, which is the same program for all p.
SAME = {
    "a number": lambda p: lambda x: p * x,
    "a number that is 0 once": lambda p: lambda x: (p - 1.25) * x + p,
    "an array": lambda p: lambda x: (p * D) * x,
    "a NumPy array": lambda p: lambda x: np.full(N, p) * x,
    "numbers on both sides": lambda p: lambda x: p * x / (1 + p) - p,
    "a number in jit": lambda p: jax.jit(lambda x: jnp.sin(p * x)),
    "an array in jit": lambda p: jax.jit(lambda x: jax.jit(lambda y: p * D * y)(x) + x),
    "an array in a loop": lambda p: loop(lambda c, d=p * D: d * c),
    "an array in a branch": lambda p: (
        lambda x: lax.cond(x[0] > 0, lambda y, d=p * D: d * y, jnp.sin, x)
    ),
    "a number beside a loop": lambda p: lambda x: loop(jnp.sin)(p * x),
    "a shift": lambda p: lambda x: jnp.where(x > p, x, 0.0),
    "jax.nn": lambda p: lambda x: jax.nn.relu(jax.nn.softplus(p * x)) + jax.nn.gelu(x),
    "logsumexp": lambda p: lambda x: x * jax.scipy.special.logsumexp(p * x),
    "a Hessian": lambda p: (
        lambda x: jax.jvp(
            jax.grad(lambda y: jnp.sum(jax.nn.relu(p * y) + jax.nn.silu(y))), (D,), (x,)
        )[1]
    ),
    "a rule": lambda p: lambda x: ruled(jnp.sin, jnp.cos)(p * x),
    "a reverse rule": lambda p: lambda x: ruled_backwards(jnp.sin, jnp.cos, jnp.sin)(p * x),
    "a rule that is differentiated": lambda p: (
        lambda x: jax.vjp(lambda y: ruled_backwards(jnp.sin, jnp.cos, jnp.sin)(p * y), D)[1](x)[0]
    ),
    "a rule with a number": lambda p: lambda x: ruled(jnp.sin, lambda y: 2.0 * y)(p * x),
    "a rule with jax.grad": lambda p: (
        lambda x: ruled(jnp.sin, jax.vmap(jax.grad(lambda y: y**2)))(p * x)
    ),
    "a linear solve": lambda p: lambda x: solve_by(lambda a, b: b / D)(p * x),
    "a dense solve": lambda p: lambda x: jnp.linalg.solve(jnp.diag(p * D), x),
    "a Fourier transform": lambda p: lambda x: jnp.fft.irfft(p * jnp.fft.rfft(x), N),
    "a scatter": lambda p: lambda x: x.at[jnp.array([0, 2])].add(p),
    "random numbers": lambda p: lambda x: x * jax.random.normal(jax.random.key(3), (N,)) + p,
    "jax.checkpoint": lambda p: lambda x: jax.checkpoint(jnp.sin)(p * x),
    "a complex number": lambda p: lambda x: (x.astype(complex) * (p + 2j)).real,
    "half precision": lambda p: lambda x: (x.astype(jnp.bfloat16) * jnp.bfloat16(p)).astype(float),
}


@pytest.mark.parametrize("name", SAME)
def test_functions_that_do_the_same_are_one_program(name):
    first, second = (program(SAME[name](p)) for p in (0.75, 1.25))
    assert first[0] is second[0]
    for p, (made, leaves) in ((0.75, first), (1.25, second)):
        (out,) = made(leaves, X)
        np.testing.assert_array_equal(out, SAME[name](p)(X))
        gradient = jax.grad(lambda x: jnp.sum(made(leaves, x)[0]))(X)  # noqa: B023
        expected = jax.grad(lambda x: jnp.sum(SAME[name](p)(x)))(X)  # noqa: B023
        np.testing.assert_allclose(gradient, expected, rtol=1e-14, atol=1e-14)


# -- different programs ---------------------------------------------------------------------------

TABLE = np.array([1.0, 2.0])


def with_attribute(p):
    def rule(x):
        return rule.factor * x

    rule.factor = p
    return ruled(jnp.sin, rule)


def with_default(p):
    return ruled(jnp.sin, lambda x, factor=p: factor * x)


def with_keyword(p):
    def rule(x, *, factor=p):
        return factor * x

    return ruled(jnp.sin, rule)


READS_A_GLOBAL = compile("lambda x: factor * x", "of_the_test", "eval").co_consts[0]


def with_global(p):
    """A rule that reads a global variable of a module of its own."""
    space = {"factor": p, "__name__": "of_the_test"}
    return ruled(jnp.sin, types.FunctionType(READS_A_GLOBAL, space))


def nested(p):
    def inner():
        return p

    return ruled(jnp.sin, lambda x: inner() * x)


# p -> a function, and two values of p for which the programs differ.
DIFFERENT = {
    "a primitive": (lambda p: p, (jnp.sin, jnp.cos)),
    "an integer": (lambda p: lambda x: x + jnp.arange(p, p + N).astype(float), (1, 2)),
    "a power": (lambda p: lambda x: x**p, (2, 3)),
    "a roll": (lambda p: lambda x: jnp.roll(x, p), (1, 2)),
    "the order of operands": (lambda p: lambda x: p(x, D[0]), (jnp.subtract, lambda a, b: b - a)),
    "which operand": (lambda p: lambda x: (jnp.sin(x), jnp.cos(x))[p] * x, (0, 1)),
    "a comparison": (lambda p: lambda x: jnp.where(p(x, D), x, D), (jnp.greater, jnp.less)),
    "the type inside": (lambda p: lambda x: x.astype(p).astype(float), (jnp.float32, jnp.bfloat16)),
    "a shape inside": (lambda p: lambda x: x + jnp.sum(jnp.ones(p)), (2, 3)),
    "the sign of zero": (lambda p: lambda x: jnp.where(x > 1, x, p), (0.0, -0.0)),
    "NaN or inf": (lambda p: lambda x: jnp.where(x > 1, x, p), (np.nan, np.inf)),
    "an axis": (lambda p: lambda x: jnp.sum(jnp.outer(x, D), axis=p), (0, 1)),
    "a precision": (lambda p: lambda x: jnp.dot(jnp.diag(D), x, precision=p), (None, "highest")),
    "a length": (lambda p: loop(jnp.sin, p), (3, 4)),
    "a body": (lambda p: loop(p), (jnp.sin, jnp.cos)),
    "a number in a body": (lambda p: loop(lambda c: p * c), (2.0, 3.0)),
    "NaN in a body": (lambda p: loop(lambda c: jnp.where(c > 1, c, p)), (np.nan, 1.0)),
    "zero in a body": (lambda p: loop(lambda c: jnp.where(c > 1, c, p)), (0.0, -0.0)),
    "branches": (
        lambda p: lambda x: lax.cond(x[0] > 0, *p, x),
        ((jnp.sin, jnp.cos), (jnp.cos, jnp.sin)),
    ),
    "a condition": (
        lambda p: lambda x: lax.while_loop(lambda c: c[0] < p, lambda c: 2 * c, x),
        (3, 4),
    ),
    "a solver": (solve_by, (lambda a, b: b / D, lambda a, b: b)),
    "a name": (lambda p: lambda x: checkpoint_name(x, p), ("a", "b")),
    "jit of another": (lambda p: jax.jit(p), (jnp.sin, jnp.cos)),
    "an integer in jit": (lambda p: jax.jit(lambda x: jnp.roll(x, p)), (1, 2)),
    "a rule": (lambda p: ruled(jnp.sin, p), (jnp.cos, jnp.tan)),
    "a number in a rule": (lambda p: ruled(jnp.sin, lambda x: p * x), (2.0, 3.0)),
    "the sign of zero in a rule": (lambda p: ruled(jnp.sin, lambda x: p * x), (0.0, -0.0)),
    "the type of a number in a rule": (lambda p: ruled(jnp.sin, lambda x: p * x), (1, 1.0)),
    "a string in a rule": (
        lambda p: ruled(jnp.sin, lambda x: getattr(jnp, p)(x)),
        ("cos", "tan"),
    ),
    "a dictionary in a rule": (
        lambda p: ruled(jnp.sin, lambda x: p["factor"] * x),
        ({"factor": 2.0}, {"factor": 3.0}),
    ),
    "a NumPy array in a rule": (
        lambda p: ruled(jnp.sin, lambda x: p[0] * x),
        (np.array([2.0]), np.array([3.0])),
    ),
    "a long NumPy array in a rule": (
        lambda p: ruled(jnp.sin, lambda x: p[99] * x),
        (np.eye(1, 100, 99)[0], np.eye(1, 100, 98)[0]),
    ),
    "masks of arrays in a rule": (
        lambda p: ruled(jnp.sin, lambda x: float(p.sum()) * x),
        (np.ma.array(TABLE, mask=[0, 1]), np.ma.array(TABLE, mask=[1, 0])),
    ),
    "a JAX array in a rule": (lambda p: ruled(jnp.sin, lambda x: p * x), (D, D + 1)),
    "a default in a rule": (with_default, (2.0, 3.0)),
    "a keyword in a rule": (with_keyword, (2.0, 3.0)),
    "a global in a rule": (with_global, (2.0, 3.0)),
    "an attribute of a rule": (with_attribute, (2.0, 3.0)),
    "a function in a rule": (nested, (2.0, 3.0)),
    "a partial in a rule": (
        lambda p: ruled(jnp.sin, functools.partial(lambda c, x: c * x, p)),
        (2.0, 3.0),
    ),
    "a rule in a rule": (
        lambda p: ruled(jnp.sin, ruled(jnp.cos, lambda x: p * x)),
        (2.0, 3.0),
    ),
    "an object in a rule": (
        lambda p: ruled(jnp.sin, lambda x: p.factor * x),
        (types.SimpleNamespace(factor=2.0), types.SimpleNamespace(factor=3.0)),
    ),
    "symbolic zeros": (lambda p: ruled(jnp.sin, jnp.cos, symbolic_zeros=p), (False, True)),
    "forth": (lambda p: ruled_backwards(jnp.sin, p, jnp.sin), (jnp.cos, jnp.tan)),
    "back": (lambda p: ruled_backwards(jnp.sin, jnp.cos, p), (jnp.cos, jnp.tan)),
    "a number in back": (
        lambda p: ruled_backwards(jnp.sin, jnp.cos, lambda r: p * r),
        (2.0, 3.0),
    ),
    "a rule of batches": (
        lambda p: batched_by(p),
        (2.0, 3.0),
    ),
    "a callback": (
        lambda p: lambda x: jax.pure_callback(p, x, x),
        (np.sin, np.cos),
    ),
    "the Fourier transform": (
        lambda p: lambda x: p(x).real,
        (jnp.fft.fft, jnp.fft.ifft),
    ),
}


# Of these nothing is known: they differ from themselves, too.
UNKNOWN = {"an object in a rule", "masks of arrays in a rule", "a rule of batches", "a callback"}


def batched_by(p):
    f = jax.custom_batching.custom_vmap(lambda x: jnp.sin(x))
    f.def_vmap(lambda size, batched, x: (p * x, True))
    return lambda x: f(x)


@pytest.mark.parametrize("name", DIFFERENT)
def test_functions_that_differ_are_two_programs(name):
    make, (first, second) = DIFFERENT[name]
    one, two = make(first), make(second)
    assert not is_one(one, two)
    assert is_one(one, make(first)) == (name not in UNKNOWN)
    for function in (one, two):
        made, leaves = program(function)
        np.testing.assert_array_equal(made(leaves, X)[0], function(X))


def test_types_of_the_argument():
    like = [X, X.astype(jnp.float32), X[:3], jnp.arange(3)]
    made = [program(lambda x: x + x, v)[0] for v in like]
    assert len(set(made)) == len(like)


def test_weak_types():
    """A weak number is another type, and stays weak as a leaf."""

    def weak(p):
        return lambda x: lax.fori_loop(0, 2, lambda i, c: c + 1, p) * x

    one, two = program(weak(0.25)), program(weak(0.75))
    strong = program(weak(np.float64(0.25)))
    assert one[0] is two[0]
    assert one[0] is not strong[0]
    assert [jax.typeof(v).weak_type for v in one[1]] == [True]
    np.testing.assert_array_equal(one[0](one[1], X)[0], weak(0.25)(X))


def test_what_has_no_fingerprint_is_new_each_time():
    """Callbacks, effects, objects of a caller: as if nothing was known of the function."""

    def host(x):
        return np.sin(x)

    box = types.SimpleNamespace(factor=2.0)
    for function in (
        lambda x: jax.pure_callback(host, x, x),
        lambda x: (jax.debug.print("x"), x)[1],
        ruled(jnp.sin, lambda x: box.factor * x),
    ):
        assert not is_one(function, function)


# -- what changes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [[2.0], {0: 2.0}, np.array([2.0])], ids=["list", "dict", "NumPy"])
def test_a_rule_that_reads_what_changes(box):
    """The older program is not used once its rule reads another value than when it was made."""

    def make(box):
        return ruled(jnp.sin, lambda x: box[0] * x)

    function = make(box)
    first = program(function)[0]
    assert program(function)[0] is first
    other = type(box)(box) if not isinstance(box, np.ndarray) else box.copy()
    box[0] = 3.0
    assert program(function)[0] is not first
    # Another rule reads 2, as that of the first program did when it was made.
    again = program(make(other))[0]
    assert again is not first
    slope = jax.jvp(lambda x: again((), x)[0], (X,), (jnp.ones(N),))[1]
    np.testing.assert_allclose(slope, 2 * X)


def test_a_global_that_changes():
    space = {"factor": 2.0, "__name__": "of_the_test"}
    rule = types.FunctionType(READS_A_GLOBAL, space)
    first = program(ruled(jnp.sin, rule))[0]
    assert program(ruled(jnp.sin, rule))[0] is first
    space["factor"] = 3.0
    second = program(ruled(jnp.sin, rule))[0]
    assert second is not first
    slope = jax.jvp(lambda x: second((), x)[0], (X,), (jnp.ones(N),))[1]
    np.testing.assert_allclose(slope, 3 * X)


def test_a_variable_that_changes():
    def make(start):
        factor = start

        def change(value):
            nonlocal factor
            factor = value

        return ruled(jnp.sin, lambda x: factor * x), change

    function, change = make(2.0)
    first = program(function)[0]
    assert program(make(2.0)[0])[0] is first
    change(3.0)
    second = program(make(2.0)[0])[0]
    assert second is not first
    slope = jax.jvp(lambda x: second((), x)[0], (X,), (jnp.ones(N),))[1]
    np.testing.assert_allclose(slope, 2 * X)


# -- memory ---------------------------------------------------------------------------------------


def test_programs_are_forgotten():
    kept = program(lambda x: jnp.sin(x) * 2.0)
    before = len(module._PROGRAMS)
    for power in range(2, 12):
        program(lambda x, p=power: jnp.cos(x) ** p)
    gc.collect()
    assert len(module._PROGRAMS) <= before
    assert program(lambda x: jnp.sin(x) * 3.0)[0] is kept[0]


@pytest.mark.slow
def test_ten_thousand_closures_take_no_memory():
    def swept(p):
        return lambda x: ruled(jnp.sin, lambda y: 2.0 * y)(p * x)

    def objects_after(times):
        for i in range(times):
            made, _ = program(swept(i / 8))
            assert made is kept
        gc.collect()
        # JAX keeps a reference for each function that it has traced.
        return sum(type(o) is not weakref.ReferenceType for o in gc.get_objects())

    kept, _ = program(swept(0.5))
    before = objects_after(500)
    programs = len(module._PROGRAMS)
    assert objects_after(10_000) - before < 100
    assert len(module._PROGRAMS) == programs
