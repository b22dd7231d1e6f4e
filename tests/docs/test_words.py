"""No private word of an earlier version is left where a reader would meet it."""

import pytest

from tests.docs.shown import NOTEBOOKS, PACKAGE, ROOT

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
