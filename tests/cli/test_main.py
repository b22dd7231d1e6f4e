"""``python -m jax_peig``: the demonstration and its model, files, wrong files, exit codes."""

import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io
import scipy.linalg
import scipy.sparse

from jax_peig._cli import demo, matrix_market, membrane
from jax_peig._cli import main as program

LUND = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"


def table(text: str) -> list[list[str]]:
    """Return the rows ``index  number ...`` of the first table printed."""
    return [line.split() for line in text.splitlines() if re.match(r"^ +\d+  +-?\d", line)]


def run(capsys, *argv: object) -> tuple[int, str, str]:
    """Return the exit code of ``main`` and what it printed."""
    code = program.main([str(a) for a in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# -- the model ----------------------------------------------------------------------------------


def assembled(density: np.ndarray) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array]:
    """Return K and M(rho) assembled the usual way: element by element, entry by entry."""
    side = density.shape[0]
    grid, h = side - 1, 1.0 / side
    k1 = np.array([[1.0, -1.0], [-1.0, 1.0]]) / h
    m1 = np.array([[2.0, 1.0], [1.0, 2.0]]) * h / 6.0
    k_element, m_element = np.kron(k1, m1) + np.kron(m1, k1), np.kron(m1, m1)
    rows, columns, k_values, m_values = [], [], [], []
    for i in range(side):
        for j in range(side):
            nodes = [(i + a - 1, j + b - 1) for a in (0, 1) for b in (0, 1)]
            for p, (r, s) in enumerate(nodes):
                for q, (u, v) in enumerate(nodes):
                    if min(r, s, u, v) >= 0 and max(r, s, u, v) < grid:
                        rows.append(r * grid + s)
                        columns.append(u * grid + v)
                        k_values.append(k_element[p, q])
                        m_values.append(density[i, j] * m_element[p, q])
    shape = (grid * grid, grid * grid)
    return (
        scipy.sparse.coo_array((k_values, (rows, columns)), shape).tocsr(),
        scipy.sparse.coo_array((m_values, (rows, columns)), shape).tocsr(),
    )


@pytest.fixture(scope="module")
def rough():
    """Return a rough density, and K, M(rho) assembled by SciPy."""
    density = 0.5 + np.random.default_rng(1).random((9, 9))
    return density, *assembled(density)


def test_products_are_those_of_the_assembled_matrices(rough):
    density, k_matrix, m_matrix = rough
    block = np.random.default_rng(2).standard_normal((64, 3))
    stiffness = membrane.MembraneStiffness(8)(jnp.asarray(block))
    mass = membrane.MembraneMass(jnp.asarray(density))(jnp.asarray(block))
    np.testing.assert_allclose(stiffness, k_matrix @ block, atol=1e-13)
    np.testing.assert_allclose(mass, m_matrix @ block, atol=1e-15)


def test_products_are_linear_symmetric_and_positive(rough):
    density, _, _ = rough
    k_dense, m_dense = (np.asarray(x) for x in membrane.dense_matrices(jnp.asarray(density)))
    for matrix in (k_dense, m_dense):
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-15)
        assert np.linalg.eigvalsh(matrix)[0] > 0.0
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((2, 64, 2))
    mass = membrane.MembraneMass(jnp.asarray(density))
    left = mass(jnp.asarray(2.0 * x - 3.0 * y))
    right = 2.0 * mass(jnp.asarray(x)) - 3.0 * mass(jnp.asarray(y))
    np.testing.assert_allclose(left, right, atol=1e-15)


def test_mass_is_differentiated_in_the_density(rough):
    """d(x^T M x)/d(rho_e) = x_e^T (m (x) m) x_e: M is linear in rho, so they sum to x^T M x."""
    density, _, m_matrix = rough
    x = np.random.default_rng(4).standard_normal((64, 1))

    def energy(rho):
        return jnp.sum(jnp.asarray(x) * membrane.MembraneMass(rho)(jnp.asarray(x)))

    gradient = jax.grad(energy)(jnp.asarray(density))
    assert np.all(np.asarray(gradient) > 0.0)
    np.testing.assert_allclose(
        np.sum(gradient * density), (x.T @ (m_matrix @ x)).item(), rtol=1e-13
    )


