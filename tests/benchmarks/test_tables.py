"""The benchmarks' further tables at tiny sizes: growth, warm starts, bounds, the choice of method.

What they say of jax_peig is asserted as far as any size shows it: right sets, no bound violated.
"""

import itertools
import json

import jax
import numpy as np
import pytest
import scipy.linalg

from tests.support import spectra

from . import (
    accuracy,
    batches,
    bounds,
    choice,
    collectives,
    costs,
    degeneracy,
    folded,
    gpu,
    growth,
    memory,
    multigrid,
    ours,
    page,
    precision,
    problems,
    processes,
    report,
    resume,
    rows,
    run,
    stiff,
    warm,
)

pytestmark = pytest.mark.slow


def read(path):
    return json.loads(path.read_text())


def rendered(path):
    """The lines of the tables that the page makes of a JSON file, headings left out."""
    found = read(path)
    text = page.section(page.named(found["table"]), found)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [line for line in lines if not line.startswith(("| ---", "| problem", "| method"))]


class TestMethods:
    """jax_peig's rows name the method that ran, and compile once for all starts."""

    problem = problems.make("P1", 7)
    settings = rows.Settings(starts=2, repeat=1, gradients=False)

    def test_the_choice_is_told(self):
        row = rows.bench(ours.JaxPeig(), self.problem, self.settings)
        assert row["method"] == "dense"
        assert row["right_starts"] == [2, 2]
        line = report.line(row)
        assert line.startswith("jax_peig (dense) ")
        assert " 2/2" in line

    def test_one_program_for_all_starts(self):
        solver = ours.JaxPeig()
        first, _ = solver.program(self.problem, 1e-8)
        assert solver.program(self.problem, 1e-8)[0] is first
        assert solver.program(self.problem, 1e-7)[0] is not first

    def test_what_does_not_suit(self):
        vector = ours.JaxPeig(form="vector")
        assert vector.unsuited(self.problem) is None
        row = rows.bench(vector, problems.make("P4", 120), self.settings)
        assert row["status"].startswith("not run")
        assert run.exit_status({"rows": [row]}) == 0


class TestProcesses:
    @staticmethod
    def run_of(seconds, claims=0):
        row = {"problem": "P1", "solver": "s", "seconds": seconds, "false_claims": claims}
        return [row, {"problem": "P1", "solver": "t", "status": "not run: absent"}]

    def test_a_row_is_the_median_process_s(self):
        runs = [self.run_of(3.0), self.run_of(1.0, 2), self.run_of(2.0)]
        ours_, absent = processes.joined(runs, ("problem", "solver"))
        assert ours_["seconds"] == 2.0
        assert ours_["process_seconds"] == [1.0, 2.0, 3.0]
        assert ours_["false_claims"] == 2
        assert absent["status"] == "not run: absent"

    def test_two_processes(self, tmp_path):
        saved = tmp_path / "run.json"
        arguments = ["P1", "--size", "7", "--starts", "1", "--repeat", "1", "--no-gradients"]
        assert run.main([*arguments, "--processes", "2", "--save", str(saved)]) == 0
        (row,) = read(saved)["rows"]
        assert len(row["process_seconds"]) == 2
        (line,) = [line for line in rendered(saved) if line.startswith("| jax_peig")]
        assert " to " in line
        section = page.section(page.named("run"), read(saved))
        assert "Of 2 processes a row shows" in " ".join(section.split())

    def test_two_processes_of_a_series(self, tmp_path):
        saved = tmp_path / "growth.json"
        arguments = ["k", "--only", "SciPy", "--starts", "1", "--quick", "--processes", "2"]
        assert growth.main([*arguments, "--save", str(saved)]) == 0
        found = read(saved)
        assert [row["k"] for row in found["rows"]] == found["growth"]["k"]["sizes"]
        (entry,) = found["growth"]["k"]["solvers"]
        for row, seconds in zip(found["rows"], entry["seconds"], strict=True):
            assert len(row["process_seconds"]) == 2
            assert row["seconds"] == seconds == min(row["process_seconds"])

    def test_the_command_of_one_process(self):
        parser = report.parser("run", None, processes=True)
        options = parser.parse_args(["--repeat", "3", "--processes", "5", "--keep"])
        assert options.alone == ["--repeat", "3"]
        assert options.command.endswith("--repeat 3 --processes 5 --keep")


