"""README.md: one page, of which everything runs and prints what it is said to print."""

import ast
import dataclasses
import enum
import inspect
import re

import jax
import numpy as np
import pytest

import jax_peig
from tests.docs import picture
from tests.docs.shown import NOTEBOOKS, PUBLIC, ROOT, notebook, readme, run, same_zeros

COMMANDS = (
    "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/python -m jax_peig",
    "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest",
)
PEER = "jnp.linalg.eigh"


def blocks(language):
    """The README's fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", readme(), re.DOTALL | re.MULTILINE)


def test_length():
    """One page; what is longer has a guide."""
    assert len(readme().splitlines()) <= 170
    assert len(readme().split()) <= 1500


def test_examples():
    """All python blocks, in one namespace; ``#>`` marks each line that is printed.

    What the peer prints depends on the version of JAX, and is judged by `test_peer`.
    """
    namespace = {"__name__": "readme"}
    assert blocks("python")
    for number, source in enumerate(blocks("python")):
        shown = re.findall(r"#> ?(.*)$", source, re.MULTILINE)
        printed = run(source, f"README.md, block {number}", namespace).splitlines()
        for line in (i for i, text in enumerate(shown) if "nan" in text and number == 0):
            shown[line] = printed[line]
        assert [same_zeros(line) for line in printed] == [same_zeros(line) for line in shown]


def test_examples_are_short():
    """At most ten statements' lines in each example but the first."""
    for source in blocks("python")[1:]:
        lines = [line for line in source.splitlines() if line and not line.startswith("#>")]
        assert len(lines) <= 10
        ast.parse(source)


def test_peer():
    """What jnp.linalg.eigh returns for the first example is NaN, or its second derivative is wrong.

    The reference is a central difference of the loss along e_0 e_2^T + e_2 e_0^T.
    """
    namespace = {"__name__": "readme"}
    run(blocks("python")[0], "README.md, block 0", namespace)
    A, share = namespace["A"], namespace["share"]
    E = np.zeros((4, 4))
    E[0, 2] = E[2, 0] = 1.0

    def along(t):
        return share(A + t * E, jax.numpy.linalg.eigh)

    h = 1e-3
    curvature = (along(h) - 2 * along(0.0) + along(-h)) / h**2
    first, second = jax.grad(along)(0.0), jax.grad(jax.grad(along))(0.0)
    assert np.isnan(first) or not abs(second / curvature - 1) < 1e-2


def test_picture():
    """What the picture shows: the spaces' derivatives are right at every distance.

    The second derivative of separate pairs loses digits where they are not yet one cluster, as
    (rounding / distance^2); the peer's is wrong where the distance is zero.
    """
    distances = np.array([1e-2, 1e-6, 1e-10, 0.0])
    found = picture.errors(distances)
    rounding = 100 * 40 * np.finfo(float).eps  # of order 40, gap and norms of order one
    assert np.all(found["eigenspace"] < rounding)
    clustered = distances < 1e-7
    assert np.all(found["partial_eigh"][clustered] < rounding)
    assert np.all(found["partial_eigh"][~clustered, 1] < rounding / distances[~clustered] ** 2)
    assert not found[PEER][-1, 1] < 1e-3


def test_commands():
    """The two commands that a reader and the CI copy, each alone in its block and nowhere else."""
    assert blocks("sh") == [command + "\n" for command in COMMANDS]
    for command in COMMANDS:
        assert readme().count(command) == 1


def test_links_exist():
    inside = re.findall(r"\]\(((?!http)[^)#]+)\)", readme())
    assert "notebooks/01_first_steps.ipynb" in inside
    for path in inside:
        assert (ROOT / path).exists(), path


def test_every_guide_is_linked():
    first, *others = sorted(NOTEBOOKS)
    told = texts(first)
    for path in NOTEBOOKS:
        assert f"(notebooks/{path.name})" in readme()
    for path in others:
        assert f"| `{path.stem}` |" in told


def test_first_guide_tells_of_every_field_of_info():
    told = texts(sorted(NOTEBOOKS)[0])
    for field in dataclasses.fields(jax_peig.Info):
        assert f"`{field.name}`" in told


def texts(path):
    """The sources of a notebook's cells."""
    return "".join("".join(cell["source"]) for cell in notebook(path)["cells"])


def typed(name):
    """Whether a user types the name: a function, or a class to construct, not one to receive."""
    thing = getattr(jax_peig, name)
    received = (tuple, enum.Enum, Exception)
    return inspect.isfunction(thing) or not (
        issubclass(thing, received) or "Attributes" in thing.__doc__
    )


@pytest.mark.parametrize("name", [name for name in PUBLIC if typed(name)])
def test_public_name_is_in_a_guide(name):
    """Each public name that is typed is met in the README or in a notebook."""
    assert name in readme() + "".join(map(texts, NOTEBOOKS))
