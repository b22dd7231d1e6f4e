"""Whatever form A, M and a preconditioner come in: the same operator, compiled once."""

import contextlib
import dataclasses
import functools

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from jax.experimental.sparse import BCOO
from jax.tree_util import Partial

from jax_peig import BlockProduct, Derivative, partial_eigh
from jax_peig._operators.operator import Operator, as_operator
from tests.support import spectra

N, K = 12, 3
PENCIL = spectra.pencil(np.arange(1.0, N + 1) ** 1.5, condition=10.0, seed=1)
SECOND = spectra.pencil(np.arange(1.0, N + 1) ** 1.2, condition=10.0, seed=2)
FLOAT = np.dtype(np.float64)

# -- operators in every form ----------------------------------------------------------------------


class Matmul:
    """Knows ``@`` and nothing else."""

    def __init__(self, matrix):
        self.matrix = jnp.asarray(matrix)

    def __matmul__(self, block):
        return self.matrix @ block


class Lineax:
    """Has ``.mv``, as the operators of lineax; calling it is not multiplying."""

    def __init__(self, matrix):
        self.matrix = jnp.asarray(matrix)

    def mv(self, vector):
        return self.matrix @ vector

    def __call__(self, _):
        raise AssertionError("an object with .mv is not called")


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "rows", "columns", "factor"],
    meta_fields=["name"],
)
@dataclasses.dataclass(frozen=True)
class Coordinates:
    """A pytree callable with floating, integer and Python-number leaves."""

    values: object
    rows: object
    columns: object
    factor: object = 1.0
    name: str = "coordinates"

    def __call__(self, v):
        return self.factor * jnp.zeros_like(v).at[self.rows].add(self.values * v[self.columns])

    @classmethod
    def of(cls, matrix, factor=1.0):
        rows, columns = np.indices(matrix.shape).reshape(2, -1)
        return cls(jnp.asarray(matrix).reshape(-1) / factor, rows, columns, factor)


@jax.tree_util.register_pytree_node_class
class Named:
    """A pytree callable, or one with ``@`` or ``.mv``, some of whose leaves are no arrays."""

    def __init__(self, matrix, how, function):
        self.matrix, self.how, self.function = matrix, how, function

    def tree_flatten(self):
        return (self.how, self.matrix, self.function), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        how, matrix, function = leaves
        return cls(matrix, how, function)

    def __call__(self, v):
        assert self.how == "the usual way"
        return self.function(self.matrix, v)


@jax.tree_util.register_pytree_node_class
class NamedMv(Named):
    def mv(self, v):
        return Named.__call__(self, v)


@jax.tree_util.register_pytree_node_class
class NamedMatmul(Named):
    def __matmul__(self, v):
        return Named.__call__(self, v)


@jax.tree_util.register_pytree_node_class
class Unhashable(Named):
    """Carries a leaf that is neither an array nor hashable."""

    __hash__ = None

    def __call__(self, v):
        assert self.how == ["the", "usual", "way"]
        return self.matrix @ v

    def tree_flatten(self):
        return (self.matrix, _List(self.how), self.function), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        matrix, how, function = leaves
        return cls(matrix, how.items if isinstance(how, _List) else how, function)


class _List:
    """An opaque, unhashable leaf."""

    __hash__ = None

    def __init__(self, items):
        self.items = items

    def __eq__(self, other):
        return self.items == other.items


def times(matrix, v):
    return matrix @ v


def closure(matrix):
    matrix = jnp.asarray(matrix)
    return lambda v: matrix @ v


