"""Batches on their way to a GPU: in one copy, and in halves where they don't fit."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

import torch

from fastce.packing import PackedBatch, Spans

ALIGNMENT = 4
"""Numbers of int32 that each part begins at a multiple of: 16 bytes. Kernels are compiled once more for less."""


def to_device(batch: PackedBatch, device: torch.device) -> PackedBatch:
    """Copies a batch without prefixes to a device, from pinned memory and without waiting for it."""
    parts = (batch.input_ids, batch.token_type_ids, batch.position_ids, batch.spans.cu_seqlens)
    sizes = [-(-len(part) // ALIGNMENT) * ALIGNMENT for part in parts]
    starts = [0, *accumulate(sizes)]
    together = torch.empty(starts[-1], dtype=torch.int32, pin_memory=device.type == "cuda")
    for start, part in zip(starts, parts, strict=False):
        together[start : start + len(part)] = part
    there = together.to(device, non_blocking=True)
    ids, types, places, cu_seqlens = (
        there[start : start + len(part)] for start, part in zip(starts, parts, strict=False)
    )
    return PackedBatch(ids, types, places, replace(batch.spans, cu_seqlens=cu_seqlens))


def halves(batch: PackedBatch) -> tuple[PackedBatch, PackedBatch]:
    """The first and the second half of the pairs of a batch without prefixes, of two at least."""
    lengths = batch.spans.lengths
    pairs = len(lengths) // 2
    tokens = sum(lengths[:pairs])
    sizes = [tokens, len(batch.input_ids) - tokens]
    parts = (part.split(sizes) for part in (batch.input_ids, batch.token_type_ids, batch.position_ids))
    spans = (Spans.of(lengths[:pairs]), Spans.of(lengths[pairs:]))
    first, second = (
        PackedBatch(ids, types, places, part) for ids, types, places, part in zip(*parts, spans, strict=True)
    )
    return first, second
