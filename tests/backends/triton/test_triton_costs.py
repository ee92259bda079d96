"""The cost model counts what the engine launches."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton.language", reason="Triton is not installed")

from gpu_costs import BANDWIDTH, LENGTHS, PEAK, Cost, costs_of, encoder_of, lines

from fastce.bench.operations import count_operations


def test_every_launch_of_a_model_is_counted() -> None:
    costs = costs_of("MiniLM-L6", "fp16", 128, 16)
    launches = {name: cost.launches for name, cost in costs.items()}
    assert launches == {
        "embed": 1,
        "torch to": 2,  # the embeddings for the first layer, the last row for the head
        "torch linear": 6 * 4 + 2,  # in the last layer of queries alone, and the head
        "attention_forward": 5,
        "folded_scores": 1,
        "folded_context": 1,
        "torch bmm": 1,  # queries times the last layer's key projections
        "torch baddbmm": 1,  # contexts times its value projections
        "add_norm_forward": 12,
        "activation_forward": 7,
        "torch index": 2,
    }


@pytest.mark.parametrize("name", ["MiniLM-L6", "bert-base"])
def test_operations_are_those_of_the_network(name: str) -> None:
    """At a length that tiles are made of; what is more: for the pooled rows of 12 heads, 16 rows of tensor cores."""
    costs = costs_of(name, "fp16", 128, 16)
    network = encoder_of(name, "fp16").program
    least = count_operations(network, torch.full((16,), 128).numpy())
    found = sum(cost.operations for cost in costs.values())
    assert least <= found <= 1.01 * least


def test_int8_moves_half_the_bytes_of_products() -> None:
    products = costs_of("MiniLM-L6", "int8", 128, 16)["linear_8bit"]
    assert products.launches == 6 * 4
    half = costs_of("MiniLM-L6", "fp16", 128, 16)["torch linear"]
    assert products.moved < half.moved
    assert products.operations == pytest.approx(half.operations, rel=0.01)


def test_a_launch_takes_as_long_as_its_slower_half() -> None:
    memory, arithmetic, short = Cost(), Cost(), Cost()
    memory.add(10**9, 0, torch.float16)
    assert 10**9 / BANDWIDTH < memory.seconds < 2 * 10**9 / BANDWIDTH
    arithmetic.add(10**6, 10**12, torch.float32)
    assert 10**12 / PEAK["float32"] < arithmetic.seconds < 2 * 10**12 / PEAK["float32"]
    short.add(1, 0, torch.float16)
    assert 0 < short.seconds < 1e-5


def test_the_table_names_every_kernel() -> None:
    text = "\n".join(lines("MiniLM-L6", "int8", LENGTHS[0]))
    assert "256 pairs of 64 tokens" in text
    assert all(kernel in text for kernel in ("linear_8bit", "quantize", "attention_forward", "pairs/s predicted"))
