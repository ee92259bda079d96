from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from tiny_models import CONFIGS, PAIRS, make_tokenizer
from tokenizers import Tokenizer, models, processors
from tolerance import SAME_PAIR
from torch import nn
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from fastce import CrossEncoder
from fastce.checkpoints.sizes import check_sizes
from fastce.checkpoints.source import Source

Tiny = Callable[..., str]


@pytest.fixture
def directory(tiny: Tiny, tmp_path: Path) -> Path:
    """A saved BERT to spoil."""
    return Path(shutil.copytree(tiny("bert"), tmp_path / "model"))


def change_weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(directory / "model.safetensors")
    change(weights)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def change_json(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | changes))


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("kind", [AutoModel, AutoModelForMaskedLM])
def test_a_base_model_gets_a_fresh_head(tmp_path: Path, family: str, kind: Any) -> None:
    config = CONFIGS[family].config(**CONFIGS[family].sizes)
    if kind is AutoModelForMaskedLM and type(config) not in MODEL_FOR_MASKED_LM_MAPPING:
        pytest.skip("a language model, which is a reranker by itself")
    base = kind.from_config(config)
    base.save_pretrained(tmp_path)
    make_tokenizer(family).save_pretrained(tmp_path)
    model = CrossEncoder(tmp_path)
    assert model.num_labels == 1
    assert isinstance(model.activation_fn, nn.Sigmoid)
    assert CrossEncoder(tmp_path, num_labels=3).predict(PAIRS[:2]).shape == (2, 3)
    inner = getattr(base, base.base_model_prefix, base)
    loaded = getattr(model.model, model.model.base_model_prefix).get_input_embeddings()
    assert torch.equal(loaded.weight, inner.get_input_embeddings().weight)


def test_the_fresh_head_is_announced(minilm: str, caplog: pytest.LogCaptureFixture) -> None:
    library = logging.getLogger("transformers")
    library.addHandler(caplog.handler)
    before = library.level
    library.setLevel(logging.WARNING)
    try:
        CrossEncoder(minilm)
    finally:
        library.setLevel(before)
        library.removeHandler(caplog.handler)
    assert "classifier.weight" in caplog.text


def test_weights_left_over_are_named_and_do_no_harm(directory: Path) -> None:
    expected = CrossEncoder(directory).predict(PAIRS[:5])

    def change(weights: dict[str, torch.Tensor]) -> None:
        weights["loss_fct.weight"] = torch.ones(1)
        weights["bert.encoder.layer.2.output.dense.bias"] = torch.zeros(60)

    change_weights(directory, change)
    what = r"model: the network has no place for these weights: bert\.encoder\.layer\.2.*; loss_fct\.weight"
    with pytest.warns(UserWarning, match=what):
        model = CrossEncoder(directory)
    assert np.array_equal(model.predict(PAIRS[:5]), expected)
    with pytest.warns(UserWarning, match=what):
        assert CrossEncoder(directory, backend="transformers").model is not None


def test_all_missing_weights_are_in_one_error(directory: Path) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        del weights["bert.encoder.layer.1.output.dense.bias"]
        del weights["bert.embeddings.LayerNorm.weight"]
        weights["surprise"] = torch.zeros(1)

    change_weights(directory, change)
    missing = "missing: bert.embeddings.LayerNorm.weight; bert.encoder.layer.1.output.dense.bias"
    with (
        pytest.warns(UserWarning, match="no place for these weights: surprise"),
        pytest.raises(ValueError, match=f"the weights do not fit the config. {missing}"),
    ):
        CrossEncoder(directory)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_numbers_are_named(directory: Path, value: float) -> None:
    change_weights(directory, lambda weights: weights["bert.encoder.layer.1.output.dense.weight"][3].fill_(value))
    with pytest.raises(ValueError, match=r"NaN or infinity in bert\.encoder\.layer\.1\.output\.dense\.weight"):
        CrossEncoder(directory)


def test_a_directory_without_config(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json in it; expected a model's directory or a Hub id"):
        CrossEncoder(tmp_path)


def test_a_file_is_no_directory(directory: Path) -> None:
    with pytest.raises(ValueError, match="it is a file, not a directory"):
        CrossEncoder(directory / "config.json")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no-such-model", "not in the Hub's local cache, and local_files_only keeps off the network; allow it, or"),
        ("nobody/no-such-model", r".*, or fetch it .* \(hf download nobody/no-such-model\) and give its directory"),
        ("./no/such/folder", "no model of that name on the Hub or in its local cache"),
    ],
)
def test_an_unknown_name(name: str, reason: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"{name}: no directory here, and {reason}"):
        CrossEncoder(name, local_files_only=True)


