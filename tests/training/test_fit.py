from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import CONFIGS, PAIRS, UNKNOWN_FAMILY
from tolerance import GRADIENT, TRAINED_WEIGHTS
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import AutoModelForSequenceClassification

from fastce import CrossEncoder, InputExample, available_backends
from fastce.backends.base import BACKENDS, load_backend
from fastce.packing import pack

Tiny = Callable[..., str]
NO_DROPOUT = {
    "bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "distilbert": {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0},
}


def without_dropout(family: str) -> dict[str, float]:
    extra = {"classifier_dropout_prob": 0.0} if family == "albert" else {}
    return NO_DROPOUT["distilbert" if family == "distilbert" else "bert"] | extra


def examples(count: int, num_labels: int = 1) -> list[InputExample]:
    chooser = random.Random(0)
    chosen = chooser.sample(PAIRS, count)
    labels = [chooser.random() if num_labels == 1 else chooser.randrange(num_labels) for _ in chosen]
    return [InputExample(texts=list(pair), label=label) for pair, label in zip(chosen, labels, strict=True)]


def loader(count: int = 32, num_labels: int = 1, batch_size: int = 8) -> DataLoader[InputExample]:
    return DataLoader(examples(count, num_labels), batch_size=batch_size, shuffle=False)


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


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_labels", [1, 3])
@pytest.mark.parametrize("family", [*CONFIGS, *UNKNOWN_FAMILY])
def test_gradients_equal_transformers(tiny: Tiny, family: str, num_labels: int, backend: str) -> None:
    directory = tiny(family, num_labels=num_labels, **without_dropout(family))
    batch = examples(24, num_labels)
    model = CrossEncoder(directory)
    if reasons := available_backends(model)[backend]:
        pytest.skip(f"{backend}: {'; '.join(reasons)}")
    reference = AutoModelForSequenceClassification.from_pretrained(directory).train()
    reference_loss(reference, model.tokenizer, batch, num_labels).backward()

    model.model.train()
    texts = ([example.texts[number] for example in batch] for number in (0, 1))
    pairs = model.pipeline.tokenize(*texts, model.max_length)
    network = model.pipeline.checkpoint.network(with_module=True)
    encoder = load_backend(backend).build_trainable(network, model.device)
    logits = encoder.training_logits(pack(pairs, range(len(batch)), network.positions))
    labels = torch.tensor([example.label for example in batch])
    if num_labels == 1:
        nn.functional.binary_cross_entropy_with_logits(logits.view(-1), labels.float()).backward()
    else:
        nn.functional.cross_entropy(logits, labels).backward()

    ours = dict(model.model.named_parameters())
    for name, parameter in reference.named_parameters():
        assert ours[name].grad is not None, name
        # The bias of the keys cancels in the softmax: its gradient is rounding noise on both sides.
        largest = parameter.grad.abs().max().clamp(min=1e-3)
        assert (ours[name].grad - parameter.grad).abs().max() <= GRADIENT * largest, name


@pytest.mark.parametrize("num_labels", [1, 3])
@pytest.mark.parametrize("family", ["bert", "roberta", "albert"])
def test_ten_steps_follow_a_transformers_loop(tiny: Tiny, family: str, num_labels: int) -> None:
    directory = tiny(family, num_labels=num_labels, **without_dropout(family))
    model = CrossEncoder(directory)
    reference = AutoModelForSequenceClassification.from_pretrained(directory).train()
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.05)
    data = loader(80, num_labels)
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


@pytest.mark.parametrize("family", ["bert", "distilbert", "albert"])
def test_the_loss_falls_with_dropout(tiny: Tiny, family: str) -> None:
    model = CrossEncoder(tiny(family))
    data = loader(16, batch_size=16)
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
    pairs = model.pipeline.tokenize(["a"] * 4, ["b"] * 4, 20)
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
            loader(8),
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


class Evaluator:
    """Returns prepared scores and remembers how it was called."""

    def __init__(self, *scores: float):
        self.scores = iter(scores)
        self.calls: list[tuple[str | None, int, int]] = []
        self.first_scores: list[float] = []

    def __call__(self, model: CrossEncoder, output_path: str | None = None, epoch: int = -1, steps: int = -1) -> float:
        assert not model.model.training
        self.calls.append((output_path, epoch, steps))
        self.first_scores.append(float(model.predict(PAIRS[0])))
        return next(self.scores)


