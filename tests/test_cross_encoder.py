from __future__ import annotations

import copy
import json
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import CONFIGS, PAIRS, SENTENCES, UNKNOWN_FAMILY, make_tokenizer, save_tiny_model, transformers_logits
from tolerance import BF16_NOISE, LOGITS, SAME_PAIR, close_to, relative_noise
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, XLNetConfig

import fastce
from fastce import CrossEncoder, available_backends

Tiny = Callable[..., str]


def logits_of(model: CrossEncoder, pairs: Any, **options: Any) -> torch.Tensor:
    return model.predict(pairs, activation_fn=nn.Identity(), convert_to_tensor=True, **options)


@pytest.mark.parametrize("num_labels", [1, 3])
@pytest.mark.parametrize("family", [*CONFIGS, *UNKNOWN_FAMILY])
def test_logits_equal_transformers(tiny: Tiny, family: str, num_labels: int) -> None:
    directory = tiny(family, num_labels=num_labels)
    model = CrossEncoder(directory)
    reference = AutoModelForSequenceClassification.from_pretrained(directory)
    expected = transformers_logits(reference, model.tokenizer, PAIRS, model.max_length)
    assert expected.std() > 0.1, "models whose logits are alike test nothing"
    assert close_to(logits_of(model, PAIRS), expected.squeeze(1) if num_labels == 1 else expected, LOGITS)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_pair_of_empty_texts_has_a_score(tiny: Tiny, family: str) -> None:
    model = CrossEncoder(tiny(family))
    encoded = {name: torch.tensor(ids) for name, ids in model.tokenizer([""], [""]).items() if ids[0]}
    padding = torch.tensor([[model.tokenizer.pad_token_id]])
    expected = model.model(**encoded or {"input_ids": padding, "attention_mask": torch.ones(1, 1)}).logits[0]
    found = logits_of(model, [("yes", "no"), ("", ""), ("", "no")])
    assert close_to(found[1:2], expected.detach(), LOGITS)


@pytest.mark.parametrize("backend", ["cpp", "reference", "transformers"])
@pytest.mark.parametrize("family", ["qwen3", "qwen2", "llama"])
def test_padding_at_the_end_of_a_text_is_padding(tiny: Tiny, family: str, backend: str) -> None:
    """As transformers' classes of language models have it, which know padding by its id alone."""
    model = CrossEncoder(tiny(family), backend=backend)
    pairs = [("yes", text) for text in ("no", "no<pad>", "no<pad><pad>", "<pad>", "a<pad>b", "a<pad>b<pad>")]
    expected = [transformers_logits(model.model, model.tokenizer, [pair], 64)[0, 0] for pair in pairs]
    found = logits_of(model, pairs)
    assert close_to(found, torch.stack(expected), LOGITS)
    assert backend != "cpp" or found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("deberta-v2", {"conv_kernel_size": 3, "conv_act": "gelu"}),
        ("deberta-v2", {"embedding_size": 36}),
        ("albert", {"num_hidden_groups": 3}),
        ("albert", {"inner_group_num": 2}),
        ("albert", {"embedding_size": 60}),
        ("gte", {"hidden_act": "mish"}),
    ],
)
def test_settings_that_are_not_described_run_as_transformers_has_them(
    tmp_path: Path, family: str, changes: dict[str, Any]
) -> None:
    model = CrossEncoder(save_tiny_model(tmp_path, family, **changes))
    assert model.backend == "transformers"
    expected = transformers_logits(model.model, model.tokenizer, PAIRS[:30], model.max_length)
    assert close_to(logits_of(model, PAIRS[:30]), expected[:, 0], LOGITS)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"])
def test_activations_of_the_feed_forward_network(tiny: Tiny, activation: str) -> None:
    model = CrossEncoder(tiny("bert", hidden_act=activation))
    assert available_backends(model)["reference"]
    expected = transformers_logits(model.model, model.tokenizer, PAIRS, model.max_length)
    assert close_to(logits_of(model, PAIRS), expected[:, 0], LOGITS)


