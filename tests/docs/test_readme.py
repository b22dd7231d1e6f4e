"""README.md: what it shows runs, and prints what it is said to print."""

import re

from tests.docs.shown import PUBLIC, ROOT, readme, run, same_zeros

COMMANDS = (
    "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/python -m jax_peig",
    "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest",
)


def blocks(language):
    """The README's fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", readme(), re.DOTALL | re.MULTILINE)


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


def test_public_names_are_documented_in_the_readme():
    for name in PUBLIC:
        if name not in ("Info", "PartialEighError"):
            assert name in readme(), name