@pytest.mark.parametrize("grid", [4, 7])
def test_exact_spectrum(grid):
    k_matrix, m_matrix = assembled(np.ones((grid + 1, grid + 1)))
    w = scipy.linalg.eigh(k_matrix.toarray(), m_matrix.toarray(), eigvals_only=True)
    exact = membrane.exact_eigenvalues(grid, grid * grid)
    np.testing.assert_allclose(w, exact, rtol=1e-12)
    assert membrane.cluster_sizes(exact)[:5] == [1, 2, 1, 2, 2]
    assert sum(membrane.cluster_sizes(exact)) == grid * grid


def test_the_direction_splits_the_pair_at_the_rate_printed():
    grid, step = 10, 1e-4
    direction = membrane.splitting_direction(grid)
    k_matrix, m_matrix = (x.toarray() for x in assembled(np.ones((grid + 1, grid + 1))))
    w, x = scipy.linalg.eigh(k_matrix, m_matrix)
    rate = membrane.splitting_rate(jnp.asarray(x[:, 1:3]), w[1], jnp.asarray(direction))
    moved = scipy.linalg.eigh(
        k_matrix, assembled(1.0 + step * direction)[1].toarray(), eigvals_only=True
    )
    assert rate > 1.0
    assert (moved[2] - moved[1]) / step == pytest.approx(rate, rel=1e-2)


def test_the_loss_is_gauge_free_and_the_usual_way_has_its_value():
    grid = 10
    k_matrix, m_matrix = (x.toarray() for x in assembled(np.ones((grid + 1, grid + 1))))
    _, x = scipy.linalg.eigh(k_matrix, m_matrix)
    weights = jnp.asarray(membrane.rough_weights(grid))
    turned = x[:, :3].copy()
    turned[:, 1:] = turned[:, 1:] @ np.array([[0.6, -0.8], [0.8, 0.6]])
    value = membrane.amplitude_loss(jnp.asarray(x[:, :3]), weights)
    np.testing.assert_allclose(
        membrane.amplitude_loss(jnp.asarray(turned), weights), value, rtol=1e-13
    )
    usual = membrane.dense_amplitude_loss(jnp.ones((grid + 1, grid + 1)), weights, 3)
    np.testing.assert_allclose(usual, value, rtol=1e-12)


# -- the demonstration --------------------------------------------------------------------------


@pytest.mark.slow
def test_demonstration(capsys):
    code, out, err = run(capsys, "--grid", 14)
    assert (code, err) == (0, ""), out
    rows = table(out)
    exact = membrane.exact_eigenvalues(14, 8)
    assert len(rows) == 8
    np.testing.assert_allclose([float(row[1]) for row in rows], exact, rtol=1e-9)
    np.testing.assert_allclose([float(row[2]) for row in rows], exact, rtol=1e-11)
    labels = [int(row[5]) for row in rows]
    assert [labels.count(label) for label in dict.fromkeys(labels)] == [1, 2, 1, 2, 2]
    ours, difference = (
        float(re.search(rf"{name} +(-?[\d.]+)", out).group(1))
        for name in (r"gradient \. d", "central difference")
    )
    assert abs(difference) > 0.1
    assert ours == pytest.approx(difference, rel=1e-5)
    small = out[out.index("3. The same") :]
    ours = float(re.search(r"jax_peig +\. d +(-?[\d.]+)", small).group(1))
    difference = float(re.search(r"central difference +(-?[\d.]+)", small).group(1))
    assert ours == pytest.approx(difference, rel=1e-5)
    assert "NO" not in out
    assert "All checks hold" in out


def test_a_check_that_does_not_hold_is_said_and_counted(capsys):
    checks = demo.Checks()
    checks.at_most("small", 1e-12, 1e-9)
    assert checks.hold
    checks.at_most("not a number", float("nan"), 1e-9)
    checks.equal("sizes", [1, 2], [1, 2])
    assert not checks.hold
    assert [line[-3:] for line in capsys.readouterr().out.splitlines()] == ["yes", " NO", "yes"]
    checks = demo.Checks()
    checks.equal("sizes", [1, 2], [3])
    assert not checks.hold


