"""Results as short tables: at most 15 lines, of a batch the worst member.

PartialEigh: k = 3, chebyshev, matvecs 2345, steps 9
pair             eigenvalue  residual  error bound  cluster
   0   1.1738210843921e-02   2.1e-13      2.1e-13        0
   1   2.9319420153071e-02   3.0e-13      3.0e-13        1
   2   2.9319420153072e-02   2.8e-13      2.8e-13        1
gap 1.755e-02
all k pairs converged
"""

from typing import Any

import jax
import numpy as np

from jax_peig._core.status import Status, worst_member

# Rows of the table: as many as leave room for the other lines, the first and the last.
ROWS = 10
LAST = 3


def result(shown: Any, heading: str, values: Any) -> str:
    """The table of a named tuple with an ``info``, and of the ``values`` that its pairs have."""
    if not _is_known(shown, shown.info):
        return _outline(shown)
    values = np.asarray(values)
    if values.ndim > np.ndim(shown.info.residual_norms):  # a matrix for each member
        values = np.diagonal(values, axis1=-2, axis2=-1).real
    return _table(type(shown).__name__, shown.info, heading, values)


def scalars(shown: Any, **values: Any) -> str:
    """The ``values`` of a named tuple with an ``info`` in one line, and the table of the pairs."""
    if not _is_known(shown, shown.info):
        return _outline(shown)
    member = worst_member(np.asarray(shown.info.status))
    parts = [f"{name} {np.asarray(x)[member]}" for name, x in values.items()]
    told = f" ({', '.join(parts)})" if parts else ""
    return _table(type(shown).__name__ + told, shown.info)


def account(info: Any) -> str:
    """The table of an `Info` alone."""
    if not _is_known(info, info):
        return f"Info(method={info.method!r}, status={_short(info.status)})"
    return _table("Info", info)


def _table(name: str, info: Any, heading: str = "", values: np.ndarray | None = None) -> str:
    status = np.asarray(info.status)
    member = worst_member(status)

    def of_member(x: Any) -> Any:
        return np.asarray(x)[member]

    columns = [of_member(x) for x in (info.residual_norms, info.error_bounds, info.clusters)]
    k = columns[0].shape[0]
    head = f"  {'residual':>8}  {'error bound':>11}  {'cluster':>7}"
    lines = [f"  {r:>8.1e}  {b:>11.1e}  {c:>7}" for r, b, c in zip(*columns, strict=True)]
    if values is not None:
        digits = np.finfo(values.dtype).precision
        width = max(digits + 8, len(heading))
        head = f"  {heading:>{width}}{head}"
        shown = zip(of_member(values), lines, strict=True)
        lines = [f"  {value:>{width}.{digits - 1}e}{line}" for value, line in shown]
    lines = [f"{j:>4}{line}" for j, line in enumerate(lines)]
    if k > ROWS:
        lines = [*lines[: ROWS - LAST - 1], " ...", *lines[-LAST:]]
    cut = ": k cuts a cluster" if of_member(info.cut) else ""
    title = f"{name}{_batch(status, member)}: k = {k}, {info.method}, "
    title += f"matvecs {of_member(info.matvecs)}, steps {of_member(info.steps)}"
    solves = int(of_member(info.solves))
    title += f", solves {solves}" if solves else ""
    ending = [f"gap {of_member(info.gap):.3e}{cut}", Status(int(status[member])).text]
    return "\n".join([title, f"pair{head}", *lines, *ending])


def _batch(status: np.ndarray, member: tuple[int, ...]) -> str:
    """How many members of a batch failed, and which one is shown; nothing for a single result."""
    if not status.shape:
        return ""
    failed = int(np.sum(status != Status.CONVERGED))
    index = member[0] if len(member) == 1 else member
    return f" of a batch {status.shape}, {failed} failed; the worst member, {index}"


def _outline(shown: Any) -> str:
    """The shapes, where there are no numbers to show."""
    fields = ", ".join(f"{field}={_short(x)}" for field, x in shown._asdict().items())
    return f"{type(shown).__name__}({fields})"


def _is_known(tree: Any, info: Any) -> bool:
    """Whether there is an `Info`, and every leaf holds numbers that this process can read."""
    return getattr(info, "status", None) is not None and all(
        isinstance(leaf, (np.ndarray, np.generic, jax.Array))
        and not isinstance(leaf, jax.core.Tracer)
        and not (isinstance(leaf, jax.Array) and not _is_readable(leaf))
        for leaf in jax.tree.leaves(tree)
    )


def _is_readable(array: jax.Array) -> bool:
    return array.is_fully_addressable and not array.is_deleted()


def _short(x: Any) -> str:
    """An array's dtype and shape, and the name of all else."""
    if hasattr(x, "dtype") and hasattr(x, "shape"):
        return f"{x.dtype}[{','.join(map(str, x.shape))}]"
    return type(x).__name__
