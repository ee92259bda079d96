"""Relative positions as Hugging Face models count them: distances to rows of a table.

All functions take distances from queries on to keys, from -n to n, and give `RelativeBias.rows` and those of
`DisentangledAttention`.
"""

from __future__ import annotations

import math

import torch

Rows = tuple[int, ...]


def distances(reach: int) -> torch.Tensor:
    """From -reach to reach, int64."""
    return torch.arange(-reach, reach + 1)


def shortest(rows: torch.Tensor) -> Rows:
    """Rows without the distances at both ends that have the row of the last one before them anyway."""
    values: list[int] = rows.tolist()
    while len(values) > 1 and values[0] == values[1] and values[-1] == values[-2]:
        values = values[1:-1]
    return tuple(values)


def symmetric_buckets(buckets: int, max_distance: int) -> Rows:
    """T5's buckets (https://arxiv.org/abs/1910.10683): half for each side, of which half in logarithmic steps.

    Args:
        buckets: Rows of the table.
        max_distance: Distance from which all are in one bucket.
    """
    each, exact = buckets // 2, buckets // 4
    behind = distances(max_distance)
    distance = behind.abs()
    steps = torch.log(distance.float() / exact) / math.log(max_distance / exact) * (each - exact)
    far = torch.where(distance < exact, 0, exact + steps.clamp(min=0).long()).clamp(max=each - 1)
    return shortest(torch.where(distance < exact, distance, far) + each * (behind > 0))


def logarithmic_buckets(span: int, max_position: int) -> Rows:
    """DeBERTa-v2's buckets: exact up to half the span, then in logarithmic steps (its paper's code).

    Args:
        span: Half of the table's rows.
        max_position: Where the last bucket begins.
    """
    back = -distances(max_position)  # from the key on to the query
    exact = span // 2
    distance = torch.where(back.abs() < exact, exact - 1, back.abs())
    steps = torch.log(distance / exact) / torch.log(torch.tensor((max_position - 1) / exact)) * (exact - 1)
    far = (torch.ceil(steps) + exact) * back.sign()
    return clipped(torch.where(distance <= exact, back, far.long()), span)


def linear_rows(span: int) -> Rows:
    """A row for each distance up to the span."""
    return clipped(-distances(span), span)


def clipped(positions: torch.Tensor, span: int) -> Rows:
    """Relative positions around 0 to rows of a table with `2 * span` of them."""
    return shortest((positions + span).clamp(0, 2 * span - 1))
