"""The process of one system: waits on a pipe, blocked, and does what it is told. `python -m fastce.bench.worker FD`."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter

import numpy as np

from fastce.bench.systems.base import Pair, Task, make_system
from fastce.bench.timing import repeat_for

LATENCY_SECONDS = 0.1
"""A turn of a latency measurement lasts so long, or one call if that is longer."""


class Worker:
    """One system with its pairs. Each public method is a message."""

    def start(self, path: str, task: Task, pairs: Sequence[Pair]) -> None:
        """Takes the orders, and keeps to as many cores as the task has threads, whatever a library would take."""
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: task.threads])
        self.system = make_system(path)
        self.task, self.pairs = task, pairs

    def prepare(self) -> None:
        """Converts the model."""
        self.system.prepare(self.task)

    def load(self) -> tuple[str, float]:
        """Loads the model: its settings and the seconds it took."""
        start = perf_counter()
        settings = self.system.load(self.task)
        return settings, perf_counter() - start

    def scores(self) -> np.ndarray:
        """Logits of all pairs."""
        logits: np.ndarray = self.system.score(self.pairs)
        return logits

    def throughput(self) -> float:
        """Seconds to score all pairs once."""
        start = perf_counter()
        self.system.score(self.pairs)
        return perf_counter() - start

    def latency(self, pairs: Sequence[Pair]) -> list[float]:
        """Seconds of each of several calls with a few pairs."""
        return repeat_for(LATENCY_SECONDS, lambda: self.system.score(pairs))

    def memory(self, field: str) -> int:
        """Resident memory in bytes: `VmRSS`, now, or `VmHWM`, at its peak."""
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        raise ValueError(f"/proc/self/status has no {field}")


def serve(connection: Connection) -> None:
    """Answers messages `(method, arguments)` with `(None, result)` or `(error, None)` until the other side hangs up."""
    worker = Worker()
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer: tuple[str | None, object] = (None, getattr(worker, method)(*arguments))
        except Exception as error:  # whatever a peer raises is reported, and the others go on
            traceback.print_exc()
            answer = (f"{type(error).__name__}: {error}", None)
        connection.send(answer)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
