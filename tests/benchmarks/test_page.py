"""The page of the tables and the README's table: made of the JSON files, and of nothing else."""

import json
import re

import pytest

from . import page, record, report, run

MODULES = [
    file.stem
    for file in record.HERE.glob("*.py")
    if "\ndef markdown(results" in file.read_text(encoding="utf-8")
]
FILES = sorted(record.RESULTS.glob("*.json"))


def _degeneracy_holds(found):
    """Derivatives of ours are right, or refused as NaN."""
    ours = [row[f"ours_{order}"] for row in found["rows"] for order in (1, 2)]
    return all(error is None or error < 1e-6 for error in ours)


def _ours(found):
    return [row for row in found["rows"] if row.get("solver", "").startswith("jax_peig")]


# What the page says of jax_peig's own rows, whatever the machine.
HOLDS = {
    "run": lambda found: run.exit_status(found) == 0,
    "degeneracy": _degeneracy_holds,
    "accuracy": lambda found: not sum(row.get("refused", 0) for row in found["rows"]),
    "bounds": lambda found: found["total"]["violations"] == 0,
    "resume": lambda found: all(row["right"] for row in found["rows"]),
    "batches": lambda found: all(row["finite"] for row in found["rows"]),
    "collectives": lambda found: not any(row["others"] for row in found["rows"]),
    "gpu": lambda found: all(
        row.get("right", True)
        for row in found["rows"]
        if row.get("solver", "").startswith("jax_peig")
    ),
}


def row(solver, problem="P1", **changes):
    """A row of `rows.bench`, as JSON gives it back."""
    good = {
        "problem": problem, "solver": solver, "status": "ok", "method": None, "tol": 1e-8,
        "residual": 2e-9, "right": True, "right_starts": [3, 3], "products": 120,
        "seconds": 0.05, "noisy": False, "compile_seconds": None, "false_claims": 0,
    }  # fmt: skip
    return good | changes


def described(problem):
    return {
        "problem": problem, "title": "a title", "n": 49, "k": 8, "which": "smallest",
        "relative_gap": 0.01, "backward_products_of_deflated_cg": None,
    }  # fmt: skip


GRADIENTS = {
    "L1": {"status": "ok", "error": 1e-12, "seconds": 0.06, "over_forward": 1.2, "noisy": False,
           "backward_products": 8},
    "L2": {"status": "not finite", "error": None, "seconds": 0.2, "over_forward": 4.0,
           "noisy": True, "backward_products": None},
}  # fmt: skip


@pytest.fixture
def results():
    machine = record.machine() | {"processor": "CPU", "cores": 2, "date": "2026-01-31"}
    return {
        "table": "run",
        "command": "python -m tests.benchmarks.run --peers --keep",
        "machine": machine,
        "settings": {"target": 1e-8, "starts": 3, "repeat": 7},
        "size": "full",
        "problems": [described("P1"), described("P6")],
        "rows": [
            row("jax_peig", method="chebyshev", gradients=GRADIENTS),
            row("jax_peig lobpcg", seconds=0.001),
            row("slow peer", seconds=2.5, noisy=True, products=None),
            row("fast peer", seconds=0.1, noisy=True),
            row("wrong peer", seconds=0.01, status="not reached", right=False, false_claims=2,
                residual=None, right_starts=[1, 3]),
            {"problem": "P1", "solver": "absent peer", "status": "not run: no a|b"},
            row("jax_peig", "P6", products=0),
        ],
    }  # fmt: skip


