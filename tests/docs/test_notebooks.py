"""The notebooks run from top to bottom, print what is stored in them, and are clean."""

import json
import math
import re

import jax
import pytest

from tests.docs.shown import NOTEBOOKS, notebook, run, same_zeros


def test_there_are_notebooks():
    assert [path.name for path in NOTEBOOKS][:1] == ["01_first_steps.ipynb"]


RUNS = [pytest.param(path, id=path.stem) for path in NOTEBOOKS]


@pytest.fixture
def pyplot(monkeypatch):
    """matplotlib without a screen, or None; afterwards its settings and JAX's are as before."""
    unoptimised = jax.config.values["jax_disable_most_optimizations"]
    try:
        import matplotlib
    except ImportError:
        yield None
    else:
        matplotlib.use("Agg")
        from matplotlib import pyplot

        monkeypatch.setattr(pyplot, "show", lambda: None)
        with matplotlib.rc_context():
            yield pyplot
        pyplot.close("all")
    jax.config.update("jax_disable_most_optimizations", unoptimised)


@pytest.mark.slow
@pytest.mark.parametrize("path", RUNS)
def test_notebook_runs_and_prints_what_is_stored(path, pyplot):
    """Each cell prints its stored text; with matplotlib it draws as many figures as are stored."""
    namespace = {"__name__": "__main__"}
    for number, cell in enumerate(notebook(path)["cells"]):
        if cell["cell_type"] == "code":
            name = f"{path.name}, cell {number}"
            printed = run("".join(cell["source"]), name, namespace)
            assert same_zeros(printed) == same_zeros(stored(cell)), name
            if pyplot is not None:
                assert drawn(pyplot) == figures(cell), name


def drawn(pyplot):
    """Draw the open figures and close them; returns how many there were."""
    numbers = pyplot.get_fignums()
    for number in numbers:
        pyplot.figure(number).canvas.draw()
    pyplot.close("all")
    return len(numbers)


def figures(cell):
    """The number of stored pictures of a code cell."""
    return sum("image/png" in out.get("data", ()) for out in cell["outputs"])


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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_opens_with_a_figure(path):
    first = next(cell for cell in notebook(path)["cells"] if cell["cell_type"] == "code")
    assert figures(first)


WIDTH, SCREEN = 100, 50  # characters of a line, and lines of a screen


def rendered_lines(source):
    """The lines that a text takes: paragraphs are filled, all other lines count one each."""
    lines = 0
    for block in re.split(r"\n\s*\n", "".join(source).strip()):
        if re.match(r"[#|*-]|\$\$|\d\. ", block):
            lines += sum(math.ceil(len(line) / WIDTH) for line in block.splitlines())
        else:
            lines += math.ceil(len(" ".join(block.split())) / WIDTH)
        lines += 1  # the distance to the next block
    return lines


def test_lines_of_a_text_are_counted():
    paragraph = "word " * 50  # 249 characters
    assert rendered_lines(paragraph) == 4
    assert rendered_lines(["# Title\n", "\n", paragraph, "\n\n| a |\n|---|\n| b |"]) == 2 + 4 + 4


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_has_at_most_a_screen_of_prose_between_figures(path):
    """Also before the first figure and after the last; code and printed text are not prose."""
    since = 0
    for number, cell in enumerate(notebook(path)["cells"]):
        if cell["cell_type"] == "markdown":
            since += rendered_lines(cell["source"])
        elif figures(cell):
            since = 0
        assert since <= SCREEN, f"{path.name}, cell {number}"