def test_a_demonstration_that_fails_exits_with_one(capsys, monkeypatch):
    """Wrong exact eigenvalues must be seen."""
    exact = membrane.exact_eigenvalues
    monkeypatch.setattr(membrane, "exact_eigenvalues", lambda grid, k: exact(grid, k) * (1 + 1e-6))
    monkeypatch.setattr(demo, "show_gradient", lambda grid, solve, checks: None)
    monkeypatch.setattr(demo, "show_usual_way", lambda grid, checks: None)
    code, out, _ = run(capsys, "--grid", 8)
    assert code == 1
    assert "A CHECK DOES NOT HOLD" in out


def test_preconditioner_is_symmetric_positive_and_close_to_the_inverse():
    """Eigenvalues of its product with K: in (0, 2), within 0.12 of 1 on K's upper spectrum."""
    k_matrix, _ = membrane.dense_matrices(jnp.ones((13, 13)))
    inverse = np.asarray(membrane.membrane_preconditioner(12) @ jnp.eye(144))
    np.testing.assert_allclose(inverse, inverse.T, atol=1e-13)
    assert np.linalg.eigvalsh(inverse)[0] > 0.0
    w = scipy.linalg.eigh(k_matrix, np.linalg.inv(inverse), eigvals_only=True)
    assert w[0] > 0.0
    assert w[-1] < 2.0
    assert np.max(np.abs(w[np.linalg.eigvalsh(k_matrix) > 4.0 / 50.0] - 1.0)) < 0.12


# -- files --------------------------------------------------------------------------------------


def hermitian(n: int, dtype: type, seed: int, shift: float = 0.0) -> np.ndarray:
    """Return a random Hermitian matrix with eigenvalues of order one around ``shift``."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((n, n))
    if dtype is complex:
        a = a + 1j * rng.standard_normal((n, n))
    return (a + a.conj().T) / (2 * n**0.5) + shift * np.eye(n)


def write(path: pathlib.Path, matrix: np.ndarray, **options) -> pathlib.Path:
    scipy.io.mmwrite(path, matrix, **options)
    return path


@pytest.mark.parametrize("which", ["smallest", "largest"])
@pytest.mark.parametrize("sparse", [True, False], ids=["coordinate", "array"])
@pytest.mark.parametrize(
    ("dtype", "mass_dtype"), [(float, None), (complex, None), (float, complex), (complex, float)]
)
def test_files_against_scipy(capsys, tmp_path, dtype, mass_dtype, sparse, which):
    n, k = 30, 4
    form = scipy.sparse.coo_array if sparse else np.asarray
    a = hermitian(n, dtype, 0)
    files = [write(tmp_path / "a.mtx", form(a), precision=17)]
    m = None
    if mass_dtype is not None:
        m = hermitian(n, mass_dtype, 1, shift=4.0)
        files.append(write(tmp_path / "m.mtx", form(m), precision=17))
    exact = scipy.linalg.eigh(a, m, eigvals_only=True)
    exact = exact[:k] if which == "smallest" else exact[::-1][:k]
    code, out, err = run(capsys, *files, "-k", k, "--which", which)
    assert (code, err) == (0, ""), out
    rows = table(out)
    assert [int(row[0]) for row in rows] == list(range(k))
    np.testing.assert_allclose([float(row[1]) for row in rows], exact, rtol=1e-11, atol=1e-12)
    residuals, bounds = ([float(row[i]) for row in rows] for i in (2, 3))
    assert max(residuals) < 1e-9
    assert np.all(np.abs([float(row[1]) for row in rows] - exact) <= np.array(bounds) + 1e-13)
    assert "status: all k pairs converged" in out


def test_save(capsys, tmp_path):
    n, k = 40, 3
    a, m = hermitian(n, complex, 2), hermitian(n, complex, 3, shift=4.0)
    files = [write(tmp_path / f"{x}.mtx", y, precision=17) for x, y in (("a", a), ("m", m))]
    target = tmp_path / "out.npz"
    code, out, _ = run(capsys, *files, "-k", k, "--save", target)
    assert code == 0
    assert f"saved: {target}" in out
    with np.load(target) as saved:
        assert set(saved) == {"eigenvalues", "eigenvectors", "residual_norms"}
        w, x, residuals = (saved[s] for s in ("eigenvalues", "eigenvectors", "residual_norms"))
    assert (w.shape, x.shape, residuals.shape) == ((k,), (n, k), (k,))
    np.testing.assert_allclose(w, scipy.linalg.eigh(a, m, eigvals_only=True)[:k], atol=1e-12)
    np.testing.assert_allclose(x.conj().T @ m @ x, np.eye(k), atol=1e-12)
    true = np.linalg.norm(a @ x - m @ x * w, axis=0)
    np.testing.assert_allclose(residuals, true, atol=1e-13)


def test_largest_sparse_order_goes_iteratively(capsys, tmp_path):
    """Above the dense order: a path graph's Laplacian, eigenvalues 2 - 2 cos(p pi / (n + 1))."""
    n, k = matrix_market.DENSE_ORDER + 200, 2
    # Potential steps at both ends pull two eigenvalues well away from the rest of the spectrum.
    d = np.zeros(n)
    d[[0, -1]] = 3.0, 2.0
    a = scipy.sparse.diags_array([-np.ones(n - 1), 2.0 + d, -np.ones(n - 1)], offsets=[-1, 0, 1])
    path = write(tmp_path / "a.mtx", a, precision=17)
    exact = scipy.linalg.eigh_tridiagonal(
        2.0 + d, -np.ones(n - 1), eigvals_only=True, select="i", select_range=(n - k, n - 1)
    )[::-1]
    code, out, err = run(capsys, path, "-k", k, "--which", "largest", "--tol", "1e-9")
    assert (code, err) == (0, ""), out
    np.testing.assert_allclose([float(row[1]) for row in table(out)], exact, rtol=1e-12)
    assert int(re.search(r"(\d+) steps", out).group(1)) > 0


