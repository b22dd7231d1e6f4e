"""The notebooks run from top to bottom, print what is stored in them, and are clean."""

import json
import re

import pytest

from tests.docs.shown import NOTEBOOKS, notebook, run, same_zeros


def test_there_are_notebooks():
    assert [path.name for path in NOTEBOOKS][:1] == ["01_first_steps.ipynb"]


# The first by default, the others, which take a minute each, with `-m slow`.
RUNS = [
    pytest.param(path, id=path.stem, marks=pytest.mark.slow if i else ())
    for i, path in enumerate(NOTEBOOKS)
]


@pytest.mark.parametrize("path", RUNS)
def test_notebook_runs_and_prints_what_is_stored(path):
    namespace = {"__name__": "__main__"}
    for number, cell in enumerate(notebook(path)["cells"]):
        if cell["cell_type"] == "code":
            name = f"{path.name}, cell {number}"
            printed = run("".join(cell["source"]), name, namespace)
            assert same_zeros(printed) == same_zeros(stored(cell)), name


def stored(cell):
    """The stored text output of a code cell."""
    return "".join("".join(out["text"]) for out in cell["outputs"] if out.get("name") == "stdout")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_clean(path):
    """Executed from top to bottom, without errors, warnings, ids of a machine or its paths."""
    content = notebook(path)
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    assert set(content["metadata"]) <= {"kernelspec", "language_info"}
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for cell in content["cells"]:
        assert cell["metadata"] == {}
    for output in (output for cell in code for output in cell["outputs"]):
        assert output["output_type"] in ("stream", "display_data", "execute_result")
        assert output.get("name") != "stderr"
    assert not re.search(r"/(home|root|tmp|work|Users)/", json.dumps(content))