@pytest.mark.parametrize(
    ("is_offline", "reason"),
    [(True, "HF_HUB_OFFLINE keeps off the network; unset it"), (False, "http://nowhere can't be reached; try again")],
)
def test_a_hub_that_is_not_asked_or_not_there(monkeypatch: pytest.MonkeyPatch, is_offline: bool, reason: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", is_offline)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://nowhere")

    def not_there(*_: object, **__: object) -> None:
        raise OSError("a hint of several lines") from LocalEntryNotFoundError("no connection")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", not_there)
    monkeypatch.setattr("fastce.checkpoints.source.find_file", lambda *_: None)
    with pytest.raises(FileNotFoundError, match=f"nobody/no-such-model: no directory here, and not in .*{reason}"):
        CrossEncoder("nobody/no-such-model")


@pytest.mark.parametrize("kept", [0, 7, 500, -100])
def test_truncated_weights(directory: Path, kept: int) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model\.safetensors is corrupt or truncated"):
        CrossEncoder(directory)


def test_a_config_that_is_no_json(directory: Path) -> None:
    (directory / "config.json").write_text("{broken")
    with pytest.raises(ValueError, match=r"config\.json"):
        CrossEncoder(directory)


def test_no_weights_at_all(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no file named model"):
        CrossEncoder(directory)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_folder_without_the_tokenizers_files(tiny: Tiny, tmp_path: Path, family: str) -> None:
    directory = Path(shutil.copytree(tiny(family), tmp_path / "model"))
    (directory / "tokenizer.json").unlink()
    complaint = r"model: its tokenizer('s files are missing or broken| knows \d tokens, all special)"
    with pytest.raises(ValueError, match=complaint):
        CrossEncoder(directory)
    (directory / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match=complaint):
        CrossEncoder(directory)


def test_a_tokenizer_of_another_model(directory: Path) -> None:
    make_tokenizer("roberta").save_pretrained(directory)
    CrossEncoder(directory)  # a smaller vocabulary than the table can be meant
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2} | {f"word{number}": number for number in range(3, 400)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(directory)
    with pytest.raises(ValueError, match=r"has tokens up to id 399, but the embedding table 300 rows"):
        CrossEncoder(directory)


def test_special_tokens_beyond_the_table(directory: Path) -> None:
    vocabulary = {"[UNK]": 0} | {f"word{number}": number for number in range(1, 300)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["[CLS]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", pair="[CLS] $A [CLS] $B", special_tokens=[("[CLS]", 300)]
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, cls_token="[CLS]").save_pretrained(directory)
    with pytest.raises(ValueError, match=r"has special tokens around a pair up to id 300, but the embedding table 300"):
        CrossEncoder(directory)


def test_added_tokens_beyond_the_table_are_said(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.add_tokens([f"[NEW{number}]" for number in range(300)])
    tokenizer.save_pretrained(directory)
    expected = CrossEncoder(directory).predict(PAIRS[:3])
    assert f"added tokens up to id {len(tokenizer) - 1}, but the embedding table 300 rows" in caplog.text
    model = CrossEncoder(directory)
    with pytest.raises((ValueError, IndexError), match=r"299|id|range"):
        model.predict([("[NEW299]", "b")])
    model.model.resize_token_embeddings(len(model.tokenizer))
    assert np.abs(model.predict(PAIRS[:3]) - expected).max() <= SAME_PAIR
    assert np.isfinite(model.predict([("[NEW299]", "b")])).all()


def test_another_number_of_labels_than_the_head_has(directory: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"wrong shape: classifier\.bias is \[1\], not \[4\]; classifier\.weight is \[1, 60\], not \[4, 60\]",
    ):
        CrossEncoder(directory, num_labels=4)
    with pytest.raises(ValueError, match="num_labels: expected a positive whole number, got 0"):
        CrossEncoder(directory, num_labels=0)


def test_pickled_weights_are_read_without_running_code(directory: Path) -> None:
    expected = CrossEncoder(directory).predict(PAIRS[:5])
    weights = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    torch.save(weights, directory / "pytorch_model.bin")
    assert np.abs(CrossEncoder(directory).predict(PAIRS[:5]) - expected).max() <= SAME_PAIR


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('code from a pickle ran')",))


def test_a_pickle_with_code_is_refused(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    torch.save({"bert.pooler.dense.bias": Payload()}, directory / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin"):
        CrossEncoder(directory)
    with pytest.raises(ValueError, match="weights_only=False would run code from a pickle"):
        CrossEncoder(directory, model_kwargs={"weights_only": False})


def test_safetensors_come_before_pickles(directory: Path) -> None:
    torch.save({"bert.pooler.dense.bias": Payload()}, directory / "pytorch_model.bin")
    CrossEncoder(directory)


def test_checkpoints_in_half_precision_are_computed_in_float32(directory: Path) -> None:
    module = AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float16)
    module.save_pretrained(directory)
    model = CrossEncoder(directory)
    assert model.pipeline.precision == "fp32"
    assert {parameter.dtype for parameter in model.model.parameters()} == {torch.float32}


SIGMOID, TANH, RELU = (f"torch.nn.modules.activation.{name}" for name in ("Sigmoid", "Tanh", "ReLU"))


def test_activation_functions_are_read_from_all_places_in_order(directory: Path) -> None:
    assert isinstance(CrossEncoder(directory).activation_fn, nn.Sigmoid)
    config, metadata = directory / "config.json", directory / "config_sentence_transformers.json"
    change_json(config, sbert_ce_default_activation_function=RELU)
    assert isinstance(CrossEncoder(directory).activation_fn, nn.ReLU)
    change_json(config, sentence_transformers={"activation_fn": TANH})
    assert isinstance(CrossEncoder(directory).activation_fn, nn.Tanh)
    change_json(metadata, model_type="CrossEncoder", activation_fn=SIGMOID)
    assert isinstance(CrossEncoder(directory).activation_fn, nn.Sigmoid)
    assert isinstance(CrossEncoder(directory, activation_fn=nn.Identity()).activation_fn, nn.Identity)


def test_several_labels_default_to_logits(tiny: Tiny) -> None:
    assert isinstance(CrossEncoder(tiny("bert", num_labels=3)).activation_fn, nn.Identity)


def test_activation_functions_are_never_imported(directory: Path) -> None:
    change_json(directory / "config.json", sbert_ce_default_activation_function="os.system")
    with pytest.raises(ValueError, match=r"activation function 'os\.system', which is not one of"):
        CrossEncoder(directory)
    assert CrossEncoder(directory, activation_fn=nn.Identity()).num_labels == 1


def test_a_language_model_whose_tokenizer_has_no_answers_is_refused(directory: Path) -> None:
    change_json(directory / "config.json", architectures=["Qwen3ForCausalLM"])
    with pytest.raises(ValueError, match="a language model is scored by its answers, and its tokenizer has no 'no'"):
        CrossEncoder(directory)


def test_a_snapshot_whose_weights_are_still_to_come(tiny: Tiny, tmp_path: Path) -> None:
    """The first files of a model on the Hub are there before its weights are."""
    shutil.copy(Path(tiny("bert")) / "config.json", tmp_path)
    config = AutoConfig.from_pretrained(tmp_path, vocab_size=30_000, hidden_size=60_000)
    check_sizes(Source(str(tmp_path), {}), config)
    shutil.copy(Path(tiny("bert")) / "model.safetensors", tmp_path)
    with pytest.raises(ValueError, match=r"hidden_size is 60000, .* more than"):
        check_sizes(Source(str(tmp_path), {}), config)


def test_weights_that_are_no_plain_numbers_are_not_read_as_such(directory: Path) -> None:
    change_json(directory / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    with pytest.raises((ImportError, ValueError, RuntimeError)):  # bitsandbytes is not installed
        CrossEncoder(directory)


def test_a_model_made_in_inference_mode(directory: Path) -> None:
    expected = CrossEncoder(directory).predict(PAIRS[:5])
    with torch.inference_mode():
        model = CrossEncoder(directory)
        assert model.model is not None
        assert np.abs(model.predict(PAIRS[:5]) - expected).max() <= SAME_PAIR