def test_evaluates_within_and_after_epochs_and_keeps_the_best(tiny: Tiny, tmp_path: Path) -> None:
    model = CrossEncoder(tiny("bert"))
    evaluator = Evaluator(0.1, 0.5, 0.4, 0.5)
    called: list[tuple[float, int, int]] = []
    model.fit(
        loader(32),
        evaluator,
        epochs=2,
        warmup_steps=0,
        optimizer_params={"lr": 1e-2},
        evaluation_steps=3,
        output_path=str(tmp_path),
        callback=lambda *arguments: called.append(arguments),
        show_progress_bar=False,
    )
    assert evaluator.calls == [(str(tmp_path), epoch, steps) for epoch, steps in ((0, 3), (0, -1), (1, 3), (1, -1))]
    assert called == [(0.1, 0, 3), (0.5, 0, -1), (0.4, 1, 3), (0.5, 1, -1)]
    assert len(set(evaluator.first_scores)) == 4, "predict must see the weights as they are at each evaluation"
    assert float(CrossEncoder(tmp_path).predict(PAIRS[0])) == pytest.approx(evaluator.first_scores[1], abs=1e-6)


@pytest.mark.parametrize(("evaluator", "save_best"), [(None, True), (Evaluator(1.0, 0.5), False)])
def test_saves_at_the_end_where_no_best_is_kept(
    tiny: Tiny, tmp_path: Path, evaluator: Evaluator | None, save_best: bool
) -> None:
    model = CrossEncoder(tiny("bert"))
    model.fit(
        loader(16),
        evaluator,
        epochs=2,
        optimizer_params={"lr": 1e-2},
        warmup_steps=0,
        output_path=tmp_path / "out",
        save_best_model=save_best,
        show_progress_bar=False,
    )
    assert np.abs(CrossEncoder(tmp_path / "out").predict(PAIRS) - model.predict(PAIRS)).max() < 1e-6


