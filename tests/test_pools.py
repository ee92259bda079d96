"""Pools of processes, as sentence-transformers has them; here of processes on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny_models import PAIRS

from fastce import CrossEncoder
from fastce.corpus.workers import WorkerError
from fastce.pools import Pool

Tiny = Callable[..., str]


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> CrossEncoder:
    """With weights that no file has."""
    model = CrossEncoder(tiny("bert", num_labels=3), prompts={"ask": "Which one? "})
    model.model.classifier.weight.data.mul_(2.0)
    return model


@pytest.fixture(scope="module")
def pool(model: CrossEncoder) -> Iterator[Pool]:
    with model.start_multi_process_pool(["cpu", "cpu"]) as pool:
        yield pool


@pytest.mark.parametrize("chunk_size", [None, 1, 7, 1000])
def test_a_pool_scores_as_the_model_does(model: CrossEncoder, pool: Pool, chunk_size: int | None) -> None:
    found = model.predict(PAIRS, pool=pool, chunk_size=chunk_size, batch_size=3)
    assert np.array_equal(found, model.predict(PAIRS))


def test_what_becomes_of_logits_is_as_without_a_pool(model: CrossEncoder, pool: Pool) -> None:
    options = {"prompt_name": "ask", "activation_fn": torch.nn.Tanh(), "apply_softmax": True}
    assert np.array_equal(model.predict(PAIRS, pool=pool, **options), model.predict(PAIRS, **options))
    assert np.array_equal(model.predict(PAIRS[0], pool=pool), model.predict(PAIRS[0]))
    assert len(model.predict([], pool=pool)) == 0


def test_threads_take_turns(model: CrossEncoder, pool: Pool) -> None:
    expected = model.predict(PAIRS)
    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(model.predict, PAIRS, pool=pool, chunk_size=9) for _ in range(6)]
        assert all(np.array_equal(call.result(), expected) for call in calls)


def test_a_list_of_devices_is_a_pool_for_one_call(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    texts = [pair[1] for pair in PAIRS[:20]]
    assert model.rank("a guitar", texts, device=["cpu", "cpu"]) == model.rank("a guitar", texts)
    assert model.device == torch.device("cpu")


def test_a_pool_that_has_ended(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    pool = model.start_multi_process_pool(["cpu"])
    expected = model.predict(PAIRS[:4], pool=pool)
    assert np.array_equal(model.predict(PAIRS[:4]), expected)
    model.stop_multi_process_pool(pool)
    with pytest.raises(WorkerError, match="the workers have ended"):
        model.predict(PAIRS[:4], pool=pool)


def test_what_is_no_pool(model: CrossEncoder, pool: Pool) -> None:
    with pytest.raises(TypeError, match="pool: expected what start_multi_process_pool gives, got dict"):
        model.predict(PAIRS[:2], pool={})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="chunk_size: expected a positive whole number, got 0"):
        model.predict(PAIRS[:2], pool=pool, chunk_size=0)
    with pytest.raises(ValueError, match="device: expected one device at least, got an empty list"):
        model.predict(PAIRS[:2], device=[])
    with pytest.raises(ValueError, match="device: no 'cuda:7' here"):
        model.predict(PAIRS[:2], device=["cuda:7"])
    with pytest.raises(ValueError, match="precision: a pool's processes score in their model's own, not in bf16"):
        model.predict(PAIRS[:2], pool=pool, precision="bf16")
