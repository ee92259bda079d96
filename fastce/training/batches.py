"""Batches for the training loop: read and tokenised ahead of the step, and, where asked for, grouped by length."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np

AHEAD = 4
"""Batches that are prepared before the training loop takes them."""

WINDOW = 32
"""Batches among which lengths are grouped."""

Batch = Sequence[Any]
T = TypeVar("T")


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


def prepared(items: Iterable[T], prepare: Callable[[T], object], ahead: int = AHEAD) -> Generator[T, None, None]:
    """Yields items in their order, each after `prepare(item)`, which runs in another thread.

    The items themselves are made in the thread that takes them, for making them may draw random numbers. An error is
    raised where its item would have been taken.

    Args:
        items: What to yield.
        prepare: What to do with an item beforehand.
        ahead: How many items are made before they are taken.
    """
    with ThreadPoolExecutor(1, "fastce-batches") as thread:
        waiting = deque[tuple[T, Future[object]]]()
        try:
            for item in items:
                waiting.append((item, thread.submit(prepare, item)))
                if len(waiting) > ahead:
                    yield finished(waiting.popleft())
            while waiting:
                yield finished(waiting.popleft())
        finally:
            thread.shutdown(cancel_futures=True)


def finished(item_and_work: tuple[T, Future[object]]) -> T:
    """The item, as soon as the work on it is done."""
    item, work = item_and_work
    work.result()
    return item