class TestGrowth:
    def test_a_series(self, capsys):
        settings = rows.Settings(starts=1, repeat=1, gradients=False)
        tables = growth.growth("k", [("P1", 7, 4), ("P1", 7, 7)], settings, ["SciPy"])
        of_all = [row for table in tables for row in table["rows"]]
        found = growth.summaries(of_all)["k"]
        assert found["sizes"] == [4, 6]
        assert "k = 6 in place of 7" in capsys.readouterr().out
        (entry,) = found["solvers"]
        assert entry["solver"] == "SciPy eigsh"
        assert all(row["right"] for row in of_all)
        assert min(entry["products"]) > 0
        last = growth.markdown({"growth": {"k": found}}).splitlines()[-1]
        assert last.startswith("| SciPy eigsh | ")
        assert all(f"({count})" in last for count in entry["products"])

    def test_exponent(self):
        sizes = [10, 100, 1000]
        assert growth.exponent(sizes, [2.0 * n**1.5 for n in sizes]) == pytest.approx(1.5)
        assert growth.exponent(sizes, [1.0, None, 10.0]) == pytest.approx(0.5)
        assert growth.exponent(sizes, [1.0, None, None]) is None

    def test_what_lapack_does_has_no_part_in_the_exponent(self):
        row = {"solver": "s", "status": "ok", "products": 9, "seconds": 1.0, "method": "dense"}
        (entry,) = growth.summary([row | {"n": n} for n in (10, 20)], "n")["solvers"]
        assert entry["products"] == [9, 9]
        assert entry["products_exponent"] is None


class TestWarm:
    @pytest.mark.parametrize("change", warm.CHANGES)
    @pytest.mark.parametrize(("name", "size"), [("P1", 9), ("P2", 7), ("P3", 9)])
    def test_sweeps_are_what_they_say(self, name, size, change):
        steps = warm.sweep(problems.make(name, size), change, 2)
        assert len(steps) == 3
        matrices = [step.matrix.toarray() for step in steps]
        for step, matrix in zip(steps, matrices, strict=True):
            mass = None if step.mass is None else step.mass.toarray()
            lam = scipy.linalg.eigh(matrix, mass, eigvals_only=True)[: step.k + 2]
            np.testing.assert_allclose(step.wanted, lam, rtol=1e-9)
        last = steps[-1]
        x = np.random.default_rng(0).standard_normal((last.n, 3))
        product = jax.jit(last.product)(last.theta, x)
        np.testing.assert_allclose(product, matrices[-1] @ x, atol=1e-12 * last.norm)
        for before, after in itertools.pairwise(matrices):
            changed = np.abs(after - before).max()
            assert 0 < changed <= 0.0101 * np.abs(before).max()

    def test_table(self, tmp_path, capsys):
        saved = tmp_path / "warm.json"
        options = ["--quick", "--change", "potential", "--method", "lobpcg", "--save", str(saved)]
        warm.main(["P1", *options])
        (row,) = read(saved)["rows"]
        assert row["status"] == "ok"
        assert row["cold"]["right"] == row["warm"]["right"] == 2
        assert row["cold"]["converged"] == row["warm"]["converged"] == 2
        assert row["ratio"] < 1
        assert f"{row['ratio']:.2f}" in capsys.readouterr().out
        (line,) = rendered(saved)
        assert line.startswith("| P1 | potential | lobpcg | ")
        assert f" {row['ratio']:.2f} " in line

    def test_a_failure_keeps_its_row(self):
        steps = warm.sweep(problems.make("P1", 7), "noise", 1)
        row = warm.compare(steps, "no such method", 1e-6, 1)
        assert row["status"].startswith("failed: ValueError")


