"""The page of the tables, and the README's table, made of the JSON files in ``results``.

    python -m tests.benchmarks.page

The command of a table does the same after it has written its JSON file, if it is given ``--keep``.
Nothing here runs a solver. `test_page.py` holds both texts equal to what the JSON files give.
"""

from __future__ import annotations

import argparse
import importlib
import re
import textwrap
from dataclasses import dataclass
from typing import Any

from . import record

PAGE = record.HERE / "README.md"
README = record.HERE.parents[1] / "README.md"
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
WIDTH = 100

INTRODUCTION = """\
# Benchmarks

Each table below is made from one JSON file in `results/`, and one command writes that file. With
`--keep` the command also records the machine, and rewrites this page and the table in the
project's README. `python -m tests.benchmarks.page` rewrites both without running anything.

The peers are installed by `pip install -e '.[benchmarks]'`. One of them, primme, is built from
source and needs the development files of LAPACK and BLAS. Each command lists its options with
`--help`.

Times are medians after warm-up, and compile time is never part of them. A time with "~" was taken
while other programs kept the machine busy. Times of different tables may come from different
days, so compare times within a table only.
"""


@dataclass(frozen=True)
class Table:
    """One table of the page.

    Attributes
    ----------
    name : str
        Its module, whose function ``markdown`` renders what the JSON file holds.
    title, text : str
        What is measured, and how to read it.
    arguments : str
        Those of the command while there is no JSON file.
    absent : str
        What stands in place of the figures then.
    """

    name: str
    title: str
    text: str
    arguments: str = "--keep"
    absent: str = "Not run yet with this version."

    @property
    def command(self) -> str:
        """The command that makes the table."""
        return f"python -m tests.benchmarks.{self.name} {self.arguments}"

    def module(self) -> Any:
        """Imported late, because it imports this one."""
        return importlib.import_module(f".{self.name}", __package__)


