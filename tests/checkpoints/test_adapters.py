"""Adapters of PEFT: scored merged, trained through the ops, saved as a whole model."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import CONFIGS, PAIRS, UNKNOWN_FAMILY, make_tiny_model, make_tokenizer
from tolerance import GRADIENT, LOGITS
from torch import nn
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification

from fastce import CrossEncoder, InputExample
from fastce.backends import base
from fastce.checkpoints.adapters import has_adapters, merged_module
from fastce.checkpoints.network import head_names
from fastce.packing import pack
from fastce.pipeline import Window

peft = pytest.importorskip("peft")

Tiny = Callable[..., str]
BATCH: Any = [InputExample(texts=list(pair), label=number % 5 / 4) for number, pair in enumerate(PAIRS[:16])]
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def lora(**options: Any) -> Any:
    """LoRA on all matrices of an encoder, with random weights in place of the zeros that it starts from."""
    settings = {"r": 3, "lora_alpha": 5, "target_modules": "all-linear", "init_lora_weights": False}
    return peft.LoraConfig(**(settings | options))


ADAPTERS: dict[str, Any] = {
    "lora": lora(),
    "rank-stabilised": lora(use_rslora=True),
    "biases": lora(bias="all", target_modules=["query", "dense"]),
    "dora": lora(use_dora=True),
    "with tables": lora(target_modules=["word_embeddings", "value"]),
    "single tokens": lora(target_modules=["value"], trainable_token_indices=[7, 8, 9]),
    "ia3": peft.IA3Config(target_modules=["key", "value"], feedforward_modules=[], init_ia3_weights=False),
}
TRAINED_BY_OPS = ("lora", "rank-stabilised", "biases")


def adapted(directory: str, config: Any) -> CrossEncoder:
    model = CrossEncoder(directory)
    model.add_adapter(config)
    return model


def split_batch() -> tuple[list[str], list[str]]:
    first, second = ([example.texts[number] for example in BATCH] for number in (0, 1))
    return first, second


def reference_logits(model: CrossEncoder, module: Any = None) -> torch.Tensor:
    """What PEFT's own forward pass computes for the batch."""
    encoded = model.tokenizer(
        *split_batch(), padding=True, truncation=True, max_length=model.max_length, return_tensors="pt"
    )
    logits: torch.Tensor = (module or model.model)(**encoded).logits
    return logits


def logits(model: CrossEncoder) -> torch.Tensor:
    scores: torch.Tensor = model.predict(
        [example.texts for example in BATCH], activation_fn=nn.Identity(), convert_to_tensor=True
    )
    return scores


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert (found - expected.view(found.shape)).abs().max() <= tolerance * expected.abs().max().clamp(min=1.0)


@pytest.mark.parametrize("name", ADAPTERS)
def test_scores_are_those_of_the_module_and_come_from_the_engine(tiny: Tiny, name: str) -> None:
    directory = tiny("bert")
    without = logits(CrossEncoder(directory))
    model = adapted(directory, ADAPTERS[name])
    with torch.no_grad():
        expected = reference_logits(model)
    found = logits(model)
    assert (found - without).abs().max() > 100 * LOGITS, "an adapter that changes nothing tests nothing"
    assert_close(found, expected, LOGITS)
    assert model.pipeline.built_encoder().backend == "cpp"


@pytest.mark.parametrize("family", [*CONFIGS, *UNKNOWN_FAMILY])
def test_every_family_is_merged_and_its_head_trained(tiny: Tiny, family: str) -> None:
    targets = (CONFIGS | UNKNOWN_FAMILY)[family].adapted
    model = adapted(tiny(family), lora(target_modules=list(targets)))
    with torch.no_grad():
        assert_close(logits(model), reference_logits(model), LOGITS)
    trained = {name for name, weight in model.model.named_parameters() if weight.requires_grad}
    copies = {name.rpartition(".modules_to_save.")[0].removeprefix("base_model.model.") for name in trained}
    assert copies - {""} == set(head_names(model.model))
    assert all("lora_" in name or "modules_to_save" in name for name in trained)


