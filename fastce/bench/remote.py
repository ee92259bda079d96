"""The other end of a worker's pipe."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from multiprocessing import Pipe
from pathlib import Path
from types import TracebackType
from typing import Any

from fastce.bench.systems.base import Pair, Task
from fastce.subprocesses import environment

MESSAGE_LENGTH = 300


class WorkerError(Exception):
    """What went wrong in a worker, in one line."""


class RemoteWorker:
    """A worker in a new process, whose output goes to a log.

    Args:
        path: `module:class` of the system.
        task: What it is to run.
        pairs: What it is to score.
        log: A file to append to.

    Raises:
        WorkerError: The system could not be imported.
    """

    def __init__(self, path: str, task: Task, pairs: Sequence[Pair], log: Path):
        self.connection, theirs = Pipe()
        with theirs, log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fastce.bench.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment(task.threads),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.call("start", path, task, pairs)

    def __enter__(self) -> RemoteWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, method: str, *arguments: object) -> Any:
        """Calls a method of the `Worker`, and closes it where that fails.

        Raises:
            WorkerError: The method raised, or the process died.
        """
        try:
            self.connection.send((method, arguments))
            error, result = self.connection.recv()
        except (EOFError, OSError) as broken:
            self.close()
            raise WorkerError(f"its process ended with exit code {self.process.returncode}") from broken
        if error is not None:
            self.close()
            raise WorkerError(" ".join(error.split())[:MESSAGE_LENGTH])
        return result

    def close(self) -> None:
        """Hangs up, on which the process ends."""
        self.connection.close()
        self.process.wait()
