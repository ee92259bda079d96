"""Whole models in Triton's interpreter: scores and training steps of every family against the reference."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from kernel_check import DEVICE
from networks import Parameters, network, request
from tiny_models import CONFIGS, PAIRS
from tolerance import AMP_NOISE, FP8_NOISE, FP16_NOISE, INT8_NOISE, LOGITS, TRAINED_WEIGHTS, close_to, relative_noise
from training_runs import SGD, examples

from fastce import CrossEncoder, available_backends
from fastce.backends.base import choose, load_backend
from fastce.backends.encoder import OpsEncoder
from fastce.backends.triton.engine import TritonEncoder
from fastce.spec import Attention

Tiny = Callable[..., str]
FEW = PAIRS[3:120:37]


def scores(model: CrossEncoder) -> torch.Tensor:
    return torch.from_numpy(model.predict(FEW, activation_fn=torch.nn.Identity())).double()


@pytest.mark.parametrize("family", CONFIGS)
def test_scores_of_every_family(tiny: Tiny, family: str) -> None:
    model = CrossEncoder(tiny(family), backend="triton", device=DEVICE)
    assert model.backend == "triton"
    assert close_to(scores(model), scores(CrossEncoder(tiny(family), backend="reference")), LOGITS)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", FP16_NOISE), ("int8", INT8_NOISE), ("fp8", FP8_NOISE)])
def test_scores_in_lower_precision(tiny: Tiny, precision: str, tolerance: float) -> None:
    model = CrossEncoder(tiny("bert"), backend="triton", precision=precision, device=DEVICE)
    assert model.backend == "triton"
    assert 0.0 < relative_noise(scores(model), scores(CrossEncoder(tiny("bert"), backend="reference"))) <= tolerance


@pytest.mark.parametrize(("family", "steps"), [("bert", 10), ("deberta-v2", 3), ("mpnet", 3)])
def test_steps_of_fit(tiny: Tiny, family: str, steps: int) -> None:
    """Both backends see the same batches, and neither drops anything out."""
    weights = []
    for backend in ("triton", "reference"):
        device = DEVICE if backend == "triton" else "cpu"
        model = CrossEncoder(tiny(family, **CONFIGS[family].no_dropout), backend=backend, device=device)
        before = {name: weight.clone() for name, weight in model.model.state_dict().items()}
        batches = [examples(2 * steps)[start : start + 2] for start in range(0, 2 * steps, 2)]
        model.fit(batches, scheduler="constantlr", weight_decay=0.0, **SGD)
        weights.append({name: weight.cpu() for name, weight in model.model.state_dict().items()})
    found, expected = weights
    moved = max(float((expected[name] - before[name]).abs().max()) for name in expected)
    assert moved > 100 * TRAINED_WEIGHTS, "a loop that learns nothing tests nothing"
    for name, weight in expected.items():
        assert (found[name] - weight).abs().max() <= TRAINED_WEIGHTS, name


def test_fit_in_half_precision(tiny: Tiny) -> None:
    """Under autocast products are in half precision and so is what they read; parameters and streams are not."""
    moves = []
    for use_amp in (False, True):
        model = CrossEncoder(tiny("bert", **CONFIGS["bert"].no_dropout), backend="triton", device=DEVICE)
        before = torch.cat([weight.flatten().cpu() for weight in model.model.state_dict().values()])
        model.fit([examples(2)], use_amp=use_amp, **SGD)
        after = torch.cat([weight.flatten().cpu() for weight in model.model.state_dict().values()])
        moves.append((after - before).double())
    assert 0.0 < relative_noise(moves[1], moves[0]) <= AMP_NOISE


def test_fit_with_dropout(tiny: Tiny) -> None:
    """The same seed drops the same elements, also where activations are computed again; another one drops others."""
    weights = []
    settings = ((1, {}, False), (1, {}, True), (2, {}, False), (1, CONFIGS["bert"].no_dropout, False))
    for seed, changes, recompute in settings:
        model = CrossEncoder(tiny("bert", **changes), backend="triton", device=DEVICE)
        torch.manual_seed(seed)
        model.fit([examples(2)], gradient_checkpointing=recompute, **SGD)
        weights.append(torch.cat([weight.flatten().cpu() for weight in model.model.state_dict().values()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])


def test_automatic_choice_never_takes_the_interpreter(tiny: Tiny) -> None:
    if DEVICE != "cpu":
        pytest.skip("on a GPU nothing is interpreted")
    model = CrossEncoder(tiny("bert"))
    assert available_backends(model)["triton"].reasons == ("its kernels are interpreted here, which is for tests",)
    asked = model.pipeline.request()
    assert choose("triton", asked).name == "triton"
    assert choose("auto", asked).name == "cpp"


def test_the_engine_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastce.backends.triton import engine

    if DEVICE == "cpu":
        assert available_backends(device="cuda")["triton"].reasons == ("PyTorch finds no CUDA device",)
    monkeypatch.setattr(engine, "interpreting", lambda: False)
    assert available_backends(device="cpu")["triton"].reasons == ("it runs on CUDA devices, not on cpu",)
    monkeypatch.setattr(engine, "installed", lambda: False)
    assert available_backends(device="cuda")["triton"].reasons == ("Triton is not installed (pip install triton)",)


@pytest.mark.parametrize(("width", "training"), [(257, False), (129, True)])
def test_wider_heads_are_refused(width: int, training: bool) -> None:
    parts = network(attention=Attention(1, width))
    asked = request(parts, Parameters(*parts), training=training, device=DEVICE)
    does = "trains" if training else "scores"
    assert load_backend("triton").unsupported(asked) == [f"it {does} heads of at most {width - 1} numbers, not {width}"]
    assert load_backend("triton").unsupported(replace(asked, training=not training)) == (
        [] if training else [f"it trains heads of at most 128 numbers, not {width}"]
    )


def test_without_triton_the_engine_says_so() -> None:
    program = (
        "import sys; sys.modules['triton'] = None; from fastce.backends.triton import engine; "
        "print(engine.BACKEND.unsupported(engine.Request(None, 'fp32', None)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert found == "['Triton is not installed (pip install triton)']\n"


def test_an_older_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    (reason,) = available_backends(device="cuda:1")["triton"].reasons
    assert reason == "it needs a GPU of compute capability 8.0, and cuda:1 has 7.5"


def test_fp8_needs_a_gpu_that_multiplies_it(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastce.backends.triton import engine

    monkeypatch.setattr(engine, "interpreting", lambda: False)
    with pytest.raises(ValueError, match=r"in fp8 on cpu.* cpp: it has no fp8.* fp8 needs a GPU of compute capability"):
        CrossEncoder(tiny("bert"), precision="fp8", device="cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for capability, reasons in {
        (8, 6): ("fp8 needs a GPU of compute capability 8.9, and cuda has 8.6",),
        (8, 9): (),
        (9, 0): (),
    }.items():
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert available_backends(precision="fp8", device="cuda")["triton"].reasons == reasons


def test_matrices_that_read_the_same_are_one_product(tiny: Tiny) -> None:
    """In scoring; in training the parameters stay where they are."""
    model = CrossEncoder(tiny("bert"), backend="triton", device=DEVICE)
    encoder = model.pipeline.built_encoder().encoder
    assert isinstance(encoder, TritonEncoder)
    parts = [encoder.weights.stored[f"layers.1.{part}.weight"] for part in ("query", "key", "value")]
    assert all(part.whole is parts[0].whole for part in parts)
    trained = model.pipeline.built_encoder(training=True).encoder
    assert isinstance(trained, OpsEncoder)
    own = dict(model.model.named_parameters())["bert.encoder.layer.1.attention.self.query.weight"]
    assert trained.weights.stored["layers.1.query.weight"].whole is own
    assert load_backend("triton").needs_module is False
