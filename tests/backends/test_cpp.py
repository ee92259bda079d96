"""The C++ engine against transformers and the reference engine, and a pair's independence of everything else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from networks import chosen, random_batch
from scipy.stats import spearmanr
from tiny_models import CONFIGS, PAIRS, make_tiny_model, transformers_logits
from tolerance import BF16_NOISE, INT8_NOISE, LOGITS, close_to, relative_noise

from fastce import CrossEncoder, available_backends
from fastce.backends.base import Request, load_backend
from fastce.backends.cpp import engine
from fastce.checkpoints.network import network_of
from fastce.packing import PackedBatch, Spans
from fastce.spec import Precision
from fastce.steps import program

_core = pytest.importorskip("fastce._core", reason="the C++ module was not built")
LEVELS: list[str] = _core.isa_levels()
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")
LENGTHS = [1, 2, 17, 64, 33, 5, 1, 48, 49, 31, 16, 64, 3, 20, 9, 60, 40, 12, 7, 50, 22]

Tiny = Callable[..., str]


def build(module: Any, precision: Precision = "fp32", backend: str = "cpp") -> Any:
    return load_backend(backend).build(Request(network_of(module), precision, torch.device("cpu")))


def batch_for(module: Any, lengths: list[int]) -> PackedBatch:
    return random_batch(network_of(module).description.encoder, lengths)


@pytest.fixture(params=LEVELS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    level: str = request.param
    monkeypatch.setenv("FASTCE_ISA", level)
    return level


@pytest.mark.parametrize("num_labels", [1, 3])
@pytest.mark.parametrize("family", CONFIGS)
def test_logits_of_every_family(tiny: Tiny, family: str, num_labels: int, isa: str) -> None:
    model = CrossEncoder(tiny(family, num_labels=num_labels), backend="cpp")
    expected = transformers_logits(model.model, model.tokenizer, PAIRS, model.max_length)
    actual = torch.from_numpy(np.asarray(model.predict(PAIRS, activation_fn=torch.nn.Identity())))
    assert close_to(actual.reshape(expected.shape), expected, LOGITS)
    assert build(model.model).core.isa == isa


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 52, "num_attention_heads": 2},  # heads of 26
        {"hidden_size": 39, "num_attention_heads": 3},  # heads of 13: no pairs of bf16
        {"hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 256},
        {"hidden_size": 128, "num_attention_heads": 1, "num_hidden_layers": 1},
        {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536},
        {"hidden_act": "relu", "num_hidden_layers": 4},
        {"hidden_act": "gelu_new", "num_labels": 40},
    ],
)
def test_shapes(changes: dict[str, Any], isa: str) -> None:
    module = make_tiny_model("bert", **changes)
    batch = batch_for(module, LENGTHS)
    reference = build(module, backend="reference").logits(batch)
    assert close_to(build(module).logits(batch), reference, LOGITS)
    for precision, tolerance in (("bf16", BF16_NOISE), ("int8", INT8_NOISE)):
        found = build(module, precision).logits(batch)  # type: ignore[arg-type]
        assert relative_noise(found, reference) <= tolerance
    assert torch.equal(build(module, "fp16").logits(batch), build(module, "bf16").logits(batch))


@pytest.mark.parametrize("family", CONFIGS)
def test_low_precisions_of_every_family(family: str) -> None:
    """Each label's order of 210 pairs, by rank correlation."""
    module = make_tiny_model(family, num_labels=2)
    batch = batch_for(module, LENGTHS * 10)
    exact = build(module).logits(batch)
    for precision, least in (("bf16", 0.9995), ("int8", 0.99)):
        found = build(module, precision).logits(batch)
        for label in range(2):
            assert spearmanr(found[:, label], exact[:, label]).statistic >= least, precision


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_pair_depends_on_itself_alone(precision: Precision, isa: str) -> None:
    module = make_tiny_model("bert", num_labels=2)
    batch = batch_for(module, LENGTHS)
    encoder = build(module, precision)
    expected = encoder.logits(batch, 1)
    for num_threads in (2, 3, 16, 40):
        assert torch.equal(encoder.logits(batch, num_threads), expected)
    order = np.random.default_rng(1).permutation(len(LENGTHS)).tolist()
    assert torch.equal(encoder.logits(chosen(batch, order)), expected[order])
    for pair in range(len(LENGTHS)):
        assert torch.equal(encoder.logits(chosen(batch, [pair]), pair % 5 + 1)[0], expected[pair])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_many_blocks_and_many_threads(precision: Precision) -> None:
    module = make_tiny_model("bert")
    batch = batch_for(module, (LENGTHS * 20)[:400])
    encoder = build(module, precision)
    expected = encoder.logits(batch, 1)
    assert torch.equal(encoder.logits(batch, 7), expected)
    with ThreadPoolExecutor(16) as pool:
        for result in pool.map(lambda n: encoder.logits(batch, n % 4 + 1), range(48)):
            assert torch.equal(result, expected)


