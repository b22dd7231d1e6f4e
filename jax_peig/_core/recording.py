"""A visitor sees every call of partial_eigh inside a block: see `derivative_report`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

# It is called with (problem, rules, inputs, run); run(rules, inputs) does the work.
Visitor = Callable[..., Any]
_visitor: ContextVar[Visitor | None] = ContextVar("jax_peig_visitor", default=None)


def visitor() -> Visitor | None:
    """Return the visitor of the block, or None outside of one."""
    return _visitor.get()


@contextmanager
def visited_by(new: Visitor) -> Iterator[None]:
    """Hand every call inside the block to the visitor, whose result is returned."""
    token = _visitor.set(new)
    try:
        yield
    finally:
        _visitor.reset(token)
