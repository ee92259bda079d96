"""The Hugging Face module is made only when somebody asks for it."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import PAIRS
from tokenizers import normalizers
from tolerance import SAME_PAIR

from fastce import CrossEncoder, available_backends
from fastce.checkpoints import loading

Tiny = Callable[..., str]


@pytest.fixture
def modules_made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    load = loading.load_module
    monkeypatch.setattr(
        loading, "load_module", lambda source, *rest: (made.append(source.name), load(source, *rest))[1]
    )
    return made


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_scoring_needs_no_module(tiny: Tiny, modules_made: list[str], precision: str) -> None:
    model = CrossEncoder(tiny("bert"), precision=precision)
    before = model.predict(PAIRS)
    assert modules_made == []
    assert model.model is model.model
    assert modules_made == [tiny("bert")]
    assert np.abs(model.predict(PAIRS) - before).max() <= SAME_PAIR


def test_training_makes_one_module(tiny: Tiny, modules_made: list[str], tmp_path: Path) -> None:
    model = CrossEncoder(tiny("bert"))
    model.predict(PAIRS[:2])
    model.pipeline.built_encoder(training=True)
    model.save(tmp_path)
    assert len(modules_made) == 1


def test_a_fresh_head_is_the_one_that_scores(minilm: str, modules_made: list[str]) -> None:
    model = CrossEncoder(minilm)
    before = model.predict(PAIRS[:5])
    assert model.model is not None
    assert len(modules_made) == 1
    assert np.array_equal(model.predict(PAIRS[:5]), before)


def test_a_module_that_only_runs_as_itself_is_made(tiny: Tiny, modules_made: list[str]) -> None:
    CrossEncoder(tiny("ernie"))
    CrossEncoder(tiny("bert"), backend="transformers")
    assert len(modules_made) == 2


def test_a_model_in_the_cache_of_the_hub(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare name is looked for under the organization of the well-known cross-encoders."""
    repository = tmp_path / "models--cross-encoder--tiny"
    shutil.copytree(tiny("bert"), repository / "snapshots" / "a1")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a1")
    for name in ("cross-encoder/tiny", "tiny"):
        model = CrossEncoder(name, cache_folder=tmp_path)
        assert np.array_equal(model.predict(PAIRS[:3]), CrossEncoder(tiny("bert")).predict(PAIRS[:3]))


