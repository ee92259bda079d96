"""How many threads training takes: fewer while other processes use the CPUs."""

from __future__ import annotations

import math
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import torch

from fastce.threads import torch_threads, usable_cpus

STAT = Path("/proc/stat")

WINDOW = 0.5
"""Seconds over which the load is measured: fifty ticks of the kernel's clock."""

SLACK = 0.25
"""CPUs that others may use before a thread is taken away: a little is always going on."""


class Load(NamedTuple):
    """Seconds on the clock, of CPU time of this process, of idle CPUs that it may use; since some time in the past."""

    clock: float
    own: float
    idle: float


def measured_load() -> Load | None:
    """The load now; None where Linux doesn't tell."""
    try:
        rows = [line.split() for line in STAT.read_text().splitlines()]
    except OSError:
        return None
    ticks = {row[0]: int(row[4]) + int(row[5]) for row in rows if row and row[0].startswith("cpu")}  # idle, iowait
    names = [f"cpu{number}" for number in os.sched_getaffinity(0)]
    if not all(name in ticks for name in names):
        return None
    idle = sum(ticks[name] for name in names) / os.sysconf("SC_CLK_TCK")
    return Load(time.perf_counter(), time.process_time(), idle)


class SharedThreads:
    """Gives torch as many threads as there are CPUs that others leave to it; to be entered, then updated often.

    OpenMP's threads meet after every operation and spin while they wait. One that has to share its CPU delays all the
    others, so that two threads beside one busy process are slower than one.
    """

    def __init__(self) -> None:
        self.most = 1
        self._before: Load | None = None
        self._threads = ExitStack()

    def __enter__(self) -> SharedThreads:
        self.most = min(torch.get_num_threads(), usable_cpus())
        self._threads.enter_context(torch_threads(self.most))
        self._before = measured_load()
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.close()

    def update(self) -> None:
        """Counts the threads anew, where the last time is a while ago."""
        before = self._before
        if before is None or time.perf_counter() < before.clock + WINDOW:
            return
        self._before = now = measured_load()
        if now is None:
            return
        left = (now.own - before.own + now.idle - before.idle) / (now.clock - before.clock)
        number = max(1, min(math.floor(left + SLACK), self.most))
        if number != torch.get_num_threads():
            torch.set_num_threads(number)
