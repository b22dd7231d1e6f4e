"""What is differentiable: the section "Differentiability" of each public function."""

import re

from tests.docs.shown import public_functions, sections

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


def table():
    """The terms of all public functions as a table in Markdown, a docstring's references kept."""
    lines = ["| function | " + " | ".join(ENTRIES.values()) + " |"]
    lines.append("|---" * (len(ENTRIES) + 1) + "|")
    for module, name, function in public_functions():
        short = f"{module.__name__}.{name}".removeprefix("jax_peig.")
        cells = [cell.replace("|", r"\|") for cell in terms(function.__doc__).values()]
        lines.append(f"| `{short}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)
