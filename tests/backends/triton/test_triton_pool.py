"""Means of sequences against the reference op in float64."""

from __future__ import annotations

import pytest
import torch
from kernel_check import DEVICE, check, leaf

from fastce.backends.reference import ops as reference
from fastce.backends.triton.blocks import WIDEST_BLOCK, blocks_of_elements
from fastce.backends.triton.pool import mean_rows
from fastce.packing import Spans

BLOCK = blocks_of_elements(52).rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("size", [1, 52, WIDEST_BLOCK + 1])
@pytest.mark.parametrize("lengths", [[1], [3, 1, 17], [BLOCK - 1, BLOCK, BLOCK + 1]], ids=["one", "short", "blocks"])
def test_means(lengths: list[int], size: int, dtype: torch.dtype) -> None:
    spans = Spans.of(lengths).to(DEVICE)
    inputs = {"x": leaf(torch.randn(sum(lengths), size), dtype)}
    check(lambda x: mean_rows(x, spans), lambda x: reference.pool(x, Spans.of(lengths), "mean"), inputs, max(lengths))


def test_empty_neighbours() -> None:
    spans = Spans.of([0, 2, 0]).to(DEVICE)
    x = leaf(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    means = mean_rows(x, spans)
    assert means.tolist() == [[0.0, 0.0], [2.0, 4.0], [0.0, 0.0]]
    means.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0.5, 0.5]] * 2


def test_rows_of_a_wider_matrix() -> None:
    spans, wide = Spans.of([3, 4]).to(DEVICE), torch.randn(7, 12, device=DEVICE)
    assert torch.equal(mean_rows(wide[:, 3:9], spans), mean_rows(wide[:, 3:9].contiguous(), spans))
