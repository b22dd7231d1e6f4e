"""Vectors of any shape: a grid, fields of several arrays, the parameters of a network.

The same problem with flat vectors is the reference, and the dense matrix of the network's Hessian.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from jax_peig import (
    BlockProduct,
    Derivative,
    crossing,
    density,
    derivative_report,
    eigenspace,
    partial_eigh,
    project_gauge,
    projector_apply,
    spectral_apply,
    spectral_sum,
)
from jax_peig.preconditioners import jacobi
from tests.support.compilations import compilations

K = 3
GRID = jax.ShapeDtypeStruct((4, 3, 2), jnp.float64)
FIELDS = {
    "u": jax.ShapeDtypeStruct((4, 3), jnp.complex128),
    "v": (jax.ShapeDtypeStruct((7,), jnp.complex128), jax.ShapeDtypeStruct((), jnp.complex128)),
}
EXAMPLES = {"grid": GRID, "fields": FIELDS}


def zeros(like):
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), like)


def order(like):
    return ravel_pytree(zeros(like))[0].size


def hermitian(like, seed, shift=0.0):
    """A Hermitian matrix of the order and dtype of a vector; positive definite with a shift."""
    flat = ravel_pytree(zeros(like))[0]
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(flat.size, flat.size))
    if jnp.iscomplexobj(flat):
        x = x + 1j * rng.normal(size=x.shape)
    return jnp.asarray((x + x.conj().T) / 4 + shift * np.eye(flat.size))


def times(matrix, v):
    flat, unravel = ravel_pytree(v)
    return unravel(matrix @ flat)


def shaped(matrix):
    """The product of a matrix with vectors of any shape."""
    return lambda v: times(matrix, v)


def ravel_columns(like, vectors):
    return jax.vmap(lambda v: ravel_pytree(v)[0], in_axes=-1, out_axes=-1)(vectors)


class Mv:
    def __init__(self, function):
        self.mv = function


FORMS = {
    "function": shaped,
    "BlockProduct": lambda a: BlockProduct(jax.vmap(shaped(a), in_axes=-1, out_axes=-1)),
    ".mv": lambda a: Mv(shaped(a)),
    "Partial": lambda a: Partial(times, a),
    "array": lambda a: a,
}


def solve(like, form, t, flat, **options):
    """Pairs of (A(t), M(t)) in a form, or flat from the matrices' products."""
    a = hermitian(like, 0) + t * hermitian(like, 1)
    m = hermitian(like, 2, shift=9.0) + t * hermitian(like, 3)
    if flat:
        return partial_eigh(lambda v: a @ v, lambda v: m @ v, K, n=a.shape[0], dtype=a.dtype)
    make = FORMS[form]
    return partial_eigh(make(a), make(m), K, like=like, **options)


