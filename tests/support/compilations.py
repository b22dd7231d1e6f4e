"""Count the programs that XLA compiles."""

import contextlib

import jax
import jax.monitoring

_COMPILED = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def compilations():
    """Collect one entry per program that XLA compiles inside."""
    seen = []

    def listen(event, duration, **_):
        if event == _COMPILED:
            seen.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
