"""(2) Token ids to packed batches: sequences end to end without padding, of a bounded number of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastce.spec import AbsolutePositions

if TYPE_CHECKING:
    from fastce.tokenization import TokenizedPairs

MAX_BATCH_TOKENS = 16384
"""Tokens per batch at most, unless somebody says otherwise: 32 pairs of 512 tokens."""


@dataclass(frozen=True)
class Spans:
    """Where the sequences of a batch lie. Known to the host, so that nothing on the way asks a device for a list.

    Attributes:
        cu_seqlens: Cumulative lengths, int32 `[num_pairs + 1]`, on the batch's device: sequence i is
            `cu_seqlens[i]:cu_seqlens[i + 1]`.
        lengths: Tokens of each sequence.
        longest: Tokens of the longest one; 0 for none.
    """

    cu_seqlens: torch.Tensor
    lengths: tuple[int, ...]
    longest: int

    @classmethod
    def of(cls, lengths: Sequence[int] | np.ndarray) -> Spans:
        """Sequences of these lengths, one after the other, on the CPU."""
        cu_seqlens = np.zeros(len(lengths) + 1, dtype=np.int32)
        np.cumsum(lengths, out=cu_seqlens[1:])
        known = tuple(int(length) for length in lengths)
        return cls(torch.from_numpy(cu_seqlens), known, max(known, default=0))

    def to(self, device: torch.device | str) -> Spans:
        """The same on `device`."""
        return replace(self, cu_seqlens=self.cu_seqlens.to(device))


@dataclass(frozen=True)
class PackedBatch:
    """Sequences end to end.

    Attributes:
        input_ids: Token ids, int32 `[total_tokens]`.
        token_type_ids: Token types, int32 `[total_tokens]`.
        position_ids: Positions, int32 `[total_tokens]`.
        spans: Where the sequences lie.
        prefixes: None where each sequence is a pair. Else the pairs are the last sequences, and this says of each which
            one, among those before the pairs, its tokens follow; -1: none. int32 `[num_pairs]`.
    """

    input_ids: torch.Tensor
    token_type_ids: torch.Tensor
    position_ids: torch.Tensor
    spans: Spans
    prefixes: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same batch on `device`."""
        return PackedBatch(
            self.input_ids.to(device),
            self.token_type_ids.to(device),
            self.position_ids.to(device),
            self.spans.to(device),
            None if self.prefixes is None else self.prefixes.to(device),
        )


def pack(
    pairs: TokenizedPairs, indices: Sequence[int] | np.ndarray, positions: AbsolutePositions | None
) -> PackedBatch:
    """Lays the chosen pairs end to end, in the order given.

    Args:
        pairs: Tokenised pairs.
        indices: Which of them, `[num_pairs]`.
        positions: How the model counts positions; None counts from 0.
    """
    chosen = np.asarray(indices, dtype=np.int64)
    input_ids, token_type_ids = pairs.assemble(chosen)  # both [total_tokens]
    spans = Spans.of(pairs.lengths[chosen])
    return PackedBatch(
        input_ids=torch.from_numpy(input_ids),
        token_type_ids=torch.from_numpy(token_type_ids),
        position_ids=torch.from_numpy(position_ids(input_ids, spans.cu_seqlens.numpy(), positions)),
        spans=spans,
    )


def padded(batch: PackedBatch, tokenizer: Any) -> dict[str, torch.Tensor]:
    """The batch as modules of transformers take it, padded as its tokenizer does.

    Returns:
        `input_ids`, `attention_mask` and, where the tokenizer has them, `token_type_ids`: int64 `[num_pairs, longest]`.
    """
    features = {"input_ids": split(batch.input_ids, batch)}
    if "token_type_ids" in tokenizer.model_input_names:
        features["token_type_ids"] = split(batch.token_type_ids, batch)
    with_padding = len(set(batch.spans.lengths)) > 1  # without, models that have no padding token run too
    return dict(tokenizer.pad(features, padding=with_padding, return_tensors="pt"))


def split(tokens: torch.Tensor, batch: PackedBatch) -> list[list[int]]:
    """[total_tokens] -> a list for each sequence."""
    return [sequence.tolist() for sequence in tokens.split(batch.spans.lengths)]


def pack_padded(features: Mapping[str, torch.Tensor], positions: AbsolutePositions | None) -> PackedBatch:
    """The opposite of `padded`, wherever the padding is.

    Args:
        features: What `padded` gives; without a mask nothing is padding.
        positions: How the model counts positions; None counts from 0.

    Raises:
        ValueError: There are no `input_ids`.
    """
    if "input_ids" not in features:
        raise ValueError(f"input: expected input_ids, got {', '.join(features) or 'nothing'}")
    ids = features["input_ids"].cpu()  # [num_pairs, longest]
    mask = features.get("attention_mask", torch.ones_like(ids)).cpu().bool()
    input_ids = ids[mask].int()  # [total_tokens]
    types = features.get("token_type_ids", torch.zeros_like(ids)).cpu()[mask].int()
    spans = Spans.of(mask.sum(1).tolist())
    numbers = position_ids(input_ids.numpy(), spans.cu_seqlens.numpy(), positions)
    return PackedBatch(input_ids, types, torch.from_numpy(numbers), spans)


def position_ids(input_ids: np.ndarray, cu_seqlens: np.ndarray, positions: AbsolutePositions | None) -> np.ndarray:
    """Counts each token's position within its own sequence.

    Args:
        input_ids: int32 `[total_tokens]`.
        cu_seqlens: int32 `[num_pairs + 1]`.
        positions: The model's way of counting; None counts from 0.

    Returns:
        int32 `[total_tokens]`.
    """
    offset, padding_id = (0, None) if positions is None else (positions.offset, positions.padding_id)
    counts = np.ones(len(input_ids), dtype=np.int32)
    if padding_id is not None:
        counts = (input_ids != padding_id).astype(np.int32)
    total = np.concatenate([np.zeros(1, dtype=np.int32), np.cumsum(counts, dtype=np.int32)])
    before = np.repeat(total[cu_seqlens[:-1]], np.diff(cu_seqlens))  # tokens counted in earlier sequences
    # A counted token's position starts at offset; one that takes none gets offset - 1.
    return ((total[1:] - before) * counts + (offset - 1)).astype(np.int32)


def order_by_length(lengths: np.ndarray) -> np.ndarray:
    """Pairs of similar length beside each other, longest first so that memory peaks in the first batch, `[num_pairs]`.

    Args:
        lengths: Tokens of each pair, `[num_pairs]`.
    """
    order: np.ndarray = np.argsort(-lengths, kind="stable")
    return order


def ordered_batches(
    order: np.ndarray, lengths: np.ndarray, max_pairs: int | None, max_tokens: int = MAX_BATCH_TOKENS
) -> Iterator[np.ndarray]:
    """Cuts pairs into batches.

    Args:
        order: The pairs in the order that they are to be computed in, `[num_pairs]`.
        lengths: Tokens of each pair, `[num_pairs]`.
        max_pairs: Pairs per batch at most; None leaves it to the tokens.
        max_tokens: Tokens per batch at most, unless a single pair is longer.

    Yields:
        Indices into `lengths`; together they cover each pair once.
    """
    start = 0
    while start < len(order):
        most = min(max_pairs or max_tokens, max_tokens)  # no pair is shorter than a token
        total = np.cumsum(lengths[order[start : start + most]])
        size = max(1, int(np.searchsorted(total, max_tokens, side="right")))
        yield order[start : start + size]
        start += size
