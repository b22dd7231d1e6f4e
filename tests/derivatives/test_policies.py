"""Ill-posed questions give NaN, or what the caller chose; well-posed ones never do."""

import functools
import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_peig import Derivative, eigenspace, partial_eigh, project_gauge
from tests.support import gauge_free as gf
from tests.support.counter import Counter

N = 12
# 1, 2, 2, 3 and the rest: the pairs (1, 2) are a cluster.
LAM = np.array([1.0, 2.0, 2.0, 3.0, 4.5, 4.5, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0])
METHODS = ["dense", pytest.param("lobpcg", marks=pytest.mark.slow)]


@functools.cache
def problem(dtype=np.float64):
    """A with the spectrum LAM, perturbations of A, and a vector."""
    rng = np.random.default_rng(0)
    u = gf.random_unitary(rng, N, dtype)
    a = (u * LAM.astype(dtype)) @ u.conj().T
    y = rng.normal(size=N).astype(dtype)
    return (a + a.conj().T) / 2, gf.random_hermitian(rng, N, dtype), y


@functools.cache
def gradient(loss, k=4, transform=jax.grad, method="dense", **policies):
    """The derivative of ``loss(w, X, y)`` with respect to t in A + t E, compiled."""

    def along(t, a, e, y):
        options = {"method": method, "derivative": Derivative(**policies)}
        w, x, _ = partial_eigh(a + t.astype(a.dtype) * e, k=k, **options)
        return loss(w, x, y)

    compiled = jax.jit(transform(along))
    return lambda dtype=np.float64: np.asarray(compiled(jnp.zeros(()), *problem(dtype)))


def finished(value):
    """Wait for the callbacks on the host, too."""
    jax.effects_barrier()
    return value


def density(w, x, y):
    """Gauge-free: the weights are constant on clusters."""
    return jnp.sum((y**2) * (x[:, 1] ** 2 + x[:, 2] ** 2)) + w[1] + w[2] + w[0] ** 3


def raw_vector(w, x, y):
    """Depends on the choice of x_1 inside its cluster."""
    return y @ x[:, 1]


def one_of_the_pair(w, x, y):
    """The density of half a cluster."""
    return jnp.sum(y * x[:, 1] ** 2)


def simple_vector(w, x, y):
    """The raw vector of a simple eigenvalue: its sign alone is arbitrary."""
    return (y @ x[:, 0]) ** 2 + y @ (x[:, 0] ** 3) * jnp.sum(x[:, 0] ** 3)


def smeared(w, x, y):
    """Occupations that vary with the eigenvalue: gauge-free, and yet (lam, X) cannot carry it."""
    return jnp.sum(jax.nn.sigmoid(3 * (2.1 - w)) * (y @ x) ** 2)


def sorted_values(w, x, y):
    """Eigenvalues alone, weighted differently inside the cluster."""
    return 2 * w[1] + 5 * w[2]


def sum_of_squares(w, x, y):
    """Constant weights at first order, not at second."""
    return jnp.sum(w**2)


def square_of_sum(w, x, y):
    return (w[1] + w[2]) ** 2 + w[0] * w[3]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "loss", [density, simple_vector, sorted_values, sum_of_squares, square_of_sum]
)
def test_well_posed_is_finite(loss, method):
    assert np.isfinite(gradient(loss, method=method)())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("loss", [raw_vector, one_of_the_pair, smeared])
def test_ill_posed_is_nan(loss, method):
    assert np.isnan(gradient(loss, method=method)())


@pytest.mark.parametrize("loss", [raw_vector, one_of_the_pair, smeared])
def test_ignore_returns_a_number_and_warn_says_so(loss):
    assert np.isfinite(gradient(loss, on_gauge="ignore")())
    with pytest.warns(UserWarning, match="arbitrary choice.*project_gauge"):
        value = finished(gradient(loss, on_gauge="warn")())
    np.testing.assert_allclose(value, gradient(loss, on_gauge="ignore")())


def test_warn_is_silent_where_nothing_is_wrong():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(gradient(density, on_gauge="warn", on_unconverged="warn")())
        jax.effects_barrier()


def test_generalised_gradient_of_sorted_eigenvalues():
    """Between the two one-sided derivatives, as of max and sort."""
    a, e, _ = problem()

    def value(t):
        w = np.linalg.eigvalsh(a + t * e)
        return 2 * w[1] + 5 * w[2]

    h = 1e-6
    sides = sorted([(value(h) - value(0)) / h, (value(0) - value(-h)) / h])
    assert sides[0] - 1e-4 <= gradient(sorted_values)() <= sides[1] + 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("outer", "inner"),
    [p for p in itertools.product((jax.jacfwd, jax.jacrev), repeat=2) if jax.jacrev in p],
    ids=lambda f: f.__name__,
)
def test_second_derivatives_that_need_the_whole_block_are_nan(outer, inner):
    """A Hessian of sum lam_j^2 over a cluster that splits: the off-diagonal part is lost."""

    def twice(f):
        return outer(inner(f))

    assert np.isnan(gradient(sum_of_squares, transform=twice)())
    assert np.isnan(gradient(sorted_values, transform=twice)())
    a, e, _ = problem()

    def value(t):
        w = np.linalg.eigvalsh(a + t * e)
        return (w[1] + w[2]) ** 2 + w[0] * w[3]

    h = 1e-3
    wanted = (value(h) - 2 * value(0) + value(-h)) / h**2
    np.testing.assert_allclose(gradient(square_of_sum, transform=twice)(), wanted, rtol=1e-5)


