"""fastce's engine inside of sentence-transformers' own CrossEncoder."""

from __future__ import annotations

import copy
import functools
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import sentence_transformers.cross_encoder
import torch
from language_models import save_language_model
from sentence_transformers import CrossEncoder as Reference
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, Pooling
from tiny_models import CONFIGS, PAIRS, save_tiny_model
from torch import nn
from transformers import PreTrainedTokenizerFast

import fastce
from fastce.backends.base import SLOWEST
from fastce.integrations.sentence_transformers import ENGINE

Tiny = Callable[..., str]
FITTING = 64  # the positions of the tiny models; some of their tokenizers claim two more


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """Notes each call of a Hugging Face module's forward: an accelerated model makes none."""
    made: list[type] = []
    forward = Transformer.forward

    @functools.wraps(forward)  # by its name it is theirs: a forward of somebody's own would be noticed
    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        made.append(type(self))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(Transformer, "forward", noted)
    return made


def close(found: Any, expected: Any, tolerance: float = 1e-5) -> bool:
    assert type(found) is type(expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    return bool(np.abs(np.asarray(found) - np.asarray(expected)).max() <= tolerance)


def chain(folder: str, *more: nn.Module) -> Reference:
    transformer = Transformer(folder, transformer_task="feature-extraction")
    width = transformer.get_embedding_dimension()
    dense = Dense(width, 1, module_output_name="scores", activation_function=nn.Identity())
    return Reference(modules=[transformer, Pooling(width, "mean"), *more, dense])


@pytest.mark.parametrize("family", CONFIGS)
def test_scores_of_every_family_stay_what_they_were(tiny: Tiny, passes: list[type], family: str) -> None:
    model = Reference(tiny(family), max_length=FITTING)
    expected = model.predict(PAIRS, activation_fn=nn.Identity())
    expected_ranking = model.rank(PAIRS[0][0], [second for _, second in PAIRS[:12]], top_k=5, return_documents=True)
    del passes[:]
    assert fastce.accelerate(model) is model
    found = model.predict(PAIRS, activation_fn=nn.Identity())
    assert np.all(np.abs(found - expected) <= 1e-5 * np.maximum(1, np.abs(expected)))
    ranking = model.rank(PAIRS[0][0], [second for _, second in PAIRS[:12]], top_k=5, return_documents=True)
    assert [entry["corpus_id"] for entry in ranking] == [entry["corpus_id"] for entry in expected_ranking]
    assert passes == []
    assert fastce.decelerate(model) is model
    assert np.array_equal(model.predict(PAIRS, activation_fn=nn.Identity()), expected)
    assert len(passes) > 0


def test_chains_and_language_models(tiny: Tiny, passes: list[type], tmp_path: Path) -> None:
    folder = tiny("modernbert")
    for model, prompt in (
        (chain(folder, Dropout(0.5)), None),
        (chain(folder, Dense(60, 60, activation_function=nn.GELU())), "a prompt: "),
        (Reference(save_language_model(tmp_path)), "the instruction"),
    ):
        expected = model.predict(PAIRS, prompt=prompt)
        labels = model.num_labels
        passes.clear()
        fastce.accelerate(model)
        assert close(model.predict(PAIRS, prompt=prompt), expected)
        assert (passes, model.num_labels) == ([], labels)
        last = list(model.children())[-1]
        if isinstance(last, Dense):  # whoever exchanges a part means it
            last.linear = nn.Linear(60, 1)
            found = model.predict(PAIRS)
            assert close(found, fastce.decelerate(model).predict(PAIRS))


def test_saved_files_are_as_without(tiny: Tiny, tmp_path: Path) -> None:
    for model in (Reference(tiny("bert")), chain(tiny("bert"))):
        accelerated = fastce.accelerate(copy.deepcopy(model))
        accelerated.predict(PAIRS[:3])
        accelerated.save_pretrained(str(tmp_path / "after"))
        model.save_pretrained(str(tmp_path / "before"))
        for file in sorted(path for path in (tmp_path / "before").rglob("*") if path.is_file()):
            assert (tmp_path / "after" / file.relative_to(tmp_path / "before")).read_bytes() == file.read_bytes(), file


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_precision_is_that_of_the_weights(tiny: Tiny, dtype: torch.dtype) -> None:
    model = Reference(tiny("bert"), model_kwargs={"dtype": dtype})
    exact = Reference(tiny("bert")).predict(PAIRS)
    found = fastce.accelerate(model).predict(PAIRS)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - exact).max() < 0.02
    own = fastce.CrossEncoder(tiny("bert"), precision="int8")
    int8 = fastce.accelerate(Reference(tiny("bert")), precision="int8", num_threads=1)
    assert np.array_equal(int8.predict(PAIRS), own.predict(PAIRS))


