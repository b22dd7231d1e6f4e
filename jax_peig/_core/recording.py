"""Who looks on while partial_eigh is called: see `derivative_report`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

# What is handed every call: (request, rules, given, run), where run(rules, given) does the work.
Visitor = Callable[..., Any]
_visitor: ContextVar[Visitor | None] = ContextVar("jax_peig_visitor", default=None)


def visitor() -> Visitor | None:
    """Return the one who looks on, if any."""
    return _visitor.get()


@contextmanager
def visited_by(someone: Visitor) -> Iterator[None]:
    """Hand every call inside the block to ``someone``, whose result is returned."""
    token = _visitor.set(someone)
    try:
        yield
    finally:
        _visitor.reset(token)
