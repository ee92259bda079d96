"""Graphs of buckets: the logic against a device that records what it is told to compute again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_check import DEVICE
from networks import NETWORKS, Parameters, random_batch, request, shallow
from tolerance import SAME_PAIR, close_to

from fastce.backends.base import load_backend
from fastce.backends.triton import graphs
from fastce.backends.triton.graphs import STEPS, Bucket, Graphs, bucket_of
from fastce.packing import PackedBatch, Spans


class FakeDevice:
    """Captures by computing, and replays by computing again into where the result lay."""

    def __init__(self) -> None:
        self.captured = self.replayed = 0

    def capture(self, function: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        self.captured += 1
        output = function().clone()

        def replay() -> None:
            self.replayed += 1
            output.copy_(function())

        return replay, output


def engine(name: str = "one layer") -> Any:
    parts = shallow(name)
    return load_backend("triton").build(request(parts, Parameters(*parts), device=DEVICE))


def batch_of(lengths: list[int], name: str = "one layer") -> PackedBatch:
    return random_batch(NETWORKS[name][0], lengths)


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


def graphs_of(encoder: Any, device: FakeDevice) -> Graphs:
    return Graphs(encoder._logits_there, torch.device(DEVICE), 52, device.capture)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, about numbers of tokens that belong to no sequence
@torch.inference_mode()
@pytest.mark.parametrize(
    "name",
    [
        *("one layer", "window of 5", "mean", "bias by distance"),
        *(pytest.param(name, marks=pytest.mark.stress) for name in ("causal, last token", "rotary")),
    ],
)
def test_a_graph_computes_what_kernels_compute(name: str, device: FakeDevice) -> None:
    """A batch after a larger one, whose tokens are still behind it."""
    encoder = engine(name)
    computed = graphs_of(encoder, device)
    for lengths in ([16, 12, 5], [15, 11, 6]):
        batch = batch_of(lengths, name)
        assert close_to(computed.logits(batch), encoder.logits(batch), SAME_PAIR)
    assert (device.captured, device.replayed) == (1, 2)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@torch.inference_mode()
def test_results_outlive_the_next_batch(device: FakeDevice) -> None:
    encoder = engine()
    computed = graphs_of(encoder, device)
    first = computed.logits(batch_of([16, 12, 5]))
    kept = first.clone()
    computed.logits(batch_of([15, 11, 6]))
    assert torch.equal(first, kept)


@torch.inference_mode()
def test_large_batches_are_computed_kernel_by_kernel(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST_NUMBERS", 24 * 52)
    encoder = engine()
    computed = graphs_of(encoder, device)
    batch = batch_of([20, 5])
    assert torch.equal(computed.logits(batch), encoder.logits(batch))
    assert device.captured == 0


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@torch.inference_mode()
def test_few_graphs_are_kept(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was used longest ago goes first."""
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 2)
    computed = graphs_of(engine(), device)
    for lengths, captured in (([3], 1), ([9], 2), ([3], 2), ([17], 3), ([3], 3), ([9], 4)):
        computed.logits(batch_of(lengths))
        assert device.captured == captured, lengths


@pytest.mark.parametrize("total", [1, 2, 15, 16, 17, 100, 1023, 1024, 5000])
@pytest.mark.parametrize("beside", [(), (1, 1)])
def test_buckets_are_a_little_larger_than_their_batches(total: int, beside: tuple[int, ...]) -> None:
    lengths = [total, *beside]
    bucket, tokens = bucket_of(Spans.of(lengths)), sum(lengths)
    assert tokens + (bucket.pairs > len(lengths)) <= bucket.tokens <= (tokens + 1) * (1 + 1 / STEPS)
    assert bucket.longest >= total
    assert len(lengths) <= bucket.pairs < 2 * len(lengths)


def test_batches_of_a_kind_share_a_bucket() -> None:
    assert bucket_of(Spans.of([100, 90, 80])) == bucket_of(Spans.of([97, 93, 70, 8])) == Bucket(272, 4, 128)
    assert bucket_of(Spans.of([128] * 128)) == Bucket(16384, 128, 128), "the largest batch of a round length"


def test_sequences_behind_the_last_one_are_empty() -> None:
    buffers = random_batch(NETWORKS["one layer"][0], [1, 1, 5, 2])
    graphs.fill(buffers, batch_of([3, 4]))
    assert buffers.spans.cu_seqlens.tolist() == [0, 3, 7, 7, 7]


def test_on_the_cpu_there_are_none() -> None:
    assert DEVICE == "cuda" or engine().graphs is None
