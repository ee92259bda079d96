"""Batches on their way to a device: one copy, and halves where memory is short."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kernel_check import DEVICE
from networks import NETWORKS, Parameters, random_batch, request
from tolerance import SAME_PAIR, close_to

from fastce.backends.base import load_backend
from fastce.backends.triton.engine import TritonEncoder
from fastce.backends.triton.transfer import halves, to_device
from fastce.packing import PackedBatch

PARTS = NETWORKS["one layer"]
LENGTHS = [9, 7, 5, 3, 1]


def same(first: PackedBatch, second: PackedBatch) -> bool:
    pairs = zip(tensors(first), tensors(second), strict=True)
    return first.spans.lengths == second.spans.lengths and all(torch.equal(a.cpu(), b.cpu()) for a, b in pairs)


def tensors(batch: PackedBatch) -> list[torch.Tensor]:
    return [batch.input_ids, batch.token_type_ids, batch.position_ids, batch.spans.cu_seqlens]


@pytest.mark.parametrize("lengths", [[1], [4], [5, 3], LENGTHS])
def test_a_batch_arrives_as_it_was(lengths: list[int]) -> None:
    batch = random_batch(PARTS[0], lengths)
    found = to_device(batch, torch.device(DEVICE))
    assert same(found, batch)
    assert all(part.dtype == torch.int32 and part.data_ptr() % 16 == 0 for part in tensors(found))


@pytest.mark.parametrize("lengths", [[3, 2], LENGTHS])
def test_halves_are_batches(lengths: list[int]) -> None:
    batch = random_batch(PARTS[0], lengths)
    first, second = halves(batch)
    assert first.spans.lengths + second.spans.lengths == batch.spans.lengths
    assert len(second.spans.lengths) - len(first.spans.lengths) in (0, 1)
    for whole, parts in zip(tensors(batch)[:3], zip(tensors(first)[:3], tensors(second)[:3], strict=True), strict=True):
        assert torch.equal(torch.cat(parts), whole)
    for half in (first, second):
        assert half.spans.cu_seqlens.tolist() == [
            sum(half.spans.lengths[:n]) for n in range(len(half.spans.lengths) + 1)
        ]


class ShortOfMemory:
    """Lets batches up to a number of tokens through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int, error: type[Exception] = torch.OutOfMemoryError):
        self.tried: list[int] = []
        run = TritonEncoder._scored

        def limited(encoder: TritonEncoder, batch: PackedBatch) -> torch.Tensor:
            self.tried.append(len(batch.input_ids))
            if self.tried[-1] > most:
                raise error("injected")
            return run(encoder, batch)

        monkeypatch.setattr(TritonEncoder, "_scored", limited)


def encoder() -> Any:
    return load_backend("triton").build(request(PARTS, Parameters(*PARTS), device=DEVICE))


def test_what_does_not_fit_is_computed_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = random_batch(PARTS[0], LENGTHS)
    expected = encoder().logits(batch)
    short = ShortOfMemory(monkeypatch, 9)
    assert close_to(encoder().logits(batch), expected, SAME_PAIR)
    assert short.tried == [25, 16, 9, 7, 9], "each size once"


def test_a_pair_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    short = ShortOfMemory(monkeypatch, 8)
    with pytest.raises(torch.OutOfMemoryError, match="injected"):
        encoder().logits(random_batch(PARTS[0], LENGTHS))
    assert short.tried == [25, 16, 9]


def test_other_errors_are_raised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    short = ShortOfMemory(monkeypatch, 9, RuntimeError)
    with pytest.raises(RuntimeError, match="injected"):
        encoder().logits(random_batch(PARTS[0], LENGTHS))
    assert short.tried == [25]
