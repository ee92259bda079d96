"""Chains of sentence-transformers modules, read from and written for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
from tiny_models import CONFIGS, PAIRS, make_tokenizer
from tolerance import LOGITS, close_to
from torch import nn
from training_runs import loader
from transformers import AutoModel

from fastce import CrossEncoder, available_backends
from fastce.checkpoints import loading

Tiny = Callable[..., str]
FAMILIES = ["modernbert", "bert", "roberta"]


def write_chain(folder: Path, family: str, pooling: str = "cls", num_labels: int = 1) -> str:
    """What sentence-transformers saves of an Ettin reranker, with an encoder of any family."""
    tiny = CONFIGS[family]
    torch.manual_seed(0)
    encoder = AutoModel.from_config(tiny.config(**tiny.sizes))
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 1.5 / parameter.shape[1] ** 0.5)
    encoder.save_pretrained(folder / "encoder")
    tokenizer = make_tokenizer(family)
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(folder / "encoder")
    model = sentence_transformers.CrossEncoder(
        modules=[
            Transformer(str(folder / "encoder"), transformer_task="feature-extraction"),
            Pooling(60, pooling),
            Dense(60, 40, bias=False, activation_function=nn.GELU()),
            LayerNorm(40),
            Dense(40, num_labels, activation_function=nn.Identity(), module_output_name="scores"),
        ],
        activation_fn=nn.Identity(),
    )
    for module in list(model)[2:]:
        for parameter in module.parameters():
            nn.init.normal_(parameter, 0.3, 0.4)
    model.save_pretrained(str(folder / "chain"))
    return str(folder / "chain")


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Folders of chains, each written once."""
    written: dict[Any, str] = {}

    def get(family: str = "modernbert", pooling: str = "cls", num_labels: int = 1) -> str:
        key = (family, pooling, num_labels)
        if key not in written:
            written[key] = write_chain(tmp_path_factory.mktemp(family), *key)
        return written[key]

    return get


def theirs(folder: str) -> np.ndarray:
    scores: np.ndarray = sentence_transformers.CrossEncoder(folder).predict(PAIRS, show_progress_bar=False)
    return scores


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return close_to(torch.from_numpy(found), torch.from_numpy(expected), LOGITS)


@pytest.mark.parametrize("backend", ["auto", "reference", "transformers"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_sentence_transformers(
    chains: Callable[..., str], family: str, pooling: str, backend: str
) -> None:
    folder = chains(family, pooling)
    model = CrossEncoder(folder, backend=backend)
    assert model.backend == ("cpp" if backend == "auto" else backend)
    expected = theirs(folder)
    assert expected.std() > 0.1
    assert close(model.predict(PAIRS), expected)


def test_several_labels(chains: Callable[..., str]) -> None:
    folder = chains("modernbert", "cls", 3)
    model = CrossEncoder(folder)
    assert model.num_labels == 3
    assert close(model.predict(PAIRS), theirs(folder))
    with pytest.raises(ValueError, match="num_labels: 2, but the model's last module has 3"):
        CrossEncoder(folder, num_labels=2)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_trained_and_saved_loads_there_again(chains: Callable[..., str], family: str, tmp_path: Path) -> None:
    model = CrossEncoder(chains(family))
    before = model.predict(PAIRS)
    weights = {name: value.clone() for name, value in model.model.state_dict().items()}
    model.fit(loader(24, 8), warmup_steps=0, optimizer_params={"lr": 1e-3}, show_progress_bar=False)
    moved = [name for name, value in model.model.state_dict().items() if not torch.equal(value, weights[name])]
    assert len(moved) == len(dict(model.model.named_parameters())) - unread(family)
    after = model.predict(PAIRS)
    assert np.abs(after - before).max() > 0.01
    model.save(tmp_path / "saved")
    model.save(tmp_path / "saved")  # over itself
    assert np.array_equal(CrossEncoder(tmp_path / "saved").predict(PAIRS), after)
    assert close(theirs(str(tmp_path / "saved")), after)


def unread(family: str) -> int:
    """Parameters of the encoder that the chain does not read: a pooler's weight and bias."""
    return 0 if family == "modernbert" else 2


def test_the_engine_reads_the_files_without_a_module(
    chains: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "load_module", lambda *_: pytest.fail("a module was made"))
    assert CrossEncoder(chains()).predict(PAIRS[:3]).shape == (3,)


def changed(folder: str, tmp_path: Path, file: str, **changes: Any) -> Path:
    target = Path(shutil.copytree(folder, tmp_path / "changed"))
    content = json.loads((target / file).read_text())
    (target / file).write_text(json.dumps(content | changes))
    return target


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "max"}, "1_Pooling: pooling mode 'max' is not one of cls, mean"),
        ("1_Pooling/config.json", {"include_prompt": False}, "include_prompt=False leaves a prompt's tokens out"),
        ("2_Dense/config.json", {"activation_function": "os.system"}, "2_Dense: activation 'os.system' is none of"),
        ("2_Dense/config.json", {"use_residual": True}, "2_Dense: use_residual=True"),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "2_Dense: it reads 'token_embeddings'"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case=True, which fastce does not run"),
        ("2_Dense/config.json", {"out_features": 41}, "the chain's weights do not fit its configs"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "is a chain of Transformer, Pooling, Dense"),
    ],
)
def test_chains_that_nobody_can_describe(
    chains: Callable[..., str], tmp_path: Path, file: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        CrossEncoder(changed(chains(), tmp_path, file, **changes))


def test_modules_that_nobody_knows(chains: Callable[..., str], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(chains(), tmp_path / "changed"))
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:3]))
    (folder / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"2_Dense: no model\.safetensors in it"):
        CrossEncoder(folder)
    modules[3]["type"] = "sentence_transformers.models.Normalize"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match="3_LayerNorm: a Normalize module is none of Dense, LayerNorm, Dropout"):
        CrossEncoder(folder)
    (folder / "modules.json").write_text(json.dumps(modules[:2]))
    with pytest.raises(ValueError, match="the chain's last module is no Dense layer"):
        CrossEncoder(folder)


def test_broken_numbers_are_named(chains: Callable[..., str], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(chains(), tmp_path / "changed"))
    file = folder / "2_Dense" / "model.safetensors"
    weights = load_file(file)
    weights["linear.weight"][0, 0] = float("nan")
    save_file(weights, file)
    with pytest.raises(ValueError, match=r"NaN or infinity in chain\.0\.weight"):
        CrossEncoder(folder)


def test_a_limit_of_length_in_its_config(chains: Callable[..., str], tmp_path: Path) -> None:
    folder = changed(chains(), tmp_path, "sentence_bert_config.json", max_seq_length=12)
    model = CrossEncoder(folder)
    assert model.max_length == 12
    model.max_length = 9
    model.save(tmp_path / "saved")
    assert CrossEncoder(tmp_path / "saved").max_length == 9
    assert available_backends(CrossEncoder(folder))["cpp"]
