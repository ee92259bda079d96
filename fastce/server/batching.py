"""The queue of tokenised pairs: requests are merged into batches, and nobody waits long behind a large one.

A score depends on its own pair alone, so merging changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from time import perf_counter
from typing import NamedTuple

import numpy as np

from fastce.packing import order_by_length
from fastce.tokenization import TokenizedPairs

TURN_BATCHES = 2
"""Batches' worth of tokens that a request gets before the next one has its turn: what is common is done in one."""

RATE_MEMORY = 0.9
"""The share of the rate known so far when a batch gives a new one."""


class Computed(NamedTuple):
    """What came of a request's pairs.

    Attributes:
        logits: float32 `[num_pairs, num_labels]`.
        queued: Seconds before the first of them was in a batch.
        computing: Seconds from there to the last logit.
    """

    logits: np.ndarray
    queued: float
    computing: float


class Job:
    """A request's pairs in the queue.

    Args:
        pairs: The pairs.
        done: Gets the logits; where nobody waits for it any more, it is cancelled.
        turn: Tokens that the request's turn has.
    """

    def __init__(self, pairs: TokenizedPairs, done: asyncio.Future[Computed], turn: int):
        self.pairs = pairs
        self.done = done
        self.turn = turn
        self._order = order_by_length(pairs.lengths)
        self._ends = np.cumsum(pairs.lengths[self._order])  # tokens up to each pair's end
        self._taken = 0  # pairs that batches have got
        self._missing = len(pairs)
        self._logits: np.ndarray | None = None
        self._enqueued = self._started = perf_counter()

    def take(self, room: int, *, at_least_one: bool) -> tuple[np.ndarray, int]:
        """The next pairs of the turn, and their tokens; the last pair of a turn may go beyond it.

        Args:
            room: Tokens at most.
            at_least_one: Whether a pair that is longer is better than none.
        """
        before = int(self._ends[self._taken - 1]) if self._taken else 0
        fitting = int(np.searchsorted(self._ends, before + room, side="right"))
        in_turn = int(np.searchsorted(self._ends, before + self.turn, side="left")) + 1
        end = max(min(fitting, in_turn), self._taken + at_least_one)
        numbers = self._order[self._taken : end]
        tokens = int(self._ends[end - 1]) - before if len(numbers) else 0
        if self._taken == 0:
            self._started = perf_counter()
        self._taken = end
        self.turn -= tokens
        return numbers, tokens

    @property
    def is_taken(self) -> bool:
        """Whether batches have got all pairs."""
        return self._taken == len(self._order)

    def give(self, numbers: np.ndarray, logits: np.ndarray) -> None:
        """Enters the logits of some pairs, and says so where they were the last."""
        if self._logits is None:
            self._logits = np.empty((len(self.pairs), logits.shape[1]), dtype=np.float32)
        self._logits[numbers] = logits
        self._missing -= len(numbers)
        if self._missing == 0 and not self.done.done():
            computed = Computed(self._logits, self._started - self._enqueued, perf_counter() - self._started)
            self.done.set_result(computed)


class Part(NamedTuple):
    """A request's share of a batch.

    Attributes:
        job: The request.
        numbers: Which of its pairs, int64 `[num_pairs]`.
        tokens: Their tokens.
    """

    job: Job
    numbers: np.ndarray
    tokens: int


class Batcher:
    """The one owner of the queue, on one event loop: nothing else touches it, so there are no locks.

    Args:
        compute: Gives the logits of pairs, float32 `[num_pairs, num_labels]`; called in `executor`, once at a time.
        executor: Where to compute.
        max_batch_tokens: Tokens of a batch at most; a single longer pair still makes one.
        observe: Told of each batch's parts before it is computed.
    """

    def __init__(
        self,
        compute: Callable[[TokenizedPairs], np.ndarray],
        executor: Executor,
        max_batch_tokens: int,
        observe: Callable[[list[Part]], object] = lambda _: None,
    ):
        self.max_batch_tokens = max_batch_tokens
        self.pairs_per_second = 0.0
        self._compute = compute
        self._executor = executor
        self._observe = observe
        self._jobs: deque[Job] = deque()
        self._arrived = asyncio.Event()

    async def computed(self, pairs: TokenizedPairs) -> Computed:
        """Computes a request's pairs among those of others. If the caller is cancelled, what is left is dropped.

        Args:
            pairs: One pair at least.
        """
        done: asyncio.Future[Computed] = asyncio.get_running_loop().create_future()
        self._jobs.append(Job(pairs, done, TURN_BATCHES * self.max_batch_tokens))
        self._arrived.set()
        return await done

    async def run(self) -> None:
        """Computes batches for ever. What goes wrong with one is raised to those who wait for it, and to no others."""
        while True:
            await self._arrived.wait()
            parts = self.next_batch()
            if not parts:
                self._arrived.clear()
                continue
            self._observe(parts)
            before = perf_counter()
            try:
                logits = await asyncio.get_running_loop().run_in_executor(self._executor, self._logits, parts)
            except Exception as error:
                for part in parts:
                    if not part.job.done.done():
                        part.job.done.set_exception(error)
                continue
            self._note_rate(len(logits) / (perf_counter() - before))
            start = 0
            for part in parts:
                part.job.give(part.numbers, logits[start : start + len(part.numbers)])
                start += len(part.numbers)

    def next_batch(self) -> list[Part]:
        """Takes pairs of the jobs in turn, as many as there is room for; jobs that nobody waits for are dropped."""
        parts: list[Part] = []
        room = self.max_batch_tokens
        while self._jobs and room > 0:
            job = self._jobs.popleft()
            if job.done.done():
                continue
            numbers, tokens = job.take(room, at_least_one=not parts)
            room -= tokens
            if len(numbers):
                parts.append(Part(job, numbers, tokens))
            if job.is_taken:
                continue
            if job.turn > 0:  # goes on with it in the next batch
                self._jobs.appendleft(job)
                break
            job.turn = TURN_BATCHES * self.max_batch_tokens
            self._jobs.append(job)
        return parts

    def _logits(self, parts: list[Part]) -> np.ndarray:
        return self._compute(TokenizedPairs.joined([part.job.pairs.chosen(part.numbers) for part in parts]))

    def _note_rate(self, rate: float) -> None:
        known = self.pairs_per_second or rate
        self.pairs_per_second = RATE_MEMORY * known + (1 - RATE_MEMORY) * rate
