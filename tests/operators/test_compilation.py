"""An operator of the same form is the same program: other values compile nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO
from jax.tree_util import Partial

from jax_peig import BlockProduct, Derivative, partial_eigh
from jax_peig._operators.operator import as_operator
from tests.support import spectra
from tests.support.compilations import compilations
from tests.support.operator_forms import (
    FLOAT,
    PENCIL,
    SECOND,
    Coordinates,
    K,
    N,
    Named,
    closure,
    times,
)


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


@pytest.mark.slow
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


def test_a_closure_compiles_once():
    """More of it in test_closures.py."""
    partial_eigh(closure(PENCIL.A), k=1, n=N)
    with compilations() as seen:
        w = partial_eigh(closure(SECOND.A), k=1, n=N).eigenvalues
    assert not seen
    np.testing.assert_allclose(w, spectra.reference(SECOND.A)[0][:1], rtol=1e-11)


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
    third = as_operator(Partial(lambda a, v: a.T @ v, jnp.asarray(PENCIL.A)), N, FLOAT, "A")
    assert jax.tree.structure(other) != jax.tree.structure(third)
