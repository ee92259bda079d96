from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import CommitInfo
from safetensors.torch import load_file
from tiny_models import CONFIGS, PAIRS, UNKNOWN_FAMILY, transformers_logits
from tolerance import LOGITS, close_to
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertJapaneseTokenizer

from fastce import CrossEncoder, InputExample
from fastce.checkpoints import saving

Tiny = Callable[..., str]


@pytest.mark.parametrize("family", [*CONFIGS, *UNKNOWN_FAMILY])
def test_what_is_saved_loads_everywhere(tiny: Tiny, tmp_path: Path, family: str) -> None:
    from sentence_transformers import CrossEncoder as Reference

    model = CrossEncoder(tiny(family), activation_fn=nn.Tanh())
    scores = model.predict(PAIRS)
    model.save_pretrained(tmp_path, safe_serialization=True)
    assert (CrossEncoder(tmp_path).predict(PAIRS) == scores).all()
    reference = Reference(str(tmp_path))
    assert isinstance(reference.activation_fn, nn.Tanh)
    assert np.abs(reference.predict(PAIRS) - scores).max() <= LOGITS
    module = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    logits = transformers_logits(module, AutoTokenizer.from_pretrained(tmp_path), PAIRS, 64)
    assert close_to(logits[:, 0].tanh(), torch.from_numpy(scores), LOGITS)


def test_saved_weights_are_the_loaded_ones_bit_for_bit(tiny: Tiny, tmp_path: Path) -> None:
    CrossEncoder(tiny("bert")).save(tmp_path)
    before, after = (load_file(Path(folder) / "model.safetensors") for folder in (tiny("bert"), tmp_path))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_activation_function_is_written_to_every_place(tiny: Tiny, tmp_path: Path) -> None:
    CrossEncoder(tiny("bert"), activation_fn=nn.Identity()).save(tmp_path)
    path = "torch.nn.modules.linear.Identity"
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["sbert_ce_default_activation_function"] == path
    assert config["sentence_transformers"]["activation_fn"] == path
    assert json.loads((tmp_path / "config_sentence_transformers.json").read_text())["activation_fn"] == path


def test_an_activation_function_without_a_name_is_not_saved_but_said(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="is no plain torch.nn class and is not saved"):
        CrossEncoder(tiny("bert"), activation_fn=torch.sin).save(tmp_path)
    assert isinstance(CrossEncoder(tmp_path).activation_fn, nn.Sigmoid)


def test_prompts_are_saved(tiny: Tiny, tmp_path: Path) -> None:
    CrossEncoder(tiny("bert"), prompts={"ask": "Is "}, default_prompt_name="ask").save(tmp_path)
    loaded = CrossEncoder(tmp_path)
    assert (loaded.prompts, loaded.default_prompt_name) == ({"ask": "Is "}, "ask")


def test_models_saved_by_sentence_transformers_6_load(tiny: Tiny, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder as Reference

    reference = Reference(tiny("bert"), activation_fn=nn.Tanh(), max_length=20)
    reference.save_pretrained(str(tmp_path))
    assert (tmp_path / "modules.json").exists()
    model = CrossEncoder(tmp_path)
    assert (type(model.activation_fn), model.max_length) == (nn.Tanh, 20)
    assert np.abs(model.predict(PAIRS) - reference.predict(PAIRS)).max() <= LOGITS


@pytest.mark.parametrize(
    "field",
    [
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.1.0"}},
    ],
)
def test_models_saved_by_sentence_transformers_2_and_4_load(tiny: Tiny, tmp_path: Path, field: dict[str, Any]) -> None:
    """Both wrote what transformers writes, and their field into config.json; 2 before 2.6 pickled the weights."""
    module = AutoModelForSequenceClassification.from_pretrained(tiny("bert"))
    for name, value in field.items():
        setattr(module.config, name, value)
    module.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny("bert")).save_pretrained(tmp_path)
    if "sbert_ce_default_activation_function" in field:
        weights = load_file(tmp_path / "model.safetensors")
        (tmp_path / "model.safetensors").unlink()
        torch.save(weights, tmp_path / "pytorch_model.bin")
    model = CrossEncoder(tmp_path)
    assert isinstance(model.activation_fn, nn.Identity)
    expected = transformers_logits(module, model.tokenizer, PAIRS, 64)[:, 0]
    assert close_to(torch.from_numpy(model.predict(PAIRS)), expected, LOGITS)


