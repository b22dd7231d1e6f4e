"""What the tables have in common: the settings of a call, lines of text, Markdown."""

from __future__ import annotations

import argparse
import pathlib
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from . import record
from .rows import Settings

COLUMNS = {
    "solver": 32, "time ms": 10, "compile s": 9, "matvecs": 8, "residual": 8, "right": 9,
    "L1: ms, x forward, error, mv": 30, "L2: ms, x forward, error, mv": 30,
}  # fmt: skip


# ---------------------------------------------------------------- the command line


class Parser(argparse.ArgumentParser):
    """A parser whose options hold the name of their table and the command line itself."""

    def __init__(self, table: str, doc: str | None) -> None:
        prog = f"python -m tests.benchmarks.{table}"
        shape = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=doc, formatter_class=shape, allow_abbrev=False)
        self.set_defaults(table=table)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and refuse to keep what a quick run gives."""
        given = sys.argv[1:] if args is None else args
        options = super().parse_args(given, namespace)
        if options.keep and options.quick:
            self.error("--keep with --quick: the page has no results of tiny problems")
        options.command = f"{self.prog} {shlex.join(given)}".rstrip()
        options.alone = _of_one_process(given)
        return options


def _of_one_process(arguments: Sequence[str]) -> list[str]:
    """A command line without the number of processes, and without where its results go."""
    alone, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument in ("--processes", "--save"):
            del rest[:1]
        elif argument != "--keep" and not argument.startswith(("--processes=", "--save=")):
            alone.append(argument)
    return alone


def parser(table: str, doc: str | None, *, timed: bool = True, processes: bool = False) -> Parser:
    """A parser with the options that the tables share.

    Parameters
    ----------
    table, doc : str
        The table's module, and its docstring for the help.
    timed : bool
        Whether the table has times, and so repetitions.
    processes : bool
        Whether it can be made by several processes, see `processes.table`.
    """
    made = Parser(table, doc)
    add = made.add_argument
    add("--quick", action="store_true", help="tiny problems, to see that everything runs")
    where = made.add_mutually_exclusive_group()
    where.add_argument("--save", type=pathlib.Path, metavar="FILE.json", help="write all there")
    text = f"write results/{table}.json and the page made of it"
    where.add_argument("--keep", action="store_true", help=text)
    if timed:
        count = Settings.repeat
        add("--repeat", type=int, default=count, metavar="N", help=f"of a time (default: {count})")
    if processes:
        add("--processes", type=int, default=1, metavar="N", help="rows of the median process (1)")
    return made


def parse_cases(
    table: str,
    doc: str | None,
    option: str,
    cases: tuple[dict[str, Any], dict[str, Any]],
    arguments: list[str] | None,
    *,
    processes: bool = False,
) -> argparse.Namespace:
    """The options of a table whose rows are cases; those chosen are ``cases`` of the result.

    Parameters
    ----------
    option : str
        The name of the option that chooses a case; all run by default.
    cases : (dict, dict)
        All cases, and the tiny ones of ``--quick``, by name.
    """
    known, tiny = cases
    made = parser(table, doc, processes=processes)
    made.add_argument(option, dest="chosen", action="append", choices=known, help="default: all")
    options = made.parse_args(arguments)
    options.cases = {name: known[name] for name in options.chosen or known}
    if options.quick:
        options.cases, options.repeat = tiny, 1
    return options


def add_settings(made: argparse.ArgumentParser) -> None:
    """Add the options from which `settings` makes the settings of rows."""
    add = made.add_argument
    add("--slow", action="store_true", help="run peers that take minutes")
    add("--starts", type=int, default=Settings.starts, metavar="N", help="starts to be right (3)")
    add("--target", type=float, default=Settings.target, help="relative residual (1e-8)")


def add_size(made: argparse.ArgumentParser) -> None:
    """Add the option for `problems.make`."""
    text = "small, full, or a number (default: full)"
    made.add_argument("--size", type=_size, default="full", help=text)


def _size(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def settings(options: argparse.Namespace, gradients: bool) -> Settings:
    """The settings of rows that the command line asks for."""
    return Settings(options.target, options.starts, options.repeat, options.slow, gradients)


def begin(options: argparse.Namespace) -> dict[str, Any]:
    """Turn float64 on, and print and return what the table's JSON file begins with."""
    jax.config.update("jax_enable_x64", True)
    found = record.head(options)
    print(record.sentence(found["machine"]))
    return found


