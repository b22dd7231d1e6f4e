"""Times that can be trusted on a machine that others use too.

A time is the median of repetitions that agree with each other, taken while every core is free
just before and just after. A round that fails either test is thrown away and repeated; when no
round passes, the fastest is reported and flagged noisy.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np


@dataclass(frozen=True)
class Timing:
    """What `measure` found.

    Attributes
    ----------
    seconds : float
        Median of the repetitions in the cleanest round.
    best : float
        Fastest repetition of all rounds.
    spread : float
        (upper quartile - lower quartile) / median in that round.
    slowdown : float
        The larger of `slowdown` before and after that round.
    repetitions, rounds : int
        Repetitions in a round, and rounds taken.
    noisy : bool
        Whether even the cleanest round failed the tests.
    """

    seconds: float
    best: float
    spread: float
    slowdown: float
    repetitions: int
    rounds: int
    noisy: bool


def slowdown(seconds: float = 0.03) -> float:
    """How much of the machine others take: 1 when every core is free, 2 when half is gone.

    One thread on every core streams through memory outside the interpreter's lock; a thread that
    shares its core has used less processor time than has passed. Another job on the same cores
    slows BLAS, which waits for its slowest thread, by far more than this number.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    shares: list[float] = []

    def stream() -> None:
        block = np.ones(200_000)
        begin, used = time.perf_counter(), time.thread_time()
        while time.perf_counter() - begin < seconds:
            np.multiply(block, 1.0, out=block)
        shares.append((time.thread_time() - used) / (time.perf_counter() - begin))

    threads = [threading.Thread(target=stream) for _ in range(cores or 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 1.0 / max(min(shares), 1e-3)


def measure(
    call: Callable[[], Any],
    repeat: int = 7,
    *,
    rounds: int = 4,
    spread_limit: float = 0.2,
    slowdown_limit: float = 1.25,
    budget: float = 8.0,
) -> Timing:
    """Median time of a call, in the cleanest of several rounds.

    Parameters
    ----------
    call : callable
        Takes nothing; its result is waited for with `jax.block_until_ready`.
    repeat : int
        Repetitions in one round. Fewer, but at least one, where they would exceed the budget.
    rounds : int
        At most this many rounds; the first clean one ends the search.
    spread_limit, slowdown_limit : float
        A round is clean when its spread and the slowdown around it are both below these.
    budget : float
        Seconds after which no further round begins.

    Returns
    -------
    Timing
    """
    warm = run_once(call)
    repeat = max(1, min(repeat, int(budget / max(warm, 1e-9))))
    begin, found, best = time.perf_counter(), [], float("inf")
    for _ in range(rounds):
        before = slowdown()
        times = sorted(run_once(call) for _ in range(repeat))
        busy = max(before, slowdown())
        median = statistics.median(times)
        spread = (times[(3 * repeat) // 4 if repeat > 3 else -1] - times[repeat // 4]) / median
        best = min(best, times[0])
        found.append((median, spread, busy))
        if _clean(spread, busy, spread_limit, slowdown_limit):
            break
        if time.perf_counter() - begin > budget:
            break
    # The last round is the clean one if there is any; otherwise the least disturbed counts.
    median, spread, busy = found[-1]
    noisy = not _clean(spread, busy, spread_limit, slowdown_limit)
    if noisy:
        median, spread, busy = min(found)
    return Timing(median, best, spread, busy, repeat, len(found), noisy)


def _clean(spread: float, busy: float, spread_limit: float, slowdown_limit: float) -> bool:
    return spread <= spread_limit and busy <= slowdown_limit


def run_once(call: Callable[[], Any]) -> float:
    """Seconds of one call, waiting for whatever JAX has dispatched."""
    begin = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - begin


def compile_ahead(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Trace, lower and compile a function for its arguments.

    Returns
    -------
    (callable, float)
        The compiled function, and the seconds it took to make: the price of a first call.
    """
    begin = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    return compiled, time.perf_counter() - begin