def test_unconverged_prints_the_table_and_exits_with_one(capsys, tmp_path):
    path = write(tmp_path / "a.mtx", hermitian(200, float, 4), precision=17)
    code, out, err = run(capsys, path, "-k", 2, "--method", "lobpcg", "--max-steps", 2)
    assert (code, err) == (1, "")
    assert len(table(out)) == 2
    assert "did not reach the tolerance" in out


def test_a_cut_cluster_is_said(capsys, tmp_path):
    path = write(tmp_path / "a.mtx", np.diag([1.0, 2.0, 2.0, 3.0, 4.0, 5.0]), precision=17)
    _, out, _ = run(capsys, path, "-k", 2)
    assert "-k 2 cuts a cluster" in out
    _, out, _ = run(capsys, path, "-k", 3)
    assert "cuts" not in out


def test_integers_are_converted_and_patterns_are_ones(capsys, tmp_path):
    a = np.array([[4, 1, 0], [1, 5, 1], [0, 1, 6]])
    path = write(tmp_path / "a.mtx", scipy.sparse.coo_array(a))
    assert "integer" in path.read_text().splitlines()[0]
    code, out, _ = run(capsys, path, "-k", 1)
    assert code == 0
    exact = np.linalg.eigvalsh(a.astype(float))[0]
    assert float(table(out)[0][1]) == pytest.approx(exact, rel=1e-12)
    path = write(tmp_path / "p.mtx", scipy.sparse.coo_array(a != 0), field="pattern")
    code, out, _ = run(capsys, path, "-k", 1)
    assert code == 0
    assert "is a pattern, without values: each stored entry is taken as 1" in out
    assert float(table(out)[0][1]) == pytest.approx(1.0 - 2.0**0.5, rel=1e-12)


def test_lund(capsys):
    """Stiffness and mass of the Harwell-Boeing collection, entries from 1e-7 to 1e8."""
    files = [LUND / "lund_a.mtx", LUND / "lund_b.mtx"]
    if not all(path.is_file() for path in files):
        pytest.skip(f"no Lund matrices in {LUND}: they are shared data, not part of the project")
    k_matrix, m_matrix = (
        scipy.io.mmread(path, **matrix_market.AS_SPARSE_ARRAYS).toarray() for path in files
    )
    code, out, err = run(capsys, *files, "-k", 10)
    assert (code, err) == (0, ""), out
    exact = scipy.linalg.eigh(k_matrix, m_matrix, eigvals_only=True)[:10]
    np.testing.assert_allclose([float(row[1]) for row in table(out)], exact, rtol=1e-9)