class TestBounds:
    @pytest.mark.parametrize("condition", [None, 1000.0])
    @pytest.mark.parametrize("separation", [0.0, 1e-12, 1e-7, 1e-3])
    def test_the_exact_spectrum_is_nearer_than_lapack(self, condition, separation):
        """What is prescribed is stored to rounding; the exact spectrum is what is stored."""
        values = spectra.clustered(40, 6, "inside", separation=separation)
        pencil = spectra.pencil(values, condition=condition)
        exact, doubt, size = bounds.exact_spectrum(pencil.A, pencil.M)
        eps = np.finfo(float).eps
        np.testing.assert_allclose(exact.astype(float), values, rtol=0, atol=40 * eps * size)
        if np.finfo(np.longdouble).eps < 1e-3 * eps:
            assert doubt < eps * size

    def test_the_exact_spectrum_sees_below_rounding(self):
        """A diagonal is its own spectrum, to the last digit of a long double."""
        values = np.array([1.0, 1.0 + 2.0**-52, 1.0 + 2.0**-40, 2.0, 3.0])
        exact, doubt, _ = bounds.exact_spectrum(np.diag(values), None)
        assert np.all(np.abs(exact - values) <= doubt)

    def test_no_bound_is_violated(self):
        loose = bounds.study(6, methods=("lobpcg",), conditions=(None,), stops=[(1e-3, None)])
        ended = bounds.study(6, methods=("lobpcg",), conditions=(100.0,), stops=[(1e-10, 2)])
        found = [*loose, *ended]
        assert found[0].converged == 36
        assert found[1].converged < 36
        assert not any(finding.violated.any() for finding in found)
        total = bounds.describe(found)
        assert total["pairs"] == 2 * 6 * 6
        assert (total["method"], total["condition"], total["tol"]) == ("lobpcg", "all", "all")
        groups = bounds.grouped(found)
        assert [group["condition"] for group in groups] == [None, 100.0]
        assert sum(group["pairs"] for group in groups) == total["pairs"]
        text = bounds.markdown({"groups": groups, "total": total})
        starts = ["| lobpcg | I | ", "| lobpcg | 100 | ", "| lobpcg | all | "]
        for line, start in zip(text.splitlines()[2:], starts, strict=True):
            assert line.startswith(start)
        assert total["violations"] == 0
        assert total["estimate_pairs"] > 30
        # an estimate far below the error would mislead
        assert total["estimate_over_error"][0] > 0.5

    @pytest.mark.parametrize("method", ["chebyshev", "lobpcg"])
    def test_estimates_are_sharp(self, method):
        """Of pairs that converged loosely: bounds are hundreds of times the error and more."""
        (found,) = bounds.study(12, methods=(method,), conditions=(None,), stops=[(1e-3, None)])
        row = bounds.describe([found])
        assert row["estimate_pairs"] > 30
        least, _, median, most, _ = row["estimate_over_error"]
        assert least > 0.5
        assert median < 5
        assert most < 20
        assert row["bound_over_error"][2] > 100

    def test_a_violation_is_seen(self):
        shape = (1, 6)
        finding = bounds.Finding(
            method="m", condition=None, tol=1e-3, max_steps=None, error=np.full(shape, 2.0),
            bound=np.array([[1.0, 2.0, 3.0, np.nan, 2.0, 2.0]]), estimate=np.ones(shape),
            granted=np.zeros((1, 1)), rounding=np.full((1, 1), 1e-16), converged=0,
        )  # fmt: skip
        row = bounds.describe([finding])
        assert row["violations"] == 2
        assert row["estimate_over_error"] == [0.5] * len(bounds.QUANTILES)


class TestAccuracy:
    def test_the_exact_gradient(self):
        """Against central differences of the loss by LAPACK, along a Hermitian direction."""
        rng = np.random.default_rng(0)
        A, c = accuracy.draw(rng, np.float64)
        direction = rng.standard_normal(A.shape)
        direction = (direction + direction.T) * np.linalg.norm(A, 2) / accuracy.N

        def loss(t):
            lam, X = np.linalg.eigh(A + t * direction)
            rho = np.sum(np.abs(X[:, : accuracy.K]) ** 2, axis=1)
            return np.sum(c * rho**2) + np.sum(lam[: accuracy.K])

        h = 1e-5
        slope = (loss(h) - loss(-h)) / (2 * h)
        wanted = np.vdot(accuracy.exact_gradient(A, c), direction).real
        np.testing.assert_allclose(wanted, slope, rtol=1e-6)

    def test_table(self, tmp_path):
        saved = tmp_path / "accuracy.json"
        assert accuracy.main(["--quick", "--save", str(saved)]) == 0
        estimated, total, alarmed = read(saved)["rows"]
        assert estimated["quantiles"] == total["quantiles"]
        assert estimated["count"] == estimated["seen"] == 3
        assert alarmed["refused"] == 0
        assert alarmed["quantiles"][-1] < 0.1
        starts = [
            "complex128 | 0.0001 | 3 | 3",
            "complex128 | all | 3 | 3",
            "float32 | 0.001 | 3 | 0",
        ]
        for line, start in zip(rendered(saved), starts, strict=True):
            assert line.startswith(f"| chebyshev | {start} | 3 | ")


def test_costs(tmp_path, capsys):
    saved = tmp_path / "costs.json"
    assert costs.main(["--quick", "--save", str(saved)]) == 0
    (row,) = read(saved)["rows"]
    assert row["asymmetry"] < 1e-8
    assert row["grad_blocks"] > 0
    assert row["problem"] in capsys.readouterr().out
    (line,) = rendered(saved)
    assert line.startswith("| P1 | auto | ")


@pytest.mark.slow
def test_multigrid(tmp_path):
    saved = tmp_path / "multigrid.json"
    assert multigrid.main(["--quick", "--save", str(saved)]) == 0
    (row,) = read(saved)["rows"]
    assert row["converged"] == 8
    assert max(row["residual"], row["scipy_residual"]) <= 2 * multigrid.TARGET
    assert row["error"] < 1e-12
    (line,) = rendered(saved)
    assert line.startswith("| 2-D Laplacian 12 x 12 | 144 | 1 | ")


