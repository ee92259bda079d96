"""The generator behind dropout against Philox in NumPy, and that against the paper's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_check import DEVICE, SEED, check, factors, leaf, philox

from fastce.backends.triton.blocks import blocks_of_elements
from fastce.backends.triton.dropout import NO_DROPOUT, Dropout, DropoutFunction, draw, dropout


def test_philox_of_the_paper() -> None:
    """Known answers that come with the authors' Random123, for ten rounds."""
    zeros, ones = (np.uint64(0),) * 4, (np.uint64(0xFFFFFFFF),) * 4
    assert [f"{int(word):08x}" for word in philox(zeros, 0, 10)] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    assert [f"{int(word):08x}" for word in philox(ones, 2**64 - 1, 10)] == [
        "408f276d",
        "41c83b0e",
        "a20bc7c6",
        "6d5451fd",
    ]


@pytest.mark.parametrize("rows", [1, blocks_of_elements(70).rows, blocks_of_elements(70).rows + 1])
@pytest.mark.parametrize("size", [1, 70, 300])
def test_dropout(rows: int, size: int) -> None:
    kept = factors(Dropout(SEED, 0.4), rows, size)[:, 0]
    inputs = {"x": leaf(torch.randn(rows, size))}
    check(lambda x: DropoutFunction.apply(x, Dropout(SEED, 0.4)), lambda x: x * kept, inputs, 1)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean(probability: float) -> None:
    dropped = dropout(torch.ones(200, 50, device=DEVICE), probability)
    deviation = (probability / (1 - probability) / dropped.numel()) ** 0.5
    assert abs(float(dropped.mean()) - 1) < 4 * deviation
    assert (dropped == 0).any()
    assert (dropped != 0).any()


def test_seeds_come_from_torch() -> None:
    torch.manual_seed(1)
    first, second = draw(0.1), draw(0.1)
    torch.manual_seed(1)
    assert draw(0.1) == first != second
    state = torch.get_rng_state()
    assert draw(0.0) is NO_DROPOUT
    assert torch.equal(torch.get_rng_state(), state), "no dropout takes no number"