# -- what cannot be used ------------------------------------------------------------------------


def _wrong_files(folder: pathlib.Path) -> None:
    good = hermitian(6, float, 5)
    skew = np.triu(good) - np.triu(good).T
    indefinite = np.eye(6)
    indefinite[0, 1] = indefinite[1, 0] = 2.0
    not_finite = good.copy()
    not_finite[0, 0] = np.inf
    for name, matrix in {
        "good": good,
        "complex": hermitian(6, complex, 6),
        "symmetric_complex": good * (1.0 + 1.0j),
        "five": np.eye(5),
        "rectangle": np.ones((6, 5)),
        "vector": np.ones((6, 1)),
        "skew": skew,
        "almost": good + 1e-9 * np.triu(good),
        "indefinite": indefinite,
        "negative": -np.eye(6),
        "singular": np.diag([1.0, 1.0, 1.0, 1.0, 1.0, 0.0]),
        "not_finite": not_finite,
    }.items():
        write(folder / f"{name}.mtx", matrix, precision=17)
    (folder / "folder.mtx").mkdir()
    (folder / "empty.mtx").write_text("")
    (folder / "text.mtx").write_text("1 2 3\n4 5 6\n")
    (folder / "binary.mtx").write_bytes(bytes(range(256)))
    (folder / "gzip.mtx.gz").write_bytes(b"this is no gzip file")
    header = "%%MatrixMarket matrix coordinate real symmetric\n"
    (folder / "short.mtx").write_text(header + "3 3 4\n1 1 1.0\n2 2 1.0\n")
    (folder / "long.mtx").write_text(header + "3 3 2\n1 1 1.0\n2 2 3 3 1")
    (folder / "words.mtx").write_text(header + "2 2 2\n1 1 one\n2 2 two\n")
    (folder / "outside.mtx").write_text(header + "2 2 1\n3 2 1.0\n")
    (folder / "from_zero.mtx").write_text(header + "2 2 2\n1 1 1.0\n1 0 1.0\n")
    (folder / "below.mtx").write_text(header + "2 2 1\n-1 1 1.0\n")
    (folder / "points.mtx").write_text(header + "2 2 1\n1.0 1 1.0\n")
    entry = "1 1 1\n1 1 1.0\n"
    (folder / "marked.mtx").write_text(header + entry, encoding="utf-8-sig")
    (folder / "late.mtx").write_text("\n" + header + entry)
    (folder / "apart.mtx").write_text(header.replace("%%", "%% ") + entry)
    (folder / "nothing.mtx").write_text(header + "0 0 0\n")
    (folder / "vast.mtx").write_text(header.replace("coordinate", "array") + f"{10**7} {10**7}\n")