def test_the_same_outputs_of_all_kinds(tiny: Tiny) -> None:
    plain = Reference(tiny("bert", num_labels=3))
    model = fastce.accelerate(copy.deepcopy(plain))
    for options in (
        {},
        {"apply_softmax": True},
        {"convert_to_tensor": True},
        {"activation_fn": nn.Tanh()},
        {"activation_fn": lambda x: x.softmax(-1)},
    ):
        assert close(model.predict(PAIRS, **options), plain.predict(PAIRS, **options))
    rows = model.predict(PAIRS[:3], convert_to_numpy=False)
    assert close(torch.stack(rows), torch.stack(plain.predict(PAIRS[:3], convert_to_numpy=False)))
    assert close(model.predict(PAIRS[0]), plain.predict(PAIRS[0]))
    assert close(model.predict(np.array(PAIRS)), plain.predict(np.array(PAIRS)))
    assert len(model.predict([])) == 0
    with pytest.raises(ValueError, match="num_labels=1"):
        model.rank("a", ["b"])


def test_what_is_done_to_a_model_counts(tiny: Tiny) -> None:
    plain, model = Reference(tiny("bert")), fastce.accelerate(Reference(tiny("bert")))
    model.predict(PAIRS)
    changes: list[Callable[[Any], object]] = [
        lambda m: m.model.classifier.weight.data.mul_(3),
        lambda m: setattr(m, "max_seq_length", 9),
        lambda m: setattr(m, "activation_fn", nn.Identity()),
        lambda m: m.model.classifier.register_forward_hook(lambda *_: None),
        lambda m: m.prompts.update(query="a guitar "),
    ]
    for change in changes:
        before = plain.predict(PAIRS)
        change(plain)
        change(model)
        prompt = {"prompt_name": "query"} if plain.prompts else {}
        after = plain.predict(PAIRS, **prompt)
        assert close(model.predict(PAIRS, **prompt), after)
        hooked = plain.model.classifier._forward_hooks and not prompt
        assert hooked or not np.array_equal(after, before)


def test_another_dtype_counts(tiny: Tiny, caplog: Any, passes: list[type]) -> None:
    plain, model = Reference(tiny("bert")), fastce.accelerate(Reference(tiny("bert")))
    expected = model.predict(PAIRS)
    halved = model.half().predict(PAIRS)
    assert 0 < np.abs(halved - expected).max() < 0.02
    assert passes == []
    doubled = model.float().double().predict(PAIRS, convert_to_tensor=True)
    assert doubled.dtype == torch.float64
    assert "its weights are torch.float64" in caplog.text
    assert close(model.float().predict(PAIRS), plain.predict(PAIRS), tolerance=2e-3)  # fp16 has rounded them


