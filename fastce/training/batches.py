"""Batches for the training loop: read and tokenised ahead of the step, and, where asked for, grouped by length."""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np

AHEAD = 4
"""Batches that wait for the training loop at most."""

WINDOW = 32
"""Batches among which lengths are grouped."""

Batch = Sequence[Any]


def grouped_by_length(
    batches: Iterable[Batch], length_of: Callable[[Any], int], seed: int, window: int = WINDOW
) -> Iterator[Batch]:
    """Regroups the examples of each window of batches by length; sizes stay, and each example occurs once.

    Args:
        batches: Batches of examples.
        length_of: The length of an example.
        seed: Fixes the order of the batches within their window, which is a random one: in order of length, a model
            would forget the short texts over the long ones.
        window: Batches in a window.
    """
    chooser = random.Random(seed)
    waiting = iter(batches)
    while taken := list(islice(waiting, window)):
        examples = list(chain.from_iterable(taken))
        order = np.argsort([length_of(example) for example in examples], kind="stable")
        ends = np.cumsum([len(batch) for batch in taken])
        groups = [[examples[index] for index in part] for part in np.split(order, ends[:-1])]
        chooser.shuffle(groups)
        yield from groups


class Ahead:
    """Runs an iterator in a thread of its own, some items ahead of the one who takes them.

    Use it in a `with` statement: leaving it ends the thread. An error of the iterator is raised where its item would
    have been taken.
    """

    def __init__(self, items: Iterator[Any], ahead: int = AHEAD):
        self._items = items
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue(ahead)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fastce-batches", daemon=True)

    def __enter__(self) -> Iterator[Any]:
        self._thread.start()
        return self._take()

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put("item", item):
                    return
            self._put("end", None)
        except BaseException as error:  # whatever it is, somebody waits for an answer
            self._put("error", error)

    def _put(self, kind: str, value: Any) -> bool:
        """Waits for room; returns whether anybody still wants the value."""
        while not self._is_over.is_set():
            try:
                self._queue.put((kind, value), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def _take(self) -> Iterator[Any]:
        while True:
            kind, value = self._queue.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