LINEAR = {family: list(tiny.adapted) for family, tiny in CONFIGS.items()}


@pytest.mark.parametrize(
    ("with_head", "targets", "saved"),
    [(True, None, None), (False, None, None), (True, "all-linear", None), (True, None, "parts of the head")],
)
@pytest.mark.parametrize("family", [*CONFIGS, *UNKNOWN_FAMILY])
def test_the_head_trains_and_the_adapter_alone_loads_in_peft(
    tiny: Tiny, tmp_path: Path, family: str, targets: str | None, with_head: bool, saved: str | None
) -> None:
    directory = tiny(family) if with_head else str(tmp_path / "base")
    if not with_head:
        make_tiny_model(family).base_model.save_pretrained(directory)
        make_tokenizer(family).save_pretrained(directory)
    model = CrossEncoder(directory)
    head = {name: part for name in head_names(model.model) if (part := model.model.get_submodule(name))}
    before = {f"{name}.{own}": weight.clone() for name, part in head.items() for own, weight in part.named_parameters()}
    scores = logits(model)
    targets_of = targets or LINEAR.get(family, ["query", "dense"])
    parts = [f"{name}.{own}".rstrip(".") for name, part in head.items() for own, _ in part.named_modules()]
    config = peft.LoraConfig(r=3, target_modules=targets_of, modules_to_save=parts if saved else None)
    model.add_adapter(config)
    train(model)
    assert (logits(model) - scores).abs().max() > 100 * LOGITS
    trained = merged_module(model.model)
    for name, weight in before.items():
        assert not torch.equal(trained.get_parameter(name), weight), name
    model.model.save_pretrained(tmp_path / "adapter")
    base = AutoModelForSequenceClassification.from_pretrained(directory, num_labels=1)
    alone = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    with torch.no_grad():
        assert_close(logits(model), reference_logits(model, alone), LOGITS)