def test_another_padding_token_counts(tmp_path: Path) -> None:
    """Language models' classifiers pool before the padding at a text's end."""
    folder = save_tiny_model(tmp_path, "qwen3")
    plain, model = Reference(folder, max_length=FITTING), fastce.accelerate(Reference(folder, max_length=FITTING))
    model.predict(PAIRS)
    for each in (plain, model):
        each.model.config.pad_token_id = each.tokenizer.convert_tokens_to_ids("a")
        each.tokenizer.pad_token = "a"
    pairs = [("the man", f"plays {'a' * number}") for number in range(1, 4)]
    assert close(model.predict(pairs), plain.predict(pairs))


def test_it_trains_its_own_way(tiny: Tiny) -> None:
    model = fastce.accelerate(Reference(tiny("bert")))
    before = model.predict(PAIRS)
    model.train()
    features = model.preprocess(PAIRS[:4])
    model(features)["scores"].sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    after = model.predict(PAIRS)
    assert not model.training
    assert not np.array_equal(after, before)
    assert close(after, fastce.decelerate(model).predict(PAIRS))


class Subclass(Reference):
    def preprocess(self, *args: Any, **kwargs: Any) -> Any:
        return super().preprocess(*args, **kwargs)


class Own(nn.Module):
    def forward(self, features: Any) -> Any:
        features["scores"] = features["scores"] * 2
        return features


def hooked(model: Reference) -> Reference:
    model[0].register_forward_hook(lambda *_: None)
    return model


def left(model: Reference) -> Reference:
    model.tokenizer.padding_side = "left"
    return model


class OwnTokenizer(PreTrainedTokenizerFast):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


def with_tokenizer(model: Reference) -> Reference:
    model[0].processor = OwnTokenizer(tokenizer_object=model.tokenizer._tokenizer, pad_token="[PAD]")
    return model


def of_another_type(model: Reference) -> Reference:
    model.config.model_type = "electra"
    return model


def with_kwargs(model: Reference) -> Reference:
    model[0].processing_kwargs = {"text": {"max_length": 8}}
    return model


@pytest.mark.parametrize(
    ("make", "options", "reason"),
    [
        (lambda folder: hooked(Reference(folder)), {}, "its module 0 has a hook"),
        (lambda folder: Subclass(folder), {}, "the model has a preprocess of its own"),
        (lambda folder: Reference(modules=[Transformer(folder, transformer_task="sequence-classification"), Own()]),
         {}, "its module 1 is a Own"),
        (lambda folder: with_kwargs(Reference(folder)), {}, "its processing_kwargs is"),
        (lambda folder: left(Reference(folder)), {}, "its tokenizer pads on the left"),
        (lambda folder: with_tokenizer(Reference(folder)), {}, "its tokenizer has a __call__ of its own"),
        (lambda folder: of_another_type(Reference(folder)), {}, "embedding_size"),
        (Reference, {"processing_kwargs": {"text": {"max_length": 8}}}, "the argument processing_kwargs"),
        (lambda folder: chain(folder, Dense(60, 60, activation_function=nn.GELU("tanh"))), {}, "an activation"),
        (lambda folder: Reference(folder, keep_in_fp32_modules=["0.model.classifier"]), {}, "the same module"),
    ],
)  # fmt: skip
def test_what_is_beyond_it_goes_the_original_way(
    tiny: Tiny, caplog: Any, passes: list[type], make: Any, options: dict[str, Any], reason: str
) -> None:
    torch.manual_seed(1)
    plain = make(tiny("bert"))
    torch.manual_seed(1)
    model = fastce.accelerate(make(tiny("bert")))
    expected = plain.predict(PAIRS, **options)
    passes.clear()
    with caplog.at_level(logging.WARNING, "fastce"):
        for _ in range(2):
            assert np.array_equal(model.predict(PAIRS, **options), expected)
    assert len(passes) > 0
    said = [record.message for record in caplog.records if "the way of sentence-transformers" in record.message]
    assert [reason in message for message in said] == [True]