FIRST_LINE = "the first line has to start with %%MatrixMarket, written as one word, with no empty"
WRONG = {
    "missing": (["none.mtx"], "none.mtx: no such file"),
    "missing M": (["good.mtx", "none.mtx"], "none.mtx: no such file"),
    "folder": (["folder.mtx"], "no such file"),
    "empty": (["empty.mtx"], "cannot be read as a Matrix Market file"),
    "text": (["text.mtx"], "cannot be read as a Matrix Market file"),
    "binary": (["binary.mtx"], "cannot be read as a Matrix Market file"),
    "gzip": (["gzip.mtx.gz"], "cannot be read as a Matrix Market file"),
    "short": (["short.mtx"], "(expected 4 lines of entries, found 2)"),
    "long": (["long.mtx"], "(expected 3 numbers in each line of entries)"),
    "words": (["words.mtx"], "cannot be read as a Matrix Market file"),
    "outside": (
        ["outside.mtx"],
        "(an entry stands at row 3, column 2; expected rows 1 to 2 and columns 1 to 2)",
    ),
    "from zero": (["from_zero.mtx"], "(indices start at 1; this file's start at 0: add 1 to"),
    "below": (["below.mtx"], "(an entry stands at row -1, column 1; expected rows 1 to 2"),
    "points": (["points.mtx"], "(an entry stands at '1.0 1'; expected two whole numbers)"),
    "byte order mark": (["marked.mtx"], FIRST_LINE),
    "empty first line": (["late.mtx"], FIRST_LINE),
    "%% apart": (["apart.mtx"], FIRST_LINE),
    "vast": (["vast.mtx"], "cannot be read as a Matrix Market file"),
    "0 x 0": (["nothing.mtx"], "the matrix is 0 x 0"),
    "rectangle": (
        ["rectangle.mtx"],
        "is 6 x 5; expected a square one (singular values of others: jax_peig.partial_svd",
    ),
    "vector": (["vector.mtx"], "the matrix is 6 x 1; expected a square one"),
    "not finite": (["not_finite.mtx"], "has an entry that is not finite"),
    "skew": (["skew.mtx"], "the matrix is not symmetric: an entry and its mirror image differ"),
    "almost": (["almost.mtx"], "the matrix is not symmetric"),
    "complex symmetric": (["symmetric_complex.mtx"], "the matrix is not Hermitian"),
    "shapes": (["good.mtx", "five.mtx"], "good.mtx is 6 x 6 but"),
    "M skew": (["good.mtx", "skew.mtx"], "skew.mtx: the matrix is not symmetric"),
    "M indefinite": (["good.mtx", "indefinite.mtx"], "the matrix M is not positive definite"),
    "M negative": (["good.mtx", "negative.mtx"], "not positive definite: its diagonal entry 1 is"),
    "M singular": (["good.mtx", "singular.mtx"], "not positive definite: its diagonal entry 6 is"),
    "k zero": (["good.mtx", "-k", "0"], "-k is 0; expected 1 to 6, the order of"),
    "k large": (["good.mtx", "-k", "7"], "-k is 7; expected 1 to 6, the order of"),
    "k word": (["good.mtx", "-k", "two"], "argument -k: invalid int value: 'two'"),
    "which": (["good.mtx", "--which", "middle"], "argument --which: invalid choice"),
    "tol": (["good.mtx", "--tol", "-1"], "--tol is -1; expected a number between 0 and 1"),
    "tol nan": (["good.mtx", "--tol", "nan"], "--tol is nan; expected a number between 0 and 1"),
    "steps": (["good.mtx", "--max-steps", "0"], "--max-steps is 0; expected at least 1"),
    "three files": (["good.mtx", "five.mtx", "five.mtx"], "unrecognized arguments"),
    "option": (["good.mtx", "--speed"], "unrecognized arguments: --speed"),
    "save name": (
        ["good.mtx", "-k", "1", "--save", "out.txt"],
        "expected a name that ends in .npz",
    ),
    "save folder": (["good.mtx", "-k", "1", "--save", "no/o.npz"], "in a folder that exists"),
    "grid": (["--grid", "2"], "--grid is 2; expected 6 to 1000"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_used_is_one_line(capsys, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    _wrong_files(tmp_path)
    argv, expected = WRONG[case]
    code, out, err = run(capsys, *argv)
    assert code == 2
    assert out == ""
    assert err.startswith("jax_peig: error: ")
    assert expected in err
    assert err.count("\n") == 1, err
    assert err.endswith("\n")


def test_a_space_before_the_first_line_is_no_mistake(capsys, tmp_path):
    path = write(tmp_path / "a.mtx", np.diag([2.0, 3.0]), precision=17)
    path.write_text("  " + path.read_text())
    code, out, err = run(capsys, path, "-k", 1)
    assert (code, err) == (0, "")
    assert float(table(out)[0][1]) == pytest.approx(2.0, rel=1e-12)


def test_as_a_module(tmp_path):
    """In a process of its own, where float64 is not on and warnings are not errors."""
    path = write(tmp_path / "a.mtx", hermitian(12, float, 7), precision=17)
    command = [sys.executable, "-m", "jax_peig", path, "-k", "2"]
    root = pathlib.Path(__file__).resolve().parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    exact = np.linalg.eigvalsh(hermitian(12, float, 7))[:2]
    np.testing.assert_allclose([float(row[1]) for row in table(done.stdout)], exact, atol=1e-13)
    command[3] = tmp_path / "none.mtx"
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 2
    assert done.stderr == f"jax_peig: error: {tmp_path / 'none.mtx'}: no such file\n"


def test_help(capsys):
    with pytest.raises(SystemExit) as stopped:
        program.main(["--help"])
    assert stopped.value.code == 0
    assert "--save" in capsys.readouterr().out
