"""The queue by itself: what is merged, in which turn, and what is dropped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import pytest

from fastce.server.batching import Batcher, Computed, Part
from fastce.tokenization import TokenizedPairs

T = TypeVar("T")


def pairs_of(*lengths: int, first_token: int = 0) -> TokenizedPairs:
    """Pairs of one piece each, whose tokens count up from `first_token`."""
    sizes = np.array(lengths, dtype=np.int64)[:, None]
    token_ids = np.arange(first_token, first_token + sizes.sum(), dtype=np.int32)
    return TokenizedPairs(token_ids, np.cumsum(sizes, axis=0) - sizes, sizes, np.zeros(1, dtype=np.int32))


def sums(pairs: TokenizedPairs) -> np.ndarray:
    """A stand-in for a model: the logit of a pair is the sum of its tokens."""
    ids, _ = pairs.assemble(np.arange(len(pairs)))
    return np.add.reduceat(ids, np.cumsum(pairs.lengths) - pairs.lengths)[:, None].astype(np.float32)


class Recorded:
    """A batcher with a stand-in for a model, and the batches that it made, as (job, pairs) of each part."""

    def __init__(self, budget: int, compute: Callable[[TokenizedPairs], np.ndarray] = sums):
        self.batches: list[list[Part]] = []
        self.batcher = Batcher(compute, ThreadPoolExecutor(1), budget, self.batches.append)

    def run(self, requests: Callable[[Batcher], Awaitable[T]]) -> T:
        """Runs the queue for as long as requests take."""

        async def together() -> T:
            running = asyncio.create_task(self.batcher.run())
            try:
                return await requests(self.batcher)
            finally:
                running.cancel()

        return asyncio.run(asyncio.wait_for(together(), 20))

    def shares(self) -> list[list[tuple[int, int]]]:
        """Of each batch, its requests in the order that they were first seen, and how many pairs each had in it."""
        seen: dict[int, int] = {}
        return [
            [(seen.setdefault(id(part.job), len(seen)), len(part.numbers)) for part in parts] for parts in self.batches
        ]


async def all_of(batcher: Batcher, *requests: TokenizedPairs) -> list[np.ndarray]:
    found = await asyncio.gather(*(batcher.computed(pairs) for pairs in requests))
    return [computed.logits for computed in found]


def test_requests_are_merged_and_each_gets_its_own() -> None:
    requests = [pairs_of(3, 1, 2), pairs_of(2, 2, first_token=50), pairs_of(9, first_token=100)]
    recorded = Recorded(20)
    found = recorded.run(lambda batcher: all_of(batcher, *requests))
    assert recorded.shares() == [[(0, 3), (1, 2), (2, 1)]]
    assert [logits.tolist() for logits in found] == [sums(pairs).tolist() for pairs in requests]


def test_a_batch_has_no_more_tokens_than_it_may_unless_a_pair_is_longer() -> None:
    requests = [pairs_of(4, 4, 4), pairs_of(25, 3, first_token=40)]
    recorded = Recorded(10)
    found = recorded.run(lambda batcher: all_of(batcher, *requests))
    assert [sum(part.tokens for part in parts) for parts in recorded.batches] == [8, 4, 25, 3]
    assert [logits.tolist() for logits in found] == [sums(pairs).tolist() for pairs in requests]


def test_a_small_request_does_not_wait_for_all_of_a_large_one() -> None:
    recorded = Recorded(10)
    recorded.run(lambda batcher: all_of(batcher, pairs_of(*[5] * 40), pairs_of(5, 5), pairs_of(5)))
    assert recorded.shares()[:4] == [
        [(0, 2)],
        [
            (0, 2),
        ],
        [(1, 2)],
        [(2, 1), (0, 1)],
    ]
    assert sum(number for batch in recorded.shares() for job, number in batch if job == 0) == 40


def test_what_nobody_waits_for_is_not_computed() -> None:
    computed = []

    def slow(pairs: TokenizedPairs) -> np.ndarray:
        computed.append(len(pairs))
        return sums(pairs)

    async def requests(batcher: Batcher) -> object:
        first = asyncio.create_task(batcher.computed(pairs_of(*[5] * 100)))
        second = asyncio.create_task(batcher.computed(pairs_of(*[5] * 100)))
        third = asyncio.create_task(batcher.computed(pairs_of(7)))
        while not computed:
            await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        return (await third).logits

    recorded = Recorded(10, slow)
    assert recorded.run(requests) == np.array([[21.0]])
    assert sum(computed) <= 6


def test_an_error_reaches_those_who_wait_for_the_batch_and_no_others() -> None:
    def breaks_on_seven(pairs: TokenizedPairs) -> np.ndarray:
        if 7 in pairs.lengths:
            raise MemoryError("no room for 7")
        return sums(pairs)

    async def requests(batcher: Batcher) -> object:
        broken = asyncio.create_task(batcher.computed(pairs_of(7)))
        with pytest.raises(MemoryError, match="no room for 7"):
            await broken
        return (await batcher.computed(pairs_of(3))).logits

    assert Recorded(10, breaks_on_seven).run(requests) == np.array([[3.0]])


def test_times_are_of_the_request_itself() -> None:
    def slow(pairs: TokenizedPairs) -> np.ndarray:
        time.sleep(0.05)
        return sums(pairs)

    async def requests(batcher: Batcher) -> tuple[Computed, Computed, float]:
        before = time.perf_counter()
        first, second = await asyncio.gather(batcher.computed(pairs_of(10)), batcher.computed(pairs_of(10)))
        return first, second, time.perf_counter() - before

    first, second, total = Recorded(10, slow).run(requests)
    assert first.computing >= 0.05
    assert second.computing >= 0.05
    assert second.queued >= first.queued + 0.05
    assert second.queued + second.computing <= total
