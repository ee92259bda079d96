"""(2) Token ids to packed batches: sequences end to end without padding, formed in order of length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from fastce.spec import PositionScheme

if TYPE_CHECKING:
    from fastce.tokenization import TokenizedPairs

TOKEN_BUDGET = 16384
"""Tokens per batch at most; a single longer pair still makes a batch. 32 pairs of 512 tokens."""


@dataclass(frozen=True)
class PackedBatch:
    """Sequences end to end.

    Attributes:
        input_ids: Token ids, int32 `[total_tokens]`.
        token_type_ids: Token types, int32 `[total_tokens]`.
        position_ids: Positions, int32 `[total_tokens]`.
        cu_seqlens: Cumulative lengths, int32 `[num_pairs + 1]`: sequence i is `cu_seqlens[i]:cu_seqlens[i + 1]`.
        max_seqlen: Length of the longest sequence, in tokens.
    """

    input_ids: torch.Tensor
    token_type_ids: torch.Tensor
    position_ids: torch.Tensor
    cu_seqlens: torch.Tensor
    max_seqlen: int

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same batch on `device`."""
        return PackedBatch(
            self.input_ids.to(device),
            self.token_type_ids.to(device),
            self.position_ids.to(device),
            self.cu_seqlens.to(device),
            self.max_seqlen,
        )

    @property
    def lengths(self) -> list[int]:
        """Length of each sequence, in tokens."""
        return (self.cu_seqlens[1:] - self.cu_seqlens[:-1]).tolist()


def pack(pairs: TokenizedPairs, indices: Sequence[int] | np.ndarray, positions: PositionScheme) -> PackedBatch:
    """Lays the chosen pairs end to end, in the order given.

    Args:
        pairs: Tokenised pairs.
        indices: Which of them, `[num_pairs]`.
        positions: How the model counts positions.
    """
    chosen = np.asarray(indices, dtype=np.int64)
    input_ids, token_type_ids = pairs.assemble(chosen)  # both [total_tokens]
    lengths = pairs.lengths[chosen]
    cu_seqlens = np.zeros(len(chosen) + 1, dtype=np.int32)
    np.cumsum(lengths, out=cu_seqlens[1:])
    return PackedBatch(
        input_ids=torch.from_numpy(input_ids),
        token_type_ids=torch.from_numpy(token_type_ids),
        position_ids=torch.from_numpy(position_ids(input_ids, cu_seqlens, positions)),
        cu_seqlens=torch.from_numpy(cu_seqlens),
        max_seqlen=int(lengths.max(initial=0)),
    )


def position_ids(input_ids: np.ndarray, cu_seqlens: np.ndarray, positions: PositionScheme) -> np.ndarray:
    """Counts each token's position within its own sequence.

    Args:
        input_ids: int32 `[total_tokens]`.
        cu_seqlens: int32 `[num_pairs + 1]`.
        positions: The model's way of counting.

    Returns:
        int32 `[total_tokens]`.
    """
    counts = np.ones(len(input_ids), dtype=np.int32)
    if positions.padding_id is not None:
        counts = (input_ids != positions.padding_id).astype(np.int32)
    total = np.concatenate([np.zeros(1, dtype=np.int32), np.cumsum(counts, dtype=np.int32)])
    before = np.repeat(total[cu_seqlens[:-1]], np.diff(cu_seqlens))  # tokens counted in earlier sequences
    # A counted token's position starts at offset; one that takes none gets offset - 1.
    return ((total[1:] - before) * counts + (positions.offset - 1)).astype(np.int32)


def length_ordered_batches(
    lengths: np.ndarray, max_pairs: int, token_budget: int = TOKEN_BUDGET
) -> Iterator[np.ndarray]:
    """Cuts pairs into batches of similar length, longest first so that memory peaks in the first batch.

    Args:
        lengths: Tokens of each pair, `[num_pairs]`.
        max_pairs: Pairs per batch at most.
        token_budget: Tokens per batch at most, unless a single pair is longer.

    Yields:
        Indices into `lengths`; together they cover each pair once.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        # The first pair of a batch is its longest, so this many pairs fit whatever follows.
        total = np.cumsum(lengths[order[start : start + max_pairs]])
        size = max(1, int(np.searchsorted(total, token_budget, side="right")))
        yield order[start : start + size]
        start += size