@pytest.mark.parametrize("backend", ["cpp", "reference"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_gradients_are_those_of_the_module(
    tiny: Tiny, name: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "reference":
        monkeypatch.setattr(base, "BACKENDS", {name: base.BACKENDS[name] for name in ("reference", "transformers")})
    model = adapted(tiny("bert", **NO_DROPOUT), ADAPTERS[name])
    reference = copy.deepcopy(model.model).train()
    weights = torch.randn(len(BATCH), 1)
    (reference_logits(model, reference) * weights).mean().backward()

    model.model.train()
    built = model.pipeline.built_encoder(training=True)
    assert built.backend == (backend if name in TRAINED_BY_OPS else "transformers")
    pairs = model.pipeline.tokenize(Window(*split_batch()), model.max_length)
    found = built.encoder.training_logits(pack(pairs, range(len(BATCH)), built.positions))
    (found * weights).mean().backward()

    trained = 0
    for (own, parameter), expected in zip(model.model.named_parameters(), reference.parameters(), strict=True):
        assert (parameter.grad is None) == (not parameter.requires_grad), own
        if parameter.requires_grad:
            trained += 1
            largest = expected.grad.abs().max().clamp(min=1e-3)
            assert (parameter.grad - expected.grad).abs().max() <= GRADIENT * largest, own
    assert trained > 2


def test_the_adapters_dropout_is_on_in_training_only(tiny: Tiny) -> None:
    model = adapted(tiny("bert", **NO_DROPOUT), lora(lora_dropout=0.5))
    pairs = model.pipeline.tokenize(Window(["a"], ["b"]), 20)
    built = model.pipeline.built_encoder(training=True)
    packed = pack(pairs, range(1), built.positions)
    model.model.eval()
    assert torch.equal(built.encoder.training_logits(packed), built.encoder.training_logits(packed))
    model.model.train()
    assert not torch.equal(built.encoder.training_logits(packed), built.encoder.training_logits(packed))


def train(model: CrossEncoder, **options: Any) -> None:
    data: Any = DataLoader(BATCH, batch_size=4, shuffle=True)
    settings: dict[str, Any] = {"warmup_steps": 0, "optimizer_params": {"lr": 1e-2}, "show_progress_bar": False}
    model.fit(data, **(settings | {"seed": 3} | options))


def test_fit_changes_adapter_and_head_only_and_predict_sees_it(tiny: Tiny) -> None:
    model = adapted(tiny("bert"), lora(init_lora_weights=True))
    before = {name: weight.clone() for name, weight in model.model.named_parameters()}
    scores = logits(model)
    train(model, use_amp=True, gradient_checkpointing=True)
    for name, weight in model.model.named_parameters():
        assert torch.equal(weight, before[name]) != weight.requires_grad, name
    assert (logits(model) - scores).abs().max() > 100 * LOGITS
    with torch.no_grad():
        assert_close(logits(model), reference_logits(model), LOGITS)


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_is_saved_loads_without_peft(tiny: Tiny, tmp_path: Path, name: str) -> None:
    model = adapted(tiny("bert"), ADAPTERS[name])
    expected = logits(model)
    model.save(tmp_path)
    assert not (tmp_path / "adapter_config.json").exists()
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert not has_adapters(plain)
    with torch.no_grad():
        assert_close(expected, reference_logits(model, plain), LOGITS)
    assert torch.equal(logits(CrossEncoder(tmp_path)), expected)
    assert torch.equal(logits(model), expected)  # saving has not merged the module itself
    assert has_adapters(model.model)


def test_an_adapter_alone_is_saved_and_loaded_by_peft(tiny: Tiny, tmp_path: Path) -> None:
    model = adapted(tiny("bert"), ADAPTERS["lora"])
    model.model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="an adapter of PEFT; load the model"):
        CrossEncoder(tmp_path)
    again = CrossEncoder(tiny("bert"))
    again.model = peft.PeftModel.from_pretrained(again.model, tmp_path)
    assert torch.equal(logits(again), logits(model))


def test_a_run_that_was_killed_ends_with_the_same_weights(tiny: Tiny, tmp_path: Path) -> None:
    """Even those that are frozen, drawn anew, and so differ from one start to the next."""
    directory = tiny("bert")
    config = lora(lora_dropout=0.2, init_lora_weights="pissa", target_modules=["query"])
    torch.manual_seed(1)
    whole = adapted(directory, config)
    train(whole, epochs=2, checkpoint_path=tmp_path, checkpoint_save_steps=3)
    torch.manual_seed(2)
    again = adapted(tiny("bert", seed=5), config)
    train(again, epochs=2, checkpoint_path=tmp_path, resume_from_checkpoint=tmp_path / "checkpoint-3")
    for (name, weight), expected in zip(again.model.named_parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(weight, expected), name

    others = [adapted(directory, lora(target_modules=["query"], **change)) for change in ({"r": 4}, {"lora_alpha": 7})]
    for other in (CrossEncoder(directory), CrossEncoder(tmp_path / "checkpoint-3"), *others):
        before = logits(other)
        with pytest.raises(ValueError, match=r"is of a (model with other adapters|run with .* trained of .*, not )"):
            train(other, epochs=2, resume_from_checkpoint=tmp_path / "checkpoint-3")
        assert torch.equal(logits(other), before)


def test_several_adapters_are_trained_and_scored_together(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert", **NO_DROPOUT))
    model.model = peft.get_peft_model(model.model, lora())
    model.model.add_adapter("second", lora(r=2))
    model.model.base_model.set_adapter(["default", "second"])
    with torch.no_grad():
        assert_close(logits(model), reference_logits(model), LOGITS)
    built: Any = model.pipeline.built_encoder(training=True)
    assert built.backend == "cpp"
    assert max(len(stored.updates) for stored in built.encoder.weights.stored.values()) == 2
    pairs = model.pipeline.tokenize(Window(*split_batch()), model.max_length)
    found = built.encoder.training_logits(pack(pairs, range(len(BATCH)), built.positions))
    assert_close(found.view(-1), reference_logits(model), LOGITS)


def test_predict_follows_what_is_chosen_switched_off_scaled_and_merged(tiny: Tiny) -> None:
    directory = tiny("bert")
    plain = logits(CrossEncoder(directory))
    model = adapted(directory, ADAPTERS["lora"])
    first = logits(model)
    model.add_adapter(lora(r=2), "second")
    second = logits(model)
    assert len({float(scores[0]) for scores in (plain, first, second)}) == 3
    model.model.set_adapter("default")
    assert torch.equal(logits(model), first)
    with model.model.disable_adapter():
        assert torch.equal(logits(model), plain)
    model.model.merge_adapter()
    assert_close(logits(model), first, LOGITS)
    with model.model.disable_adapter():
        assert_close(logits(model), plain, LOGITS)
    weights = model.pipeline.checkpoint.network(with_module=True).description.weights
    updates = {name: stored.updates for name, stored in weights.items() if stored.updates}
    assert not updates, "a merged adapter would be added again"
    model.model.unmerge_adapter()
    assert_close(logits(model), first, LOGITS)
    for part in model.model.modules():
        if isinstance(part, peft.tuners.lora.LoraLayer):
            part.scale_layer(0.5)
    with torch.no_grad():
        assert_close(logits(model), reference_logits(model), LOGITS)
    assert not torch.equal(logits(model), first)


def test_a_module_with_an_injected_adapter_is_run_too(tiny: Tiny, tmp_path: Path) -> None:
    model = CrossEncoder(tiny("bert"))
    peft.inject_adapter_in_model(lora(modules_to_save=["classifier"]), model.model)
    with torch.no_grad():
        assert_close(logits(model), reference_logits(model), LOGITS)
    assert model.pipeline.built_encoder(training=True).backend == "cpp"
    expected = logits(model)
    model.save(tmp_path)
    assert torch.equal(logits(CrossEncoder(tmp_path)), expected)


def test_a_module_without_adapters_is_not_copied() -> None:
    module = make_tiny_model("bert")
    assert merged_module(module) is module


def test_a_prompt_is_scored_but_refused_where_it_would_have_to_be_merged(tiny: Tiny, tmp_path: Path) -> None:
    config = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2)
    model = CrossEncoder(tiny("bert"))
    with pytest.raises(ValueError, match="config: PromptTuningConfig can't be merged"):
        model.add_adapter(config)
    model.model = peft.get_peft_model(model.model, config).eval()
    with torch.no_grad():
        assert_close(logits(model), reference_logits(model), LOGITS)
    before = copy.deepcopy(model.model.state_dict())
    with pytest.raises(ValueError, match="PROMPT_TUNING can't be merged into the weights"):
        model.save(tmp_path)
    with pytest.raises(ValueError, match="PROMPT_TUNING can't be merged into the weights"):
        train(model, output_path=tmp_path)
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.state_dict().items())


def test_the_module_stays_in_its_mode(tiny: Tiny) -> None:
    model = adapted(tiny("bert"), lora(lora_dropout=0.5))
    model.add_adapter(lora(lora_dropout=0.5), "second")
    assert not any(part.training for part in model.model.modules())


def test_errors_say_what_is_wrong(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model = CrossEncoder(tiny("bert"))
    with pytest.raises(TypeError, match="expected a PeftConfig such as LoraConfig, got dict"):
        model.add_adapter({"r": 4})
    config = lora()
    model.add_adapter(config)
    assert config.task_type is None
    assert config.modules_to_save is None
    with pytest.raises(ValueError, match="there is an adapter 'default' already"):
        model.add_adapter(config)

    with pytest.raises(ValueError, match="PEFT can't add this adapter"):
        CrossEncoder(tiny("bert")).add_adapter(peft.PeftConfig(peft_type="LORA"))

    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"pip install 'fastce\[peft\]'"):
        CrossEncoder(tiny("bert")).add_adapter(config)
    assert np.isfinite(CrossEncoder(tiny("bert")).predict(PAIRS[:2])).all()