def cells(text, first):
    """Those of the line of a Markdown table whose first cell begins so."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {first}")]
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


class TestRendering:
    def test_rows(self, results):
        text = run.markdown(results)
        ours = ["jax_peig (chebyshev)", "50", "", "120", "2.0e-09", "3/3"]
        ours += ["60, 1.20, 1.0e-12, 8", "200~, 4.00, NaN"]
        assert cells(text, "jax_peig (chebyshev)") == ours
        assert cells(text, "slow peer")[:4] == ["slow peer", "2500~", "", ""]
        wrong = ["10", "", "120", "NaN!", "WRONG 1/3, 2 CLAIMED CONVERGED", "", ""]
        assert cells(text, "wrong peer")[1:] == wrong
        assert cells(text, "absent peer") == ["absent peer", r"not run: no a\|b", *[""] * 6]

    def test_summary(self, results):
        """The fastest peer is one that reached the target, and no method of jax_peig."""
        text = run.summary(results)
        p1 = ["P1: a title", "49", "8", "50 (120)", "fast peer", "100~", "2~"]
        assert cells(text, "P1") == p1
        assert cells(text, "P6") == ["P6: a title", "49", "8", "50", "none", "-", ""]
        assert "CPU, 2 cores; 2026-01-31" in text

    def test_summary_where_ours_missed_the_target(self, results):
        results["rows"][0]["status"] = "not reached"
        assert cells(run.summary(results), "P1")[3:] == ["-", "fast peer", "100~", ""]

    def test_a_row_is_not_longer_than_the_headings(self):
        assert report.markdown(["a", "b"], [["1"]]) == "| a | b |\n| --- | --- |\n| 1 |  |"
        with pytest.raises(ValueError, match="2 cells under 1 headings"):
            report.markdown(["a"], [["1", "2"]])

    def test_nan_is_not_an_absent_peer(self):
        rows = [{"loss": "f", "ours_1": 1e-12, "ours_2": None, "jnp_1": 0.25, "jnp_2": 3e13}]
        text = page.named("degeneracy").module().markdown({"rows": rows})
        shown = ["f", "1e-12", "0.2", "-", "-", "NaN", "3e+13", "-", "-"]
        assert cells(text, "f") == shown

    def test_machine(self, results):
        packages = {"jax": "1.2", "torch": None, "xitorch": None}
        found = results["machine"] | {"packages": packages, "variables": {"XLA_FLAGS": "--x"}}
        text = record.sentence(found)
        assert text.startswith("Measured on 2026-01-31: CPU, 2 cores")
        assert "jax 1.2" in text
        assert "without torch, xitorch; with `XLA_FLAGS=--x`" in text


class TestPage:
    def test_it_is_what_the_files_give(self):
        assert page.PAGE.read_text(encoding="utf-8") == page.render(), (
            "run: python -m tests.benchmarks.page"
        )

    def test_the_readme_is_what_the_files_give(self):
        text = page.README.read_text(encoding="utf-8")
        assert "<!-- table: run -->" in text
        assert page.filled(text) == text, "run: python -m tests.benchmarks.page"

    def test_every_table_is_on_it(self):
        assert sorted(MODULES) == sorted(table.name for table in page.TABLES)

    def test_without_results_it_shows_the_command_and_no_figures(self):
        for table in page.TABLES:
            text = page.section(table, None)
            assert f"python -m tests.benchmarks.{table.name}" in text
            assert table.absent in text
            assert "| ---" not in text

    def test_results_change_the_page_and_the_readme(self, results, tmp_path, monkeypatch):
        """What ``--keep`` does after a run."""
        for name, place in (("PAGE", "page.md"), ("README", "readme.md")):
            monkeypatch.setattr(page, name, tmp_path / place)
        monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
        around = "before\n<!-- table: run -->\n{}<!-- end of table -->\nafter\n"
        page.README.write_text(around.format("old\n"), encoding="utf-8")
        page.main()
        empty = f"Not run yet with this version: `{page.named('run').command}`.\n"
        assert page.README.read_text(encoding="utf-8") == around.format(empty)
        page.finish(results, report.parser("run", None).parse_args(["--keep"]))
        assert page.README.read_text(encoding="utf-8") == around.format(run.summary(results) + "\n")
        assert run.markdown(results) in page.PAGE.read_text(encoding="utf-8")


class TestFiles:
    def test_there_are_some_and_each_belongs_to_a_table(self):
        assert FILES
        assert {file.stem for file in FILES} <= {table.name for table in page.TABLES}

    @pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
    def test_each_has_its_command_its_machine_and_rows(self, file):
        found = json.loads(file.read_text(encoding="utf-8"))
        assert found["table"] == file.stem
        assert found["command"].startswith(f"python -m tests.benchmarks.{file.stem} ")
        assert "--keep" in found["command"]
        assert set(found["machine"]) == set(record.machine())
        assert found["rows"]

    @pytest.mark.parametrize("file", [f for f in FILES if f.stem in HOLDS], ids=lambda f: f.stem)
    def test_what_is_said_of_jax_peig_holds(self, file):
        assert HOLDS[file.stem](record.kept(file.stem))

    @pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
    def test_none_names_a_folder_of_the_machine(self, file):
        assert not re.search(r"/(?:home|root|tmp|usr|opt|work)\b", file.read_text("utf-8"))

    def test_what_is_not_finite_is_null(self, tmp_path):
        file = tmp_path / "new" / "x.json"
        record.write({"a": [1.0, float("nan")], "b": {"c": float("inf")}}, file)
        assert json.loads(file.read_text()) == {"a": [1.0, None], "b": {"c": None}}


class TestCommand:
    def test_it_is_recorded(self):
        options = report.parser("run", None).parse_args(["--keep", "--repeat", "3"])
        found = record.head(options)
        assert found["command"] == "python -m tests.benchmarks.run --keep --repeat 3"
        assert found["table"] == "run"

    @pytest.mark.parametrize("other", [["--quick"], ["--save", "x.json"]])
    def test_a_quick_run_is_not_kept(self, other, capsys):
        with pytest.raises(SystemExit):
            report.parser("run", None).parse_args(["--keep", *other])
        assert "--keep" in capsys.readouterr().err