FORMS = {
    "array": jnp.asarray,
    "NumPy": np.asarray,
    "Fortran order": np.asfortranarray,
    "BCOO": lambda a: BCOO.fromdense(jnp.asarray(a)),
    "SciPy csr_array": scipy.sparse.csr_array,
    "SciPy csr_matrix": scipy.sparse.csr_matrix,
    "SciPy coo_array": scipy.sparse.coo_array,
    "@": Matmul,
    ".mv": Lineax,
    "closure": closure,
    "closure over NumPy": lambda a: lambda v: a @ v,
    "functools.partial": lambda a: functools.partial(times, a),
    "bound method": lambda a: Lineax(a).mv,
    "jitted function": lambda a: jax.jit(closure(a)),
    "Partial": lambda a: Partial(times, jnp.asarray(a)),
    "Partial of a closure": lambda a: Partial(lambda c, v: c * (a @ v), 1.0),
    "Partial with a keyword": lambda a: Partial(lambda v, matrix: matrix @ v, matrix=a),
    "pytree with integer leaves": Coordinates.of,
    "pytree with a Python number": lambda a: Coordinates.of(a, 3.0),
    "pytree with other leaves": lambda a: Named(a, "the usual way", times),
    "pytree with .mv": lambda a: NamedMv(a, "the usual way", times),
    "pytree with @": lambda a: NamedMatmul(a, "the usual way", times),
    "pytree with an unhashable leaf": lambda a: Unhashable(a, ["the", "usual", "way"], None),
    "BlockProduct of a function": lambda a: BlockProduct(closure(a)),
    "BlockProduct of a Partial": lambda a: BlockProduct(Partial(times, jnp.asarray(a))),
    "BlockProduct of a pytree": lambda a: BlockProduct(Named(a, "the usual way", times)),
    "Operator": lambda a: as_operator(a, N, FLOAT, "A"),
    "Operator of a function": lambda a: as_operator(closure(a), N, FLOAT, "A"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_multiplies(form):
    """As an operator on blocks of any width, whatever width it was traced for."""
    matrix = PENCIL.A
    operator = as_operator(FORMS[form](matrix), N, FLOAT, "A", widths=(1, K, 7))
    assert isinstance(operator, Operator)
    rng = np.random.default_rng(0)
    for width in (1, 2, K, 7, 17):
        block = rng.standard_normal((N, width))
        got = operator(jnp.asarray(block))
        assert got.dtype == FLOAT
        np.testing.assert_allclose(got, matrix @ block, rtol=0, atol=1e-12)


# One of each way through the front door: every other one is a program of its own to compile.
KINDS = (
    "array",
    "NumPy",
    "BCOO",
    "SciPy csr_array",
    "@",
    ".mv",
    "closure",
    "Partial",
    "pytree with integer leaves",
    "pytree with other leaves",
    "BlockProduct of a function",
    "BlockProduct of a pytree",
    "Operator of a function",
)


@pytest.mark.parametrize("form", KINDS)
def test_every_form_gives_the_same_pairs(form):
    """As A and as M; n comes from the matrices, or is given."""
    make = FORMS[form]
    result = partial_eigh(make(PENCIL.A), make(PENCIL.M), K, n=N, method="dense")
    expected, _ = spectra.reference(PENCIL.A, PENCIL.M)
    np.testing.assert_allclose(result.eigenvalues, expected[:K], rtol=1e-11)
    x = np.asarray(result.eigenvectors)
    np.testing.assert_allclose(spectra.projector(x, PENCIL.M), PENCIL.projector(0, K), atol=1e-11)
    np.testing.assert_allclose(x.T @ PENCIL.M @ x, np.eye(K), atol=1e-12)
    assert result.info.message == "all k pairs converged"
    np.testing.assert_allclose(result.info.MX, PENCIL.M @ x, atol=1e-12)


@pytest.mark.parametrize("form", ["array", "closure"])
def test_forms_as_preconditioner(form):
    """One preconditioner in several forms: one course of the iteration."""
    pencil = spectra.stiff(36, 6)
    given = FORMS[form](spectra.hermitian(np.linalg.inv(pencil.A)))
    result = partial_eigh(pencil.A, k=6, method="lobpcg", preconditioner=given)
    plain = partial_eigh(pencil.A, k=6, method="lobpcg", preconditioner=np.ones(36))
    np.testing.assert_allclose(result.eigenvalues, pencil.values[:6], rtol=1e-10)
    assert 4 * int(result.info.steps) < int(plain.info.steps)


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray])
def test_a_vector_is_a_diagonal_matrix(make):
    a, m = np.linspace(2.0, 9.0, N)[::-1], 1 + np.arange(N) / N
    result = partial_eigh(make(a), make(m), K)
    expected = np.sort(a / m)[:K]
    np.testing.assert_allclose(result.eigenvalues, expected, rtol=1e-12)
    full = partial_eigh(make(np.diag(a)), make(np.diag(m)), K)
    np.testing.assert_allclose(result.eigenvalues, full.eigenvalues, rtol=1e-12)
    np.testing.assert_allclose(
        np.abs(result.eigenvectors), np.abs(full.eigenvectors), rtol=0, atol=1e-12
    )