def test_an_interrupted_save_leaves_the_old_model(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CrossEncoder(tiny("bert")).save(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(saving, "write_metadata", crash)
    with pytest.raises(KeyboardInterrupt):
        CrossEncoder(tiny("bert", seed=3)).save(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_other_files_in_the_directory_stay(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("epoch,steps\n")
    CrossEncoder(tiny("bert")).save(tmp_path / "deep" / "model")
    CrossEncoder(tiny("bert")).save(tmp_path)
    assert (tmp_path / "results.csv").read_text() == "epoch,steps\n"
    assert (tmp_path / "deep" / "model" / "model.safetensors").exists()


def other_adapter(directory: Path, tiny: Tiny) -> None:
    peft = pytest.importorskip("peft")
    model = CrossEncoder(tiny("bert", seed=5))
    model.add_adapter(peft.LoraConfig(r=3, target_modules=["query"], init_lora_weights=False))
    model.model.save_pretrained(directory)


def other_pickle(directory: Path, tiny: Tiny) -> None:
    torch.save(load_file(Path(tiny("bert", seed=5)) / "model.safetensors"), directory / "pytorch_model.bin")


def other_shards(directory: Path, tiny: Tiny) -> None:
    module = AutoModelForSequenceClassification.from_pretrained(tiny("bert", seed=5))
    module.save_pretrained(directory, max_shard_size="50KB")
    assert (directory / "model.safetensors.index.json").exists()


def other_chain(directory: Path, tiny: Tiny) -> None:
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(tiny("bert", seed=5)).save(str(directory))
    (directory / "sentence_bert_config.json").write_text('{"max_seq_length": 5, "do_lower_case": true}')


def other_tokenizer(directory: Path, tiny: Tiny) -> None:
    AutoTokenizer.from_pretrained(tiny("roberta")).save_pretrained(directory)
    (directory / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    (directory / "added_tokens.json").write_text('{"guitar": 7}')


@pytest.mark.parametrize("other", [other_adapter, other_pickle, other_shards, other_chain, other_tokenizer])
def test_what_another_model_left_goes(tiny: Tiny, tmp_path: Path, other: Callable[[Path, Tiny], None]) -> None:
    from sentence_transformers import CrossEncoder as Reference

    other(tmp_path, tiny)
    for name in ("README.md", "results.csv", "model.txt", "deep.safetensors", "notes/vocab.txt", "train_config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    model = CrossEncoder(tiny("bert"))
    scores = model.predict(PAIRS)
    model.save(tmp_path)
    assert (CrossEncoder(tmp_path).predict(PAIRS) == scores).all()
    assert np.abs(Reference(str(tmp_path)).predict(PAIRS) - scores).max() <= LOGITS
    module = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    logits = transformers_logits(module, AutoTokenizer.from_pretrained(tmp_path), PAIRS, 64)
    assert close_to(logits[:, 0].sigmoid(), torch.from_numpy(scores), LOGITS)
    weights = [file for file in tmp_path.iterdir() if file.suffix in (".safetensors", ".bin")]
    assert {file.name for file in weights} == {"model.safetensors", "deep.safetensors"}
    for name in ("README.md", "results.csv", "model.txt", "deep.safetensors", "notes/vocab.txt", "train_config.json"):
        assert (tmp_path / name).read_text() == "mine"


def test_a_python_tokenizer_takes_the_place_of_a_fast_one(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "guitar", "yes"]))
    model = CrossEncoder(tiny("bert"))
    model.save(tmp_path)
    model.tokenizer = BertJapaneseTokenizer(str(tmp_path / "words.txt"), word_tokenizer_type="basic")
    scores = model.predict(PAIRS)
    model.save(tmp_path)
    assert (CrossEncoder(tmp_path).predict(PAIRS) == scores).all()
    assert not (tmp_path / "tokenizer.json").exists()


def test_several_chat_templates_are_saved_again_and_again(tiny: Tiny, tmp_path: Path) -> None:
    model = CrossEncoder(tiny("bert"))
    model.tokenizer.chat_template = {"default": "{{ messages }}", "tools": "{{ tools }}", "rag": "{{ documents }}"}
    model.save(tmp_path)
    model.tokenizer.chat_template = {"default": "{{ messages }}", "tools": "{{ tools }} changed"}
    model.save(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == model.tokenizer.chat_template
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".saving-")]


def test_fit_saves_a_tokenizer_with_several_chat_templates_twice(tiny: Tiny, tmp_path: Path) -> None:
    model = CrossEncoder(tiny("bert"))
    model.tokenizer.chat_template = {"default": "{{ messages }}", "tools": "{{ tools }}"}
    grades = iter((0.1, 0.2, 0.3))
    batch = [InputExample(texts=list(pair), label=0.5) for pair in PAIRS[:4]]
    model.fit([batch], evaluator=lambda *_, **__: next(grades), epochs=3, output_path=tmp_path, show_progress_bar=False)
    assert (CrossEncoder(tmp_path).predict(PAIRS) == model.predict(PAIRS)).all()


def test_pushing_uploads_what_is_saved(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, Any] = {}

    class Api:
        def __init__(self, token: str | None):
            calls["token"] = token

        def create_repo(self, repo_id: str, **options: Any) -> Any:
            calls["private"] = options["private"]
            return type("Repository", (), {"repo_id": f"me/{repo_id}"})

        def upload_folder(self, *, repo_id: str, folder_path: str, **options: Any) -> Any:
            calls["card"] = (Path(folder_path) / "README.md").read_text()
            calls["files"] = {file.name for file in Path(folder_path).iterdir()}
            calls["options"] = options
            place = f"https://huggingface.co/{repo_id}"
            return CommitInfo(
                f"{place}/commit/1", commit_message="", commit_description="", oid="1", pr_url=f"{place}/discussions/2"
            )

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    model = CrossEncoder(tiny("bert"))
    found = model.push_to_hub("mine", token="t", private=True, create_pr=True)
    assert found == "https://huggingface.co/me/mine/discussions/2"
    assert (calls["token"], calls["private"], calls["options"]["create_pr"]) == ("t", True, True)
    assert 'CrossEncoder("mine")' in calls["card"]
    assert model.push_to_hub("mine") == "https://huggingface.co/me/mine/commit/1"
    assert {"config.json", "model.safetensors", "tokenizer.json", "config_sentence_transformers.json"} <= calls["files"]
