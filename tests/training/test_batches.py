from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastce.training.batches import grouped_by_length, prepared


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


def test_items_come_in_order_each_prepared_ahead() -> None:
    made: list[int] = []
    done: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            assert threading.current_thread() is threading.main_thread()
            yield number

    def prepare(number: int) -> None:
        assert threading.current_thread() is not threading.main_thread()
        done.append(number)

    taken = prepared(items(), prepare, ahead=3)
    for number in range(20):
        assert next(taken) == number
        assert number in done
        assert made == list(range(min(number + 4, 20)))
    assert list(taken) == []
    assert done == list(range(20))


def test_an_error_comes_where_its_item_would_have() -> None:
    def prepare(number: int) -> None:
        if number == 1:
            raise KeyError("one")

    taken = prepared(range(5), prepare)
    assert next(taken) == 0
    with pytest.raises(KeyError, match="one"):
        next(taken)


def test_leaving_early_ends_the_thread() -> None:
    with closing(prepared(iter(range(10**9)), str)) as taken:
        assert next(taken) == 0
        assert any(thread.name.startswith("fastce-batches") for thread in threading.enumerate())
    assert not any(thread.name.startswith("fastce-batches") for thread in threading.enumerate())
