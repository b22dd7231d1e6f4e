"""Docstrings describe what the signatures have, and their examples run."""

import dataclasses
import doctest
import enum
import importlib
import inspect
import pkgutil
import re

import pytest

import jax_peig
from tests.docs.shown import PUBLIC, public_functions, sections
from tests.docs.site.contract import terms

MODULES = [
    "jax_peig",
    *(module.name for module in pkgutil.walk_packages(jax_peig.__path__, "jax_peig.")),
]


@pytest.mark.slow
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


@pytest.mark.parametrize(
    "function", [pytest.param(f, id=name) for _, name, f in public_functions()]
)
def test_every_public_function_says_what_is_differentiable(function):
    for entry, text in terms(function.__doc__).items():
        assert text.endswith((".", ")")), entry


@pytest.mark.parametrize("text", ["", "x\n\nDifferentiability\n---------\n* In: x.\n"])
def test_an_entry_that_is_missing_is_noticed(text):
    with pytest.raises(ValueError, match="expected"):
        terms(text)


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
