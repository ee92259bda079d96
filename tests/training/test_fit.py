from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import CONFIGS, PAIRS, UNKNOWN_FAMILY, make_byte_bpe, transformers_logits
from tolerance import GRADIENT, LOGITS, TRAINED_WEIGHTS
from torch import nn
from torch.utils.data import DataLoader
from training_runs import examples, loader
from transformers import AutoModelForSequenceClassification

from fastce import CrossEncoder, InputExample, available_backends
from fastce.backends.base import BACKENDS, Request, load_backend
from fastce.packing import pack
from fastce.pipeline import Window

Tiny = Callable[..., str]

ON_CPU = [name for name in BACKENDS if name != "triton"]
"""The backends that CPUs run as fast as they can; tests/backends/triton has the gradients of the other one."""


def without_dropout(family: str) -> dict[str, float]:
    return (CONFIGS | UNKNOWN_FAMILY)[family].no_dropout


def reference_loss(module: Any, tokenizer: Any, batch: list[InputExample], num_labels: int) -> torch.Tensor:
    encoded = tokenizer(
        [example.texts[0] for example in batch],
        [example.texts[1] for example in batch],
        padding=True,
        truncation=True,
        max_length=64,
        return_tensors="pt",
    )
    labels = torch.tensor([example.label for example in batch])
    logits = module(**encoded).logits
    if num_labels == 1:
        return nn.functional.binary_cross_entropy_with_logits(logits.view(-1), labels.float())
    return nn.functional.cross_entropy(logits, labels)


@pytest.mark.parametrize(("backend", "num_labels"), [("cpp", 3), ("reference", 1), ("transformers", 3)])
@pytest.mark.parametrize("family", [*CONFIGS, *UNKNOWN_FAMILY])
def test_gradients_equal_transformers(tiny: Tiny, family: str, backend: str, num_labels: int) -> None:
    """The head is the same code for all numbers of labels, and each backend has one of them."""
    check_gradients(CrossEncoder(tiny(family, num_labels=num_labels, **without_dropout(family))), num_labels, backend)


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize(
    "changes",
    [
        {"local_attention": 128},
        {"attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_bias": True},
        {"classifier_pooling": "mean"},
        {"num_hidden_layers": 3, "classifier_pooling": "mean", "local_attention": 6, "hidden_activation": "silu"},
    ],
    ids=["window beyond the length", "biases", "mean", "local layer last"],
)
def test_gradients_of_modernbert(tiny: Tiny, changes: dict[str, Any], backend: str) -> None:
    check_gradients(CrossEncoder(tiny("modernbert", **changes)), 1, backend)


@pytest.mark.parametrize("backend", ON_CPU)
def test_gradients_of_adapters_on_stacked_matrices(tiny: Tiny, backend: str) -> None:
    peft = pytest.importorskip("peft")
    model = CrossEncoder(tiny("modernbert"))
    model.add_adapter(peft.LoraConfig(r=3, target_modules=["Wqkv", "Wo", "Wi"], init_lora_weights=False))
    check_gradients(model, 1, backend)
    names = [name for name, parameter in model.model.named_parameters() if parameter.grad is not None]
    assert all(any(f"{part}.lora_{side}" in name for name in names) for part in ("Wqkv", "Wo", "Wi") for side in "AB")


def check_gradients(model: CrossEncoder, num_labels: int, backend: str) -> None:
    """Compares a backend's gradients with those of the model's own module."""
    batch = examples(24, num_labels)
    if not (found := available_backends(model)[backend]):
        pytest.skip(f"{backend}: {'; '.join(found.reasons)}")
    reference = copy.deepcopy(model.model).train()
    reference_loss(reference, model.tokenizer, batch, num_labels).backward()

    model.model.train()
    texts = ([example.texts[number] for example in batch] for number in (0, 1))
    pairs = model.pipeline.tokenize(Window(*texts), model.max_length)
    network = model.pipeline.checkpoint.network(with_module=True)
    encoder = load_backend(backend).build_trainable(Request(network, "fp32", model.device, training=True))
    logits = encoder.training_logits(pack(pairs, range(len(batch)), network.positions))
    labels = torch.tensor([example.label for example in batch])
    if num_labels == 1:
        nn.functional.binary_cross_entropy_with_logits(logits.view(-1), labels.float()).backward()
    else:
        nn.functional.cross_entropy(logits, labels).backward()

    ours = dict(model.model.named_parameters())
    for name, parameter in reference.named_parameters():
        if not parameter.requires_grad:
            continue
        assert ours[name].grad is not None, name
        # The bias of the keys cancels in the softmax: its gradient is rounding noise on both sides.
        largest = parameter.grad.abs().max().clamp(min=1e-3)
        assert (ours[name].grad - parameter.grad).abs().max() <= GRADIENT * largest, name


