"""What a reader is shown: where it stands, and how it is run."""

import contextlib
import functools
import inspect
import io
import json
import pathlib
import re

import jax_peig

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "jax_peig"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PUBLIC = [
    name
    for name, thing in vars(jax_peig).items()
    if not (name.startswith("_") or inspect.ismodule(thing))
]


@functools.cache
def readme():
    return (ROOT / "README.md").read_text(encoding="utf-8")


@functools.cache
def notebook(path):
    return json.loads(path.read_text(encoding="utf-8"))


def run(source, name, namespace):
    """Execute ``source`` as a script would be; returns the text that it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(source, name, "exec"), namespace)
    return out.getvalue()


def same_zeros(text):
    """The text without the signs of zeros, which no reader relies on."""
    return re.sub(r"-0\.(?![0-9]*[1-9])", " 0.", text)
