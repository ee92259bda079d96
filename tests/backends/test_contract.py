"""Every backend over every feature that it says it has, on ragged lengths, against the reference ops in float64."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from networks import LENGTHS, NETWORKS, Parameters, Parts, chosen, device_of, random_batch, request, shallow
from tolerance import BF16_NOISE, FP8_NOISE, FP16_NOISE, GRADIENT, INT8_NOISE, LOGITS, close_to, relative_noise

from fastce.backends.base import BACKENDS, load_backend
from fastce.backends.encoder import OpsEncoder
from fastce.backends.reference import ops as reference_ops
from fastce.checkpoints.network import Stored
from fastce.features import FEATURES, features
from fastce.packing import PackedBatch
from fastce.spec import Precision
from fastce.steps import program

_core = pytest.importorskip("fastce._core", reason="the C++ module was not built")

LEVELS: list[str] = _core.isa_levels()
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")
OWN = ("cpp", "triton", "reference")
"""The backends that compute from a description."""
NOISE: dict[Precision, float] = {"fp16": FP16_NOISE, "bf16": BF16_NOISE, "int8": INT8_NOISE, "fp8": FP8_NOISE}
FEW = [2, 17, 1]
"""Lengths for Triton's interpreter."""


def of_backend(backend: str, *, training: bool = False) -> list[str]:
    """The networks that a backend says it can run."""
    loaded = load_backend(backend)
    return [
        name
        for name, parts in NETWORKS.items()
        if not loaded.unsupported(request(parts, Parameters(*parts), training=training, device=device_of(backend)))
    ]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """PyTorch's threads cost the small networks far more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def double_logits(parts: Parts, batch: PackedBatch, *, grad: bool) -> tuple[torch.Tensor, Parameters]:
    """The definition: the reference ops in float64, and the parameters."""
    module = Parameters(*parts, dtype=torch.float64)
    stored = {key: Stored(parameter) for key, parameter in module.by_name.items()}
    encoder = OpsEncoder(reference_ops, program(*parts), stored, torch.device("cpu"), module.eval())
    with torch.set_grad_enabled(grad):
        return encoder.training_logits(batch), module


@cache
def exact_few(name: str) -> tuple[PackedBatch, torch.Tensor]:
    """The same of few lengths and layers."""
    parts = shallow(name)
    batch = random_batch(parts[0], FEW)
    return batch, double_logits(parts, batch, grad=False)[0]


@cache
def exact(name: str) -> tuple[PackedBatch, torch.Tensor]:
    """A batch and its logits in float64."""
    batch = random_batch(NETWORKS[name][0], LENGTHS)
    return batch, double_logits(NETWORKS[name], batch, grad=False)[0]


def engine(name: str, module: Parameters, precision: Precision) -> Any:
    """The C++ engine of a network."""
    return load_backend("cpp").build(request(NETWORKS[name], module, precision))


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_of_the_reference_in_float32(name: str) -> None:
    batch, expected = exact(name)
    found = load_backend("reference").build(request(NETWORKS[name], Parameters(*NETWORKS[name]))).logits(batch)
    assert found.dtype == torch.float32
    assert close_to(found.double(), expected, LOGITS)


def triton_logits(name: str, precision: Precision, batch: PackedBatch) -> torch.Tensor:
    """Logits of the GPU engine, or of its kernels interpreted."""
    pytest.importorskip("triton.language", reason="Triton is not installed")
    parts = shallow(name)
    asked = request(parts, Parameters(*parts), precision, device=device_of("triton"))
    if precision == "fp8" and (reasons := load_backend("triton").unsupported(asked)):
        pytest.skip(reasons[0])  # of an older GPU
    return load_backend("triton").build(asked).logits(batch).double().cpu()


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("name", of_backend("cpp"))
def test_logits_of_the_engine(name: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCE_ISA", isa)
    batch, expected = exact(name)
    assert expected.std() > 0.1, "a network whose logits are alike tests nothing"
    module = Parameters(*NETWORKS[name])
    logits = {precision: engine(name, module, precision).logits(batch, 1).double() for precision in PRECISIONS}
    assert close_to(logits["fp32"], expected, LOGITS)
    for precision, tolerance in (("bf16", BF16_NOISE), ("int8", INT8_NOISE)):
        noise = relative_noise(logits[precision], expected)
        assert 0.0 < noise <= tolerance, f"{precision}: {noise:.4f}"


@pytest.mark.parametrize("name", of_backend("triton"))
def test_logits_of_triton_in_float32(name: str) -> None:
    batch, expected = exact_few(name)
    assert close_to(triton_logits(name, "fp32", batch), expected, LOGITS)


# ModernBERT's head here normalises twice, which amplifies the rounding of fp8 beyond any bound, in plain PyTorch too.
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        (name, precision)
        for name in ("as BERT", "mean", "disentangled", "as ModernBERT", "as Qwen")
        for precision in NOISE
        if (name, precision) != ("as ModernBERT", "fp8")
    ],
)
def test_logits_of_triton_in_lower_precision(name: str, precision: Precision) -> None:
    batch, expected = exact_few(name)
    assert 0.0 < relative_noise(triton_logits(name, precision, batch), expected) <= NOISE[precision]


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("name", [name for name in NETWORKS if name.startswith(("bias by", "disentangled"))])
def test_relative_positions_of_long_sequences(name: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCE_ISA", isa)
    batch = random_batch(NETWORKS[name][0], [144, 145, 3, 300])
    with torch.no_grad():
        expected, _ = double_logits(NETWORKS[name], batch, grad=False)
    module = Parameters(*NETWORKS[name])
    assert close_to(engine(name, module, "fp32").logits(batch, 2).double(), expected, LOGITS)
    assert 0.0 < relative_noise(engine(name, module, "bf16").logits(batch, 2).double(), expected) <= BF16_NOISE


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", of_backend("cpp"))
def test_a_pair_depends_on_itself_alone(name: str, precision: Precision) -> None:
    encoder = engine(name, Parameters(*NETWORKS[name]), precision)
    batch = random_batch(NETWORKS[name][0], LENGTHS)
    expected = encoder.logits(batch, 1)
    order = np.random.default_rng(1).permutation(len(LENGTHS)).tolist()
    for num_threads in (2, 5, 40):
        assert torch.equal(encoder.logits(chosen(batch, order), num_threads), expected[order])
    for pair in range(0, len(LENGTHS), 3):
        assert torch.equal(encoder.logits(chosen(batch, [pair]), pair % 5 + 1)[0], expected[pair])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_shared_layers_equal_layers_with_the_same_weights(precision: Precision) -> None:
    shared, head = NETWORKS["shared layers"]
    own = replace(shared, layers=tuple(replace(layer, stored=None) for layer in shared.layers))
    module, copies = Parameters(shared, head), Parameters(own, head)
    with torch.no_grad():
        for name, parameter in copies.by_name.items():
            number = shared.layers[int(name.split(".")[1])].stored if name.startswith("layers.") else None
            parameter.copy_(module.by_name[re.sub(r"layers\.\d+", f"layers.{number}", name)])
    batch = random_batch(shared, LENGTHS)
    expected = load_backend("cpp").build(request((own, head), copies, precision)).logits(batch)
    assert torch.equal(engine("shared layers", module, precision).logits(batch), expected)


def test_memory_is_linear_in_the_length() -> None:
    """8,192 tokens in windows: twice as many scores as tokens times 8,192 would be 8 GB in float32."""
    encoder, head = NETWORKS["as ModernBERT"]
    module = Parameters(encoder, head)
    batch = random_batch(encoder, [8192, 5])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    expected, _ = double_logits((encoder, head), batch, grad=False)
    found = engine("as ModernBERT", module, "fp32").logits(batch)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB
    assert close_to(found.double(), expected, LOGITS)


@pytest.mark.parametrize(
    ("backend", "name"), [(backend, name) for backend in OWN for name in of_backend(backend, training=True)]
)
def test_gradients(name: str, backend: str) -> None:
    parts, lengths = (shallow(name), FEW) if backend == "triton" else (NETWORKS[name], LENGTHS)
    batch = random_batch(parts[0], lengths)
    expected, reference = double_logits(parts, batch, grad=True)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (expected * weights).sum().backward()
    module = Parameters(*parts).eval().to(device_of(backend))
    asked = request(parts, module, training=True, device=device_of(backend))
    found = load_backend(backend).build_trainable(asked).training_logits(batch).cpu()
    assert close_to(found.detach().double(), expected.detach(), LOGITS)
    (found * weights.float()).sum().backward()
    # What cancels in the softmax, such as the bias of the keys, has a gradient of 0 with the rounding noise of others.
    floor = 1e-2 * max(float(parameter.grad.abs().max()) for parameter in reference.parameters())
    for key, parameter in reference.by_name.items():
        gradient = module.by_name[key].grad
        assert gradient is not None, key
        gradient = gradient.cpu()
        largest = parameter.grad.abs().max().clamp(min=floor)
        assert (gradient - parameter.grad).abs().max() <= GRADIENT * largest, key


def test_every_feature_of_a_backend_is_tried() -> None:
    asked = frozenset().union(*(features(*parts) for parts in NETWORKS.values()))
    for name in OWN:
        can = import_module(BACKENDS[name]).CAN
        tried = can & asked
        assert can <= tried, "features that no network here asks for"
        assert can <= FEATURES.keys()
