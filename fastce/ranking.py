"""The best of groups of scored things; of equal scores the first comes first."""

from __future__ import annotations

import numpy as np


def best(scores: np.ndarray, groups: np.ndarray, top_k: int | None) -> np.ndarray:
    """The best of each group, by group, best first, int64 `[num_best]`.

    Args:
        scores: `[num]`.
        groups: The group of each, `[num]`.
        top_k: How many of each group at most; None: all.
    """
    order = np.lexsort((-scores, groups))  # stable
    return order if top_k is None else order[places(groups[order]) < top_k]


def kth_largest(scores: np.ndarray, groups: np.ndarray, k: int, num_groups: int) -> np.ndarray:
    """The k-th largest score of each group; minus infinity where there are fewer, `[num_groups]`."""
    found = np.full(num_groups, -np.inf, dtype=scores.dtype)
    order = best(scores, groups, None)
    kth = order[places(groups[order]) == k - 1]
    found[groups[kth]] = scores[kth]
    return found


def places(groups: np.ndarray) -> np.ndarray:
    """The place of each in its group, from 0 up, where groups lie together, int64 `[num]`."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    return np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))
