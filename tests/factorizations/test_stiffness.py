"""Where "auto" goes by values: stiff matrices, outside of every transformation, on one CPU."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from jax.experimental.sparse import BCOO

from jax_peig import Derivative, Status, operators, partial_eigh, preconditioners
from jax_peig._factorizations import stiffness
from jax_peig._factorizations.stiffness import is_on_host, stiffness_of
from tests.support.choices import chosen
from tests.support.finite_elements import laplacian, rough

N = 600
TOL = 1e-10
LINE = laplacian(N)
EXACT = 4 * np.sin(np.arange(1, 4) * np.pi / (2 * (N + 1))) ** 2


def in_form(matrix, form):
    makers = {
        "scipy": scipy.sparse.coo_array,
        "operator": operators.from_scipy,
        "bcoo": BCOO.from_scipy_sparse,
        "numpy": lambda x: x.toarray(),
        "array": lambda x: jnp.asarray(x.toarray()),
    }
    return makers[form](matrix)


@pytest.mark.parametrize("form", ["scipy", "operator", "bcoo", "numpy", "array"])
def test_a_stiff_matrix_is_factorised(form):
    """In every form that tells its entries, with the numbers in the reason."""
    method, reason = chosen(in_form(LINE, form))
    assert method == "shift_invert"
    assert "jit may choose otherwise" in reason
    assert "120 Lanczos steps leave a residual of" in reason
    assert reason.endswith("matvecs")


def test_it_solves():
    found = partial_eigh(LINE, k=3)
    assert found.info.method == "shift_invert"
    assert found.info.status == Status.CONVERGED
    assert "Lanczos steps" in found.info.reason
    np.testing.assert_allclose(found.eigenvalues, EXACT, rtol=1e-9)


def test_the_same_program_serves_another_matrix():
    """The reason tells the numbers of each: they are compiled into nothing."""
    one, other = (partial_eigh(factor * LINE, k=3) for factor in (1.0, 2.0))
    two = partial_eigh(scipy.sparse.csr_array(LINE + 1e-6 * scipy.sparse.eye_array(N)), k=3)
    assert one.info.reason == other.info.reason
    assert two.info.method == "shift_invert"
    np.testing.assert_allclose(2 * one.eigenvalues, other.eigenvalues, rtol=1e-9)
    np.testing.assert_allclose(two.eigenvalues, one.eigenvalues + 1e-6, rtol=1e-9)


OTHERWISE = {
    "well conditioned": (laplacian(9, 9, 9), {}),
    "far from zero": (LINE + 4 * scipy.sparse.eye_array(N), {}),
    "indefinite": (LINE - 1e-3 * scipy.sparse.eye_array(N), {}),
    "not finite": (LINE * np.inf, {}),
    "zero": (0 * LINE, {}),
    "a loose tolerance": (LINE, {"tol": 1e-2}),
    "the largest": (LINE, {"which": "largest"}),
    "a diagonal": (np.geomspace(1e-6, 1, N), {}),
    "M_solve": (LINE, {"M": np.ones(N), "M_solve": np.ones(N)}),
    "semi-iteration": (LINE, {"derivative": Derivative(solver="semi_iteration")}),
    "small n": (laplacian(400), {}),
}


@pytest.mark.parametrize("case", OTHERWISE)
def test_others_are_chosen_by_structure(case):
    A, options = OTHERWISE[case]
    with np.errstate(invalid="ignore"):
        method, reason = chosen(A, **options)
    assert method == ("dense" if case == "small n" else "chebyshev")
    assert "Lanczos" not in reason


def test_a_preconditioner_comes_first():
    method, _ = chosen(LINE, preconditioner=preconditioners.jacobi(jnp.full(N, 2.0)))
    assert method == "lobpcg"


MASSES = {  # the entry beside the diagonal of ones, and whether M is positive definite
    "definite": (0.4, "shift_invert"),
    "semidefinite": (1.0, "lobpcg"),
    "indefinite": (2.0, "lobpcg"),
}


@pytest.mark.parametrize("case", MASSES)
def test_m_has_to_be_definite(case):
    """A factorisation of A - s M would not tell: the other methods do."""
    beside, method = MASSES[case]
    M = scipy.sparse.eye_array(N, format="lil")
    M[3, 4] = M[4, 3] = beside
    assert chosen(LINE, scipy.sparse.csr_array(M))[0] == method
    without = scipy.sparse.diags_array(np.r_[0.0, np.ones(N - 1)])
    assert chosen(LINE, without)[0] == "lobpcg"


def test_a_large_factor_is_not_made():
    """A random graph with rough springs fills in: multigrid is the advice."""
    n, rng = 4000, np.random.default_rng(0)
    hops = scipy.sparse.csr_array((np.ones(3 * n), rng.integers(0, n, (2, 3 * n))), shape=(n, n))
    springs = scipy.sparse.diags_array(10.0 ** -(3 * rng.random(n)))
    graph = springs @ (hops + hops.T) @ springs
    method, reason = chosen(scipy.sparse.diags_array(graph @ np.ones(n)) - graph)
    assert method == "chebyshev"
    assert "preconditioners.multigrid" in reason


def test_the_store_of_factors_bounds_them(monkeypatch):
    monkeypatch.setattr(stiffness.factors, "max_bytes", 1000)
    assert chosen(LINE)[0] == "chebyshev"


# -- what it never depends on ----------------------------------------------------------------------


def test_traced_entries_never_choose_host_code():
    """The entries, or anything else while a program is traced: jit has the rule of structure."""
    matrix = operators.from_scipy(LINE)
    methods = []

    def solve(A, **options):
        methods.append(chosen(A, **options)[0])
        return jnp.zeros(())

    jax.jit(solve)(matrix)
    jax.jit(lambda: solve(matrix))()
    jax.eval_shape(lambda: solve(LINE))
    jax.grad(lambda v: solve(matrix.with_values(v)))(matrix.values)
    jax.vmap(lambda c: solve(matrix.with_values(c * matrix.values)))(jnp.ones(2))
    jax.vmap(lambda v0: solve(LINE, v0=v0))(jnp.ones((2, N)))
    jax.vmap(lambda key: solve(LINE, key=key))(jax.random.split(jax.random.key(0)))
    jax.lax.map(lambda _: solve(LINE), jnp.arange(2))
    assert methods == ["chebyshev"] * len(methods)
    assert len(methods) >= 8


def test_it_does_not_depend_on_extras(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyamg", None)
    assert chosen(LINE)[0] == "shift_invert"


def test_an_accelerator_has_no_host_code(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not is_on_host(LINE)


# -- what it sees ----------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", [40, 120])
def test_the_estimate_of_the_factor(edge):
    """Within a factor of three of SuperLU's fill, for grids."""
    matrix = laplacian(edge, edge)
    lu = scipy.sparse.linalg.splu(
        matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )  # fmt: skip
    found = stiffness_of(matrix, None, edge**2, TOL)
    assert 1 / 3 < found.nbytes / (stiffness.FACTOR_BYTES * lu.nnz) < 3


def test_the_forms_agree():
    matrix = rough(30)
    found = [
        stiffness_of(in_form(matrix, form), None, 900, TOL)
        for form in ("scipy", "operator", "bcoo")
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other[:3], found[0][:3], rtol=1e-3)
        assert other[3:] == found[0][3:]
