"""Quantisation of activations: what its definition promises, and the same bits at every ISA level."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from isa import LEVELS, SIZES, every_level

from fastce import _core


def check(x: np.ndarray, isa: str) -> None:
    values, scales, zero_points = _core.quantize_kernel(x, isa)
    low, high = np.minimum(x.min(1), 0), np.maximum(x.max(1), 0)
    np.testing.assert_allclose(scales, (high - low) / 254.99, rtol=3e-7)
    assert ((zero_points >= 0) & (zero_points <= 255)).all()
    back = scales[:, None].astype(np.float64) * (values.astype(np.float64) - zero_points[:, None])
    # Half a step for the value, and as much for the zero point at the ends of the range.
    assert (np.abs(back - x) <= 1.001 * scales[:, None] + 1e-30).all()
    inner = (x > low[:, None] + scales[:, None]) & (x < high[:, None] - scales[:, None])
    assert (np.abs(back - x)[inner] <= (0.501 * scales[:, None] + np.zeros_like(x))[inner]).all()
    assert (back[x == 0] == 0).all()
    for actual, expected in zip((values, scales, zero_points), _core.quantize_kernel(x, LEVELS[0]), strict=True):
        np.testing.assert_array_equal(actual, expected)


@every_level
def test_sizes(isa: str) -> None:
    generator = np.random.default_rng(0)
    for size in SIZES:
        x = generator.standard_normal((9, size)).astype(np.float32) * generator.choice([1e-20, 1e-3, 1, 1e4], (9, 1))
        x = x.astype(np.float32)
        x[0] = 0.0
        x[1], x[2] = np.abs(x[1]), -np.abs(x[2])
        x[3, 0] = 1000.0
        check(x, isa)


@every_level
@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.floats(-3, 3))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_any_row(isa: str, seed: int, size: int, shift: float) -> None:
    generator = np.random.default_rng(seed)
    check((generator.standard_normal((4, size)) + shift).astype(np.float32), isa)