def test_inputs_beyond_it_and_errors_are_sentence_transformers(tiny: Tiny, passes: list[type]) -> None:
    plain, model = Reference(tiny("bert")), fastce.accelerate(Reference(tiny("bert")))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.array_equal(model.predict(PAIRS), plain.predict(PAIRS))
    for wrong in ([("a",)], [("a", 1)], [["a", "b", "c"]]):
        with pytest.raises(Exception) as theirs:  # noqa: PT011
            plain.predict(wrong)
        with pytest.raises(type(theirs.value)):
            model.predict(wrong)
    model.max_seq_length = 200
    with pytest.raises(RuntimeError, match="must match"):
        model.predict([("man " * 100, "the " * 100)])
    with pytest.raises(TypeError, match="it is fastce's own"):
        fastce.accelerate(fastce.CrossEncoder(tiny("bert")))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"expected a sentence_transformers\.CrossEncoder, got Linear"):
        fastce.accelerate(nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="precision"):
        fastce.accelerate(plain, precision="fp4")  # type: ignore[arg-type]


def test_copies_are_accelerated_and_pickles_are_their_own(tiny: Tiny, passes: list[type]) -> None:
    model = fastce.accelerate(Reference(tiny("bert")), precision="int8")
    expected = model.predict(PAIRS)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        model.model.classifier.weight.zero_()
    assert np.array_equal(copied.predict(PAIRS), expected)
    assert passes == []
    pickled = pickle.dumps(model)
    assert b"fastce" not in pickled.replace(ENGINE.encode(), b"")
    pickle.loads(pickled).predict(PAIRS[:2])
    assert len(passes) == 1
    shallow = copy.copy(model)
    fastce.decelerate(model)
    assert close(shallow.predict(PAIRS), model.predict(PAIRS))


@pytest.mark.stress
def test_its_pools_are_its_own(tiny: Tiny) -> None:
    model = fastce.accelerate(Reference(tiny("bert")))
    pool = model.start_multi_process_pool(["cpu"])
    try:
        assert close(model.predict(PAIRS[:8], pool=pool), model.predict(PAIRS[:8]))
    finally:
        model.stop_multi_process_pool(pool)


def test_the_patch_is_for_those_made_under_it_by_any_name(tiny: Tiny, passes: list[type]) -> None:
    constructor, older = Reference.__init__, Reference(tiny("bert"))
    expected = older.predict(PAIRS)
    passes.clear()
    with fastce.patch_sentence_transformers() as patch:
        assert sentence_transformers.CrossEncoder is sentence_transformers.cross_encoder.CrossEncoder is Reference
        made = sentence_transformers.cross_encoder.CrossEncoder(tiny("bert"))
        copied, by_hand = copy.deepcopy(made), fastce.accelerate(Reference(tiny("bert")))
        for model in (made, copied):
            assert close(model.predict(PAIRS), expected)
        assert passes == []
        older.predict(PAIRS[:2])
        assert len(passes) == 1
        inner = fastce.patch_sentence_transformers()
        with pytest.raises(RuntimeError, match="undo that first"):
            patch.undo()
        inner.undo()
    patch.undo()
    assert repr(patch) == "<fastce in sentence_transformers.CrossEncoder, undone>"
    assert Reference.__init__ is constructor
    for own in (made, copied, Reference(tiny("bert"))):
        passes.clear()
        assert np.array_equal(own.predict(PAIRS), expected)
        assert len(passes) > 0
    passes.clear()
    by_hand.predict(PAIRS[:2])
    assert passes == []
    with pytest.raises(ValueError, match="backend: expected"):
        fastce.patch_sentence_transformers(backend="fastest")
    assert Reference.__init__ is constructor


def test_only_a_slow_backend_is_left(tiny: Tiny, caplog: Any, passes: list[type]) -> None:
    """A family that fastce has no kernels for is not run by fastce at all."""
    model = fastce.accelerate(Reference(tiny("bert")), backend=SLOWEST)
    with caplog.at_level(logging.WARNING, "fastce"):
        model.predict(PAIRS[:2])
    assert len(passes) == 1
    assert "fastce would run the same module" in caplog.text
