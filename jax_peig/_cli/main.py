"""``python -m jax_peig``: the embedded demonstration, or eigenpairs of Matrix Market files.

    python -m jax_peig                                  the demonstration (a vibrating membrane)
    python -m jax_peig K.mtx [M.mtx] -k 6               the 6 smallest of K x = lam M x
    python -m jax_peig A.mtx -k 6 --which largest --tol 1e-8 --save out.npz

Exit codes: 0, all pairs converged (the demonstration: all its checks hold); 1, they did not; 2, the
arguments or the files cannot be used, with one line on stderr that says why.
"""

import argparse
import gzip
import inspect
import io
import pathlib
import sys
import time
import zlib
from collections.abc import Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import scipy.io
import scipy.linalg
import scipy.sparse

import jax_peig
from jax_peig._api.arguments import WHICH
from jax_peig._cli import demo
from jax_peig._core.results import Status
from jax_peig._eigensolvers.choose import NAMES

# SciPy changes what mmread returns for a sparse file, and warns; older ones do not know the choice.
_CHOICES = inspect.signature(scipy.io.mmread).parameters
AS_SPARSE_ARRAYS = {"spmatrix": False} if "spmatrix" in _CHOICES else {}

# Up to this order a file's matrices are treated as dense ones.
_DENSE_ORDER = 2000


class InputError(Exception):
    """Arguments or files that cannot be used; its text is the line for stderr."""


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
    if args.tol is not None and not 0.0 < args.tol < 1.0:
        raise InputError(f"--tol is {args.tol:g}; expected a number between 0 and 1")
    if args.max_steps is not None and args.max_steps < 1:
        raise InputError(f"--max-steps is {args.max_steps}; expected at least 1")
    k_matrix, m_matrix = _read_problem(args.matrix, args.mass)
    n = k_matrix.shape[0]
    if not 1 <= args.k <= n:
        raise InputError(f"-k is {args.k}; expected 1 to {n}, the order of {args.matrix}")
    if args.save is not None:
        _require_writable(args.save)
    names = ("which", "sigma", "tol", "method", "max_steps", "progress")
    options = {name: getattr(args, name) for name in names}
    start = time.perf_counter()
    try:
        w, x, info = jax_peig.partial_eigh(k_matrix, m_matrix, args.k, **options)
    except ValueError as error:  # a limit of the method, such as k against n for lobpcg
        raise InputError(_first_line(error)) from error
    values, vectors = np.asarray(w), np.asarray(x)
    seconds = time.perf_counter() - start
    if int(info.status) == Status.M_NOT_POSITIVE_DEFINITE:
        raise InputError(f"{args.mass}: the matrix M is not positive definite")

    residuals, bounds = np.asarray(info.residual_norms), np.asarray(info.error_bounds)
    labels = np.asarray(info.clusters)
    problem = args.matrix if args.mass is None else f"{args.matrix}, {args.mass}"
    field = "complex Hermitian" if np.iscomplexobj(k_matrix) else "real symmetric"
    which = args.which or ("smallest" if args.sigma is None else "nearest")
    print(f"{problem}: n = {n}, {field}, the {args.k} {which} eigenvalues")
    print(f"{'':>5}  {'eigenvalue':>22}  {'residual norm':>13}  {'error bound':>11}  cluster")
    for j, value in enumerate(values):
        print(f"{j:>5}  {value:>22.14e}  {residuals[j]:>13.2e}  {bounds[j]:>11.2e}  {labels[j]:>7}")
    print(f"method: {info.method} ({info.reason})")
    print(f"{int(info.matvecs)} products, {int(info.steps)} steps, {seconds:.1f} s, all told")
    if bool(info.cut):
        print(f"note: -k {args.k} cuts a cluster: the next eigenvalue cannot be told from the last")
    print(f"status: {info.message}")
    if args.save is not None:
        try:
            np.savez(args.save, eigenvalues=values, eigenvectors=vectors, residual_norms=residuals)
        except OSError as error:
            raise InputError(f"--save {args.save}: {error.strerror}") from error
        print(f"saved: {args.save}")
    return 0 if int(info.status) == Status.CONVERGED else 1