def test_weights_in_half_precision_are_read_as_float32(tiny: Tiny, tmp_path: Path) -> None:
    shutil.copytree(tiny("bert"), tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    save_file({name: value.half() for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
    description = CrossEncoder(tmp_path / "model").pipeline.checkpoint.network(with_module=False).description
    assert {stored.whole.dtype for stored in description.weights.values()} == {torch.float32}


@pytest.mark.parametrize("change", ["delete", "replace"])
def test_a_file_that_has_changed_since_is_not_taken_for_the_model(tiny: Tiny, tmp_path: Path, change: str) -> None:
    directory = Path(shutil.copytree(tiny("bert"), tmp_path / "model"))
    model = CrossEncoder(directory)
    scores = model.predict(PAIRS[:3])
    if change == "delete":
        shutil.rmtree(directory)
    else:
        CrossEncoder(tiny("bert", seed=3)).save(directory)
    assert np.array_equal(model.predict(PAIRS[:3]), scores)
    how = "is gone" if change == "delete" else "has changed"
    with pytest.raises(RuntimeError, match=rf"model\.safetensors {how} since the model was loaded"):
        model.save(tmp_path / "elsewhere")
    with pytest.raises(RuntimeError, match=rf"model\.safetensors {how} since the model was loaded"):
        available_backends(model)


def test_one_module_is_made_however_many_threads_ask(tiny: Tiny, modules_made: list[str]) -> None:
    model = CrossEncoder(tiny("bert"))
    together = threading.Barrier(8)

    def ask(number: int) -> Any:
        together.wait()
        return model.model if number % 2 else model.predict(PAIRS[:1]) is None or model.model

    with ThreadPoolExecutor(8) as threads:
        modules = list(threads.map(ask, range(8)))
    assert all(module is model.model for module in modules)
    assert len(modules_made) == 1


def change_head(file: Path) -> None:
    """Another head on the same encoder, in the same file."""
    weights = load_file(file)
    weights["classifier.weight"] += 1
    save_file(weights, file, metadata={"format": "pt"})


CHANGES: dict[str, Callable[[Path], object]] = {
    "is gone": lambda file: shutil.rmtree(file.parent),
    "has changed": change_head,
    "has changed and": lambda file: file.write_bytes(b"{broken"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_pickle_knows_its_file_again(tiny: Tiny, tmp_path: Path, change: str) -> None:
    directory = Path(shutil.copytree(tiny("bert"), tmp_path / "model"))
    model = CrossEncoder(directory)
    scores = model.predict(PAIRS[:3])
    pickled = pickle.dumps(model)
    assert len(pickled) < (directory / "model.safetensors").stat().st_size / 2, "it carries the weights"
    (directory / "model.safetensors").touch()
    assert np.array_equal(pickle.loads(pickled).predict(PAIRS[:3]), scores)
    trained = CrossEncoder(directory)
    with torch.no_grad():
        trained.model.classifier.weight += 1
    own = trained.predict(PAIRS[:3])
    carrying = pickle.dumps(trained)

    CHANGES[change](directory / "model.safetensors")
    for use in (lambda: pickle.loads(pickled).predict(PAIRS[:3]), lambda: pickle.loads(pickled).model):
        with pytest.raises(RuntimeError, match=rf"model/model\.safetensors {change}.* since the model was loaded"):
            use()
    assert np.array_equal(pickle.loads(carrying).predict(PAIRS[:3]), own)
    assert np.array_equal(model.predict(PAIRS[:3]), scores)


def add_token(model: CrossEncoder) -> None:
    model.tokenizer.add_tokens(["guitar,"])


def lower(model: CrossEncoder) -> None:
    model.tokenizer.backend_tokenizer.normalizer = normalizers.Replace("A", "guitar")


def truncate_left(model: CrossEncoder) -> None:
    model.tokenizer.truncation_side = "left"


@pytest.mark.parametrize("change", [None, add_token, lower, truncate_left])
def test_a_pickle_has_a_tokenizer_only_where_it_was_changed(tiny: Tiny, change: Callable[..., None] | None) -> None:
    model = CrossEncoder(tiny("bert"), max_length=12)
    model.predict(PAIRS[:3])
    if change is not None:
        change(model)
    pickled = pickle.dumps(model)
    assert (len(pickled) < 5_000) == (change is None)
    assert np.array_equal(pickle.loads(pickled).predict(PAIRS), model.predict(PAIRS))
    again = pickle.loads(pickle.dumps(pickle.loads(pickled)))  # which nobody has used
    assert (again.max_length, again.tokenizer.model_max_length) == (12, 12)


def test_a_pickle_knows_its_tokenizer_again(tiny: Tiny, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny("bert"), tmp_path / "model"))
    pickled = pickle.dumps(CrossEncoder(directory))
    file = directory / "tokenizer.json"
    file.write_text(file.read_text().replace('"guitar"', '"guitars"'))
    with pytest.raises(RuntimeError, match=r"the tokenizer of .*model has changed since the model was loaded"):
        pickle.loads(pickled).predict(PAIRS[:3])


def predict(model: CrossEncoder) -> Any:
    return model.predict(PAIRS[:3])


REMOTE_CODE = """
from transformers import BertConfig, BertForSequenceClassification
class OwnConfig(BertConfig):
    model_type = "own-bert"
class OwnModel(BertForSequenceClassification):
    config_class = OwnConfig
"""


def own_code(directory: Path) -> dict[str, Any]:
    (directory / "own.py").write_text(REMOTE_CODE)
    config = json.loads((directory / "config.json").read_text()) | {"model_type": "own-bert"}
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.OwnModel"}
    (directory / "config.json").write_text(json.dumps(config))
    return {"trust_remote_code": True}


OPTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "attention": lambda _: {"model_kwargs": {"attn_implementation": "eager"}},
    "what does not pickle": lambda _: {"model_kwargs": {"key_mapping": Unpicklable({"^bert": "bert"})}},
    "code of its own": own_code,
    "plain": lambda _: {},
}


class Unpicklable(dict[str, str]):
    def __reduce__(self) -> Any:
        raise TypeError("this does not pickle")


def test_spawned_processes_score(tiny: Tiny, tmp_path: Path) -> None:
    models = {}
    for name, options in OPTIONS.items():
        directory = Path(shutil.copytree(tiny("bert"), tmp_path / name))
        models[name] = CrossEncoder(directory, **options(directory))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for model, found in zip(models.values(), pool.map(predict, models.values()), strict=True):
            assert np.array_equal(found, model.predict(PAIRS[:3]))


WRITTEN_TO = """
import os, shutil, sys
from pathlib import Path
import numpy as np
sys.path.insert(0, {tests!r})
from tiny_models import SENTENCES
from fastce import CrossEncoder
PAIRS = [(first, second) for first in SENTENCES for second in SENTENCES]
for number, (backend, made) in enumerate({settings!r}):
    directory = shutil.copytree({directory!r}, Path({copies!r}) / str(number))
    file = directory / "model.safetensors"
    model = CrossEncoder(directory, backend=backend)
    if made: model.model
    before = model.predict(PAIRS)
    if {truncated}:
        os.truncate(file, 100)
    else:
        with open(file, "r+b") as stored:
            stored.seek(file.stat().st_size // 8)
            stored.write(bytes(file.stat().st_size // 2))
    assert np.abs(model.predict(PAIRS) - before).max() <= 1e-6, (backend, made)
    other_way = model.predict([tuple(reversed(pair)) for pair in PAIRS])
    assert np.abs(other_way.reshape(12, 12).T.ravel() - before).max() <= 1e-5, (backend, made)
"""


@pytest.mark.parametrize("truncated", [False, True])
def test_a_file_that_is_written_to_while_the_model_is_loaded(tiny: Tiny, tmp_path: Path, truncated: bool) -> None:
    """A child process, for a mapping of a file that has been truncated kills whoever reads it."""
    settings = [("auto", False), ("auto", True), ("reference", False), ("transformers", True)]
    program = WRITTEN_TO.format(
        tests=str(Path(__file__).parents[1]),
        directory=tiny("bert"),
        copies=str(tmp_path),
        settings=settings,
        truncated=truncated,
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2], timeout=100)