def test_gauge_dependence_that_shows_at_second_order_only():
    """(y^T x_1 - c)^2 with c its value: the first derivative is zero, the second does not exist."""

    def at_its_value(w, x, y):
        return (y @ x[:, 1] - jax.lax.stop_gradient(y @ x[:, 1])) ** 2

    assert gradient(at_its_value)() == 0
    assert np.isnan(gradient(at_its_value, transform=lambda f: jax.jacfwd(jax.grad(f)))())


# -- a cluster that k cuts ------------------------------------------------------------------------


def kept_density(w, x, y):
    return jnp.sum(y**2 * jnp.sum(x**2, axis=1))


def first_density(w, x, y):
    return jnp.sum(y**2 * x[:, 0] ** 2)


def all_values(w, x, y):
    return jnp.sum(w)


@pytest.mark.parametrize("method", METHODS)
def test_cut_cluster(method):
    """k = 2 keeps one of the pair (2, 2): its vectors have no derivative, the rest has."""
    a, _, _ = problem()
    assert bool(partial_eigh(a, k=2, method=method).info.cut)
    assert np.isnan(gradient(kept_density, k=2, method=method)())
    assert np.isfinite(gradient(first_density, k=2, method=method)())
    assert np.isfinite(gradient(all_values, k=2, method=method)())
    np.testing.assert_allclose(
        gradient(first_density, k=2, method=method)(),
        gradient(first_density, k=3, method=method)(),
        rtol=1e-8,
    )


def test_the_norm_of_a_cut_vector_does_not_move():
    """It is one whichever vectors of the cluster k keeps: the one cotangent that is no fault."""
    a, _, _ = problem()
    for space in (partial_eigh, eigenspace):

        def norms(a, space=space):
            return jnp.sum(space(a, k=2)[1] ** 2)

        assert bool(space(a, k=2).info.cut)
        # X^H Xb is symmetric to rounding, and is divided by distances of one or more.
        atol = 100 * np.finfo(float).eps * np.max(LAM)
        np.testing.assert_allclose(jax.grad(norms)(a), 0, atol=atol)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("solver", ["minres", "auto"])
def test_the_systems_of_a_cut_cluster_are_not_tried(method, solver):
    """They are singular: a solver takes all its steps there, and says no more than the cut does."""
    a, _, y = problem()
    counter = Counter(a)

    def loss(theta):
        options = {"method": method, "derivative": Derivative(solver)}
        _, x, _ = partial_eigh(lambda u: counter(u) + theta * u, k=2, n=N, **options)
        return jnp.sum(jnp.asarray(y) ** 2 * jnp.sum(x**2, axis=1))

    jax.block_until_ready(loss(jnp.zeros(N)))
    forward, counter.count = counter.count, 0
    assert np.all(np.isnan(jax.grad(loss)(jnp.zeros(N))))
    assert counter.count <= forward + 10 * N


def test_what_a_cut_vector_asks_for_later_is_nan():
    """At t = 0 nothing is asked of the cut vector; the derivative in t of the gradient asks."""
    a, _, y = problem()

    def loss(a, t):
        w, x, _ = partial_eigh(a, k=2)
        return w[0] + t * jnp.sum(jnp.asarray(y) ** 2 * x[:, 1] ** 2)

    gradient, slope = jax.jvp(lambda t: jax.grad(loss)(a, t), (0.0,), (1.0,))
    assert np.all(np.isfinite(gradient))
    assert np.all(np.isnan(slope))


def test_cut_cluster_second_order_is_nan():
    twice = [lambda f: jax.jacfwd(jax.grad(f)), lambda f: jax.grad(jax.grad(f))]
    for transform in twice:
        assert np.isnan(gradient(all_values, k=2, transform=transform)())


# -- complex vectors ------------------------------------------------------------------------------


def real_part(w, x, y):
    """The phase of a complex vector is free."""
    return jnp.real(jnp.vdot(y, x[:, 0]))


def modulus(w, x, y):
    return jnp.abs(jnp.vdot(y, x[:, 0])) ** 2


def test_phase_of_a_complex_vector():
    assert np.isnan(gradient(real_part)(np.complex128))
    assert np.isfinite(gradient(modulus)(np.complex128))
    assert np.isfinite(gradient(real_part)(np.float64))