def _read_problem(path: str, mass_path: str | None) -> tuple[Any, Any]:
    """Return K, and M or None, of one shape and dtype, M positive definite as far as is seen."""
    k_matrix = read_hermitian(path)
    if mass_path is None:
        return k_matrix, None
    m_matrix = read_hermitian(mass_path)
    if m_matrix.shape != k_matrix.shape:
        raise InputError(
            f"{path} is {_shape(k_matrix)} but {mass_path} is {_shape(m_matrix)}; "
            "expected the same shape"
        )
    _require_positive_definite(m_matrix, mass_path)
    dtype = np.result_type(k_matrix.dtype, m_matrix.dtype)
    return k_matrix.astype(dtype), m_matrix.astype(dtype)


def read_hermitian(path: str) -> Any:
    """Read a Hermitian matrix from a Matrix Market file.

    Parameters
    ----------
    path : str
        Of an .mtx (or .mtx.gz) file: coordinate or array, real, complex, integer (converted to
        real) or pattern (each stored entry is taken as 1, and a line on stdout says so).

    Returns
    -------
    ndarray (n, n), or scipy.sparse.csr_array (n, n) for a sparse matrix of order above 2000
        float64 or complex128; the Hermitian part where the two halves differ by rounding.

    Raises
    ------
    InputError
        With the one line that says what is wrong with the file.
    """
    if not pathlib.Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
            text, pattern = _well_formed(file.read())
        matrix = scipy.io.mmread(io.BytesIO(text), **AS_SPARSE_ARRAYS)
    except (OSError, ValueError, OverflowError, MemoryError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be read as a Matrix Market file ({_first_line(error)})"
        ) from error
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"{path}: the matrix is {_shape(matrix)}; expected a square one")
    n = matrix.shape[0]
    if n == 0:
        raise InputError(f"{path}: the matrix is 0 x 0; expected at least one row")
    if pattern:
        print(f"note: {path} is a pattern, without values: each stored entry is taken as 1")
    dtype = np.complex128 if np.iscomplexobj(matrix) else np.float64
    if scipy.sparse.issparse(matrix):
        matrix = scipy.sparse.csr_array(matrix).astype(dtype)
        values = matrix.data
        if n <= _DENSE_ORDER:
            values = matrix = matrix.toarray()
    else:
        values = matrix = np.asarray(matrix).astype(dtype)
    if not np.all(np.isfinite(values)):
        raise InputError(f"{path}: the matrix has an entry that is not finite")
    adjoint = matrix.conj().T
    largest, difference = float(abs(matrix).max()), float(abs(matrix - adjoint).max())
    if difference > 100 * np.finfo(np.float64).eps * largest:
        kind = "Hermitian" if dtype == np.complex128 else "symmetric"
        raise InputError(
            f"{path}: the matrix is not {kind}: an entry and its mirror image differ by "
            f"{difference:.1e}, where the largest entry is {largest:.1e}"
        )
    return (matrix + adjoint) / 2


