"""The arithmetic ceiling: how many operations per second this machine's registers allow."""

from __future__ import annotations

from importlib import import_module
from time import perf_counter
from typing import Any

from fastce.spec import ON_CPU, Precision

SECONDS = 0.01
"""A measurement lasts so long at least, so that the clock's resolution and the start don't count."""

MEASUREMENTS = 5


def peak_operations_per_second(precision: Precision, threads: int) -> float | None:
    """Measures products on registers alone, without loads and stores.

    Args:
        precision: Whose products.
        threads: Cores in use; one is measured, the best of several times, and the others are taken to be equal.

    Returns:
        Operations per second, a multiply-add being two; None where the C++ module is absent or can't measure.
    """
    try:
        core: Any = import_module("fastce._core")
    except ImportError:
        return None
    if not hasattr(core, "peak_kernel"):
        return None
    number_format, level = ON_CPU[precision], core.choose_level()
    steps, seconds = 1000, 0.0
    while seconds < SECONDS:
        steps *= 4
        start = perf_counter()
        core.peak_kernel(number_format, level, steps)
        seconds = perf_counter() - start
    return threads * max(float(core.peak_kernel(number_format, level, steps)) for _ in range(MEASUREMENTS))
