from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastce.training.batches import Ahead, grouped_by_length


@given(
    st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=6), max_size=12), st.integers(1, 5), st.integers(0, 9)
)
def test_every_example_occurs_once_and_sizes_stay(batches: list[list[int]], window: int, seed: int) -> None:
    grouped = [list(batch) for batch in grouped_by_length(batches, lambda length: length, seed, window)]
    assert len(grouped) == len(batches)
    for start in range(0, len(batches), window):
        before, after = batches[start : start + window], grouped[start : start + window]
        assert sorted(map(len, after)) == sorted(map(len, before))
        assert sorted(chain(*after)) == sorted(chain(*before))
        spans = sorted((min(batch), max(batch)) for batch in after)
        assert all(first[1] <= second[0] for first, second in pairwise(spans))


def test_batches_of_one_window_come_in_a_random_order() -> None:
    batches = [[number] for number in range(20)]
    orders = [[batch[0] for batch in grouped_by_length(batches, lambda x: x, seed)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])


def test_items_come_in_order_and_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    with Ahead(items(), ahead=3) as taken:
        assert next(taken) == 0
        for _ in range(100):
            if len(made) >= 4:
                break
            time.sleep(0.01)
        assert 4 <= len(made) <= 6
        assert list(taken) == list(range(1, 20))


def test_an_error_comes_where_its_item_would_have() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("two")

    with Ahead(items()) as taken:
        assert next(taken) == 1
        with pytest.raises(KeyError, match="two"):
            next(taken)


def test_leaving_early_ends_the_thread() -> None:
    with Ahead(iter(range(10**9))) as taken:
        assert next(taken) == 0
    assert not any(thread.name == "fastce-batches" for thread in threading.enumerate())