def loss(like, result):
    """Invariant under phases; of values, vectors and M X."""
    w, x, info = result
    x, mx = (t if hasattr(t, "ndim") and t.ndim == 2 else ravel_columns(like, t)
             for t in (x, info.MX))  # fmt: skip
    weights = jnp.linspace(1.0, 2.0, x.shape[0])[:, None].astype(x.dtype)
    overlap = jnp.sum(jnp.abs(jnp.sum(mx.conj() * weights * x, axis=0)) ** 2)
    return jnp.sum(jnp.sin(w)) + jnp.sum(weights.real * jnp.abs(x) ** 4) + overlap


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["grid", pytest.param("fields", marks=pytest.mark.slow)])
def test_shaped_vectors_are_flat_ones(name, form):
    """Values, vectors and M X; of some forms first and second derivatives, too."""
    like = EXAMPLES[name]
    found, flat = solve(like, form, 0.1, False), solve(like, form, 0.1, True)
    np.testing.assert_allclose(found.eigenvalues, flat.eigenvalues, rtol=1e-10)
    kinds = jax.tree.map(lambda s, x: (*s.shape, K) == x.shape, like, found.eigenvectors)
    assert all(jax.tree.leaves(kinds))
    for one, other in ((found.eigenvectors, flat.eigenvectors), (found.info.MX, flat.info.MX)):
        one, other = np.asarray(ravel_columns(like, one)), np.asarray(other)
        phases = np.sum(other.conj() * one, axis=0)
        np.testing.assert_allclose(one, other * (phases / abs(phases)), atol=1e-8)

    def twice(flat):
        slope = jax.grad(lambda t: loss(like, solve(like, form, t, flat)))
        return jax.jit(jax.value_and_grad(slope))(0.1)

    if (name, form) in (("grid", "Partial"), ("grid", "function"), ("fields", "function")):
        np.testing.assert_allclose(twice(False), twice(True), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("fields", "lobpcg"),
        pytest.param("grid", "chebyshev", marks=pytest.mark.slow),
        pytest.param("grid", "davidson", marks=pytest.mark.slow),
    ],
)
def test_iterative_methods(name, method):
    """With a guess and a preconditioner of the vectors' shape, or one of the package."""
    like = EXAMPLES[name]
    a = hermitian(like, 0) + jnp.diag(jnp.arange(order(like)).astype(hermitian(like, 0).dtype))
    scale = 1 + jnp.abs(jnp.diagonal(a))
    options = {} if method == "chebyshev" else {
        "preconditioner": shaped(jnp.diag(1 / scale).astype(a.dtype)),
        "derivative": Derivative(preconditioner=jacobi(scale)),
    }  # fmt: skip
    guess = jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), like)
    wanted = jnp.linalg.eigvalsh(a)[:K]

    def value(a, v0):
        found = partial_eigh(shaped(a), k=K, like=like, v0=v0, method=method, **options)
        return jnp.sum(found.eigenvalues), found

    (_, found), slope = jax.value_and_grad(value, has_aux=True)(a, guess)
    np.testing.assert_allclose(found.eigenvalues, wanted, rtol=1e-9)
    again = value(a, found.eigenvectors)[1]
    np.testing.assert_allclose(again.eigenvalues, wanted, rtol=1e-9)
    x = jnp.linalg.eigh(a)[1][:, :K]
    np.testing.assert_allclose(slope, (x @ x.conj().T).conj(), atol=1e-8)


def test_what_tells_the_shape():
    """A pytree v0 without ``like``; an array v0 stays flat; a flat ``like`` is n and dtype."""
    a = hermitian(FIELDS, 0)
    wanted = jnp.linalg.eigvalsh(a)[:2]
    guess = jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), FIELDS)
    found = partial_eigh(shaped(a), k=2, v0=guess)
    np.testing.assert_allclose(found.eigenvalues, wanted, rtol=1e-10)
    assert found.eigenvectors["v"][1].shape == (2,)
    flat = partial_eigh(lambda v: a @ v, k=2, like=jax.ShapeDtypeStruct((20,), a.dtype))
    assert flat.eigenvectors.shape == (20, 2)
    assert flat.eigenvectors.dtype == a.dtype
    matrix = partial_eigh(a, k=2, like=FIELDS, v0=found.eigenvectors)
    np.testing.assert_allclose(matrix.eigenvalues, wanted, rtol=1e-10)
    assert matrix.eigenvectors["u"].shape == (4, 3, 2)
    single = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, jnp.complex64), FIELDS)
    low = partial_eigh(shaped(a), k=2, like=single, dtype=jnp.complex128)
    assert low.eigenvectors["u"].dtype == jnp.complex128


def test_interior_pairs_with_an_inverse():
    a = hermitian(GRID, 0)
    inverse = jnp.linalg.inv(a - 0.3 * jnp.eye(a.shape[0]))
    found = partial_eigh(shaped(a), k=2, like=GRID, sigma=0.3, OPinv=shaped(inverse))
    w = jnp.linalg.eigvalsh(a)
    np.testing.assert_allclose(found.eigenvalues, w[jnp.argsort(abs(w - 0.3))[:2]], rtol=1e-9)


