"""Outliers that change nothing in exact arithmetic must not cost int8 its accuracy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import LENGTHS, NETWORKS, Parameters, random_batch, request
from tolerance import INT8_NOISE, LOGITS, close_to, relative_noise

from fastce.backends.base import load_backend
from fastce.backends.encoder import OpsEncoder
from fastce.backends.reference import ops as reference_ops
from fastce.checkpoints.network import Stored
from fastce.steps import program

pytest.importorskip("fastce._core", reason="the C++ module was not built")

from fastce.backends.cpp import smoothing

SMOOTHED = {"as ModernBERT": 15, "as Qwen": 12, "gated GELU": 6, "as BERT": 3}
"""Networks to how many places of theirs channels can be smoothed in."""


def with_outliers(name: str, factor: float) -> Parameters:
    """A network some of whose channels are larger by a factor, and are read by weights as much smaller."""
    module = Parameters(*NETWORKS[name])
    weights = {key: parameter.detach().numpy() for key, parameter in module.by_name.items()}  # the same memory
    generator = np.random.default_rng(0)
    done = set()
    for channels in smoothing.all_channels(program(*NETWORKS[name]), weights):
        if channels.writers[0] in done:
            continue
        done.add(channels.writers[0])
        scale = np.ones(len(channels.sizes), dtype=np.float32)
        scale[generator.choice(len(scale), 2, replace=False)] = factor
        for writer in channels.writers:
            weights[writer] *= scale.reshape(-1, *[1] * (weights[writer].ndim - 1))
        for reader in channels.readers:
            weights[reader] /= channels.read(scale)
    return module


def exact_logits(name: str) -> torch.Tensor:
    """Of the network without outliers, in float64."""
    module = Parameters(*NETWORKS[name], dtype=torch.float64)
    stored = {key: Stored(parameter) for key, parameter in module.by_name.items()}
    encoder = OpsEncoder(reference_ops, program(*NETWORKS[name]), stored, torch.device("cpu"), module.eval())
    return encoder.logits(random_batch(NETWORKS[name][0], LENGTHS)).double()


@pytest.mark.parametrize("factor", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("name", SMOOTHED)
def test_outliers_cost_no_accuracy(name: str, factor: float) -> None:
    module, expected = with_outliers(name, factor), exact_logits(name)
    batch = random_batch(NETWORKS[name][0], LENGTHS)
    exact = load_backend("cpp").build(request(NETWORKS[name], module)).logits(batch)
    assert close_to(exact.double(), expected, LOGITS), "the outliers changed the network itself"
    encoder = load_backend("cpp").build(request(NETWORKS[name], module, "int8"))
    assert relative_noise(encoder.logits(batch).double(), expected) <= INT8_NOISE
    words = (f"outliers smoothed in {SMOOTHED[name]} places",)
    assert tuple(encoder.remarks) == (words if factor > 1.0 else ())


@pytest.mark.parametrize("name", SMOOTHED)
def test_smoothing_changes_nothing_in_exact_arithmetic(name: str) -> None:
    module = with_outliers(name, 100.0)
    weights = {key: parameter.detach().numpy() for key, parameter in module.by_name.items()}
    changed, places = smoothing.smoothed(program(*NETWORKS[name]), weights)
    assert places == SMOOTHED[name]
    assert any(not np.array_equal(changed[key], weights[key]) for key in weights)
    stored = {key: Stored(torch.from_numpy(value).double()) for key, value in changed.items()}
    encoder = OpsEncoder(reference_ops, program(*NETWORKS[name]), stored, torch.device("cpu"))
    found = encoder.logits(random_batch(NETWORKS[name][0], LENGTHS)).double()
    assert close_to(found, exact_logits(name), LOGITS)


def test_without_smoothing_outliers_ruin_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoothing, "OUTLIER", np.inf)
    encoder = load_backend("cpp").build(request(NETWORKS["as Qwen"], with_outliers("as Qwen", 1000.0), "int8"))
    batch = random_batch(NETWORKS["as Qwen"][0], LENGTHS)
    assert relative_noise(encoder.logits(batch).double(), exact_logits("as Qwen")) > 10 * INT8_NOISE
