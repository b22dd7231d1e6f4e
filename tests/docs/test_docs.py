"""Whatever a reader is shown runs, and prints what it is said to print.

README.md, the notebooks and the docstrings' examples are executed; a docstring describes what its
signature has; the README lists the files that there are.
"""

import contextlib
import dataclasses
import doctest
import enum
import functools
import importlib
import inspect
import io
import json
import pathlib
import pkgutil
import re

import pytest

import jax_peig

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "jax_peig"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MODULES = [
    "jax_peig",
    *(module.name for module in pkgutil.walk_packages(jax_peig.__path__, "jax_peig.")),
]
PUBLIC = [
    name
    for name, thing in vars(jax_peig).items()
    if not (name.startswith("_") or inspect.ismodule(thing))
]
COMMANDS = (
    "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/python -m jax_peig",
    "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest",
)


@functools.cache
def readme():
    return (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    """The README's fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", readme(), re.DOTALL | re.MULTILINE)


def run(source, name, namespace):
    """Execute ``source`` as a script would be; what it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(source, name, "exec"), namespace)
    return out.getvalue()


def same_zeros(text):
    """The sign of a zero is nobody's business."""
    return re.sub(r"-0\.(?![0-9]*[1-9])", " 0.", text)


# -- README.md ------------------------------------------------------------------------------------


def test_readme_examples():
    """All python blocks, in one namespace; ``#>`` marks each line that is printed."""
    namespace = {"__name__": "readme"}
    assert blocks("python")
    for number, source in enumerate(blocks("python")):
        shown = re.findall(r"#> ?(.*)$", source, re.MULTILINE)
        printed = run(source, f"README.md, block {number}", namespace).splitlines()
        assert [same_zeros(line) for line in printed] == [same_zeros(line) for line in shown]


def test_readme_commands():
    """The two commands that a reader and the CI copy, each alone in its block and nowhere else."""
    assert blocks("sh") == [command + "\n" for command in COMMANDS]
    for command in COMMANDS:
        assert readme().count(command) == 1


def test_readme_links_exist():
    for path in re.findall(r"`((?:notebooks|tests)/[\w./]+)`", readme()):
        assert (ROOT / path).exists(), path


# -- the notebooks --------------------------------------------------------------------------------


@functools.cache
def notebook(path):
    return json.loads(path.read_text(encoding="utf-8"))


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


# -- docstrings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.FAIL_FAST)
    assert failed == 0


def test_examples_are_found():
    """Where there should be examples, doctest sees them: the test above is not empty."""
    found = [
        test.name
        for module in map(importlib.import_module, MODULES)
        for test in doctest.DocTestFinder(exclude_empty=True).find(module)
        if test.examples
    ]
    for name in (
        "_api.eigh.partial_eigh",
        "_derivatives.well_posed.project_gauge",
        "_operators.given.BlockProduct",
        "_operators.sparse.from_scipy",
        "preconditioners.fourier.fourier",
    ):
        assert f"jax_peig.{name}" in found


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_for(name):
    assert importlib.import_module(name).__doc__


def sections(text):
    """A NumPy-style docstring's sections, name to body; "" is what comes before the first."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", inspect.cleandoc(text), flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def described(body):
    """The names that a section of parameters or attributes describes."""
    heads = re.findall(r"^\*{0,2}(\w[\w, ]*?)(?: :.*)?$", body, re.MULTILINE)
    return [name.strip() for head in heads for name in head.split(",")]


def check_function(name):
    """Parameters all described in order; returns; errors; an example."""
    function = getattr(jax_peig, name)
    found = sections(function.__doc__)
    names, parameters = described(found["Parameters"]), list(inspect.signature(function).parameters)
    if names[-1] == "options":  # those that the signature shows, and another function describes
        names, parameters = names[:-1], parameters[: len(names) - 1]
    assert names == parameters
    assert {"Returns", "Raises", "Examples"} <= set(found)
    assert f"{name}(" in found["Examples"]


def check_class(name):
    """Fields all described in order; an example, and the errors, where users construct it."""
    cls = getattr(jax_peig, name)
    found = sections(cls.__doc__)
    fields = getattr(cls, "_fields", None) or [f.name for f in dataclasses.fields(cls)]
    made_by_users = "Attributes" not in found
    assert described(found.get("Parameters", found.get("Attributes", ""))) == list(fields)
    if made_by_users:
        assert f"{name}(" in found["Examples"]
        assert "__post_init__" not in vars(cls) or "Raises" in found
    for attribute, member in vars(cls).items():
        documented = inspect.isfunction(member) or isinstance(member, property)
        if documented and not attribute.startswith(("_", "tree_")):
            assert inspect.getdoc(member), f"{name}.{attribute}"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_docstring(name):
    thing = getattr(jax_peig, name)
    first = inspect.cleandoc(thing.__doc__).splitlines()[0]
    assert first.endswith(".")
    if inspect.isfunction(thing):
        check_function(name)
    elif issubclass(thing, enum.Enum):
        assert all(member.text for member in thing)
    elif not issubclass(thing, Exception):
        check_class(name)


def test_public_names_are_documented_in_the_readme():
    for name in PUBLIC:
        if name not in ("Info", "PartialEighError"):
            assert name in readme(), name


# -- words ----------------------------------------------------------------------------------------

# Private words of earlier versions; beside each what is written now.
RETIRED = {
    "witness": "completeness check",
    "testif": "check",
    "testimon": "CompletenessResult",
    "sifter": "filter",
    "rough inverse": "approximate inverse",
}


@pytest.mark.parametrize("word", RETIRED)
def test_no_retired_word(word):
    """Neither in the package nor in what its reader is shown."""
    shown = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.md"), *NOTEBOOKS, ROOT / "README.md"]
    found = [path.name for path in shown if word in path.read_text(encoding="utf-8").lower()]
    assert not found, f"write {RETIRED[word]!r}"
