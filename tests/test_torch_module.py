"""A CrossEncoder as a module of PyTorch, and as sentence-transformers' libraries take it."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from language_models import save_language_model
from sentence_transformers import CrossEncoder as Reference
from sentence_transformers import CrossEncoderTrainer, CrossEncoderTrainingArguments, SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder import losses
from sentence_transformers.cross_encoder.evaluation import CrossEncoderClassificationEvaluator
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.util import mine_hard_negatives
from tiny_models import BERT_DROPOUTS, CONFIGS, PAIRS, SENTENCES, save_tiny_model
from torch import nn

from fastce import CrossEncoder

Tiny = Callable[..., str]
NO_DROPOUT = dict.fromkeys(BERT_DROPOUTS, 0.0)


def test_it_is_their_class_once_that_is_loaded(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    assert isinstance(model, Reference)
    assert isinstance(model, nn.Module)
    assert isinstance(model, CrossEncoder)
    code = (
        "import sys, fastce; assert 'torch' not in sys.modules;"
        "model = fastce.CrossEncoder(sys.argv[1]);"
        "assert 'sentence_transformers' not in sys.modules; assert model.__class__ is fastce.CrossEncoder;"
        "import sentence_transformers; assert isinstance(model, sentence_transformers.CrossEncoder)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, tiny("bert")], check=True, env=environment)


def test_scoring_needs_no_module(tiny: Tiny) -> None:
    """What scripts do out of habit makes no second copy of the weights."""
    model = CrossEncoder(tiny("bert"))
    expected = model.predict(PAIRS)
    assert model.eval() is model
    assert not model.training
    assert "predict" in dir(model)
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict(PAIRS), expected)
    assert np.array_equal(copy.deepcopy(model).predict(PAIRS), expected)
    assert model.cpu() is model
    assert model.pipeline.checkpoint._module is None
    assert model.compile() is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize("family", CONFIGS)
def test_logits_of_tokenised_pairs(tiny: Tiny, family: str) -> None:
    model = CrossEncoder(tiny(family), max_length=64)
    theirs = Reference(tiny(family), max_length=64)
    features, expected = model.preprocess(PAIRS, prompt="a: "), theirs.preprocess(PAIRS, prompt="a: ")
    for name, values in features.items():
        assert torch.equal(values, expected[name]), name
    with torch.no_grad():
        scores = model(features)["scores"]
    assert np.array_equal(scores.numpy()[:, 0], model.predict(PAIRS, prompt="a: ", activation_fn=nn.Identity()))
    with torch.no_grad():
        assert torch.equal(model(expected)["scores"], scores)
    recorded = model(features)["scores"]
    assert recorded.requires_grad
    assert torch.allclose(recorded.detach(), scores, atol=1e-5, rtol=1e-5)


def test_padding_on_the_left(tmp_path: Path) -> None:
    model, theirs = (kind(save_language_model(tmp_path)) for kind in (CrossEncoder, Reference))
    model.tokenizer.padding_side = "left"
    features = model.preprocess(PAIRS, prompt="an instruction")
    expected = theirs.preprocess(PAIRS, prompt="an instruction")
    assert torch.equal(features["input_ids"], expected["input_ids"])
    with torch.no_grad():
        found = model(features)["scores"][:, 0].numpy()
    assert np.array_equal(found, model.predict(PAIRS, prompt="an instruction", activation_fn=nn.Identity()))


def test_parameters_have_their_names(tiny: Tiny) -> None:
    model, theirs = CrossEncoder(tiny("bert")), Reference(tiny("bert"))
    expected = theirs.state_dict()
    assert {name: value.shape for name, value in model.state_dict().items()} == {
        name: value.shape for name, value in expected.items()
    }
    model.predict(PAIRS[:2])
    model.load_state_dict({name: value + 0.01 for name, value in expected.items()})
    with torch.no_grad():
        for value in theirs.parameters():
            value += 0.01
    assert np.allclose(model.predict(PAIRS), theirs.predict(PAIRS), atol=1e-5)
    assert dict(model.named_parameters())["0.model.classifier.bias"] is model.model.classifier.bias


def test_dropout_and_hooks(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    features = model.preprocess(PAIRS[:8])
    called: list[int] = []
    hook = model.register_forward_hook(lambda *_: called.append(1))
    still = model(features)["scores"]
    model.train()
    assert model.training
    assert not torch.equal(model(features)["scores"], still)
    with pytest.raises(ValueError, match="hooks of the model itself"):
        model.predict(PAIRS)
    model.training = False
    assert torch.equal(model(features)["scores"], still)
    assert called == [1, 1, 1]
    hook.remove()
    model.train()
    assert np.array_equal(model.predict(PAIRS), CrossEncoder(tiny("bert")).predict(PAIRS))
    with pytest.raises(TypeError, match="one part"):
        model.add_module("1", nn.Identity())
    assert model.to("cpu") is model


def test_precisions_by_the_names_of_modules(tiny: Tiny) -> None:
    for change, precision, dtype in (
        (lambda m: m.bfloat16(), "bf16", torch.bfloat16),
        (lambda m: m.half(), "fp16", torch.float16),
        (lambda m: m.to("cpu", torch.bfloat16), "bf16", torch.bfloat16),
        (lambda m: m.half().float(), "fp32", torch.float32),
    ):
        model = change(CrossEncoder(tiny("bert")))
        assert model.dtype == dtype
        assert np.array_equal(model.predict(PAIRS), CrossEncoder(tiny("bert"), precision=precision).predict(PAIRS))
        assert model.model.dtype == torch.float32
    with pytest.raises(ValueError, match="float64"):
        CrossEncoder(tiny("bert")).double()
    with pytest.raises(ValueError, match="device: 'nowhere'"):
        CrossEncoder(tiny("bert")).to("nowhere")


LOSSES: dict[str, tuple[Callable[[Any], Any], int, list[str]]] = {
    "BinaryCrossEntropyLoss": (losses.BinaryCrossEntropyLoss, 1, ["pair", "label"]),
    "CrossEntropyLoss": (losses.CrossEntropyLoss, 3, ["pair", "class"]),
    "CachedMultipleNegativesRankingLoss": (losses.CachedMultipleNegativesRankingLoss, 1, ["pair"]),
    "MarginMSELoss": (losses.MarginMSELoss, 1, ["triple", "label"]),
    "LambdaLoss": (losses.LambdaLoss, 1, ["list"]),
}


def columns(kinds: list[str]) -> dict[str, list[Any]]:
    pairs, width = PAIRS[:16], {"pair": 2, "triple": 3}.get(kinds[0])
    if width is None:
        documents = [[second for _, second in PAIRS[at : at + 3]] for at in range(8)]
        return {"query": [a for a, _ in PAIRS[:8]], "docs": documents, "labels": [[1.0, 0.0, 0.0]] * 8}
    found: dict[str, list[Any]] = {f"text_{at}": [(*pair, "bread")[at] for pair in pairs] for at in range(width)}
    labels = [at % 3 if "class" in kinds else float(at % 2) for at in range(len(pairs))]
    return found | ({"label": labels} if len(kinds) > 1 else {})


@pytest.mark.parametrize("name", LOSSES)
def test_their_losses_and_trainer(tmp_path: Path, name: str) -> None:
    """The same losses step by step, the same weights in the end, to rounding; the best is loaded at the end."""
    make_loss, labels, kinds = LOSSES[name]
    folder = save_tiny_model(tmp_path / "model", "bert", num_labels=labels, **NO_DROPOUT)
    data = Dataset.from_dict(columns(kinds))
    ends = []
    for kind in (Reference, CrossEncoder):
        model: Any = kind(folder)
        arguments = CrossEncoderTrainingArguments(
            output_dir=str(tmp_path / kind.__module__),
            num_train_epochs=1,
            per_device_train_batch_size=4,
            learning_rate=0.1,
            optim="sgd",  # Adam would take a whole step where a gradient is rounding alone
            save_strategy="epoch",
            eval_strategy="epoch",
            load_best_model_at_end=True,
            use_cpu=True,
            disable_tqdm=True,
            seed=1,
        )
        trainer = CrossEncoderTrainer(
            model=model, args=arguments, train_dataset=data, eval_dataset=data, loss=make_loss(model)
        )
        trainer.train()
        ends.append((model.predict(PAIRS), trainer.evaluate()["eval_loss"]))
    (expected, expected_loss), (found, loss) = ends
    assert np.abs(found - Reference(folder).predict(PAIRS)).max() > 1e-3
    assert np.allclose(found, expected, atol=1e-5)
    assert loss == pytest.approx(expected_loss, abs=1e-4)


def test_their_evaluators_and_mining(tiny: Tiny, tmp_path: Path) -> None:
    model, theirs = CrossEncoder(tiny("bert")), Reference(tiny("bert"))
    evaluator = CrossEncoderClassificationEvaluator(PAIRS, [at % 2 for at in range(len(PAIRS))], name="tiny")
    found = model.evaluate(evaluator, tmp_path / "ours")
    assert found == pytest.approx(theirs.evaluate(evaluator, str(tmp_path / "theirs")))
    assert list((tmp_path / "ours").glob("*.csv"))
    assert model.model_card_data.metrics == pytest.approx(found)

    transformer = Transformer(tiny("bert"))
    embeddings = SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension(), "mean")])
    data = Dataset.from_dict({"query": SENTENCES[:4], "answer": SENTENCES[4:8]})
    mined = [
        mine_hard_negatives(data, embeddings, cross_encoder=ranker, num_negatives=2, verbose=False)
        for ranker in (model, theirs)
    ]
    assert mined[0].to_dict() == mined[1].to_dict()
    assert len(mined[0]) > 0


def test_single_pairs_are_told_apart_as_there(tiny: Tiny) -> None:
    model, theirs = CrossEncoder(tiny("bert")), Reference(tiny("bert"))
    for inputs in (("a", "b"), ["a", "b"], [("a", "b")], [["a", "b"], ["c", "d"]], np.array(["a", "b"]), []):
        assert model.is_singular_input(inputs) == theirs.is_singular_input(inputs)
    assert model.get_max_seq_length() == theirs.get_max_seq_length()
    assert model.modalities == theirs.modalities
    assert (model.supports("text"), model.supports("image")) == (True, False)
    assert model.processor is model.tokenizer
    assert model.transformers_model is model.model
    with pytest.warns(DeprecationWarning, match="now called preprocess"):
        assert torch.equal(model.tokenize(PAIRS[:2])["input_ids"], model.preprocess(PAIRS[:2])["input_ids"])


def test_processing_kwargs_of_a_call(tiny: Tiny) -> None:
    model, theirs, short = CrossEncoder(tiny("bert")), Reference(tiny("bert")), CrossEncoder(tiny("bert"), max_length=9)
    expected = short.predict(PAIRS)
    for options in (
        {"text": {"max_length": 9}},
        {"text": {"max_length": 20, "truncation": "longest_first"}, "common": {"max_length": 9, "truncation": True}},
        {"common": {"max_length": 9}, "text": {"max_length": 20}},
    ):
        assert np.array_equal(model.predict(PAIRS, processing_kwargs=options), expected)
        assert np.allclose(theirs.predict(PAIRS, processing_kwargs=options), expected, atol=1e-5)
    assert np.array_equal(short.predict(PAIRS, processing_kwargs={"text": {"max_length": 64}}), model.predict(PAIRS))
    for wrong, message in (
        ({"image": {}}, "expected 'text' or 'common', got 'image'"),
        ({"text": {"padding": True}}, r"\['padding'\]: fastce has max_length and truncation"),
        ({"text": {"truncation": "only_second"}}, "not 'only_second'"),
        ({"text": {"max_length": 0}}, "expected a positive whole number, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            model.predict(PAIRS, processing_kwargs=wrong)
    with pytest.raises(TypeError, match="expected a dictionary"):
        model.predict(PAIRS, processing_kwargs=[("text", 1)])
