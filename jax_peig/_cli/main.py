"""``python -m jax_peig``: the embedded demonstration, or eigenpairs of Matrix Market files.

    python -m jax_peig                                  the demonstration (a vibrating membrane)
    python -m jax_peig K.mtx [M.mtx] -k 6               the 6 smallest of K x = lam M x
    python -m jax_peig K.mtx M.mtx -k 6 --sigma 0       those nearest to 0, by a factorisation
    python -m jax_peig A.mtx -k 6 --which largest --tol 1e-8 --save out.npz

Exit codes: 0, all pairs converged (the demonstration: all its checks hold); 1, they did not; 2, the
arguments or the files cannot be used, with one line on stderr that says why.
"""

import argparse
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import jax
import numpy as np

import jax_peig
from jax_peig._api.arguments import WHICH
from jax_peig._cli.demo import demonstration
from jax_peig._cli.matrix_market import InputError, first_line, read_problem
from jax_peig._core.results import PartialEigh
from jax_peig._core.status import Status
from jax_peig._eigensolvers.choose import NAMES


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, like those of the files."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see python -m jax_peig --help")


def _parser() -> argparse.ArgumentParser:
    p = _Parser(
        prog="python -m jax_peig",
        description="A few extremal eigenpairs of K x = lam M x from Matrix Market files, real "
        "symmetric or complex Hermitian, M positive definite. Without a file: a demonstration, a "
        "vibrating membrane and the gradient of a loss of its eigenvectors.",
        epilog="Exit codes: 0 converged, 1 not converged (or a check of the demonstration does "
        "not hold), 2 arguments or files that cannot be used.",
    )
    p.add_argument("matrix", nargs="?", metavar="K.mtx", help="the matrix K (or A)")
    p.add_argument("mass", nargs="?", metavar="M.mtx", help="the matrix M; the identity without it")
    p.add_argument("-k", type=int, default=6, help="how many eigenpairs (default %(default)s)")
    p.add_argument("--which", choices=WHICH, help="default: smallest, nearest with --sigma")
    p.add_argument("--sigma", type=float, help="the number that the eigenvalues are nearest to")
    p.add_argument("--tol", type=float, help="||K x - lam M x|| relative to ||K|| + |lam| ||M||")
    p.add_argument("--method", choices=NAMES, default="auto")
    p.add_argument("--max-steps", type=int, help="at most so many steps of an iterative method")
    p.add_argument("--progress", action="store_true", help="show the iteration on stderr")
    p.add_argument("--save", metavar="OUT.npz", help="write eigenvalues, eigenvectors, residuals")
    p.add_argument("--grid", type=int, default=80, help="the demonstration's nodes along a side")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments, without the program's name; those of the process by default.

    Returns
    -------
    int
        0, 1 or 2: see the head of this file. ``--help`` raises SystemExit(0), as argparse does.
    """
    jax.config.update("jax_enable_x64", True)  # an application: the whole process is its own
    try:
        args = _parser().parse_args(argv)
        if args.matrix is None:
            if not 6 <= args.grid <= 1000:
                raise InputError(f"--grid is {args.grid}; expected 6 to 1000")
            return demonstration(args.grid)
        return from_files(args)
    except InputError as error:
        print(f"jax_peig: error: {error}", file=sys.stderr)
        return 2


# -- eigenpairs of files ------------------------------------------------------------------------


def from_files(args: argparse.Namespace) -> int:
    """Solve the problem of the files in ``args``, print the table, return the exit code."""
    _check_numbers(args)
    k_matrix, m_matrix = read_problem(args.matrix, args.mass)
    n = k_matrix.shape[0]
    if not 1 <= args.k <= n:
        raise InputError(f"-k is {args.k}; expected 1 to {n}, the order of {args.matrix}")
    if args.save is not None:
        _require_writable(args.save)
    names = ("which", "sigma", "tol", "method", "max_steps", "progress")
    options = {name: getattr(args, name) for name in names}
    start = time.perf_counter()
    try:
        found = jax_peig.partial_eigh(k_matrix, m_matrix, args.k, **options)
    except ValueError as error:  # a limit of the method, such as k against n for lobpcg
        raise InputError(first_line(error)) from error
    found = jax.block_until_ready(found)
    seconds = time.perf_counter() - start
    if int(found.info.status) == Status.M_NOT_POSITIVE_DEFINITE:
        raise InputError(f"{args.mass}: the matrix M is not positive definite")

    problem = args.matrix if args.mass is None else f"{args.matrix}, {args.mass}"
    field = "complex Hermitian" if np.iscomplexobj(k_matrix) else "real symmetric"
    which = args.which or ("smallest" if args.sigma is None else "nearest")
    print(f"{problem}: n = {n}, {field}, the {args.k} {which} eigenvalues")
    _show(found, seconds)
    if args.save is not None:
        _save(args.save, found)
    return 0 if int(found.info.status) == Status.CONVERGED else 1


def _check_numbers(args: argparse.Namespace) -> None:
    """Raise InputError for options that no file can make right."""
    if args.tol is not None and not 0.0 < args.tol < 1.0:
        raise InputError(f"--tol is {args.tol:g}; expected a number between 0 and 1")
    if args.max_steps is not None and args.max_steps < 1:
        raise InputError(f"--max-steps is {args.max_steps}; expected at least 1")


def _show(found: PartialEigh, seconds: float) -> None:
    """Print the table of the pairs and the account of the solve."""
    info = found.info
    columns: list[Any] = [found.eigenvalues, info.residual_norms, info.error_bounds, info.clusters]
    print(f"{'':>5}  {'eigenvalue':>22}  {'residual norm':>13}  {'error bound':>11}  cluster")
    rows = zip(*(np.asarray(column) for column in columns), strict=True)
    for j, (value, residual, bound, label) in enumerate(rows):
        print(f"{j:>5}  {value:>22.14e}  {residual:>13.2e}  {bound:>11.2e}  {label:>7}")
    print(f"method: {info.method} ({info.reason})")
    solves = f", {int(info.solves)} solves" if info.solves else ""
    counts = f"{int(info.matvecs)} matvecs{solves}, {int(info.steps)} steps"
    print(f"{counts}, {seconds:.1f} s, all told")
    if bool(info.cut):
        k = found.eigenvalues.shape[0]
        print(f"note: -k {k} cuts a cluster: the next eigenvalue cannot be told from the last")
    print(f"status: {info.message}")


def _save(path: str, found: PartialEigh) -> None:
    """Write eigenvalues, eigenvectors and residual norms to an .npz file."""
    try:
        np.savez(
            path,
            eigenvalues=np.asarray(found.eigenvalues),
            eigenvectors=np.asarray(found.eigenvectors),
            residual_norms=np.asarray(found.info.residual_norms),
        )
    except OSError as error:
        raise InputError(f"--save {path}: {error.strerror}") from error
    print(f"saved: {path}")


def _require_writable(path: str) -> None:
    """Raise InputError, before any work, where ``path`` cannot be the name of a new .npz file."""
    target = pathlib.Path(path)
    if target.suffix != ".npz":
        raise InputError(f"--save {path}: expected a name that ends in .npz")
    if target.is_dir() or not target.parent.is_dir():
        raise InputError(f"--save {path}: expected a file in a folder that exists")