def test_forms_may_be_mixed():
    result = partial_eigh(closure(PENCIL.A), scipy.sparse.csr_array(PENCIL.M), K, method="dense")
    np.testing.assert_allclose(result.eigenvalues, PENCIL.values[:K], rtol=1e-11)


def test_complex_operators_by_their_product():
    pencil = spectra.pencil(np.arange(1.0, N + 1), dtype=complex, condition=10.0, seed=3)
    a, m = BlockProduct(closure(pencil.A)), FORMS["BCOO"](pencil.M)
    result = partial_eigh(a, m, K, method="dense")
    assert result.eigenvectors.dtype == np.complex128
    np.testing.assert_allclose(result.eigenvalues, pencil.values[:K], rtol=1e-11)
    vector = closure(pencil.A)
    result = partial_eigh(vector, k=K, n=N, dtype=complex, method="dense")
    np.testing.assert_allclose(result.eigenvalues, np.linalg.eigvalsh(pencil.A)[:K], rtol=1e-11)


def test_what_n_and_dtype_come_from():
    single = np.ones(N, np.float32)
    by_guess = partial_eigh(lambda v: 2 * v, k=1, v0=single)
    assert by_guess.eigenvectors.shape == (N, 1)
    assert by_guess.eigenvectors.dtype == np.float32
    by_default = partial_eigh(lambda v: 2 * v, k=1, n=N)
    assert by_default.eigenvectors.dtype == np.float64
    by_name = partial_eigh(lambda v: 2 * v, k=1, n=N, dtype=np.complex64)
    assert by_name.eigenvectors.dtype == np.complex64
    assert by_name.eigenvalues.dtype == np.float32


def test_a_block_product_is_traced_at_the_widths_it_is_used_for():
    widths = []

    def product(block):
        widths.append(block.shape)
        return PENCIL.A @ block

    operator = as_operator(BlockProduct(product), N, FLOAT, "A", widths=(5, 1, 3, 3))
    assert sorted(widths) == [(N, 1), (N, 3), (N, 5)]
    block = np.random.default_rng(0).standard_normal((N, 11))
    for width in range(1, 12):
        np.testing.assert_allclose(
            operator(jnp.asarray(block[:, :width])), PENCIL.A @ block[:, :width], atol=1e-12
        )
    assert len(widths) == 3


# -- closures over values that are traced themselves ----------------------------------------------


MASS = np.diag(np.linspace(0.5, 1.5, N))  # how the mass of the tests below depends on theta


def moving(form, theta, matrix, direction):
    """Give ``matrix + theta * direction`` in one of the forms that may hold a traced theta."""
    matrix, direction = jnp.asarray(matrix), jnp.asarray(direction)
    if form == "function":
        return lambda v: matrix @ v + theta * (direction @ v)
    if form == "block":
        return BlockProduct(lambda v: matrix @ v + theta * (direction @ v))
    if form == "Partial that closes over":
        return Partial(lambda c, v: c @ v + theta * (direction @ v), matrix)
    total = matrix + theta * direction
    if form == "BCOO":
        indices = np.indices((N, N)).reshape(2, -1).T
        return BCOO((total.reshape(-1), jnp.asarray(indices)), shape=(N, N))
    return {".mv": Lineax, "pytree": Coordinates.of}[form](total)


