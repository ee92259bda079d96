"""Timing of one function."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

MOST_CALLS = 50


def repeat_for(seconds: float, function: Callable[[], object]) -> list[float]:
    """Calls a function once to warm up, then again and again.

    Args:
        seconds: Stop when the calls that count took so long together, or after `MOST_CALLS`.
        function: What to time.

    Returns:
        Seconds of each call that counts, one at least.
    """
    function()
    times: list[float] = []
    while not times or (sum(times) < seconds and len(times) < MOST_CALLS):
        start = perf_counter()
        function()
        times.append(perf_counter() - start)
    return times
