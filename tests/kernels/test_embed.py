"""Embedding sums with their LayerNorm against float64, at every ISA level."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from isa import SIZES, every_level
from tolerance import FLOAT32, layer_norm_bound

from fastce import _core


@every_level
@pytest.mark.parametrize("num_tables", [1, 2, 3])
def test_sizes(num_tables: int, isa: str) -> None:
    for size in (*SIZES[1:], 384):
        tables = [torch.randn(rows, size) for rows in (50, 20, 2)[:num_tables]]
        ids = [torch.randint(len(table), (11,), dtype=torch.int32) for table in tables]
        weight, bias = torch.randn(size), torch.randn(size)
        actual = _core.embed_kernel(
            [x.numpy() for x in ids], [x.numpy() for x in tables], weight.numpy(), bias.numpy(), 1e-5, isa
        )
        doubles = [(x, table.double()) for x, table in zip(ids, tables, strict=True)]
        summed = sum(table[x] for x, table in doubles)
        expected = F.layer_norm(summed, (size,), weight.double(), bias.double(), 1e-5)
        rounding = 2 * FLOAT32 * sum(table[x].abs() for x, table in doubles)
        bound = layer_norm_bound(summed, rounding, weight.double(), 1e-5)
        assert ((torch.from_numpy(actual) - expected).abs() <= bound).all()