def test_a_forked_child_computes_the_same() -> None:
    code = """
import os, sys
sys.path[:0] = sys.argv[1:]
from test_cpp import LENGTHS, batch_for, build
from tiny_models import make_tiny_model
module = make_tiny_model("bert")
batch, encoder = batch_for(module, LENGTHS), build(module)
expected = encoder.logits(batch, 4)
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        same = all((encoder.logits(batch, n) == expected).all() for n in (1, 2, 4, 8))
        os._exit(0 if same else 1)
    children.append(child)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""
    folder = os.path.dirname(__file__)
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, folder, os.path.dirname(folder)],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.stdout.strip() == "[0, 0, 0, 0]"


def test_weights_are_packed_again_when_they_change(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"), backend="cpp", precision="int8")
    before = model.predict(PAIRS)
    with torch.no_grad():
        for parameter in model.model.bert.encoder.parameters():
            parameter.mul_(1.1)
    after = model.predict(PAIRS)
    assert not np.array_equal(after, before)
    fresh = CrossEncoder(tiny("bert"), backend="cpp", precision="int8")
    fresh.model = model.model
    assert np.array_equal(fresh.predict(PAIRS), after)


def spans_of(cu_seqlens: list[int]) -> Spans:
    """Also those that cannot be."""
    return Spans(torch.tensor(cu_seqlens, dtype=torch.int32), (), 0)


def test_a_batch_that_cannot_be() -> None:
    module = make_tiny_model("bert")
    encoder = build(module)
    batch = batch_for(module, [3, 4])
    ids = (batch.input_ids, batch.token_type_ids, batch.position_ids)
    cases = [
        (batch.input_ids + 10**6, [0, 3, 7], "input_ids: .* is not below 300"),
        (batch.input_ids - 10**6, [0, 3, 7], "input_ids: .* is not below 300"),
        (batch.input_ids, [0, 0, 7], "sequence 0 has no tokens"),
        (batch.input_ids, [0, 9, 7], "sequence 1 has no tokens"),
        (batch.input_ids, [0, 3, 8], "ids: expected 8 of each kind"),
        (batch.input_ids, [1, 3, 7], "cu_seqlens: expected num_sequences"),
    ]
    for input_ids, cu_seqlens, message in cases:
        with pytest.raises(ValueError, match=message):
            encoder.logits(PackedBatch(input_ids, *ids[1:], spans_of(cu_seqlens)))
    empty = PackedBatch(*(x[:0] for x in ids), Spans.of([]))
    assert encoder.logits(empty).shape == (0, 1)


def test_weights_that_cannot_be() -> None:
    description = network_of(make_tiny_model("bert")).description
    network = program(description.encoder, description.head)
    arrays = {name: stored.tensor.detach().numpy() for name, stored in description.weights.items()}
    name = "layers.1.query.weight"
    with pytest.raises(ValueError, match=rf"parameter '{name}' is missing"):
        _core.Encoder(network, {k: v for k, v in arrays.items() if k != name}, "fp32")
    with pytest.raises(ValueError, match=rf"parameter '{name}': expected shape \[60, 60\], got \[60, 59\]"):
        _core.Encoder(network, arrays | {name: arrays[name][:, 1:]}, "fp32")


def test_a_level_that_the_processor_lacks_is_an_error(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCE_ISA", "avx1024")
    for backend in ("auto", "cpp"):
        with pytest.raises(ValueError, match="ISA level 'avx1024': this processor has scalar"):
            CrossEncoder(tiny("bert"), backend=backend)


def test_it_is_for_cpus_and_known_families(tiny: Tiny) -> None:
    assert available_backends(device="cuda")["cpp"].reasons == ("it runs on the CPU, not on cuda",)
    assert available_backends(CrossEncoder(tiny("ernie")))["cpp"].reasons[0].startswith("model type 'ernie'")


def test_numbers_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= _core.usable_cpus() <= len(os.sched_getaffinity(0))
    for name in ("FASTCE_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert _core.default_num_threads() == _core.usable_cpus()
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert _core.default_num_threads() == 3
    monkeypatch.setenv("FASTCE_NUM_THREADS", "5")
    assert _core.default_num_threads() == 5


def test_without_the_module_fastce_says_so_once_and_runs_on_torch(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastce._core", None)
    monkeypatch.delattr("fastce._core")
    engine.warn_without_module.cache_clear()
    with pytest.warns(UserWarning, match="without its C\\+\\+ module") as caught:
        model = CrossEncoder(tiny("bert"))
    assert len(caught) == 1
    assert available_backends(model)["cpp"].reasons == ("fastce is without its C++ module",)
    assert model.pipeline.built_encoder().backend == "reference"
    assert np.isfinite(model.predict(PAIRS[:3])).all()
    with pytest.raises(ValueError, match="cpp: fastce is without its C\\+\\+ module"):
        CrossEncoder(tiny("bert"), precision="int8")
