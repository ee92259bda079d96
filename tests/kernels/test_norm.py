"""Norms of rows against float64, at every ISA level."""

from __future__ import annotations

import pytest
import torch
from isa import SIZES, every_level
from test_linear import norm_parameters, normalized
from tolerance import layer_norm_bound

from fastce import _core


@every_level
@pytest.mark.parametrize("kind", ["layer", "layer without a bias", "rms"])
def test_sizes(kind: str, isa: str) -> None:
    for size in (*SIZES[1:], 384):
        x, (weight, bias) = torch.randn(7, size) * 3 + 1, norm_parameters(kind, size)
        kind_of_norm, arrays = kind.split()[0], [None if y is None else y.numpy() for y in (weight, bias)]
        actual = torch.from_numpy(_core.normalize_kernel(x.numpy(), kind_of_norm, *arrays, 1e-5, isa))  # type: ignore[arg-type]
        expected = normalized(kind_of_norm, x, weight, bias, 1e-5)
        bound = layer_norm_bound(x, torch.zeros_like(x), weight.double(), 1e-5)
        assert ((actual - expected).abs() <= bound).all()


@every_level
def test_a_row_of_zeros_stays_one(isa: str) -> None:
    weight = torch.ones(20).numpy()
    for kind in ("layer", "rms"):
        assert (_core.normalize_kernel(torch.zeros(1, 20).numpy(), kind, weight, None, 1e-5, isa) == 0).all()
