"""The right set of drawn spectra, real and complex, with and without M, and of bad masses."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from tests.support import hard_spectra as hard
from tests.support.hard_spectra import Problem, turned
from tests.support.right_set import BLOCK, N, each_method, run

# (dtype, condition number of M, which)
KINDS = {
    "real": (np.float64, None, "smallest"),
    "real, M": (np.float64, 1e2, "smallest"),
    "complex, M, largest": (np.complex128, 10.0, "largest"),
}
MORE_KINDS = {
    "real, largest": (np.float64, None, "largest"),
    "complex": (np.complex128, None, "smallest"),
    "real, M, largest": (np.float64, 1e3, "largest"),
    "complex, M": (np.complex128, 30.0, "smallest"),
}


@st.composite
def repeated(draw):
    """Draw N integers, of either sign, each up to 12 times; the rest above and below."""
    distinct = draw(st.lists(st.integers(-20, 20), min_size=1, max_size=N, unique=True))
    counts = draw(st.lists(st.integers(1, 12), min_size=len(distinct), max_size=len(distinct)))
    values = np.repeat(np.array(distinct, float), counts)[:N]
    rest = N - values.size
    return np.concatenate([values, draw(st.sampled_from([21.0, -40.0])) + 0.3 * np.arange(rest)])


@st.composite
def nearly_repeated(draw):
    """Draw clusters of any distances inside."""
    values = np.sort(draw(repeated()))
    exponents = draw(st.lists(st.floats(-16.0, 0.0), min_size=2 * BLOCK, max_size=2 * BLOCK))
    shift = np.concatenate([10.0 ** np.array(exponents), np.zeros(N - 2 * BLOCK)])
    return values + shift + shift[::-1]


def check_kind(method, kind, values, seed, is_diagonal, **options):
    dtype, condition, which = kind
    if is_diagonal:
        problem = Problem(np.diag(values).astype(dtype), None, np.sort(values))
        m = np.logspace(0, -np.log10(condition or 1), N) if condition else None
        if m is not None:
            problem = Problem(problem.A * m[None, :].astype(dtype), np.diag(m).astype(dtype),
                              problem.values)  # fmt: skip
    else:
        problem = turned(values, dtype=dtype, condition=condition, seed=seed)
    return run(problem, method, which=which, seed=seed, **options)


@pytest.mark.parametrize("kind", ["real", "real, M"])
@each_method
@hypothesis.given(values=repeated(), seed=st.integers(0, 2**31), is_diagonal=st.booleans())
def test_drawn_spectra(method, kind, values, seed, is_diagonal):
    # The filter wants an approximate inverse of M, and these have none.
    beyond = method == "chebyshev" and kind.endswith("M")
    assert check_kind(method, KINDS[kind], values, seed, is_diagonal) or beyond


@pytest.mark.slow
def test_late_guard_vectors_are_no_stagnation():
    """The wanted pairs are at rounding while a guard vector is on its way between eleven copies."""
    values = np.r_[[-14.0] * 4, 15.0, [2.0] * 11, 21 + 0.3 * np.arange(45)]
    problem = turned(values, dtype=np.complex128, condition=30.0, seed=0)
    for seed in range(8):
        assert run(problem, "chebyshev", seed=seed)


@pytest.mark.slow
@each_method
@hypothesis.settings(max_examples=5)
@hypothesis.given(values=repeated(), seed=st.integers(0, 2**31), is_diagonal=st.booleans())
def test_drawn_complex_spectra(method, values, seed, is_diagonal):
    assert check_kind(method, KINDS["complex, M, largest"], values, seed, is_diagonal)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MORE_KINDS)
@each_method
@hypothesis.settings(max_examples=6)
@hypothesis.given(values=repeated(), seed=st.integers(0, 2**31), is_diagonal=st.booleans())
def test_more_drawn_spectra(method, kind, values, seed, is_diagonal):
    beyond = method == "chebyshev" and kind == "real, M, largest"  # as above
    assert check_kind(method, MORE_KINDS[kind], values, seed, is_diagonal) or beyond


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@each_method
@hypothesis.settings(max_examples=6)
@hypothesis.given(values=nearly_repeated(), seed=st.integers(0, 2**31), is_diagonal=st.booleans())
def test_drawn_near_copies(method, kind, values, seed, is_diagonal):
    """Honest: a cluster with gaps of 1e-6 inside that k cuts takes very many steps."""
    check_kind(method, KINDS[kind], values, seed, is_diagonal, max_steps=300)


# Honest: without an inverse of M the steps grow as the root of its condition number. The filter,
# whose steps are long, is given up early.
def run_ill_conditioned(problem, method, **options):
    most = {"max_steps": 30} if method == "chebyshev" else {}
    run(problem, method, **most, **options)


@pytest.mark.slow
@pytest.mark.parametrize("condition", [1e4, 1e6])
@pytest.mark.parametrize(("first", "size"), [(0, 4), (2, 3)])
@each_method
def test_ill_conditioned_mass(method, first, size, condition):
    run_ill_conditioned(
        turned(hard.cluster(N, first, size), condition=condition, seed=first + size), method
    )


@pytest.mark.slow
@pytest.mark.parametrize("condition", [1e4, 1e6])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@each_method
def test_more_ill_conditioned_masses(method, dtype, condition):
    if dtype == np.complex128:
        problem = turned(-hard.cluster(N, 0, 4), dtype=dtype, condition=condition)
        run_ill_conditioned(problem, method, which="largest")
        return
    for first, size in [(0, 1), (0, 4), (2, 3), (0, 20)]:
        for seed in range(2):
            run_ill_conditioned(
                turned(hard.cluster(N, first, size), condition=condition), method, seed=seed
            )
