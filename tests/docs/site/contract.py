"""What is differentiable: the section "Differentiability" of each public function."""

import re

from tests.docs.shown import PUBLIC_MODULES, public_functions, sections

ENTRIES = {
    "In": "differentiable in",
    "Modes": "modes",
    "Orders": "orders",
    "Refused": "refused",
}


def terms(text):
    """The entries of a docstring's section "Differentiability", each on one line.

    Raises
    ------
    ValueError
        Unless the section has those of `ENTRIES`, in their order, and nothing else.
    """
    body = sections(text).get("Differentiability", "").strip()
    items = [" ".join(item.split()) for item in re.split(r"^\* ", body, flags=re.MULTILINE)]
    found = dict(item.split(": ", 1) for item in items[1:] if ": " in item)
    if items[0] or list(found) != list(ENTRIES) or len(items) != len(ENTRIES) + 1:
        raise ValueError(f"Differentiability has {list(found)}; expected {list(ENTRIES)}.")
    return found


INTRODUCTION = """\
# What is differentiable

For each function: in what it can be differentiated, in which modes of automatic differentiation, to
which order, and where a derivative is refused. Both modes may be nested in any order, under `jit`
and `vmap`. What is refused is NaN, or an error where the table says so, and not a wrong number. The
tables are made of the section "Differentiability" of the functions' docstrings;
[The guide to derivatives](notebooks/03_derivatives.ipynb) answers by the kind of loss.
"""


def page():
    """The page of the site, in Markdown: a table for each module."""
    tables = []
    for module in PUBLIC_MODULES:
        tables += [
            f"\n## {module.__name__}\n",
            "| function | " + " | ".join(ENTRIES.values()) + " |",
        ]
        tables.append("|---" * (len(ENTRIES) + 1) + "|")
        for name, function in ((n, f) for where, n, f in public_functions() if where is module):
            cells = [cell.replace("|", r"\|") for cell in terms(function.__doc__).values()]
            tables.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return INTRODUCTION + "\n".join(tables)
