"""Processes that work for this one."""

from __future__ import annotations

import os


def environment(threads: int) -> dict[str, str]:
    """Variables of a worker: as many threads as it may use, which sleep soon after they have nothing to do."""
    without = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}  # the default spins for some milliseconds, "active" for ever
    return {name: value for name, value in os.environ.items() if name not in without} | {
        "FASTCE_NUM_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
        "RAYON_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "true",
        "KMP_BLOCKTIME": "0",
    }
