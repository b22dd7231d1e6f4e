"""Results print as a table of at most 15 lines; nothing else of them is printed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_peig
from jax_peig import Status, partial_eigh

N = 40
LEVELS = np.arange(1.0, N + 1)
A = np.diag(LEVELS)
RESULTS = {
    "partial_eigh": lambda k: partial_eigh(A, k=k),
    "info": lambda k: partial_eigh(A, k=k).info,
    "eigenspace": lambda k: jax_peig.eigenspace(A, k=k),
    "partial_svd": lambda k: jax_peig.partial_svd(A, k),
    "nuclear_norm": lambda k: jax_peig.nuclear_norm(A, k),
    "singular_value_threshold": lambda k: jax_peig.singular_value_threshold(A, 30.5, k),
}


@pytest.mark.slow
@pytest.mark.parametrize("k", [3, 20])
@pytest.mark.parametrize("name", RESULTS)
def test_a_table_of_at_most_15_lines(name, k):
    result = RESULTS[name](k)
    text = repr(result)
    lines = text.splitlines()
    assert str(result) == text
    assert len(lines) <= 15
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith(type(result).__name__)
    for word in (f"k = {k}", "dense", "matvecs"):
        assert word in lines[0]
    assert lines[1].split() == [*lines[1].split()[:-4], "residual", "error", "bound", "cluster"]
    info = result if name == "info" else result.info
    assert lines[-1] == info.message
    assert ("..." in text) == (k > 10)
    assert "Array(" not in text


def test_the_numbers_are_those_of_the_result():
    result = partial_eigh(A, k=3)
    rows = [line.split() for line in repr(result).splitlines()[2:5]]
    assert [int(row[0]) for row in rows] == [0, 1, 2]
    np.testing.assert_allclose([float(row[1]) for row in rows], result.eigenvalues, rtol=1e-13)
    columns = (result.info.residual_norms, result.info.error_bounds, result.info.clusters)
    for j, column in enumerate(columns, start=2):
        np.testing.assert_allclose([float(row[j]) for row in rows], column, rtol=0.06)
    (gap,) = [line for line in repr(result).splitlines() if line.startswith("gap")]
    assert float(gap.split()[1]) == 1.0


def test_the_first_and_the_last_of_many():
    lines = repr(partial_eigh(A, k=20)).splitlines()
    shown = [int(line.split()[0]) for line in lines[2:-2] if "..." not in line]
    assert shown[0] == 0
    assert shown[-1] == 19
    assert shown == sorted(shown)


def test_a_cut_is_told():
    assert "k cuts a cluster" in repr(partial_eigh(np.diag([1.0, 1.0, 2.0, 3.0]), k=1))


def test_a_batch_shows_its_worst_member():
    scale = jnp.array([[1.0, 2.0], [jnp.nan, 3.0]])
    solve = jax.vmap(jax.vmap(lambda c: partial_eigh(c * A, k=2)))
    text = repr(solve(scale))
    assert text.splitlines()[0].startswith(
        "PartialEigh of a batch (2, 2), 1 failed; the worst member, (1, 0): k = 2"
    )
    assert text.splitlines()[-1] == Status.NOT_FINITE.text
    assert "worst member, 0: " in repr(jax.vmap(lambda c: partial_eigh(c * A, k=2))(scale[0]))


def test_under_tracing_it_is_short():
    seen = []

    @jax.jit
    def solve(a):
        result = partial_eigh(a, k=2)
        seen.extend([repr(result), repr(result.info)])
        return result

    result = solve(A)
    assert seen[0] == f"PartialEigh(eigenvalues=float64[2], eigenvectors=float64[{N},2], info=Info)"
    assert seen[1] == "Info(method='dense', status=int64[])"
    # Trees of other things than arrays have shapes to show, or types.
    shapes = jax.eval_shape(lambda a: partial_eigh(a, k=2), A)
    assert repr(shapes) == seen[0]
    assert repr(jax.tree.map(lambda _: None, result)).startswith("PartialEigh(eigenvalues=NoneType")


def test_single_precision_has_its_digits():
    row = repr(partial_eigh(A.astype(np.float32), k=2)).splitlines()[2].split()
    assert row[1] == "1.00000e+00"


def test_the_report_of_minres():
    x, info = jax_peig.minres(A, np.ones(N))
    assert x.shape == (N,)
    assert repr(info) == str(info)
    assert len(repr(info).splitlines()) == 1
    assert info.message in repr(info)