# -- convergence ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_unconverged_eigenpairs():
    """Apart enough to tell the clusters, at a tolerance below rounding, which no pair reaches."""
    pencil = gf.make((1, 2, 3), seed=2, n=gf.LARGE)
    options = {"method": "lobpcg", "tol": 1e-20}
    info = partial_eigh(pencil.a[0], pencil.m[0], gf.K, **options).info
    assert int(info.converged) == 0
    assert len(np.unique(info.clusters)) == 3
    assert not bool(info.cut)

    def slope(policy):
        derivative = Derivative(on_unconverged=policy)
        return gf.jitted(jax.grad, derivative=derivative, **options)(pencil, np.zeros(2))

    assert np.isnan(slope("nan")).all()
    with pytest.warns(UserWarning, match="did not reach their tolerance"):
        value = finished(slope("warn"))
    wanted = gf.gradient_fd(lambda t: gf.reference(pencil, t), np.zeros(2))
    for found in (value, slope("ignore")):
        np.testing.assert_allclose(found, wanted, rtol=1e-3)


def test_unconverged_linear_systems():
    options = {"solver": "cg", "max_steps": 1}
    assert np.isnan(gradient(density, **options)())
    assert np.isfinite(gradient(density, on_unconverged="ignore", **options)())
    with pytest.warns(UserWarning, match="did not reach their tolerance"):
        finished(gradient(density, on_unconverged="warn", **options)())
    # A loss of eigenvalues alone solves no system, and is right.
    assert np.isfinite(gradient(sum_of_squares, **options)())


def test_a_solver_that_gives_nonsense_is_found_out():
    def nonsense(matvec, b):
        return 0.1 * b

    assert np.isnan(gradient(density, solver=nonsense)())


def test_a_callers_solver():
    """A direct solve of the matrix that the product makes."""

    def direct(matvec, b):
        columns = []
        for j in range(b.shape[1]):
            matrix = jnp.stack(
                [matvec(jnp.zeros_like(b).at[i, j].set(1.0))[:, j] for i in range(b.shape[0])], 1
            )
            columns.append(jnp.linalg.solve(matrix, b[:, j]))
        return jnp.stack(columns, 1)

    np.testing.assert_allclose(gradient(density, solver=direct)(), gradient(density)(), rtol=1e-9)


# -- vmap: the policy holds for each problem of a batch -------------------------------------------


def test_batch_is_nan_only_where_ill_posed():
    a, e, y = problem()

    def along(t, shift):
        _, x, _ = partial_eigh(a + jnp.diag(shift) + t * e, k=4, method="dense")
        return y @ x[:, 1]

    split = jnp.linspace(0.0, 0.3, N)
    batch = jnp.stack([jnp.zeros(N), split, jnp.zeros(N)])
    found = jax.vmap(jax.grad(along), in_axes=(None, 0))(0.0, batch)
    np.testing.assert_array_equal(np.isnan(found), [True, False, True])


# -- project_gauge --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [pytest.param(np.float64, marks=pytest.mark.slow), np.complex128])
@pytest.mark.parametrize("generalized", [False, True])
def test_project_gauge(dtype, generalized):
    pencil = gf.make((1, 2, 3), seed=1, dtype=dtype, generalized=generalized)
    a, m = pencil.a[0], None if pencil.m is None else pencil.m[0]
    result = partial_eigh(a, m, gf.K)
    vectors = jax.jit(lambda a: partial_eigh(a, m, gf.K).eigenvectors)
    _, pull = jax.vjp(vectors, jnp.asarray(a))
    rng = np.random.default_rng(1)
    raw = rng.normal(size=(gf.N, gf.K)).astype(dtype)
    if dtype == np.complex128:
        raw = raw + 1j * rng.normal(size=raw.shape)
    assert np.isnan(pull(jnp.asarray(raw))[0]).all()
    projected = project_gauge(result, jnp.asarray(raw))
    assert np.isfinite(pull(projected)[0]).all()
    # What is removed acts on rotations inside clusters alone: it is a projection, and leaves the
    # action on every tangent that has no such part.
    np.testing.assert_allclose(project_gauge(result, projected), projected, atol=1e-12)
    _, x_dot = jax.jvp(vectors, (jnp.asarray(a),), (jnp.asarray(pencil.a[1]),))
    np.testing.assert_allclose(np.sum(raw * x_dot).real, np.sum(projected * x_dot).real, rtol=1e-9)
    gauge_free = jax.grad(lambda x: gf.from_pairs(pencil, result.eigenvalues, x, jnp))(
        result.eigenvectors
    )
    np.testing.assert_allclose(project_gauge(result, gauge_free), gauge_free, atol=1e-11)


def test_project_gauge_says_what_is_wrong():
    result = partial_eigh(problem()[0], k=2)
    with pytest.raises(ValueError, match=r"shape \(3, 3\); expected .* \(12, 2\)"):
        project_gauge(result, jnp.ones((3, 3)))
