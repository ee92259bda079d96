"""What attention adds to its scores by distance: a bias, or products of contents and positions.

Contents meet each row of the positions' tables once, in a product of torch's; attention then picks, for a query and a
key, the row of their distance. On the way back it leaves the gradients of scores by distance, each in a place of its
own, and a product of torch's with what is 1 for a distance and its row adds up those of a row.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from fastce.backends.ops import BiasTable, RelativeTables
from fastce.spec import Attention, DisentangledAttention, RelativeBias

# Reference: fastce.backends.reference.ops.relative_scores.


class ByDistance(NamedTuple):
    """What attention adds to a query's score of a key, as its kernels take it.

    Attributes:
        rows: Of the tables, for the distances from a query on to a key, from -reach to reach: int32 `[2 reach + 1]`;
            None where nothing goes by distance.
        bias: Added as it is, float32 `[table rows, heads]`; or None.
        queries: Queries that met keys of positions, `[heads, total_rows, table rows]`; or None. Scaled as scores are.
        keys: Keys that met queries of positions, `[heads, total_tokens, table rows]`; or None. Scaled as scores are.
        table_rows: Rows of the tables.
    """

    rows: torch.Tensor | None
    bias: torch.Tensor | None
    queries: torch.Tensor | None
    keys: torch.Tensor | None
    table_rows: int

    @property
    def reach(self) -> int:
        """The farthest distance with a row of its own."""
        return 0 if self.rows is None else len(self.rows) // 2


NO_DISTANCES = ByDistance(None, None, None, None, 0)


@triton.jit
def scores_by_distance(
    scores,
    rows_ptr,  # [2 reach + 1], int32
    bias_ptr,  # [table rows, heads], float32, or None
    queries_ptr,  # [heads, total_rows, table rows], or None
    keys_ptr,  # [heads, total_tokens, table rows], or None
    reach,
    table_rows,
    scale,
    query_row,  # [M, 1]
    query_place,  # [M, 1]
    in_rows,  # [M, 1]
    total_rows,
    first_token,
    key_place,  # [1, N]
    in_keys,  # [1, N]
    total_tokens,
    head,
    HEADS: tl.constexpr,
):
    """The scores [M, N] of queries and keys, scaled, with what is added to them."""
    distance = tl.minimum(tl.maximum(key_place - query_place, -reach), reach)  # [M, N]
    row = tl.load(rows_ptr + distance + reach)  # [M, N]
    inside = in_rows & in_keys  # [M, N]
    if bias_ptr is not None:
        scores += tl.load(bias_ptr + row * HEADS + head)
    if queries_ptr is not None:
        first = (head * total_rows + query_row).to(tl.int64) * table_rows  # [M, 1]
        scores += tl.load(queries_ptr + first + row, mask=inside, other=0.0).to(tl.float32) * scale
    if keys_ptr is not None:
        first = (head * total_tokens + first_token + key_place).to(tl.int64) * table_rows  # [1, N]
        scores += tl.load(keys_ptr + first + row, mask=inside, other=0.0).to(tl.float32) * scale
    return scores


@triton.jit
def store_by_distance(gradients_ptr, gradient, row, distance, inside, longest):
    """Stores gradients of scores, [M, N] or [N, M], where their row and distance are, of `[rows, 2 longest - 1]`."""
    place = row.to(tl.int64) * (2 * longest - 1) + distance + longest - 1
    tl.store(gradients_ptr + place, gradient, mask=inside)


@cache  # for good: graphs read what they were made with
def rows_of_distances(
    relation: RelativeBias | DisentangledAttention, longest: int, device: torch.device
) -> tuple[torch.Tensor, int, int]:
    """The table's row of each distance up to `longest`, less the first row that is in use, that row and their end."""
    most = len(relation.rows) // 2
    reach = min(most, longest - 1)
    rows = torch.tensor(relation.rows[most - reach : most + reach + 1], dtype=torch.int32)
    first, end = int(rows.min()), int(rows.max()) + 1
    return (rows - first).to(device), first, end


def by_distance(
    query: torch.Tensor, key: torch.Tensor, attention: Attention, relative: RelativeTables, longest: int
) -> ByDistance:
    """Lets contents meet the rows of the tables that distances up to `longest` have.

    Args:
        query: `[total_rows, heads, head_dim]`.
        key: `[total_tokens, heads, head_dim]`.
        attention: Which attention.
        relative: The tables.
        longest: Tokens of the longest sequence.
    """
    assert isinstance(attention.relation, RelativeBias | DisentangledAttention)
    rows, first, end = rows_of_distances(attention.relation, longest, query.device)
    if isinstance(relative, BiasTable):
        return ByDistance(rows, relative.bias[first:end].float().contiguous(), None, None, end - first)
    met = [
        None if table is None else torch.bmm(x.transpose(0, 1), table[first:end].to(x.dtype).permute(1, 2, 0))
        for x, table in ((query, relative.keys), (key, relative.queries))
    ]
    return ByDistance(rows, None, met[0], met[1], end - first)


def gradients_by_distance(
    distances: ByDistance, of_queries: torch.Tensor | None, of_keys: torch.Tensor | None, longest: int, scale: float
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """The gradients of a bias and of what queries and keys met, each None where there is none.

    Args:
        distances: What the scores got.
        of_queries: Gradients of scores, `[heads, total_rows, 2 longest - 1]`, a query's in a row; None where neither a
            bias was added nor queries met anything.
        of_keys: The same of keys, `[heads, total_tokens, 2 longest - 1]`; None where keys met nothing.
        longest: Tokens of the longest sequence.
        scale: Of what queries and keys met.
    """
    if distances.rows is None:
        return None, None, None
    distance = torch.arange(1 - longest, longest, device=distances.rows.device).clamp(-distances.reach, distances.reach)
    rows = distances.rows[distance + distances.reach, None]  # [2 longest - 1, 1]
    has_row = rows == torch.arange(distances.table_rows, device=rows.device)  # [2 longest - 1, table rows]
    if distances.bias is not None:
        assert of_queries is not None
        return (of_queries.sum(1, dtype=torch.float32) @ has_row.float()).t(), None, None
    queries, keys = (None if part is None else part @ has_row.to(part.dtype) * scale for part in (of_queries, of_keys))
    return None, queries, keys