def test_vmap_and_jit():
    a, b = hermitian(GRID, 0), hermitian(GRID, 1)

    def vectors(t):
        return partial_eigh(shaped(a + t * b), k=2, like=GRID).eigenvectors

    ts = jnp.linspace(0.0, 0.3, 3)
    found = jax.jit(jax.vmap(vectors))(ts)
    assert found.shape == (3, 4, 3, 2, 2)
    np.testing.assert_allclose(abs(found[1]), abs(vectors(ts[1])), atol=1e-9)


def test_a_closure_compiles_once():
    def value(seed):
        a = hermitian(FIELDS, seed)
        return jax.value_and_grad(
            lambda s: jnp.sum(
                partial_eigh(
                    shaped(a + s * jnp.eye(20).astype(a.dtype)), k=1, like=FIELDS
                ).eigenvalues
            )
        )(0.1)

    value(0)
    hermitian(FIELDS, 1)
    with compilations() as seen:
        w, slope = value(1)
    assert not seen
    np.testing.assert_allclose(w, jnp.linalg.eigvalsh(hermitian(FIELDS, 1))[0] + 0.1, rtol=1e-10)
    np.testing.assert_allclose(slope, 1.0, rtol=1e-10)


def test_a_grid_is_the_program_of_flat_vectors():
    """Beside it only the last reshape is compiled: a grid is as fast."""
    d = jnp.arange(1.0, 25.0).reshape(4, 3, 2)
    partial_eigh(lambda v: (d * v.reshape(4, 3, 2)).reshape(-1), k=2, n=24, dtype=d.dtype)
    with compilations() as seen:
        w = partial_eigh(lambda u: d * u, k=2, like=GRID).eigenvalues
    assert len(seen) <= 1
    np.testing.assert_allclose(w, [1.0, 2.0], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("grid", marks=pytest.mark.slow), "fields"])
def test_functions_of_a_space(name):
    like, a = EXAMPLES[name], hermitian(EXAMPLES[name], 0)
    space = eigenspace(shaped(a), k=K, like=like)
    flat = eigenspace(a, k=K)
    b = jax.tree.map(lambda s: jnp.ones((*s.shape, 2), s.dtype), like)
    one, several = jnp.ones(order(like)).astype(a.dtype), jnp.ones((order(like), 2)).astype(a.dtype)

    def same(found, wanted, tail=()):
        assert jax.tree.structure(found) == jax.tree.structure(like)
        assert jax.tree.leaves(found)[0].shape == (*jax.tree.leaves(like)[0].shape, *tail)
        found = ravel_columns(like, found) if tail else ravel_pytree(found)[0]
        np.testing.assert_allclose(found, wanted, atol=1e-9)

    same(density(jnp.exp, space), density(jnp.exp, flat))
    vector = jax.tree.map(lambda x: x[..., 0], b)
    same(spectral_apply(jnp.exp, space, vector), spectral_apply(jnp.exp, flat, one))
    same(spectral_apply(jnp.exp, space, b), spectral_apply(jnp.exp, flat, several), (2,))
    same(projector_apply(space, b), projector_apply(flat, several), (2,))
    total = spectral_sum(jnp.exp, shaped(a), k=K, like=like)
    np.testing.assert_allclose(total, spectral_sum(jnp.exp, a, k=K), rtol=1e-10)
    split = crossing(shaped(a), k=K, like=like)
    assert jax.tree.structure(split.basis) == jax.tree.structure(like)


@pytest.mark.slow
def test_the_gauge_and_the_report():
    a = jnp.diag(jnp.r_[jnp.ones(2), jnp.arange(2.0, 24.0)])
    result = partial_eigh(shaped(a), k=2, like=GRID)
    raw = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3, 2, 2)))
    found = project_gauge(result, raw)
    wanted = project_gauge(partial_eigh(a, k=2), raw.reshape(24, 2))
    assert found.shape == raw.shape
    np.testing.assert_allclose(found.reshape(24, 2), wanted, atol=1e-12)

    def total(t):
        x = partial_eigh(shaped(a + t * hermitian(GRID, 1)), k=4, like=GRID).eigenvectors
        return jnp.sum(jnp.sum(x[..., 2] ** 2, axis=(1, 2)) ** 2)

    report = derivative_report(total, 0.2)
    assert report.verdict == "The gradient is well-posed."
    np.testing.assert_allclose(report.gradient, jax.grad(total)(0.2), rtol=1e-9)


