"""Methods as values: the same as their names, with options of their own."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_peig import (
    LOBPCG,
    Chebyshev,
    Davidson,
    Dense,
    Derivative,
    ShiftInvert,
    partial_eigh,
)
from jax_peig._eigensolvers.choose import METHODS
from jax_peig._problem.problem import Structure

N, K = 60, 3
DIAGONAL = np.arange(1.0, N + 1)
VALUES = {
    "dense": Dense,
    "chebyshev": Chebyshev,
    "lobpcg": LOBPCG,
    "davidson": Davidson,
    "shift_invert": ShiftInvert,
}


def test_every_name_stands_for_a_value():
    assert VALUES == METHODS
    for name, kind in METHODS.items():
        assert kind.name == name
        assert hash(kind()) == hash(kind())
        assert dataclasses.fields(kind) == () or kind() == kind(max_steps=None)


@pytest.mark.slow
@pytest.mark.parametrize("name", VALUES)
def test_a_value_does_what_its_name_does(name):
    solve = jax.jit(partial_eigh, static_argnames=("k", "method"))
    by_name, by_value = (solve(DIAGONAL, k=K, method=m) for m in (name, VALUES[name]()))
    np.testing.assert_array_equal(by_name.eigenvectors, by_value.eigenvectors)
    np.testing.assert_allclose(by_value.eigenvalues, DIAGONAL[:K], rtol=1e-9)
    assert by_name.info.method == by_value.info.method == name
    assert int(by_name.info.matvecs) == int(by_value.info.matvecs)


@pytest.mark.slow
def test_a_value_carries_the_bound_on_its_steps():
    in_call = partial_eigh(DIAGONAL, k=K, method="lobpcg", max_steps=2, history=True)
    in_value = partial_eigh(DIAGONAL, k=K, method=LOBPCG(max_steps=2), history=True)
    np.testing.assert_array_equal(in_call.info.history, in_value.info.history)
    assert int(in_value.info.steps) == 2


@pytest.mark.slow
def test_a_small_basis_costs_matvecs():
    wide, narrow = (
        partial_eigh(DIAGONAL, k=K, method=Davidson(max_basis_size=size)) for size in (None, 10)
    )
    assert int(narrow.info.matvecs) > int(wide.info.matvecs)
    np.testing.assert_allclose(narrow.eigenvalues, DIAGONAL[:K], rtol=1e-9)


WRONG = {
    "an unknown name": ("LOBPCG", ValueError, ["'LOBPCG'", "'lobpcg'", "LOBPCG()"]),
    "a class": (LOBPCG, TypeError, ["class LOBPCG", "method=LOBPCG()"]),
    "a number": (3, TypeError, ["method=3", "'auto'"]),
    "too many pairs": (LOBPCG(), ValueError, ["'lobpcg'", "k = 30", "3 k <= n"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_methods(case):
    method, kind, words = WRONG[case]
    with pytest.raises(kind, match=r"^partial_eigh: method") as caught:
        partial_eigh(DIAGONAL, k=30, method=method)
    assert all(word in str(caught.value) for word in words)


def test_the_bound_is_given_once():
    with pytest.raises(ValueError, match=r"given twice, 5 in the call and 4 in Davidson"):
        partial_eigh(DIAGONAL, k=K, method=Davidson(max_steps=4), max_steps=5)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: LOBPCG(max_steps=0), ValueError),
        (lambda: Chebyshev(max_steps=2.0), TypeError),
        (lambda: Davidson(max_basis_size=-1), ValueError),
    ],
)
def test_wrong_options(make, kind):
    with pytest.raises(kind, match=r"^(LOBPCG|Chebyshev|Davidson): max_"):
        make()


def test_sigma_alone_asks_for_the_nearest():
    result = partial_eigh(DIAGONAL, k=K, sigma=10.2)
    np.testing.assert_allclose(result.eigenvalues, [10.0, 11.0, 9.0])


# Which solvers of the derivative's systems are tried, and whether the semi-iteration may be asked.
STRUCTURES = [
    Structure(N, K, which, mass, preconditioner, op_inv=op_inv)
    for which, mass, preconditioner, op_inv in itertools.product(
        ("smallest", "nearest"), ("identity", "general"), (False, True), (False, True)
    )
    if which == "nearest" or not op_inv
]


@pytest.mark.parametrize("name", VALUES)
def test_the_solvers_of_the_derivative(name):
    method = VALUES[name]()
    for structure in STRUCTURES:
        solvers = method.derivative_solvers(structure)
        if name == "dense":
            assert solvers == ("eigenbasis",)
        elif name == "shift_invert":  # it always has a solve
            assert solvers == ("shift-invert", "minres")
        elif structure.interior:
            assert solvers[-1] == "minres"
            assert ("shift-invert" in solvers) == structure.op_inv
        else:
            assert solvers == ("cg" if _needs_cg(name, structure) else "semi_iteration", "minres")


def _needs_cg(name, structure):
    """A preconditioner is used, or the end of the spectrum of M^{-1} A is not known."""
    return structure.preconditioner or (name == "davidson" and structure.mass != "identity")


def test_the_semi_iteration_is_refused_where_its_interval_is_not_known():
    mass = jnp.linspace(1.0, 2.0, N)
    asked = Derivative(solver="semi_iteration")
    with pytest.raises(ValueError, match=r"solver='semi_iteration'.*method='davidson' and M"):
        partial_eigh(DIAGONAL, mass, K, method=Davidson(), derivative=asked)