def test_logits_of_the_real_minilm_equal_transformers(minilm: str, real_pairs: list[tuple[str, str]]) -> None:
    model = CrossEncoder(minilm, num_labels=1)
    expected = transformers_logits(model.model, model.tokenizer, real_pairs, 512)
    assert close_to(logits_of(model, real_pairs), expected[:, 0], LOGITS)


def test_a_padding_token_that_is_chosen_later(tiny: Tiny) -> None:
    """As scripts do for language models, whose files name none."""
    model, later = CrossEncoder(tiny("qwen3")), CrossEncoder(tiny("qwen3"))
    later.predict(PAIRS[:2])
    for each in (model, later):
        each.tokenizer.pad_token = "a"
        each.config.pad_token_id = each.model.config.pad_token_id = each.tokenizer.pad_token_id
    pairs = [("the man", f"plays {'a' * number}") for number in range(1, 4)]
    expected = transformers_logits(model.model, model.tokenizer, pairs, model.max_length)[:, 0]
    for each in (model, later):
        assert close_to(logits_of(each, pairs), expected, LOGITS)


def test_padding_tokens_inside_a_text(tiny: Tiny) -> None:
    pairs = [("a <pad> b", "<pad>"), ("<pad><pad>", "c")]
    model = CrossEncoder(tiny("roberta"))
    expected = transformers_logits(model.model, model.tokenizer, pairs, 64)
    assert close_to(logits_of(model, pairs), expected[:, 0], LOGITS)


@pytest.mark.parametrize("family", ["bert", "roberta", "ernie"])
def test_a_score_depends_on_its_own_pair_alone(tiny: Tiny, family: str) -> None:
    model = CrossEncoder(tiny(family))
    scores = logits_of(model, PAIRS)
    order = torch.randperm(len(PAIRS)).tolist()
    shuffled = logits_of(model, [PAIRS[index] for index in order], batch_size=7)
    assert (shuffled - scores[order]).abs().max() <= SAME_PAIR * scores.abs().max().clamp(min=1)
    for index in (0, 5, 60, 131):
        alone = logits_of(model, PAIRS[index])
        assert abs(alone - scores[index]) <= SAME_PAIR * max(1, abs(float(scores[index])))


@pytest.mark.parametrize("num_labels", [1, 3])
@pytest.mark.parametrize(
    "options", [{}, {"convert_to_tensor": True}, {"convert_to_numpy": False}, {"apply_softmax": True}]
)
def test_predict_equals_sentence_transformers(tiny: Tiny, num_labels: int, options: dict[str, bool]) -> None:
    from sentence_transformers import CrossEncoder as Reference

    directory = tiny("bert", num_labels=num_labels)
    ours, theirs = CrossEncoder(directory), Reference(directory)
    for inputs in (PAIRS, PAIRS[3], PAIRS[:1], np.array(PAIRS[20:40])):
        actual, expected = ours.predict(inputs, **options), theirs.predict(inputs, **options)
        assert type(actual) is type(expected)
        if isinstance(expected, list):
            assert {type(score) for score in actual} == {torch.Tensor}
            actual, expected = torch.stack(actual), torch.stack(expected)
        assert actual.shape == expected.shape
        assert actual.dtype == expected.dtype
        assert np.abs(np.asarray(actual) - np.asarray(expected)).max() <= LOGITS


@pytest.mark.parametrize("options", [{}, {"top_k": 5}, {"return_documents": True}])
def test_rank_equals_sentence_transformers(tiny: Tiny, options: dict[str, Any]) -> None:
    from sentence_transformers import CrossEncoder as Reference

    directory = tiny("bert")
    documents = [*SENTENCES, *SENTENCES[:3]]  # equal documents tie
    actual = CrossEncoder(directory).rank("Where is the train?", documents, **options)
    expected = Reference(directory).rank("Where is the train?", documents, **options)
    assert [result["corpus_id"] for result in actual] == [result["corpus_id"] for result in expected]
    assert [result.get("text") for result in actual] == [result.get("text") for result in expected]
    assert [sorted(result) for result in actual] == [sorted(result) for result in expected]
    assert all(type(result["score"]) is float for result in actual)
    assert [result["score"] for result in actual] == pytest.approx([r["score"] for r in expected], abs=LOGITS)