def test_nothing_is_saved_without_an_output_path(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    CrossEncoder(tiny("bert")).fit(loader(8), Evaluator(0.5), show_progress_bar=False)
    assert list(tmp_path.iterdir()) == []


def test_loss_and_activation_functions_are_used(tiny: Tiny) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append((logits.detach(), labels))
        return nn.functional.mse_loss(logits, labels)

    model = CrossEncoder(tiny("bert"))
    model.fit(loader(8), loss_fct=loss, activation_fct=nn.Sigmoid(), show_progress_bar=False)
    (logits, labels), *others = seen
    assert others == []
    assert logits.shape == labels.shape == (8,)
    assert ((logits > 0) & (logits < 1)).all()
    assert labels.tolist() == pytest.approx([example.label for example in examples(8)])


def test_mixed_precision_learns(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    before = {name: parameter.clone() for name, parameter in model.model.named_parameters()}
    model.fit(loader(16), use_amp=True, warmup_steps=0, optimizer_params={"lr": 1e-2}, show_progress_bar=False)
    for name, parameter in model.model.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.isfinite(parameter).all()
        assert not torch.equal(parameter, before[name]) or name.endswith("key.bias"), name


def test_worker_processes_may_load_the_examples(tiny: Tiny) -> None:
    data = DataLoader(examples(16), batch_size=8, num_workers=1)
    CrossEncoder(tiny("bert")).fit(data, show_progress_bar=False)


def test_the_dataloader_gets_its_collate_function_back(tiny: Tiny) -> None:
    data = loader(8)
    before = data.collate_fn
    CrossEncoder(tiny("bert")).fit(data, show_progress_bar=False)
    assert data.collate_fn is before


def test_progress_bar(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    CrossEncoder(tiny("bert")).fit(loader(16), show_progress_bar=False)
    assert capsys.readouterr().err == ""
    CrossEncoder(tiny("bert")).fit(loader(16))
    assert "2/2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("example", "num_labels", "error", "message"),
    [
        (("a", "b"), 1, TypeError, "epoch 0, batch 0, example 0: expected InputExample, got tuple"),
        (InputExample(texts=["a"]), 1, ValueError, "example 0: texts: expected 2 texts, got 1"),
        (InputExample(texts=["a", None]), 1, TypeError, r"example 0: texts\[1\]: expected str, got None"),
        (InputExample(texts=None), 1, TypeError, "example 0: texts: expected a pair of texts, got None"),
        (InputExample(texts=["a", "b"], label="yes"), 1, TypeError, "label: expected a number, got str 'yes'"),
        (InputExample(texts=["a", "b"], label=3), 3, ValueError, "label: expected a class from 0 to 2, got 3"),
        (InputExample(texts=["a", "b"], label=0.5), 3, ValueError, "label: expected a class from 0 to 2, got 0.5"),
    ],
)
def test_bad_examples_are_named(
    tiny: Tiny, example: Any, num_labels: int, error: type[Exception], message: str
) -> None:
    model = CrossEncoder(tiny("bert", num_labels=num_labels))
    with pytest.raises(error, match=message):
        model.fit(DataLoader([example], batch_size=1), show_progress_bar=False)


def test_an_empty_dataloader(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="train_dataloader: it has no batches"):
        CrossEncoder(tiny("bert")).fit(DataLoader([], batch_size=1))


def test_a_dataloader_that_does_not_know_its_length(tiny: Tiny) -> None:
    class Stream(IterableDataset[InputExample]):
        def __iter__(self) -> Any:
            return iter(examples(4))

    with pytest.raises(TypeError, match="train_dataloader: the schedule needs to know its number of batches"):
        CrossEncoder(tiny("bert")).fit(DataLoader(Stream(), batch_size=2))


def test_a_loss_that_is_no_number_stops_before_the_step(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    scores = model.predict(PAIRS[:4])
    with pytest.raises(ValueError, match="epoch 0, batch 0: the loss is nan"):
        model.fit(loader(8), loss_fct=lambda logits, labels: logits.sum() * float("nan"), show_progress_bar=False)
    assert np.array_equal(model.predict(PAIRS[:4]), scores)


def test_an_output_path_that_cannot_be_written_is_found_before_training(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model = CrossEncoder(tiny("bert"))
    scores = model.predict(PAIRS[:4])
    with pytest.raises(OSError, match="file"):
        model.fit(loader(8), output_path=tmp_path / "file" / "out", show_progress_bar=False)
    assert np.array_equal(model.predict(PAIRS[:4]), scores)


def test_input_example_prints_as_the_original() -> None:
    assert str(InputExample(texts=["a", "b"], label=1)) == "<InputExample> label: 1, texts: a; b"
    assert InputExample("id", ["a", "b"], 0.5).guid == "id"


@pytest.mark.parametrize("fused", [False, True])
def test_predict_sees_what_every_optimizer_has_changed(tiny: Tiny, tmp_path: Path, fused: bool) -> None:
    """Fused optimizers change parameters behind their version counters."""
    model = CrossEncoder(tiny("bert"))
    before = model.predict(PAIRS[:5])
    options: dict[str, Any] = {"optimizer_params": {"lr": 1e-2, "fused": fused}, "warmup_steps": 0}
    model.fit(loader(16), output_path=tmp_path, show_progress_bar=False, **options)
    after = model.predict(PAIRS[:5])
    assert np.abs(after - before).max() > 1e-3
    assert np.abs(CrossEncoder(tmp_path).predict(PAIRS[:5]) - after).max() < 1e-6


def test_an_evaluation_that_is_no_number_does_not_lose_the_model(tiny: Tiny, tmp_path: Path) -> None:
    CrossEncoder(tiny("bert")).fit(loader(8), Evaluator(float("nan")), output_path=tmp_path, show_progress_bar=False)
    assert (tmp_path / "model.safetensors").exists()


def test_an_evaluator_that_returns_a_dictionary_names_its_main_result(tiny: Tiny) -> None:
    class Measured:
        primary_metric = "spearman"

        def __call__(self, *_: Any, **__: Any) -> dict[str, float]:
            return {"pearson": 0.1, "spearman": 0.7}

    scores: list[float] = []
    model = CrossEncoder(tiny("bert"))
    model.fit(loader(8), Measured(), callback=lambda score, *_: scores.append(score), show_progress_bar=False)
    assert scores == [0.7]
    with pytest.raises(TypeError, match="primary_metric None is none of its results: spearman"):
        model.fit(loader(8), lambda *_, **__: {"spearman": 1.0}, show_progress_bar=False)
