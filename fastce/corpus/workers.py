"""Scores windows of pairs in other processes, as many as there are workers."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterable, Iterator
from multiprocessing import Pipe
from queue import SimpleQueue
from threading import BoundedSemaphore, Lock, Thread
from types import TracebackType
from typing import Any, NamedTuple

from fastce.corpus.scorer import Advance, Scored, ScoringOptions, Task
from fastce.subprocesses import environment

WAITING_TASKS = 2
"""Tasks that a worker has at once: one that it computes, one that it reads and tokenises."""


PROGRAM = "import sys; sys.path[:] = {path!r}; from fastce.corpus.worker import main; main()"
"""What a worker's process runs: it imports from where this one does."""


class WorkerError(RuntimeError):
    """A worker died, or could not do what it was told; the message says why."""


class Assignment(NamedTuple):
    """What a worker works with.

    Attributes:
        model: What it loads, `ModelOptions`, or a model that can be pickled.
        device: Where the model shall be; None: where it says itself.
    """

    model: Any
    device: str | None = None


class RemoteScorer:
    """Shares tasks out among processes, each with a model of its own.

    They end when they have nothing more to read, and at once when this process ends, however it does.

    Args:
        assignments: What each worker works with.
        options: How they score.
        threads: CPU threads of each.

    Raises:
        WorkerError: A model can't be loaded.
    """

    def __init__(self, assignments: list[Assignment], options: ScoringOptions, threads: int):
        self._workers: list[Worker] = []
        try:
            self._workers = [Worker(number, one, options, threads) for number, one in enumerate(assignments)]
            machines = [worker.wait_until_loaded() for worker in self._workers]
            names = dict.fromkeys(name for machine in machines for name in machine)
            self.machine = {name: together(machine.get(name) for machine in machines) for name in names}
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RemoteScorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def stream(self, items: Iterator[tuple[Any, Task]], advance: Advance) -> Iterator[tuple[Any, Scored]]:
        """See `Scorer`; in the order in which they are done. Where that fails, all workers end.

        Raises:
            WorkerError: A worker died or failed.
        """
        try:
            yield from self._stream(items, advance)
        except BaseException:
            self.close()
            raise

    def _stream(self, items: Iterator[tuple[Any, Task]], advance: Advance) -> Iterator[tuple[Any, Scored]]:
        if not self._workers:
            raise WorkerError("the workers have ended")
        shared = SharedItems(items)
        found: SimpleQueue[Any] = SimpleQueue()
        for worker in self._workers:
            Thread(target=worker.run, args=(shared, found), name="fastce-worker", daemon=True).start()
        busy = len(self._workers)
        while busy:
            kind, value = found.get()
            if kind == "error":
                raise value
            elif kind == "advance":
                advance(value)
            elif kind == "scored":
                yield value
            else:
                busy -= 1

    def close(self) -> None:
        """Ends the processes."""
        for worker in self._workers:
            worker.close()
        self._workers = []


def together(facts: Iterable[str | None]) -> str:
    """What machines say, each answer once."""
    return ", ".join(sorted({fact for fact in facts if fact is not None}))


class SharedItems:
    """Items that threads take from one iterator."""

    def __init__(self, items: Iterator[Any]):
        self._items = items
        self._lock = Lock()
        self._is_over = False

    def take(self) -> Any:
        """The next item; None where there are no more. What making it raises is raised once, to one thread."""
        with self._lock:
            if self._is_over:
                return None
            self._is_over = True  # until it is known that there are more
            item = next(self._items, None)
            self._is_over = item is None
            return item


class Worker:
    """One process, and the threads that talk to it.

    Args:
        number: Its number, from 0 up.
        assignment: What it works with.
        options: How it scores.
        threads: CPU threads.
    """

    def __init__(self, number: int, assignment: Assignment, options: ScoringOptions, threads: int):
        self.number = number
        self._connection, theirs = Pipe()
        lifeline, self._lifeline = os.pipe()  # nothing is ever written; that it is closed says that we are gone
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM.format(path=sys.path), str(theirs.fileno()), str(lifeline)],
                pass_fds=[theirs.fileno(), lifeline],
                env=environment(threads),
                stdin=subprocess.DEVNULL,
            )
        os.close(lifeline)
        self._slots = BoundedSemaphore(WAITING_TASKS)
        self._waiting: list[Any] = []
        self._send((assignment, options))

    def wait_until_loaded(self) -> dict[str, str]:
        """Returns, when the worker has its model, what that runs on; see `machine_of`.

        Raises:
            WorkerError: It has not, and will not.
        """
        kind, value = self._receive()
        if kind == "error":
            raise WorkerError(value)
        machine: dict[str, str] = value
        return machine

    def run(self, items: SharedItems, found: SimpleQueue[Any]) -> None:
        """Feeds the worker until there are no more items, and hands its answers on."""
        sender = Thread(target=self._feed, args=(items, found), name="fastce-sender", daemon=True)
        sender.start()
        try:
            while True:
                kind, value = self._receive()
                if kind == "scored":
                    beside = self._waiting.pop(0)
                    self._slots.release()
                    found.put((kind, (beside, value)))
                elif kind == "error":
                    raise WorkerError(value)
                else:
                    found.put((kind, value))
                    if kind == "done":
                        return
        except BaseException as error:  # for whoever waits for the answers
            found.put(("error", error))

    def _feed(self, items: SharedItems, found: SimpleQueue[Any]) -> None:
        try:
            while True:
                self._slots.acquire()
                item = items.take()
                if item is None:
                    self._slots.release()
                    self._send(None)
                    return
                beside, task = item
                self._waiting.append(beside)
                self._send(task)
        except BaseException as error:  # of the reader; where the worker is gone, `run` has noticed
            if not isinstance(error, WorkerError):
                found.put(("error", error))

    def _send(self, message: Any) -> None:
        try:
            self._connection.send_bytes(pickle.dumps(message))  # `send` would share tensors' memory
        except OSError as error:
            raise self._death() from error

    def _receive(self) -> Any:
        try:
            return pickle.loads(self._connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._death() from error

    def _death(self) -> WorkerError:
        status = self._process.wait()
        return WorkerError(f"worker {self.number} (process {self._process.pid}) ended with exit code {status}")

    def close(self) -> None:
        """Ends the process, whatever it does."""
        os.close(self._lifeline)
        self._process.kill()
        self._process.wait()
        self._connection.close()
