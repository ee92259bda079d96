"""The C++ engine beside the ceiling of the core: single products and whole encoders.

Each round times the work and the ceiling one after the other, in time that the thread was on a CPU, so that a busy
machine spoils neither the shares nor, much, the figures. `pytest benchmarks --benchmark-only -k cpp`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from shapes import CHUNK_ROWS, ENCODERS, LENGTHS, PRODUCTS
from transformers import AutoConfig

from fastce import _core
from fastce.bench.operations import count_operations
from fastce.checkpoints.network import FAMILIES
from fastce.parameters import Parameter, parameters
from fastce.steps import program

FORMATS = ("fp32", "bf16", "int8")
ISA = _core.choose_level()
VOCABULARY = 1000
PEAK_STEPS = 300_000
"""Rounds of the ceiling loop: some 2 ms."""


def share_of_peak(benchmark: Any, number_format: str, operations: float, seconds: Any) -> None:
    """Runs `seconds()`, which times `operations`, and notes the medians of Gop/s and of the share of the ceiling."""
    rates, shares = [], []

    def round_of_both() -> None:
        before = _core.peak_kernel(number_format, ISA, PEAK_STEPS)
        rate = operations / seconds()
        after = _core.peak_kernel(number_format, ISA, PEAK_STEPS)
        rates.append(rate)
        shares.append(2 * rate / (before + after))

    benchmark.pedantic(round_of_both, rounds=9, warmup_rounds=1)
    benchmark.extra_info["isa"] = ISA
    benchmark.extra_info["Gop/s"] = round(float(np.median(rates)) / 1e9, 1)
    benchmark.extra_info["share of the ceiling"] = round(float(np.median(shares)), 3)


@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("name", PRODUCTS)
def test_product(benchmark: Any, name: str, number_format: str) -> None:
    inputs, outputs = PRODUCTS[name]
    generator = np.random.default_rng(0)
    x = generator.standard_normal((CHUNK_ROWS, inputs)).astype(np.float32)
    weight = generator.standard_normal((outputs, inputs)).astype(np.float32)
    kernel = _core.LinearKernel(weight, np.zeros(outputs, np.float32), number_format, ISA)
    operations = 2.0 * CHUNK_ROWS * inputs * outputs
    repeats = max(1, int(2e9 / operations))
    share_of_peak(benchmark, number_format, operations * repeats, lambda: kernel.seconds(x, repeats))


@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("name", ["minilm-l6", "minilm-l12", "bert-base", "modernbert-base"])
def test_encoder(benchmark: Any, name: str, number_format: str) -> None:
    family, sizes = ENCODERS[name]
    config = AutoConfig.for_model(family, **sizes, vocab_size=VOCABULARY, pad_token_id=0, num_labels=1)
    spec, head = FAMILIES[family].encoder(config), FAMILIES[family].head(config)
    encoder = _core.Encoder(program(spec, head), random_weights(parameters(spec, head)), number_format)
    batch = random_batch()

    def seconds() -> float:
        start = time.process_time()
        encoder.logits(*batch, num_threads=1)
        return time.process_time() - start

    operations = count_operations(program(spec, head), np.array(LENGTHS))
    share_of_peak(benchmark, number_format, operations, seconds)


def random_weights(wanted: Mapping[str, Parameter]) -> dict[str, np.ndarray]:
    """Random parameters under fastce's names; norms that leave their input as it is."""
    generator = np.random.default_rng(0)
    weights = {}
    for name, (shape, role) in wanted.items():
        if len(shape) == 2:
            weights[name] = generator.standard_normal(shape, np.float32) / np.float32(shape[1] ** 0.5)
        else:
            weights[name] = np.full(shape, role == "norm" and name.endswith("weight"), np.float32)
    return weights


def random_batch() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ids, token types, positions and cumulative lengths of sequences of `LENGTHS`."""
    total = sum(LENGTHS)
    ids = np.random.default_rng(0).integers(0, VOCABULARY, total).astype(np.int32)
    positions = np.concatenate([np.arange(length) for length in LENGTHS]).astype(np.int32)
    return ids, np.zeros(total, np.int32), positions, np.cumsum([0, *LENGTHS]).astype(np.int32)