@pytest.mark.parametrize(("family", "num_labels"), [("bert", 3), ("roberta", 1), ("modernbert", 3), ("ernie", 1)])
def test_ten_steps_follow_a_transformers_loop(tiny: Tiny, family: str, num_labels: int) -> None:
    directory = tiny(family, num_labels=num_labels, **without_dropout(family))
    model = CrossEncoder(directory)
    reference = AutoModelForSequenceClassification.from_pretrained(directory).train()
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.05)
    data = loader(80, 8, num_labels=num_labels, shuffle=False)
    batches = [data.dataset[start : start + 8] for start in range(0, 80, 8)]
    for batch in batches:
        optimizer.zero_grad()
        reference_loss(reference, model.tokenizer, batch, num_labels).backward()
        nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        optimizer.step()
    model.fit(
        data,
        scheduler="constantlr",
        optimizer_class=torch.optim.SGD,
        optimizer_params={"lr": 0.05},
        weight_decay=0.0,
        show_progress_bar=False,
    )
    before = AutoModelForSequenceClassification.from_pretrained(directory).state_dict()
    moved = 0.0
    for name, expected in reference.state_dict().items():
        moved = max(moved, float((expected - before[name]).abs().max()))
        assert (model.model.state_dict()[name] - expected).abs().max() <= TRAINED_WEIGHTS, name
    assert moved > 100 * TRAINED_WEIGHTS, "a loop that learns nothing tests nothing"


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression", None])
def test_labels_that_are_lists_are_learned_as_transformers_learns_them(tiny: Tiny, problem_type: str | None) -> None:
    directory = tiny("bert", num_labels=3, **without_dropout("bert"))
    model = CrossEncoder(directory, config_kwargs={"problem_type": problem_type})
    reference = AutoModelForSequenceClassification.from_pretrained(directory, problem_type=problem_type)
    batch = [InputExample(texts=list(pair), label=[1.0, 0.0, number % 2]) for number, pair in enumerate(PAIRS[1:9])]
    encoded = model.tokenizer(
        [example.texts[0] for example in batch],
        [example.texts[1] for example in batch],
        padding=True,
        return_tensors="pt",
    )
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        reference(**encoded, labels=torch.tensor([example.label for example in batch])).loss.backward()
        optimizer.step()
    before = {name: weight.clone() for name, weight in model.model.state_dict().items()}
    options = {"optimizer_class": torch.optim.SGD, "optimizer_params": {"lr": 0.05}, "max_grad_norm": 1e9}
    model.fit([batch], epochs=3, scheduler="constantlr", weight_decay=0.0, show_progress_bar=False, **options)
    after = model.model.state_dict()
    assert max(float((after[name] - before[name]).abs().max()) for name in after) > 100 * TRAINED_WEIGHTS
    for name, expected in reference.state_dict().items():
        assert (after[name] - expected).abs().max() <= TRAINED_WEIGHTS, name


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert", "ernie"])
def test_the_loss_falls_with_dropout(tiny: Tiny, family: str) -> None:
    model = CrossEncoder(tiny(family))
    data = loader(16, 16)
    losses: list[float] = []

    def recorded(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
        losses.append(loss.item())
        return loss

    model.fit(
        data, epochs=30, loss_fct=recorded, warmup_steps=0, optimizer_params={"lr": 2e-3}, show_progress_bar=False
    )
    assert np.mean(losses[-5:]) < 0.97 * np.mean(losses[:5])
    assert not model.model.training


def test_dropout_differs_from_step_to_step_and_stops_for_predict(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert", hidden_dropout_prob=0.5))
    pairs = model.pipeline.tokenize(Window(["a"] * 4, ["b"] * 4), 20)
    model.model.train()
    built = model.pipeline.built_encoder(training=True)
    packed = pack(pairs, range(4), built.positions)
    assert not torch.equal(built.encoder.training_logits(packed), built.encoder.training_logits(packed))
    assert np.array_equal(model.predict(PAIRS[:3]), model.predict(PAIRS[:3]))


def test_weight_decay_spares_biases_and_layer_norm(tiny: Tiny) -> None:
    groups: list[dict[str, Any]] = []

    class Optimizer(torch.optim.SGD):
        def __init__(self, params: Any, **options: Any):
            groups.extend(params)
            super().__init__(params, **options)

    for family in ("bert", "distilbert"):
        groups.clear()
        model = CrossEncoder(tiny(family))
        model.fit(
            loader(8, 8),
            optimizer_class=Optimizer,
            optimizer_params={"lr": 0.1},
            weight_decay=0.3,
            show_progress_bar=False,
        )
        names = {id(parameter): name for name, parameter in model.model.named_parameters()}
        decayed, others = ({names[id(parameter)] for parameter in group["params"]} for group in groups)
        assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
        assert decayed | others == set(names.values())
        assert all(name.endswith("weight") and "norm" not in name.lower() for name in decayed)
        assert all(name.endswith("bias") or "norm" in name.lower() for name in others)


def test_loss_and_activation_functions_are_used(tiny: Tiny) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append((logits.detach(), labels))
        return nn.functional.mse_loss(logits, labels)

    model = CrossEncoder(tiny("bert"))
    model.fit(loader(8, 8, shuffle=False), loss_fct=loss, activation_fct=nn.Sigmoid(), show_progress_bar=False)
    (logits, labels), *others = seen
    assert others == []
    assert logits.shape == labels.shape == (8,)
    assert ((logits > 0) & (logits < 1)).all()
    assert labels.tolist() == pytest.approx([example.label for example in examples(8)])


def test_mixed_precision_learns(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    before = {name: parameter.clone() for name, parameter in model.model.named_parameters()}
    model.fit(
        loader(16, 8),
        use_amp=True,
        warmup_steps=0,
        optimizer_params={"lr": 1e-2},
        show_progress_bar=False,
    )
    for name, parameter in model.model.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.isfinite(parameter).all()
        assert not torch.equal(parameter, before[name]) or name.endswith("key.bias"), name


def test_worker_processes_may_load_the_examples(tiny: Tiny) -> None:
    data = DataLoader(examples(16), batch_size=8, num_workers=1)
    CrossEncoder(tiny("bert")).fit(data, show_progress_bar=False)


def test_the_dataloader_gets_its_collate_function_back(tiny: Tiny) -> None:
    data = loader(8, 8)
    before = data.collate_fn
    CrossEncoder(tiny("bert")).fit(data, show_progress_bar=False)
    assert data.collate_fn is before


def test_progress_bar(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    CrossEncoder(tiny("bert")).fit(loader(16, 8), show_progress_bar=False)
    assert capsys.readouterr().err == ""
    CrossEncoder(tiny("bert")).fit(loader(16, 8))
    assert "2/2" in capsys.readouterr().err


def test_the_bar_has_the_latest_score_and_the_best(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    scores = iter([0.25, 0.75, 0.5])
    CrossEncoder(tiny("bert")).fit(loader(16, 8), lambda *_, **__: next(scores), epochs=3)
    shown = capsys.readouterr().err.replace("\r", "\n").splitlines()
    told = [re.findall(r"(?:loss|score|best)=([-\d.]+)", line) for line in shown]
    assert next(values[1:] for values in told if len(values) == 3) == ["0.2500", "0.2500"]
    assert ["0.7500", "0.7500"] in [values[1:] for values in told]
    assert told[-1][1:] == ["0.5000", "0.7500"]
    assert float(told[-1][0]) > 0


def test_input_example_prints_as_the_original() -> None:
    assert str(InputExample(texts=["a", "b"], label=1)) == "<InputExample> label: 1, texts: a; b"
    assert InputExample("id", ["a", "b"], 0.5).guid == "id"


@pytest.mark.parametrize("fused", [False, True])
def test_predict_sees_what_every_optimizer_has_changed(tiny: Tiny, tmp_path: Path, fused: bool) -> None:
    """Fused optimizers change parameters behind their version counters."""
    model = CrossEncoder(tiny("bert"))
    before = model.predict(PAIRS[:5])
    options: dict[str, Any] = {"optimizer_params": {"lr": 1e-2, "fused": fused}, "warmup_steps": 0}
    model.fit(loader(16, 8), output_path=tmp_path, show_progress_bar=False, **options)
    after = model.predict(PAIRS[:5])
    assert np.abs(after - before).max() > 1e-3
    assert np.abs(CrossEncoder(tmp_path).predict(PAIRS[:5]) - after).max() < 1e-6


@pytest.mark.parametrize("fused", [False, True])
def test_predict_sees_what_somebody_elses_loop_has_changed(tiny: Tiny, fused: bool) -> None:
    model = CrossEncoder(tiny("bert"))
    optimizer = torch.optim.AdamW(model.model.parameters(), lr=1e-2, fused=fused)
    before = model.predict(PAIRS[:5])
    reference_loss(model.model, model.tokenizer, examples(8), 1).backward()
    optimizer.step()
    after = model.predict(PAIRS[:5])
    assert np.abs(after - before).max() > 1e-3
    logits = transformers_logits(model.model, model.tokenizer, PAIRS[:5], 512)
    assert np.abs(after - torch.sigmoid(logits).view(-1).numpy()).max() < 1e-5


@pytest.mark.parametrize("label", [np.float64(1.0), np.int64(1), np.True_, torch.tensor(1.0), torch.tensor(1)])
def test_labels_may_be_scalars_of_numpy_and_torch(tiny: Tiny, label: Any) -> None:
    model = CrossEncoder(tiny("bert"))
    seen: list[float] = []

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.extend(labels.tolist())
        return logits.mean()

    model.fit(DataLoader([InputExample(texts=["a", "b"], label=label)]), loss_fct=loss, show_progress_bar=False)
    assert seen == [1.0]


def put_in(model: CrossEncoder, tokenizer: Any) -> None:
    model.tokenizer = tokenizer


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model.tokenizer.backend_tokenizer.normalizer, "lowercase", False),
        lambda model: setattr(model.tokenizer, "truncation_side", "left"),
        lambda model: setattr(model.tokenizer, "model_max_length", 12),
        lambda model: put_in(model, make_byte_bpe()),
    ],
)
def test_a_tokenizer_that_changes_between_epochs(tiny: Tiny, change: Callable[[CrossEncoder], None]) -> None:
    model = CrossEncoder(tiny("bert", **without_dropout("bert")), max_length=20)
    batch = [InputExample(texts=[pair[0] + pair[1], pair[1]], label=0.5) for pair in PAIRS[:24]]
    seen: list[torch.Tensor] = []

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(logits.detach())
        return 0.0 * logits.sum()

    options: Any = {"epochs": 2, "loss_fct": loss, "optimizer_params": {"lr": 0.0}, "show_progress_bar": False}
    model.fit([batch], evaluator=lambda *_, **__: 0.0, callback=lambda *_: change(model), **options)
    for logits, changed in ((seen[0], False), (seen[1], True)):
        tokenizer = model.tokenizer if changed else CrossEncoder(tiny("bert")).tokenizer
        expected = transformers_logits(
            model.model, tokenizer, [example.texts for example in batch], model.max_length if changed else 20
        )
        assert (logits - expected[:, 0]).abs().max() <= LOGITS
    assert (seen[0] - seen[1]).abs().max() > 100 * LOGITS