TABLES = (
    Table(
        "run",
        "Solvers side by side",
        """
        This table compares jax_peig with its peers on the problems P1 to P6, which `problems.py`
        defines together with their exact answers. Each solver gets the loosest tolerance at which
        it reaches the target from every start; "!" marks one that never did. For SciPy with ILU
        the compile time is that of the factorisation. L1 is a loss of eigenvalues and L2 a rough
        one of eigenvectors: their cells give the time of value and gradient, its ratio to the
        forward solve, the relative error of the gradient, and the matvecs of the backward pass.
        """,
        "--peers --keep",
    ),
    Table(
        "growth",
        "Growth with n and k",
        """
        This table shows how time and matvecs grow with the order n, and on P1 with the number of
        pairs k. A cell gives the time in ms and the matvecs in parentheses. "-" stands where a
        solver did not run or missed the target. The exponent p is that of the best fit
        cost = c size^p.
        """,
    ),
    Table(
        "warm",
        "Warm starts",
        """
        This table compares solves that start from the eigenvectors of a nearby problem (warm) with
        solves that start from a random block (cold). Each step of a sweep changes the operator by
        one per cent. The first ratio is that of all matvecs, "worst" is the ratio of the worst
        step, and the last ratio is that of the times. "right" counts the warm steps that found
        the right set of pairs.
        """,
    ),
    Table(
        "costs",
        "Cost of derivatives",
        """
        This table shows what the gradient and a Hessian-vector product of the rough loss L2 cost.
        "grad x" and "hvp x" are times over that of the value alone, and the columns in s are
        compile times. "blocks" counts the buffers that the value needs at once, in blocks of n k
        numbers, "grad" those of the gradient, and "beyond" is the difference. The asymmetry of the
        Hessian in two random directions measures the accuracy of second derivatives.
        """,
    ),
    Table(
        "compile",
        "The first call",
        """
        This table shows what a program costs before it runs: the seconds to trace, to lower and to
        compile it, in fresh processes, and its size. "value" is a loss of four pairs of order 1000,
        "grad" the loss with its gradient, "hvp" a Hessian-vector product. "lowered" counts lines
        before XLA's optimisation and "lines" those after it. The last rows are JAX's own solvers.
        """,
    ),
    Table(
        "memory",
        "Memory",
        """
        This table counts the vectors of the order n that a program holds at once beside arguments
        and results, as XLA's analysis of the compiled program gives them: those of the value, of
        value and gradient, and what the second has beyond the first. Behind them stand what a
        method with one block and its images needs at least, and six blocks of k for the gradient.
        """,
    ),
    Table(
        "precision",
        "A filter in single precision",
        """
        This table compares `Chebyshev()` and `Chebyshev(mixed_precision=True)`, whole solves to a
        relative residual of 1e-8, with all evidence. A cell gives seconds and matvecs, and "gain"
        the ratio of the times. The last columns are the eigenvalues' errors of both, relative to
        the norm.
        """,
    ),
    Table(
        "multigrid",
        "Multigrid",
        """
        This table compares "lobpcg" that has `preconditioners.multigrid` with SciPy's lobpcg that
        has PyAMG's V-cycle, for the eight smallest pairs to a relative residual of 1e-8. Both have
        the same hierarchy. "set-up" gives the seconds of PyAMG, plus those of `multigrid` from
        PyAMG's levels. "error" is the eigenvalues' error relative to the largest wanted one.
        "grad x" is the time of value and gradient of a rough loss over that of the forward solve,
        and "GiB" the most memory that the process had taken until then.
        """,
    ),
    Table(
        "stiff",
        "Factorisations",
        """
        This table compares "shift_invert" with SciPy's eigsh and with PRIMME, all with SuperLU's
        factorisation of A: the pairs nearest to zero, with the seconds after the factorisation and
        the solves. "error" is the largest relative error of the eigenvalues, and "bound" the
        largest error bound of `info`, relative as well; those of rigid motions are relative to the
        last eigenvalue. The peers have the loosest of their tolerances with which the set is right
        from four starts.
        """,
    ),
    Table(
        "choice",
        "The choice of the method",
        """
        This table shows what "auto" chooses for the six smallest pairs of matrices whose entries
        are known, and the seconds of the methods that it can choose. ">" stands before a method
        that did not converge within a bound on its steps. "difference" is that of the eigenvalues
        of two methods, relative to the norm. The last ratio compares the chosen method, with the
        choice itself, to the fastest that converged. The rule was made without a look at the
        matrices with a "*".
        """,
    ),
    Table(
        "folded",
        "Products alone: interior pairs, and a full M",
        """
        This table shows what stands in for the folded iteration of "chebyshev" and for its filter
        with a full M: the four pairs nearest to a sigma, then the four smallest with an M that is
        no diagonal and has no `M_solve`. "lobpcg" and "davidson" are given the fold as a function,
        "dense" makes the matrix from n products, and "factorised" is what the entries would allow.
        ">" stands before a method that did not converge within a bound on its steps. "matvecs" are
        those of "chebyshev", "lobpcg" and "davidson", where a product of the fold counts as one.
        "error" is the largest of the methods that converged, relative to the norm. For A and M that
        are known by products alone and too large for "dense", the fold of "chebyshev" is the only
        one of these ways that takes an M, and the one that converged on every problem.
        """,
    ),
    Table(
        "resume",
        "Runs that go on",
        """
        This table shows what it costs to end a run after half of its steps and to start another
        from the eigenvectors, which are all that is saved. "resumed" are the matvecs of the second
        run. It checks for missed pairs anew, and it lacks what the first had beside the vectors:
        "lobpcg" its directions, "davidson" its basis. "shift_invert" has no row, because it does
        not use `v0`. "error" is that of the eigenvalues over the largest.
        """,
    ),
    Table(
        "batches",
        "Large batches",
        """
        This table is about 10,000 small matrices and, where their cases ran, about 256 k-points,
        whose vectors are complex grids. The loss is rough in the eigenvectors, "gradient" is the
        time of value and gradient, and "gradient x" its ratio to the value. `lax.map` takes 256
        matrices at once, and one k-point. The second table replaces one member of a batch by a
        hard one: the ratios of the times and of all matvecs, and "in step", how many times these
        matvecs a machine would do that advances all members until the last has converged.
        """,
    ),
    Table(
        "collectives",
        "Collectives",
        """
        This table counts what 8 devices send each other, in the compiled programs of a chain of
        4096 rows. A "polynomial" in A exchanges rows with the neighbours ("permutes") and sums
        nothing; "step" is the largest count in one step of any other loop, "once" that outside the
        loops. Both sides of a branch count. "gathers" counts all other collectives, and "largest
        message" is in numbers, of which one device has 512 of each vector.
        """,
    ),
    Table(
        "gpu",
        "On a GPU",
        """
        These tables compare jax_peig on one GPU with CuPy, torch.lobpcg and jnp.linalg.eigh on P1
        to P5, in both precisions. All have one tolerance, 1e-8 or 1e-4, and are judged in float64.
        The second table gives the time of a product with 16 columns inside a compiled loop, its
        bandwidth from the least bytes that it moves, and its share of the bandwidth of a large
        copy. Where `SparseOperator` and BCOO are compared, the faster is the format to take there.
        """,
        absent="Not measured: no GPU was at hand.",
    ),
    Table(
        "degeneracy",
        "Derivatives at exact degeneracy",
        """
        This table shows relative errors of first and second derivatives along a random direction,
        where eigenvalues or singular values are exactly repeated. The reference is central
        differences of LAPACK's values, whose own error limits how small an entry can be. The peers
        return separate pairs or triplets: jnp and torch from `linalg.eigh` and `linalg.svd`,
        xitorch from `symeig` and `svd` with the default method. NaN is a derivative that was
        refused or that came out as NaN, and "-" stands for a peer that was not installed.
        """,
    ),
    Table(
        "accuracy",
        "Accuracy of gradients",
        """
        These tables are about gradients of small dense problems whose exact gradient is known; the
        wanted pairs are distinct or have a cluster. The first compares the error that
        `derivative_report` estimates with the true one where that is above rounding ("seen"), and
        counts the estimates within three times of it. The second counts the gradients that are NaN
        ("refused"), of which there must be none, and gives the true errors of the others.
        """,
    ),
    Table(
        "bounds",
        "Error bounds and estimates",
        """
        This table compares `info.error_bounds` and `info.error_estimates` with the true errors of
        eigenvalues of small dense pencils; M is I or has the condition number that is given. A row
        joins several tolerances and limits of steps, and pairs that did not converge count too. A
        violation is a true error above its bound, of which there must be none. The quantiles are
        of the ratio to true errors above rounding: 1 is perfect, and an estimate may lie below.
        """,
    ),
)