def _well_formed(data: bytes) -> tuple[bytes, bool]:
    """Return a Matrix Market file without its comments, and whether it is a pattern.

    SciPy's fast reader can crash (not raise) where a line has too many or too few numbers, so
    these are counted first, and a ValueError says what does not fit.
    """
    head, *rest = data.splitlines() or [b""]
    words = head.lower().split()
    if len(words) != 5 or words[0] != b"%%matrixmarket" or b"\0" in data:
        raise ValueError("expected a first line of %%MatrixMarket and four words, then plain text")
    lines = [line for line in rest if line.strip() and not line.lstrip().startswith(b"%")]
    sizes = [int(word) for word in (lines[0].split() if lines else [])]
    coordinate = words[2] == b"coordinate"
    if len(sizes) != 2 + coordinate or min(sizes) < 0:
        raise ValueError(f"expected {2 + coordinate} sizes in the first line of numbers")
    rows, columns = sizes[:2]
    triangle = {b"general": rows * columns, b"skew-symmetric": rows * (rows - 1) // 2}
    count = sizes[2] if coordinate else triangle.get(words[4], rows * (rows + 1) // 2)
    if len(lines) - 1 != count:
        raise ValueError(f"expected {count} lines of entries, found {len(lines) - 1}")
    width = {b"pattern": 0, b"complex": 2}.get(words[3], 1) + 2 * coordinate
    if any(len(line.split()) != width for line in lines[1:]):
        raise ValueError(f"expected {width} numbers in each line of entries")
    return b"\n".join([head, *lines, b""]), words[3] == b"pattern"


def _require_positive_definite(matrix: Any, path: str) -> None:
    """Raise InputError unless ``matrix`` is numerically positive definite.

    Dense: by the Cholesky factor of the matrix scaled to a unit diagonal, d_i = a_ii^(-1/2),
    which exists exactly when that of the matrix itself does. Sparse: by the diagonal alone, a
    necessary condition; what that lets through is left to the solver's status.
    """
    diagonal = np.real(matrix.diagonal())
    fault = ""
    if np.min(diagonal) <= 0.0:
        row = int(np.argmin(diagonal))
        fault = f"its diagonal entry {row + 1} is {diagonal[row]:.3g}"
    elif isinstance(matrix, np.ndarray):
        d = 1.0 / np.sqrt(diagonal)
        try:
            scipy.linalg.cholesky(d[:, None] * matrix * d[None, :], lower=True)
        except np.linalg.LinAlgError:
            fault = "it has no Cholesky factor"
    if fault:
        raise InputError(f"{path}: the matrix M is not positive definite: {fault}")


def _require_writable(path: str) -> None:
    """Raise InputError, before any work, where ``path`` cannot be the name of a new .npz file."""
    target = pathlib.Path(path)
    if target.suffix != ".npz":
        raise InputError(f"--save {path}: expected a name that ends in .npz")
    if target.is_dir() or not target.parent.is_dir():
        raise InputError(f"--save {path}: expected a file in a folder that exists")


def _shape(matrix: Any) -> str:
    return " x ".join(str(size) for size in matrix.shape)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


# -- the demonstration --------------------------------------------------------------------------


def demonstration(grid: int = 80, small_grid: int = 10) -> int:
    """Solve the membrane of `demo`, differentiate a loss of its modes, compare both.

    Parameters
    ----------
    grid : int
        Interior nodes along one side: n = grid**2, matrix-free and iterative.
    small_grid : int
        The same for the comparison with ``jnp.linalg.eigh``, dense.

    Returns
    -------
    int
        0 if every printed check holds, 1 otherwise.
    """
    checks = demo.Checks()
    start = time.perf_counter()
    show_modes(grid, checks)
    show_gradient(grid, checks)
    show_usual_way(small_grid, checks)
    print(f"\n{'All checks hold' if checks.hold else 'A CHECK DOES NOT HOLD'}; ", end="")
    print(f"{time.perf_counter() - start:.0f} s in all, with compilation.")
    return 0 if checks.hold else 1


# The lowest modes: lam_11 | lam_12 = lam_21 | lam_22 | lam_13 = lam_31 | lam_23 = lam_32 | ...
# Neither the 8 that are computed nor the 3 that the loss takes cut a pair.
_PAIRS, _MODES = 8, 3


def show_modes(grid: int, checks: demo.Checks) -> None:
    """Print the computed eigenvalues of the uniform membrane beside the exact ones."""
    exact = demo.exact_eigenvalues(grid, _PAIRS)
    uniform, seconds = jnp.ones((grid + 1, grid + 1)), []
    for _ in range(2):
        start = time.perf_counter()
        w, _, info = jax.block_until_ready(demo.lowest_modes(uniform, _PAIRS))
        seconds.append(time.perf_counter() - start)
    error = np.abs(np.asarray(w) / exact - 1.0)
    labels, residuals = np.asarray(info.clusters), np.asarray(info.residual_norms)
    print("1. Modes of a clamped square membrane, K x = lam M(rho) x in bilinear finite elements")
    print(f"   n = {grid * grid} ({grid} x {grid} nodes), rho = 1; K and M as functions, no matrix")
    print("   exact: the spectrum of the discrete problem, in closed form")
    print(f"{'':>5}  {'computed':>18}  {'exact':>18}  {'rel. error':>10}  {'residual':>9}  cluster")
    for j in range(_PAIRS):
        print(
            f"{j:>5}  {float(w[j]):>18.12f}  {exact[j]:>18.12f}  {error[j]:>10.1e}  "
            f"{residuals[j]:>9.1e}  {labels[j]:>7}"
        )
    print(
        f"  {int(info.matvecs)} + {int(info.matvecs_M)} products of K and M with a vector, "
        f"{int(info.steps)} steps;\n  the first call {seconds[0]:.1f} s (it compiles), the second "
        f"{seconds[1]:.1f} s; {info.message}"
    )
    checks.equal("pairs that converged", int(info.converged), _PAIRS)
    checks.at_most("largest relative error of an eigenvalue", float(error.max()), 1e-9)
    found = [int(np.sum(labels == label)) for label in dict.fromkeys(labels.tolist())]
    checks.equal("sizes of the clusters", found, demo.cluster_sizes(exact))


def show_gradient(grid: int, checks: demo.Checks) -> None:
    """Print a derivative of a loss of the modes, by reverse mode and by finite difference."""
    density, direction, weights = demo.gradient_problem(grid)

    def loss(density: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        w, x, _ = demo.lowest_modes(density, _PAIRS)
        return demo.amplitude_loss(x[:, :_MODES], weights), (w, x)

    start = time.perf_counter()
    (value, (w, x)), gradient = jax.value_and_grad(loss, has_aux=True)(density)
    gradient = jax.block_until_ready(gradient)
    seconds = time.perf_counter() - start
    step = 1e-3
    forward, backward = (loss(density + sign * step * direction)[0] for sign in (1.0, -1.0))
    difference = float(forward - backward) / (2.0 * step)
    ours = float(jnp.sum(gradient * direction))
    rate = demo.splitting_rate(x[:, 1:3], float(w[1]), direction)
    print("\n2. Gradient in the density of the loss h^2 sum_r c_r a_r^2, c random,")
    print("   a_r = x_r0^2 + x_r1^2 + x_r2^2: the lowest mode and the first pair")
    print(f"   loss {float(value):.9f}, {density.size} densities, {seconds:.1f} s with compilation")
    print("   Along a change d of the density that breaks the symmetry of the square: rho + s d")
    print(f"   splits the pair 1, 2 (lam = {float(w[1]):.3f}) by {rate:.3f} s to first order")
    print(f"   gradient . d          {ours:>20.12f}")
    print(f"   central difference    {difference:>20.12f}   (step {step:.0e})")
    checks.at_most("relative difference", abs(ours / difference - 1.0), 1e-5)


def show_usual_way(grid: int, checks: demo.Checks) -> None:
    """Print the same derivative on a small grid, through ``jnp.linalg.eigh`` and through ours."""
    density, direction, weights = demo.gradient_problem(grid)

    def usual(density: jax.Array) -> jax.Array:
        return demo.dense_amplitude_loss(density, weights, _MODES)

    def loss(density: jax.Array) -> jax.Array:
        stiffness, mass = demo.dense_matrices(density)
        _, x, _ = jax_peig.partial_eigh(stiffness, mass, _PAIRS, method="dense")
        return demo.amplitude_loss(x[:, :_MODES], weights)

    step = 1e-4
    ahead, behind = (float(usual(density + sign * step * direction)) for sign in (1.0, -1.0))
    difference = (ahead - behind) / (2.0 * step)
    print(f"\n3. The same on {grid} x {grid} nodes with dense matrices, n = {grid * grid}")
    print(f"   central difference    {difference:>20.12f}   (step {step:.0e})")
    for name, function in (("jnp.linalg.eigh", usual), ("jax_peig", loss)):
        gradient = jax.grad(function)(density)
        along = float(jnp.sum(gradient * direction))
        error, bad = abs(along / difference - 1.0), int(jnp.sum(~jnp.isfinite(gradient)))
        comment = f"{bad} of {gradient.size} entries not finite" if bad else f"off by {error:.1e}"
        print(f"   {name:<16} . d  {along:>20.12f}   {comment}")
    checks.at_most("relative difference of jax_peig's", error, 1e-5)
