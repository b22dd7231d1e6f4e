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
PUBLIC_MODULES = [jax_peig, jax_peig.operators, jax_peig.preconditioners, jax_peig.bounds]


def sections(text):
    """A NumPy-style docstring's sections, name to body; "" is what comes before the first."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", inspect.cleandoc(text), flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def public_functions():
    """(module, name, function) of the public modules, `partial_eigh` first."""
    for module in PUBLIC_MODULES:
        for name, thing in sorted(vars(module).items(), key=lambda item: item[0] != "partial_eigh"):
            public = inspect.isfunction(thing) and not name.startswith("_")
            if not public or thing.__module__.startswith("jax_peig._core"):
                continue
            if len(sections(thing.__doc__ or "")) > 1:
                yield module, name, thing


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