@pytest.mark.parametrize("num_labels", [1, 3])
def test_no_pairs_give_an_empty_result(tiny: Tiny, num_labels: int) -> None:
    model = CrossEncoder(tiny("bert", num_labels=num_labels))
    array = model.predict([])
    assert isinstance(array, np.ndarray)
    assert (array.shape, array.dtype) == ((0,), np.float32)
    assert model.predict([], convert_to_numpy=False) == []
    assert model.predict([], convert_to_tensor=True).shape == (0,)
    if num_labels == 1:
        assert model.rank("query", []) == []


def test_texts_of_every_kind_agree_with_transformers(tiny: Tiny) -> None:
    odd = ["", " ", "\0", "😀" * 3, "a\0b", "\n\t", "é", "word " * 500, "[SEP] [CLS]"]
    pairs = [(first, second) for first in odd for second in odd]
    model = CrossEncoder(tiny("bert"))
    expected = transformers_logits(model.model, model.tokenizer, pairs, model.max_length)
    assert close_to(logits_of(model, pairs), expected[:, 0], LOGITS)
    lone, replaced = model.predict([("a\ud800", "b"), ("a\ufffd", "b")])
    assert abs(lone - replaced) <= SAME_PAIR


def test_prompts_go_before_the_first_text(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"), prompts={"ask": "Is there "}, default_prompt_name=None)
    plain = model.predict([("Is there a train", "yes")])
    assert model.predict([("a train", "yes")], prompt="Is there ") == plain
    assert model.predict([("a train", "yes")], prompt_name="ask") == plain
    assert (
        CrossEncoder(tiny("bert"), prompts={"ask": "Is there "}, default_prompt_name="ask").predict(
            [("a train", "yes")]
        )
        == plain
    )
    with pytest.raises(ValueError, match=r"prompt_name: 'other' is none of the model's prompts: \['ask'\]"):
        model.predict([("a", "b")], prompt_name="other")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("family", ["bert", "ernie"])
def test_half_precisions_are_near(tiny: Tiny, family: str, precision: Any) -> None:
    exact = logits_of(CrossEncoder(tiny(family)), PAIRS)
    near = logits_of(CrossEncoder(tiny(family), precision=precision), PAIRS)
    assert near.dtype == torch.float32
    assert not torch.equal(near, exact)
    assert relative_noise(near, exact) <= BF16_NOISE


@pytest.mark.parametrize(("dtype", "precision"), [(torch.bfloat16, "bf16"), ("float16", "fp16"), ("auto", "fp32")])
@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_a_dtype_sets_the_precision(tiny: Tiny, name: str, dtype: Any, precision: str) -> None:
    model = CrossEncoder(tiny("bert"), model_kwargs={name: dtype})
    assert model.pipeline.precision == precision
    assert {parameter.dtype for parameter in model.model.parameters()} == {torch.float32}


def test_changed_weights_are_seen_at_once(tiny: Tiny) -> None:
    for precision in ("fp32", "bf16"):
        model = CrossEncoder(tiny("bert"), precision=precision)
        before = logits_of(model, PAIRS[:5])
        with torch.no_grad():
            model.model.bert.encoder.layer[0].output.dense.weight.mul_(2)
        after = logits_of(model, PAIRS[:5])
        assert not torch.equal(before, after)
        with torch.no_grad():
            model.model.bert.encoder.layer[0].output.dense.weight.div_(2)
        assert torch.equal(before, logits_of(model, PAIRS[:5]))


def test_another_module_can_be_put_in(tiny: Tiny) -> None:
    model, other = CrossEncoder(tiny("bert")), CrossEncoder(tiny("bert", seed=5))
    expected = logits_of(other, PAIRS[:5])
    model.model = other.model
    assert torch.equal(logits_of(model, PAIRS[:5]), expected)


def test_threads_share_one_model(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    expected = model.predict(PAIRS)
    with ThreadPoolExecutor(16) as threads:
        for scores in threads.map(lambda _: model.predict(PAIRS), range(32)):
            assert np.abs(scores - expected).max() <= SAME_PAIR


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_independent(tiny: Tiny, duplicate: Callable[[CrossEncoder], CrossEncoder]) -> None:
    model = CrossEncoder(tiny("bert"))
    scores = model.predict(PAIRS[:5])
    other = duplicate(model)
    with torch.no_grad():
        other.model.classifier.weight.zero_()
    assert (model.predict(PAIRS[:5]) == scores).all()
    assert (other.predict(PAIRS[:5]) != scores).all()


def test_max_length_truncates_is_capped_and_saved(tiny: Tiny, tmp_path: Any) -> None:
    model = CrossEncoder(tiny("bert"), max_length=10)
    expected = transformers_logits(model.model, model.tokenizer, PAIRS, 10)
    assert close_to(logits_of(model, PAIRS), expected[:, 0], LOGITS)
    model.save(tmp_path)
    assert CrossEncoder(tmp_path).max_length == 10
    with pytest.warns(UserWarning, match="max_length 100 is more than the 64 positions of the model; using 64"):
        model.max_length = 100
    assert model.max_length == 64
    with pytest.raises(ValueError, match="max_length: expected a positive whole number, got 0"):
        model.max_length = 0


def test_max_length_is_the_tokenizers(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    full = logits_of(model, PAIRS)
    model.tokenizer.model_max_length = 10
    assert model.max_length == 10
    expected = transformers_logits(model.model, model.tokenizer, PAIRS, 10)
    assert close_to(logits_of(model, PAIRS), expected[:, 0], LOGITS)
    assert not close_to(logits_of(model, PAIRS), full, LOGITS)
    model.tokenizer = AutoTokenizer.from_pretrained(tiny("bert"), model_max_length=100)
    with pytest.warns(UserWarning, match="max_length 100 is more than the 64 positions of the model; using 64"):
        assert torch.equal(logits_of(model, PAIRS), full)


@pytest.mark.parametrize(("limit", "expected"), [(32.0, 32), (1e30, 64), (float("inf"), 64), (None, 64)])
def test_limits_that_tokenizer_files_hold(
    tiny: Tiny, tmp_path: Path, limit: float, expected: int, recwarn: pytest.WarningsRecorder
) -> None:
    file = Path(shutil.copytree(tiny("bert"), tmp_path / "model")) / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": limit}))
    model = CrossEncoder(file.parent)
    assert model.max_length == expected
    assert isinstance(model.tokenizer.model_max_length, int)
    assert not [warning for warning in recwarn if "max_length" in str(warning.message)]


@pytest.mark.parametrize("limit", [32.5, 0, -1.0, float("nan"), "long", True])
def test_limits_that_are_no_number_of_tokens(tiny: Tiny, tmp_path: Path, limit: Any) -> None:
    file = Path(shutil.copytree(tiny("bert"), tmp_path / "model")) / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": limit}))
    with pytest.raises(ValueError, match="model_max_length: expected a positive whole number, got"):
        CrossEncoder(file.parent)


def test_positions_of_roberta_start_behind_the_padding_id(tiny: Tiny) -> None:
    with pytest.warns(UserWarning, match="max_length 66 is more than the 64 positions"):
        model = CrossEncoder(tiny("roberta"), max_length=66)
    assert np.isfinite(model.predict([("word " * 200, "word " * 200)])).all()


def test_a_named_backend_never_gives_way(tiny: Tiny) -> None:
    expected = logits_of(CrossEncoder(tiny("bert")), PAIRS)
    assert close_to(logits_of(CrossEncoder(tiny("bert"), backend="transformers"), PAIRS), expected, LOGITS)
    with pytest.raises(ValueError, match="reference: model type 'ernie'"):
        CrossEncoder(tiny("ernie"), backend="reference")
    with pytest.raises(
        ValueError, match="backend: expected 'auto' or one of 'cpp', 'triton', 'reference', 'transformers', got 'tvm'"
    ):
        CrossEncoder(tiny("bert"), backend="tvm")
    with pytest.raises(ValueError, match="no backend can run this model in int8 on cpu"):
        CrossEncoder(tiny("ernie"), precision="int8")


def test_a_module_with_more_than_its_family_has_runs_as_itself(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    model.model.register_parameter("extra", nn.Parameter(torch.zeros(1)))
    assert "has also extra" in available_backends(model)["reference"].reasons[0]
    expected = transformers_logits(model.model, model.tokenizer, PAIRS, 64)
    assert close_to(logits_of(model, PAIRS), expected[:, 0], LOGITS)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size: expected a positive whole number, got 0"),
        ({"batch_size": 2.5}, TypeError, "batch_size: expected a positive whole number, got float 2.5"),
        ({"prompt_name": 32}, ValueError, "prompt_name: 32 is none of the model's prompts"),
    ],
)
def test_bad_arguments_of_predict(tiny: Tiny, arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CrossEncoder(tiny("bert")).predict([("a", "b")], **arguments)


def test_bad_arguments_of_rank(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("bert"))
    with pytest.raises(TypeError, match="query: expected str, got None"):
        model.rank(None, ["a"])
    with pytest.raises(TypeError, match=r"documents\[1\]: expected str, got int 3"):
        model.rank("a", ["a", 3])
    with pytest.raises(ValueError, match="top_k: expected None or a number from 0 up, got -1"):
        model.rank("a", ["a"], top_k=-1)
    with pytest.raises(ValueError, match="rank needs a model with one label, this one has 3"):
        CrossEncoder(tiny("bert", num_labels=3)).rank("a", ["b"])


def test_progress_bar_follows_the_logger(
    tiny: Tiny, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = CrossEncoder(tiny("bert"))
    model.predict(PAIRS[:3])
    assert "Scoring" not in capsys.readouterr().err
    model.predict(PAIRS[:3], show_progress_bar=True)
    assert "Scoring: 100%" in capsys.readouterr().err
    with caplog.at_level("INFO", logger="fastce"):
        model.predict(PAIRS[:3])
    assert "Scoring" in capsys.readouterr().err


def test_number_of_threads(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCE_NUM_THREADS", "4")
    own, other = CrossEncoder(tiny("bert"), num_threads=1), CrossEncoder(tiny("bert"))
    seen: list[int | None] = []
    for model in (own, other):
        encoder = model.pipeline.built_encoder().encoder
        logits = encoder.logits
        monkeypatch.setattr(
            encoder, "logits", lambda batch, number, f=logits: (seen.append(number), f(batch, number))[1]
        )
    before = torch.get_num_threads()
    for number in (None, 3):
        fastce.set_num_threads(number)
        own.predict(PAIRS[:3])
        other.predict(PAIRS[:3])
    fastce.set_num_threads(None)
    assert seen == [1, 4, 1, 3]
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="number: expected a positive whole number, got 0"):
        fastce.set_num_threads(0)
    monkeypatch.setenv("FASTCE_NUM_THREADS", "many")
    with pytest.raises(ValueError, match="FASTCE_NUM_THREADS: expected a positive whole number, got 'many'"):
        CrossEncoder(tiny("bert"))


def test_an_unknown_precision(tiny: Tiny) -> None:
    for backend in ("auto", "reference"):
        with pytest.raises(ValueError, match="precision: expected one of fp32, bf16, fp16, int8, fp8, got 'fp4'"):
            CrossEncoder(tiny("bert"), backend=backend, precision="fp4")
    with pytest.raises(ValueError, match="got 'fp4'"):
        available_backends(precision="fp4")


def test_an_activation_with_parameters(tiny: Tiny) -> None:
    assert CrossEncoder(tiny("bert")).predict(PAIRS[:3], activation_fn=nn.PReLU()).shape == (3,)


def test_a_family_that_pads_on_the_left(tmp_path: Path) -> None:
    """XLNet reads its last token, has no limit of positions (-1 in its config) and takes token types."""
    config = XLNetConfig(vocab_size=300, d_model=32, n_layer=2, n_head=2, d_inner=40, num_labels=1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tokenizer = make_tokenizer("bert")
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(tmp_path)
    model = CrossEncoder(tmp_path, max_length=40)
    pairs = PAIRS[:20]
    expected = transformers_logits(model.model, model.tokenizer, pairs, 40)[:, 0]
    assert close_to(logits_of(model, pairs), expected, LOGITS)
    alone = transformers_logits(model.model, model.tokenizer, pairs[3:4], 40)[0, 0]
    assert close_to(logits_of(model, pairs[3]), alone, LOGITS)