@pytest.mark.parametrize(
    ("form", "generalised"),
    [
        ("function", True),
        ("block", True),
        (".mv", False),
        ("Partial that closes over", False),
        ("pytree", False),
        ("BCOO", False),
    ],
)
def test_traced_values_inside_operators(form, generalised):
    """Under jit, vmap and grad: values against SciPy, slopes x^T (A' - lam M') x."""

    def eigenvalues(theta):
        a = moving(form, theta, PENCIL.A, SECOND.A)
        m = moving(form, theta, PENCIL.M, MASS) if generalised else None
        return partial_eigh(a, m, K, n=N, dtype=float, method="dense").eigenvalues

    def both(theta):
        w, pull = jax.vjp(eigenvalues, theta)
        (slopes,) = jax.vmap(pull)(jnp.eye(K))
        return w, slopes

    thetas = np.array([0.0, 0.3])
    values, slopes = jax.jit(jax.vmap(both))(thetas)
    for theta, w, slope in zip(thetas, values, slopes, strict=True):
        mass = PENCIL.M + theta * MASS if generalised else None
        expected, x = spectra.reference(PENCIL.A + theta * SECOND.A, mass)
        expected, x = expected[:K], x[:, :K]
        np.testing.assert_allclose(w, expected, rtol=1e-11)
        moved = SECOND.A @ x - (MASS @ x * expected if generalised else 0)
        np.testing.assert_allclose(slope, np.sum(x * moved, axis=0), rtol=1e-9)


def test_a_traced_preconditioner_and_guess():
    """Both may be traced; neither has a derivative."""
    inverse = jnp.asarray(spectra.hermitian(np.linalg.inv(PENCIL.A)))
    guess = jnp.asarray(np.random.default_rng(0).standard_normal((N, 2)))

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def value(scale, v0):
        result = partial_eigh(
            PENCIL.A,
            PENCIL.M,
            K,
            method="lobpcg",
            v0=v0,
            preconditioner=lambda v: scale * (inverse @ v),
        )
        return jnp.sum(result.eigenvalues)

    w, (by_scale, by_guess) = value(jnp.array(2.0), guess)
    np.testing.assert_allclose(w, np.sum(PENCIL.values[:K]), rtol=1e-11)
    assert by_scale == 0
    np.testing.assert_array_equal(by_guess, np.zeros((N, 2)))


# -- compiling ------------------------------------------------------------------------------------

_COMPILED = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def compilations():
    """Collect one entry per program that XLA compiles inside."""
    seen = []

    def listen(event, duration, **_):
        if event == _COMPILED:
            seen.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_the_counter_counts():
    with compilations() as seen:
        jax.jit(lambda x: jnp.cos(x) + 41)(np.ones(3))
    assert len(seen) >= 1
    with compilations() as after:
        pass
    assert not after


def loss(operator, mass, **options):
    """Depend on eigenvalues and, whatever the gauge, on eigenvectors."""
    w, x, _ = partial_eigh(operator, mass, K, n=N, **options)
    weights = np.linspace(1.0, 2.0, N)
    return jnp.sum(jnp.sin(w)) + jnp.sum(weights[:, None] * x**2)


VALUE_FORMS = {
    "array": jnp.asarray,
    "BCOO": lambda a: BCOO.fromdense(jnp.asarray(a), nse=N * N),
    "Partial": lambda a: Partial(times, jnp.asarray(a)),
    "pytree with integer leaves": Coordinates.of,
    "pytree with other leaves": lambda a: Named(jnp.asarray(a), "the usual way", times),
    "BlockProduct of a pytree": lambda a: BlockProduct(Partial(times, jnp.asarray(a))),
}


def eager_value_and_gradient(form, pencil):
    """Both, without jit: the gradient with respect to the arrays inside the operators."""
    make = VALUE_FORMS[form]
    if form == "array":
        w = partial_eigh(make(pencil.A), make(pencil.M), K).eigenvalues
        return w, jax.grad(loss, argnums=(0, 1))(make(pencil.A), make(pencil.M))
    w = partial_eigh(make(pencil.A), k=K, n=N).eigenvalues
    return w, jax.grad(lambda a: loss(make(a), None))(jnp.asarray(pencil.A))


