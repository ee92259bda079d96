"""(2) Tokens that neighbouring pairs of a batch begin with, taken out to be computed once.

Where a network looks back only, the keys and values of a prefix do not depend on what follows it. Prefixes
are found on token ids, since words merge across the borders of a template's parts.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from fastce.packing import PackedBatch, Spans
from fastce.tokenization import TokenizedPairs

PREFIX_MEMORY = 256 * 2**20
"""Bytes that the keys and values of a batch's prefixes may take."""

FEWEST_TOKENS = 8
"""Prefixes of fewer tokens cost more than they save."""


class SharedPrefix(NamedTuple):
    """Neighbouring sequences that begin alike.

    Attributes:
        first: The first of them.
        end: The one behind the last.
        tokens: How many tokens they share.
    """

    first: int
    end: int
    tokens: int

    @property
    def saved(self) -> int:
        """Tokens that need no computing."""
        return self.tokens * (self.end - self.first - 1)


def order_by_beginning(pairs: TokenizedPairs) -> np.ndarray:
    """An order in which pairs that begin alike are neighbours, int64 `[num_pairs]`."""
    ids, _ = pairs.assemble(np.arange(len(pairs)))
    parts = np.split(ids.astype(">i4"), np.cumsum(pairs.lengths)[:-1])  # big-endian bytes sort as the numbers do
    beginnings = [part.tobytes() for part in parts]
    return np.array(sorted(range(len(pairs)), key=beginnings.__getitem__), dtype=np.int64)


def share_prefixes(batch: PackedBatch, max_tokens: int) -> PackedBatch:
    """Takes what neighbours begin with out of them.

    Args:
        batch: Pairs, of which those that begin alike are neighbours.
        max_tokens: Tokens that all prefixes may have together; those that save most for theirs are taken.

    Returns:
        The batch with its prefixes before the pairs, which keep at least one token each.
    """
    chosen: list[SharedPrefix] = []
    left = max_tokens
    found = best_prefixes(common_beginnings(batch))
    for prefix in sorted(found, key=lambda prefix: prefix.first - prefix.end):  # of most pairs first
        if prefix.tokens <= left:
            chosen.append(prefix)
            left -= prefix.tokens
    if not chosen:
        return batch
    starts = batch.spans.cu_seqlens.numpy()
    skipped = np.zeros(len(batch.spans.lengths), dtype=np.int64)
    prefixes = np.full(len(skipped), -1, dtype=np.int32)
    for number, prefix in enumerate(chosen):
        skipped[prefix.first : prefix.end] = prefix.tokens
        prefixes[prefix.first : prefix.end] = number
    begins = np.concatenate([starts[[prefix.first for prefix in chosen]], starts[:-1] + skipped])
    lengths = np.concatenate([[prefix.tokens for prefix in chosen], np.diff(starts) - skipped])
    spans = Spans.of(lengths)
    rows = np.arange(lengths.sum()) + np.repeat(begins - spans.cu_seqlens.numpy()[:-1], lengths)
    kept = torch.from_numpy(rows)
    return replace(
        batch,
        input_ids=batch.input_ids[kept],
        token_type_ids=batch.token_type_ids[kept],
        position_ids=batch.position_ids[kept],
        spans=spans,
        prefixes=torch.from_numpy(prefixes),
    )


def common_beginnings(batch: PackedBatch) -> list[int]:
    """How many tokens each sequence begins with as the next one does; each keeps one for itself."""
    kinds = np.stack([batch.input_ids.numpy(), batch.token_type_ids.numpy(), batch.position_ids.numpy()], axis=1)
    sequences = np.split(kinds, batch.spans.cu_seqlens.numpy()[1:-1])
    shared = []
    for one, other in pairwise(sequences):
        most = min(len(one), len(other)) - 1
        differs = (one[:most] != other[:most]).any(axis=1)
        shared.append(int(differs.argmax()) if differs.any() else most)
    return shared


def best_prefixes(shared: list[int]) -> list[SharedPrefix]:
    """The prefixes, one a sequence at most, that save most.

    Args:
        shared: How many tokens each sequence but the last begins with as the next one does.
    """
    count = len(shared) + 1
    saved = np.zeros(count + 1, dtype=np.int64)  # at best, by the first so many sequences
    tokens = np.zeros(count, dtype=np.int64)  # that those from a first one on to the latest share
    last_runs = []
    for end, with_the_one_before in enumerate([0, *shared], start=1):
        tokens[: end - 1] = np.minimum(tokens[: end - 1], with_the_one_before)
        useful = np.where(tokens[:end] < FEWEST_TOKENS, 0, tokens[:end])
        savings = saved[:end] + useful * np.arange(end - 1, -1, -1)
        first = int(savings.argmax())
        saved[end] = savings[first]
        last_runs.append(SharedPrefix(first, end, int(useful[first])))
        tokens[end - 1] = np.iinfo(np.int32).max
    found = []
    while count > 0:
        run = last_runs[count - 1]
        count = run.first
        if run.saved > 0:
            found.append(run)
    return found[::-1]