# -- examples -------------------------------------------------------------------------------------


def test_two_coupled_fields():
    """A string and a chain of masses, coupled at one point: a gradient of the softest mode."""
    like = {"string": jnp.zeros(9), "chain": jnp.zeros(4)}

    def stiffness(coupling, tension):
        def product(v):
            string, chain = v["string"], v["chain"]
            bent = -jnp.diff(jnp.diff(string, prepend=0.0, append=0.0))
            pull = coupling * (string[4] - chain[0])
            return {
                "string": (tension * bent).at[4].add(pull),
                "chain": (2 * chain - jnp.roll(chain, 1)).at[0].add(-pull) - jnp.roll(chain, -1),
            }

        return product

    def softest(coupling, tension):
        return partial_eigh(stiffness(coupling, tension), k=1, like=like).eigenvalues[0]

    dense = jax.vmap(lambda e: ravel_pytree(stiffness(0.3, 1.5)(ravel_pytree(like)[1](e)))[0])
    np.testing.assert_allclose(
        softest(0.3, 1.5), jnp.linalg.eigvalsh(dense(jnp.eye(13)))[0], rtol=1e-9
    )
    step = 1e-4
    slopes = jax.grad(softest, argnums=(0, 1))(0.3, 1.5)
    moved = ((softest(0.3 + step, 1.5) - softest(0.3 - step, 1.5)) / (2 * step),
             (softest(0.3, 1.5 + step) - softest(0.3, 1.5 - step)) / (2 * step))  # fmt: skip
    np.testing.assert_allclose(slopes, moved, rtol=1e-5)


def network():
    """The training loss of a small network, and its parameters."""
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(16, 3))), jnp.asarray(rng.normal(size=16))
    params = [
        {"w": jnp.asarray(rng.normal(size=(3, 5))), "b": jnp.asarray(rng.normal(size=5))},
        {"w": jnp.asarray(rng.normal(size=5)), "b": jnp.asarray(rng.normal())},
    ]

    def training_loss(params):
        first, second = params
        hidden = jnp.tanh(x @ first["w"] + first["b"][None, :])
        return jnp.mean((hidden @ second["w"] + second["b"] - y) ** 2)

    return training_loss, params


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dense", pytest.param("lobpcg", marks=pytest.mark.slow)])
def test_curvature_of_a_network(method):
    """The ends of the Hessian's spectrum, and the gradient of the sharpness."""
    training_loss, params = network()
    flat, unravel = ravel_pytree(params)

    def curvature(params, which):
        def hessian(v):
            return jax.jvp(jax.grad(training_loss), (params,), (v,))[1]

        return partial_eigh(hessian, k=2, like=params, which=which, method=method)

    w = jnp.linalg.eigvalsh(jax.hessian(lambda p: training_loss(unravel(p)))(flat))
    largest, smallest = curvature(params, "largest"), curvature(params, "smallest")
    np.testing.assert_allclose(largest.eigenvalues, w[::-1][:2], rtol=1e-8)
    np.testing.assert_allclose(smallest.eigenvalues, w[:2], atol=1e-8 * w[-1])
    assert largest.eigenvectors[0]["w"].shape == (3, 5, 2)

    def sharpness(params):
        return curvature(params, "largest").eigenvalues[0]

    slope = jax.grad(sharpness)(params)
    assert jax.tree.structure(slope) == jax.tree.structure(params)
    along = jnp.asarray(np.random.default_rng(1).normal(size=flat.size)) / 5
    step = 1e-4
    moved = [sharpness(unravel(flat + s * along)) for s in (step, -step)]
    np.testing.assert_allclose(
        jnp.dot(ravel_pytree(slope)[0], along), (moved[0] - moved[1]) / (2 * step), rtol=1e-5
    )
