"""jit, vmap, scan, cond, checkpoint, linearize; counts of solves and products."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jax_peig import BlockProduct, Derivative, Status, partial_eigh
from jax_peig._core import blocks
from tests.support import gauge_free as gf

T0 = np.zeros(2)
PENCIL = gf.make((1, 2, 3), seed=31)
METHODS = ["dense", "lobpcg"]


@functools.cache
def value_and_gradient():
    return gf.jitted(jax.value_and_grad, method="dense")(PENCIL, T0)


def loss(t):
    return gf.loss(PENCIL, t, method="dense")


def test_eager_equals_jit():
    value, slope = jax.value_and_grad(loss)(T0)
    np.testing.assert_allclose(value, value_and_gradient()[0], rtol=1e-13)
    np.testing.assert_allclose(slope, value_and_gradient()[1], rtol=1e-10)


def test_linearize_and_vjp():
    _, slope = value_and_gradient()
    _, push = jax.linearize(loss, T0)
    for i, e in enumerate(np.eye(2)):
        np.testing.assert_allclose(push(e), slope[i], rtol=1e-10)
    _, pull = jax.vjp(loss, T0)
    np.testing.assert_allclose(pull(1.0)[0], slope, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [METHODS[0], *(pytest.param(m, marks=pytest.mark.slow) for m in METHODS[1:])]
)
def test_vmap_of_grad_and_grad_of_vmap(method):
    batch = np.stack([T0, [0.01, 0.02], [-0.02, 0.01]])

    def one(t):
        return gf.loss(PENCIL, t, method=method)

    looped = np.stack([jax.jit(jax.grad(one))(t) for t in batch])
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(one)))(batch), looped, rtol=1e-8)
    summed = jax.jit(jax.grad(lambda ts: jnp.sum(jax.vmap(one)(ts))))(batch)
    np.testing.assert_allclose(summed, looped, rtol=1e-8)


@pytest.mark.slow
def test_vmap_over_one_operand_alone():
    """A batch of A with one M, and a batch of M with one A."""

    def slope(a, m):
        return jax.grad(lambda a, m: sum_of_density(a, m), (0, 1))(a, m)

    def sum_of_density(a, m):
        w, x, _ = partial_eigh(a, m, 3, method="dense")
        return jnp.sum(w) + jnp.sum(jnp.sum(x**2, axis=1) ** 2)

    a, m = PENCIL.a[0], PENCIL.m[0]
    many_a = np.stack([a, a + 0.1 * PENCIL.a[1]])
    many_m = np.stack([m, m + 0.1 * PENCIL.m[1]])
    for axes, batch in (((0, None), (many_a, m)), ((None, 0), (a, many_m))):
        found = jax.jit(jax.vmap(slope, in_axes=axes))(*batch)
        for i in range(2):
            wanted = slope(*(b[i] if axis == 0 else b for b, axis in zip(batch, axes, strict=True)))
            for f, w in zip(found, wanted, strict=True):
                np.testing.assert_allclose(f[i], w, atol=1e-10 * np.abs(w).max())


def test_jacobians_batch_the_rules():
    """jacfwd and jacrev are vmaps of the linear maps, over tangents and over cotangents."""

    def values(t):
        a, m = gf.matrices(PENCIL, t)
        w, x, _ = partial_eigh(a, m, gf.K, method="dense")
        return jnp.concatenate([w @ PENCIL.groups, jnp.sum(x[:, 1:3] ** 2, axis=1)])

    forward, reverse = (jax.jit(d(values))(T0) for d in (jax.jacfwd, jax.jacrev))
    np.testing.assert_allclose(forward, reverse, atol=1e-10 * np.abs(forward).max())


def test_scan_cond_and_checkpoint():
    _, slope = value_and_gradient()

    def scanned(t):
        return jax.lax.scan(lambda c, w: (c + w * loss(t), None), 0.0, jnp.array([0.25, 0.75]))[0]

    def chosen(t):
        return jax.lax.cond(t[0] < 1, loss, lambda t: jnp.sum(t), t)

    for f in (scanned, chosen, jax.checkpoint(loss)):
        np.testing.assert_allclose(jax.jit(jax.grad(f))(T0), slope, rtol=1e-10)


@pytest.mark.slow
def test_nested_transformations():
    """vmap of jit of grad of checkpoint, and a Hessian under vmap."""
    batch = np.stack([T0, [0.01, -0.01]])
    nested = jax.vmap(jax.jit(jax.grad(jax.checkpoint(loss))))(batch)
    np.testing.assert_allclose(nested[0], value_and_gradient()[1], rtol=1e-10)
    hessians = jax.jit(jax.vmap(jax.jacfwd(jax.grad(loss))))(batch)
    np.testing.assert_allclose(hessians[0], jax.jit(jax.hessian(loss))(T0), rtol=1e-9)


def test_parameters_through_closures_pytrees_and_arrays():
    """The same A three ways has the same gradient in its parameters."""
    potential = np.linspace(0.5, 2.0, 20)

    def product(v, x):
        return v * x - 0.3 * (jnp.roll(x, 1) + jnp.roll(x, -1))

    def value(a):
        w, x, _ = partial_eigh(a, k=2, n=20)
        return w[0] + jnp.sum(x[:, 0] ** 4)

    def closure(v):
        return value(lambda x: product(v, x))

    def pytree(v):
        return value(jax.tree_util.Partial(product, v))

    def array(v):
        return value(jax.vmap(lambda e: product(v, e), in_axes=1, out_axes=1)(jnp.eye(20)))

    wanted = jax.grad(array)(potential)
    for f in (closure, pytree):
        np.testing.assert_allclose(jax.grad(f)(potential), wanted, atol=1e-11)


@pytest.mark.slow
def test_derivative_of_the_starting_guess_is_zero():
    v0 = np.random.default_rng(0).normal(size=(gf.N, 2))

    def f(v0):
        w, x, _ = partial_eigh(PENCIL.a[0], k=3, method="lobpcg", v0=v0)
        return jnp.concatenate([w, jnp.sum(x**2, axis=1)])

    for transform in (jax.jacfwd, jax.jacrev):
        np.testing.assert_array_equal(transform(f)(v0), 0)


def test_derivative_of_a_preconditioner_is_zero():
    a = gf.make((1, 2, 3), seed=32, generalized=False, n=gf.LARGE).a[0]

    def f(scale):
        options = {"k": 3, "method": "lobpcg", "preconditioner": lambda r: scale * r}
        w, x, _ = partial_eigh(a, **options)
        return jnp.sum(w) + jnp.sum(x**4 * 0 + jnp.sum(x**2, axis=1, keepdims=True) ** 2)

    np.testing.assert_array_equal(jax.grad(f)(2.0), 0)


# -- counts ----------------------------------------------------------------------------------------


class Counter:
    """Counts the columns that a product sees, by a callback in the compiled program."""

    def __init__(self):
        self.columns = 0

    def product(self, potential, block):
        def count(block, width):
            self.columns += int(width)
            return block

        result = jax.ShapeDtypeStruct(block.shape, block.dtype)
        block = jax.pure_callback(
            lambda b: count(b, b.shape[-1]), result, block, vmap_method="sequential"
        )
        return potential[:, None] * block - 0.2 * (jnp.roll(block, 1, 0) + jnp.roll(block, -1, 0))

    def spent(self, f, *arguments):
        self.columns = 0
        result = jax.block_until_ready(f(*arguments))
        return self.columns, result


class TestCounts:
    """One eigensolve for each gradient; a loss of eigenvalues alone solves no system."""

    potential = np.linspace(0.0, 4.0, 60)
    k = 3

    def setup_method(self):
        self.counter = Counter()

        @jax.custom_jvp
        def product(potential, block):
            return self.counter.product(potential, block)

        @product.defjvp
        def _(primals, tangents):
            (p, b), (dp, db) = primals, tangents
            # Linear in both; the products of tangents are counted in the same way.
            shifted = db * p[:, None] - 0.2 * (jnp.roll(db, 1, 0) + jnp.roll(db, -1, 0))
            return product(p, b), dp[:, None] * b + shifted

        self.product = product

    def loss(self, weight):
        def f(potential):
            a = BlockProduct(lambda block: self.product(potential, block))
            # Conjugate gradients need less than n products a column.
            options = {"method": "lobpcg", "derivative": Derivative(solver="cg")}
            w, x, info = partial_eigh(a, k=self.k, n=60, **options)
            return jnp.sum(w) + weight * jnp.sum(jnp.sum(x**2, axis=1) ** 2), info

        return f

    def eigenvalues(self, potential):
        a = BlockProduct(lambda block: self.product(potential, block))
        w, _, info = partial_eigh(a, k=self.k, n=60, method="lobpcg")
        return jnp.sum(w), info

    def test_info_counts_the_products(self):
        spent, (_, info) = self.counter.spent(jax.jit(self.loss(1.0)), self.potential)
        assert spent == int(info.matvecs)

    def test_eigenvalues_alone_solve_no_system(self):
        forward, _ = self.counter.spent(jax.jit(self.eigenvalues), self.potential)
        f = jax.jit(jax.value_and_grad(self.eigenvalues, has_aux=True))
        both, _ = self.counter.spent(f, self.potential)
        # The gradient is one reverse pass through A X; it needs no product but A X itself.
        assert forward <= both <= forward + self.k
        tangent = jax.jit(lambda p: jax.jvp(self.eigenvalues, (p,), (p,), has_aux=True)[1])
        pushed, _ = self.counter.spent(tangent, self.potential)
        assert pushed <= forward + self.k

    def test_one_eigensolve_in_a_gradient(self):
        forward, _ = self.counter.spent(jax.jit(self.loss(1.0)), self.potential)
        f = jax.jit(jax.value_and_grad(self.loss(1.0), has_aux=True))
        both, ((_, info), _) = self.counter.spent(f, self.potential)
        systems = both - forward

        # A second eigensolve would need as many products as the first.
        assert 0 < systems < 60 * self.k
        assert int(info.matvecs) == forward
        assert systems < 0.8 * forward


# -- options ---------------------------------------------------------------------------------------


def test_derivative_options_are_values():
    assert Derivative(tol=1e-8) == Derivative(tol=1e-8)
    assert hash(Derivative(solver="cg")) == hash(Derivative(solver="cg"))


ROWS = 40
SPRINGS = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (2, 3, ROWS)))


@pytest.mark.parametrize(
    "method",
    [
        "dense",
        *(pytest.param(m, marks=pytest.mark.slow) for m in ("chebyshev", "lobpcg", "davidson")),
    ],
)
def test_a_batch_of_batches(method):
    """And no batch of calls of LAPACK in it, where JAX would have them wait for each other."""

    def one(springs):
        masses = None if method == "chebyshev" else springs[1:]

        def stiffness(u):
            return (springs[1:] + 2) * u - jnp.roll(u, 1) - jnp.roll(u, -1)

        result = partial_eigh(stiffness, masses, 3, n=ROWS - 1, dtype=float, method=method)
        return result.eigenvalues, result.info.status

    def matrix(springs):
        stiffness = np.diag(springs[1:] + 2.0)
        for i in range(ROWS - 1):
            stiffness[i, i - 1] -= 1
            stiffness[i - 1, i] -= 1
        return stiffness, np.eye(ROWS - 1) if method == "chebyshev" else np.diag(springs[1:])

    compiled = jax.jit(jax.vmap(jax.vmap(one))).lower(SPRINGS).compile()
    values, status = compiled(SPRINGS)
    assert np.all(status == Status.CONVERGED)
    for index in np.ndindex(2, 3):
        expected = scipy.linalg.eigvalsh(*matrix(np.asarray(SPRINGS[index])))[:3]
        np.testing.assert_allclose(values[index], expected, rtol=1e-9)
    if blocks.WAITING:
        calls = [line for line in compiled.as_text().splitlines() if '="lapack_' in line]
        assert calls
        assert not any("f64[2,3," in line or "f64[6," in line for line in calls)