def named(name: str) -> Table:
    """The table of a module."""
    return next(table for table in TABLES if table.name == name)


def finish(results: dict[str, Any], options: argparse.Namespace) -> None:
    """Write what the command of a table found, where its options say."""
    if options.save:
        record.write(results, options.save)
    if options.keep:
        record.write(results, record.path(results["table"]))
        main()


def main() -> None:
    """Rewrite the page, and the marked tables of the README."""
    PAGE.write_text(render(), encoding="utf-8")
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")


def render() -> str:
    """The page."""
    return "\n".join([INTRODUCTION, *(section(t, record.kept(t.name)) for t in TABLES)])


def section(table: Table, results: dict[str, Any] | None) -> str:
    """A table and what is said of it; no figures without results."""
    if results is None:
        command, parts = table.command, [table.absent]
    else:
        command = results["command"]
        measured = record.sentence(results["machine"])
        if "processes" in results:
            measured += f" Of {results['processes']} processes a row shows that of the median time."
        parts = [_wrapped(measured), table.module().markdown(results)]
    code = f"```sh\n{command}\n```"
    return "\n\n".join([f"## {table.title}", _wrapped(table.text), code, *parts]) + "\n"


def _wrapped(text: str) -> str:
    return textwrap.fill(
        " ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False
    )


def filled(text: str) -> str:
    """A text with the summary of a table between each pair of marker lines.

    The lines are ``<!-- table: run -->`` and ``<!-- end of table -->``.
    """
    return MARKED.sub(lambda found: f"{found[1]}{summary(found[2])}\n{found[3]}", text)


def summary(name: str) -> str:
    """The short form of a table whose module has a function ``summary``."""
    table, results = named(name), record.kept(name)
    if results is None:
        return f"Not run yet with this version: `{table.command}`."
    return table.module().summary(results)


if __name__ == "__main__":
    main()