# ---------------------------------------------------------------- text


def cells(texts: Sequence[str], widths: Iterable[int]) -> str:
    """A line of left-justified cells."""
    return "  ".join(t.ljust(w) for t, w in zip(texts, widths, strict=True)).rstrip()


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; a row that ends early is filled with empty cells."""
    lines = [headings, ["---"] * len(headings)]
    for row in rows:
        if len(row) > len(headings):
            raise ValueError(f"a row of {len(row)} cells under {len(headings)} headings: {row}")
        lines.append([*row, *[""] * (len(headings) - len(row))])
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def number(value: float | None, form: str) -> str:
    """A number, or NaN, which is None in JSON."""
    return "NaN" if value is None or value != value else format(value, form)


def title(described: dict[str, Any]) -> str:
    """A problem in words."""
    matvecs = described["backward_products_of_deflated_cg"]
    text = (
        f"{described['problem']}: {described['title']}; n = {described['n']}, "
        f"k = {described['k']} {described['which']}, relative gap {described['relative_gap']:.1e}"
    )
    if matvecs is not None:
        text += f", L2's backward in {matvecs} products of deflated CG"
    return text


def line(row: dict[str, Any]) -> str:
    """A row of `rows.bench`."""
    shown = texts(row)
    if "seconds" not in row:
        return cells(shown, [COLUMNS["solver"], 0])
    return cells(shown, COLUMNS.values())


def texts(row: dict[str, Any]) -> list[str]:
    """The cells of a row of `rows.bench`: solver and status where it has no time."""
    solver = row["solver"]
    if row.get("method") and row["method"] not in solver:
        solver += f" ({row['method']})"
    if "seconds" not in row:
        return [solver, row["status"]]
    right = "/".join(str(count) for count in row["right_starts"])
    if not row["right"]:
        right = f"WRONG {right}"
    if row["false_claims"]:
        right += f", {row['false_claims']} CLAIMED CONVERGED"
    return [
        solver,
        milliseconds(row) + _range(row),
        "" if row["compile_seconds"] is None else f"{row['compile_seconds']:.2f}",
        "" if row["products"] is None else str(row["products"]),
        number(row["residual"], ".1e") + ("" if row["status"] == "ok" else "!"),
        right,
        *(_gradient(row.get("gradients", {}).get(loss)) for loss in ("L1", "L2")),
    ]


def _range(row: dict[str, Any]) -> str:
    """The fastest and the slowest of several processes, in ms."""
    found = [_rounded(1e3 * seconds) for seconds in row.get("process_seconds", [])]
    return f" ({found[0]} to {found[-1]})" if len(found) > 1 else ""


def _gradient(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return ""
    if "seconds" not in entry:
        return entry["status"][:60]
    parts = [milliseconds(entry), f"{entry['over_forward']:.2f}", number(entry["error"], ".1e")]
    if entry["backward_products"] is not None:
        parts.append(str(entry["backward_products"]))
    return ", ".join(parts)


def milliseconds(entry: dict[str, Any]) -> str:
    """A time, marked where the machine was busy."""
    return _rounded(1e3 * entry["seconds"]) + ("~" if entry["noisy"] else "")


def _rounded(time: float) -> str:
    return format(time, ".0f" if time >= 100 else ".3g")


def ratio_line(ratio: dict[str, Any]) -> str:
    """An entry of `run.ratios`."""
    text = f"  {ratio['peer']} / {ratio['solver']}: forward {ratio['forward']:.2f}"
    if "products" in ratio:
        text += f", products {ratio['products']:.2f}"
    for loss in ("L1", "L2"):
        if loss in ratio:
            text += f", {loss} {ratio[loss]:.2f}"
            text += "" if ratio[f"{loss}_both_finite"] else " (not finite)"
    text += "" if ratio["both_reached"] else "  (target not reached by both)"
    return text + ("  ~" if ratio["noisy"] else "")
