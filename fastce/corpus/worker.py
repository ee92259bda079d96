"""The process of one worker. Its arguments are two file descriptors, of its connection and of its lifeline."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from threading import Lock, Thread
from time import monotonic
from typing import Any

from fastce.corpus.scorer import LocalScorer, Task
from fastce.options import ModelOptions

SECONDS_BETWEEN_REPORTS = 0.2


def tasks(connection: Connection) -> Iterator[tuple[None, Task]]:
    """The tasks that are sent until there are no more for now."""
    while (task := pickle.loads(connection.recv_bytes())) is not None:
        yield None, task


def serve(connection: Connection) -> None:
    """Loads a model, scores what is sent, and says so."""
    lock, waiting, latest = Lock(), 0, monotonic()

    def say(kind: str, value: Any = None) -> None:
        with lock:
            connection.send_bytes(pickle.dumps((kind, value)))

    def advance(count: int) -> None:
        nonlocal waiting, latest
        waiting += count
        if monotonic() - latest > SECONDS_BETWEEN_REPORTS:
            say("advance", waiting)
            waiting, latest = 0, monotonic()

    try:
        (model, device), options = pickle.loads(connection.recv_bytes())
        if isinstance(model, ModelOptions):
            model = (model if device is None else replace(model, device=device)).load()
        elif device is not None:
            model.to(device)
        scorer = LocalScorer(model, options)
        say("loaded", scorer.machine)
        while True:
            for _, scored in scorer.stream(tasks(connection), advance):
                say("advance", waiting)
                waiting = 0
                say("scored", scored)
            say("done")
    except EOFError:  # nobody wants to know any more
        return
    except (ValueError, OSError) as error:
        say("error", str(error))
    except Exception as error:
        traceback.print_exc()
        say("error", f"{type(error).__name__}: {error}")


def end_with_parent(lifeline: int) -> None:
    """Ends this process when the other end of the pipe is closed."""
    os.read(lifeline, 1)
    os._exit(1)


def main() -> None:
    """Runs the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent, which hears of it too, decides
    Thread(target=end_with_parent, args=(int(sys.argv[2]),), daemon=True).start()
    serve(Connection(int(sys.argv[1])))
