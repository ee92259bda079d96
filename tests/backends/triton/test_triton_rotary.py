"""Rotation of queries and keys against the reference op in float64."""

from __future__ import annotations

import pytest
import torch
from kernel_check import DEVICE, check, leaf

from fastce.backends.reference import ops as reference
from fastce.backends.triton.rotary import BLOCK_ELEMENTS, rotate
from fastce.backends.triton.sequences import Rows
from fastce.packing import Spans
from fastce.spec import RotaryEmbedding

BLOCK = BLOCK_ELEMENTS // 16
"""Rows of a block of heads of 26 that turn as a whole."""
LENGTHS = {"one": [1], "ragged": [3, 0, 17, 1], "around a block": [BLOCK - 1, BLOCK, BLOCK + 1]}


def rotary(pairs: int, scale: float = 1.0) -> RotaryEmbedding:
    return RotaryEmbedding(tuple(10_000.0 ** (-i / pairs) for i in range(pairs)), scale)


def check_rotation(
    lengths: list[int], relation: RotaryEmbedding, rows: Rows = "all", dtype: torch.dtype = torch.float32
) -> None:
    spans, there = Spans.of(lengths).to(DEVICE), Spans.of(lengths)
    places = reference.positions(there)
    if rows != "all":
        places = reference.pool_rows(places, there, rows)
    inputs = {"x": leaf(torch.randn(len(places), 2, 26), dtype)}
    check(
        lambda x: rotate(x, spans, relation, rows),
        lambda x: reference.rotate(x, places, relation),
        inputs,
        2,
        1 + max(lengths),  # an angle's rounding grows with it
    )


@pytest.mark.parametrize("shape", LENGTHS)
def test_rotation(shape: str) -> None:
    check_rotation(LENGTHS[shape], rotary(13))


def test_a_part_of_the_head() -> None:
    check_rotation([3, 18], rotary(5, scale=1.2))


@pytest.mark.parametrize("rows", ["first", "last"])
def test_one_row_a_sequence(rows: Rows) -> None:
    check_rotation([3, 1, 40], rotary(13), rows)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    check_rotation([3, 18], rotary(13), dtype=dtype)


def test_rows_of_a_wider_matrix() -> None:
    spans = Spans.of([3, 18]).to(DEVICE)
    wide = torch.randn(21, 6, 26, device=DEVICE)
    assert torch.equal(
        rotate(wide[:, 2:4], spans, rotary(13), "all"), rotate(wide[:, 2:4].contiguous(), spans, rotary(13), "all")
    )
