"""Windows of pairs in, logits out, in order; what runs next to each other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import PAIRS

from fastce import CrossEncoder, available_backends
from fastce.pipeline import BatchLimits, Window

Tiny = Callable[..., str]


def windows(*sizes: int) -> Iterator[Window]:
    start = 0
    for size in sizes:
        pairs = PAIRS[start : start + size]
        yield Window([pair[0] for pair in pairs], [pair[1] for pair in pairs])
        start += size


def stream(model: CrossEncoder, source: Any, advance: Callable[[int], object] = lambda _: None) -> Iterator[Any]:
    return model.pipeline.stream(source, model.max_length, BatchLimits(None, 200), advance)


def test_logits_come_in_the_order_of_the_windows(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert", num_labels=3))
    found = list(stream(model, windows(5, 1, 40, 97)))
    assert [len(logits) for logits in found] == [5, 1, 40, 97]
    expected = model.predict(PAIRS, activation_fn=torch.nn.Identity())
    assert np.array_equal(torch.cat(found).numpy(), expected)
    assert list(stream(model, windows())) == []


def test_nothing_waits_for_a_batch_before_the_last_one(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, what is done to one batch's logits on the host would have the next one packed only behind it."""

    class Unready(torch.Tensor):
        """Logits that a device has not computed yet: to be put side by side, and nothing else before all are there."""

        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.cat:
                seen.append(len(args[0]) - 1)
            elif len(seen) < 1:
                raise AssertionError(f"{func} waits for a batch")
            return super().__torch_function__(func, types, args, kwargs or {})

    seen: list[int] = []
    model = CrossEncoder(tiny("bert"))
    (expected,) = stream(model, windows(40))
    encoder: Any = model.pipeline.built_encoder().encoder
    run, batches = encoder.logits, []

    def unready(batch: Any, num_threads: int | None = None) -> torch.Tensor:
        batches.append(batch)
        return run(batch, num_threads).as_subclass(Unready)

    monkeypatch.setattr(encoder, "logits", unready)
    (found,) = stream(model, windows(40))
    assert seen == [len(batches)]
    assert len(batches) > 3
    assert torch.equal(found.as_subclass(torch.Tensor), expected)


def test_every_pair_is_counted_once_it_is_done(tiny: Tiny) -> None:
    counts: list[int] = []
    model = CrossEncoder(tiny("bert"))
    repeated = Window(["a", "a", "b"], ["c", "c", "c"])
    list(stream(model, [*windows(30, 20), repeated], counts.append))
    assert sum(counts) == 53
    assert len(counts) > 3, "a long window is told of in parts"


def test_the_next_window_is_read_while_this_one_is_computed(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    read = threading.Event()

    def source() -> Iterator[Window]:
        yield from windows(3)
        read.set()
        yield from windows(4)

    logits = model.pipeline.compute

    def compute(*arguments: Any) -> Any:
        assert read.wait(10), "nobody reads ahead"
        return logits(*arguments)

    model.pipeline.compute = compute  # type: ignore[method-assign]
    assert [len(found) for found in stream(model, source())] == [3, 4]


def test_an_error_of_the_source_comes_behind_what_was_read_before(tiny: Tiny) -> None:
    def source() -> Iterator[Window]:
        yield from windows(3, 2)
        raise OSError("the file ends here")

    found = stream(CrossEncoder(tiny("bert")), source())
    assert [len(next(found)), len(next(found))] == [3, 2]
    with pytest.raises(OSError, match="the file ends here"):
        next(found)


@pytest.mark.parametrize("backend", ["cpp", "reference", "transformers", "triton"])
def test_scores_that_are_the_same_bits_in_every_batch(tiny: Tiny, backend: str) -> None:
    if not available_backends()[backend] and backend != "triton":
        pytest.skip(f"{backend} does not run here")
    try:
        model = CrossEncoder(tiny("bert"), backend=backend, deterministic=True)
    except ValueError as error:  # Triton is not installed, or not interpreted
        pytest.skip(str(error))
    pairs = PAIRS[:24] if backend == "triton" else PAIRS
    expected = np.array([model.predict(pair) for pair in pairs])
    for order in (range(len(pairs)), range(len(pairs) - 1, -1, -1), range(0, len(pairs), 3)):
        assert np.array_equal(model.predict([pairs[number] for number in order]), expected[list(order)])
    encoder, sizes = model.pipeline.built_encoder().encoder, []
    logits = encoder.logits

    def seen(batch: Any, *arguments: Any) -> Any:
        sizes.append(len(batch.spans.lengths))
        return logits(batch, *arguments)

    encoder.logits = seen  # type: ignore[method-assign]
    model.predict(pairs)
    assert (max(sizes) == 1) == (backend != "cpp"), "who sees to it anyway computes many at once"


def test_a_model_streams_scores(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"), prompts={"ask": "question: "}, default_prompt_name="ask")
    found = list(model.stream([PAIRS[:5], PAIRS[5:60]], max_batch_tokens=100))
    assert np.array_equal(np.concatenate(found), model.predict(PAIRS[:60]))
    with pytest.raises(TypeError, match=r"inputs\[1\]\[0\]: expected str, got int 3"):
        list(model.stream([[("a", "b"), (3, "c")]]))  # type: ignore[list-item]
    with pytest.raises(ValueError, match="max_batch_tokens: expected a positive whole number, got 0"):
        next(model.stream([PAIRS], max_batch_tokens=0))


def test_batches_hold_tokens_and_pairs_at_most(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model = CrossEncoder(tiny("bert"))
    encoder = model.pipeline.built_encoder().encoder
    sizes: list[tuple[int, int]] = []
    run = encoder.logits
    monkeypatch.setattr(
        encoder,
        "logits",
        lambda batch, threads=None: (
            sizes.append((len(batch.spans.lengths), len(batch.input_ids))),
            run(batch, threads),
        )[1],
    )
    expected = model.predict(PAIRS)
    assert [pairs for pairs, _ in sizes] == [len(PAIRS)]
    sizes.clear()
    assert np.array_equal(model.predict(PAIRS, max_batch_tokens=300), expected)
    assert max(tokens for _, tokens in sizes) <= 300
    sizes.clear()
    assert np.array_equal(model.predict(PAIRS, batch_size=7), expected)
    assert max(pairs for pairs, _ in sizes) == 7