def test_choice(tmp_path):
    saved = tmp_path / "choice.json"
    assert choice.main(["--quick", "--save", str(saved)]) == 0
    (row,) = read(saved)["rows"]
    assert row["runs"]["shift_invert"]["converged"]
    assert row["difference"] < 1e-11
    (line,) = [line for line in rendered(saved) if line.startswith("| line 600")]
    assert "shift_invert" in line


def test_folded(tmp_path):
    saved = tmp_path / "folded.json"
    assert folded.main(["--quick", "--save", str(saved)]) == 0
    (row,) = read(saved)["rows"]
    assert all(run["converged"] for run in row["runs"].values())
    assert max(run["error"] for run in row["runs"].values()) < 1e-9


def test_stiff(tmp_path):
    saved = tmp_path / "stiff.json"
    assert stiff.main(["--quick", "--save", str(saved)]) == 0
    (row,) = read(saved)["rows"]
    assert row["converged"] == row["k"] == 8
    assert row["error"] < 1e-11
    (line,) = rendered(saved)
    assert line.startswith("| 2-D Laplacian 12 x 12 | 144 | 8 | ")


def test_memory(tmp_path):
    saved = tmp_path / "memory.json"
    assert memory.main(["--quick", "--save", str(saved)]) == 0
    (row,) = read(saved)["rows"]
    assert row["block"] == 16
    assert row["block"] < row["value"] < row["grad"]
    assert "| chebyshev | 16 | " in memory.markdown(read(saved))


def test_precision(tmp_path):
    saved = tmp_path / "precision.json"
    assert precision.main(["--quick", "--save", str(saved)]) == 0
    (row,) = read(saved)["rows"]
    assert max(row[form]["error"] for form in precision.FORMS) < 1e-13
    (line,) = rendered(saved)
    assert line.startswith("| 2-D Laplacian 14 x 14 | 196 | ")


def test_resume(tmp_path):
    saved = tmp_path / "resume.json"
    assert resume.main(["--quick", "--save", str(saved)]) == 0
    found = read(saved)["rows"]
    assert [row["method"] for row in found] == list(ours.JaxPeig.iterations)
    for row in found:
        assert row["right"]
        assert row["converged_at_half"] < row["k"]
        assert row["error"] < 10 * resume.TOL
    assert rendered(saved)[0].startswith("| 2-D Laplacian 12 x 12 | chebyshev | ")


def test_batches(tmp_path):
    saved = tmp_path / "batches.json"
    assert batches.main(["--quick", "--save", str(saved)]) == 0
    found = read(saved)
    assert all(row["finite"] and row["error"] < 1e-9 for row in found["rows"])
    assert all(row["converged"] and row["in_step"] >= 1 for row in found["slow"])
    assert len(rendered(saved)) == len(found["rows"]) + 1 + len(found["slow"])


def test_collectives(tmp_path):
    saved = tmp_path / "collectives.json"
    assert collectives.main(["--quick", "--save", str(saved)]) == 0
    (row,) = read(saved)["rows"]
    assert row["polynomials"] == 1
    assert row["polynomial"]["all-reduce"] == row["others"] == 0
    assert row["step"]["all-reduce"] > 0


def test_gpu(tmp_path):
    """At tiny sizes on the processor; no card is there to be measured."""
    saved = tmp_path / "gpu.json"
    assert gpu.main(["--quick", "--save", str(saved)]) == 0
    found = read(saved)
    ran = [row for row in found["rows"] if row["status"] == "ok"]
    forms = {"function", "SparseOperator", "BCOO", "array"}
    assert {row["solver"] for row in ran} == {f"jax_peig {f}" for f in forms} | {"jnp.linalg.eigh"}
    assert not any(row["status"].startswith("failed") for row in found["rows"])
    for row in ran:
        assert row["right"]
        assert row["residual"] < 3 * gpu.TOLERANCES[row["dtype"]]
    assert {row["product"] for row in found["products"]} == forms
    assert all(row["of_a_copy"] > 0 for row in found["products"])
    assert "GB/s" in page.section(page.named("gpu"), found)


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is a GPU")
def test_gpu_without_one(capsys):
    assert gpu.main([]) == 2
    assert "no GPU" in capsys.readouterr().out


def test_degeneracy(tmp_path, capsys, monkeypatch):
    """Where nothing of torch is installed, too; what is not says so."""
    absent = next(peer for peer in degeneracy.PEERS if peer.name == "xitorch")
    monkeypatch.setattr(type(absent), "package", "a package that is not there")
    saved = tmp_path / "degeneracy.json"
    assert degeneracy.main(["--quick", "--save", str(saved)]) == 0
    assert "xitorch: not installed" in capsys.readouterr().out
    for row in read(saved)["rows"]:
        assert row["ours_1"] < 1e-9
        assert row["ours_2"] < 1e-7
        assert row["jnp_1"] < 1e-9
        assert row["jnp_2"] > 1e-3
        assert "xitorch_1" not in row