@pytest.mark.parametrize("form", VALUE_FORMS)
def test_other_values_compile_nothing(form):
    """Neither the eigenpairs nor their gradient, called eagerly, time and again."""
    eager_value_and_gradient(form, PENCIL)
    with compilations() as seen:
        w, gradient = eager_value_and_gradient(form, SECOND)
    assert not seen
    expected, _ = spectra.reference(SECOND.A, SECOND.M if form == "array" else None)
    np.testing.assert_allclose(w, expected[:K], rtol=1e-11)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradient))


def test_numpy_and_jax_arrays_share_a_program():
    partial_eigh(jnp.asarray(PENCIL.A), jnp.asarray(PENCIL.M), K)
    with compilations() as seen:
        partial_eigh(SECOND.A, SECOND.M, K)
        jax.block_until_ready(partial_eigh(np.asfortranarray(PENCIL.A), PENCIL.M, K))
    assert not seen


def test_other_values_compile_nothing_in_an_iteration():
    """The iterative method with all its arguments: guess, key, preconditioner, options."""

    def solve(pencil, seed):
        inverse = jnp.asarray(spectra.hermitian(np.linalg.inv(pencil.A)))
        v0 = np.random.default_rng(seed).standard_normal((N, K))

        def value(a):
            return loss(
                a,
                pencil.M,
                method="lobpcg",
                v0=v0,
                key=jax.random.key(seed),
                preconditioner=Partial(times, inverse),
                derivative=Derivative(solver="minres", tol=1e-8),
            )

        return jax.grad(value)(jnp.asarray(pencil.A))

    solve(PENCIL, 0)
    with compilations() as seen:
        gradient = solve(SECOND, 1)
    assert not seen
    direct = jax.grad(lambda a: loss(a, SECOND.M, method="dense"))(jnp.asarray(SECOND.A))
    np.testing.assert_allclose(gradient, direct, rtol=0, atol=1e-6)


def test_options_are_part_of_the_program():
    """The same options, made anew, are the same; others compile another program, but for tol."""

    def solve(pencil, tol, max_steps):
        derivative = Derivative(solver="cg", tol=tol, max_steps=max_steps)
        return partial_eigh(pencil.A, k=1, derivative=derivative)

    solve(PENCIL, 1e-7, 100)
    with compilations() as same:
        solve(SECOND, 1e-7, 100)
    with compilations() as looser:
        solve(SECOND, 1e-6, 100)
    with compilations() as other:
        solve(SECOND, 1e-6, 200)
    assert not same
    assert not looser
    assert other


def test_a_closure_is_new_at_every_call():
    """As documented: what a function closes over is not known to be the same operation."""
    partial_eigh(closure(PENCIL.A), k=1, n=N)
    with compilations() as seen:
        partial_eigh(closure(PENCIL.A), k=1, n=N)
    assert seen


def test_a_closure_under_jit_compiles_once():
    solve = jax.jit(lambda a: partial_eigh(lambda v: a @ v, k=1, n=N).eigenvalues)
    solve(PENCIL.A)
    with compilations() as seen:
        w = solve(SECOND.A)
    assert not seen
    np.testing.assert_allclose(w, spectra.reference(SECOND.A)[0][:1], rtol=1e-11)


def test_operators_compare_by_value():
    """Two operators of one form are one pytree structure; that is what the cache goes by."""
    for form in VALUE_FORMS:
        first = as_operator(VALUE_FORMS[form](PENCIL.A), N, FLOAT, "A")
        second = as_operator(VALUE_FORMS[form](SECOND.A), N, FLOAT, "A")
        assert jax.tree.structure(first) == jax.tree.structure(second), form
        assert hash(jax.tree.structure(first)) == hash(jax.tree.structure(second)), form
    other = as_operator(Partial(times, jnp.asarray(PENCIL.A)), N, FLOAT, "A")
    third = as_operator(Partial(lambda a, v: a @ v, jnp.asarray(PENCIL.A)), N, FLOAT, "A")
    assert jax.tree.structure(other) != jax.tree.structure(third)
