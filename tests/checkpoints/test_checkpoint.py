"""The Hugging Face module is made only when somebody asks for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import CONFIGS, PAIRS, make_tiny_model
from tolerance import SAME_PAIR

from fastce import CrossEncoder
from fastce.checkpoints import loading
from fastce.checkpoints.network import FAMILIES, describe

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
    CrossEncoder(tiny("albert"))
    CrossEncoder(tiny("bert"), backend="transformers")
    assert len(modules_made) == 2


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_knows_the_shapes_of_its_weights(family: str) -> None:
    module = make_tiny_model(family, num_labels=3)
    description = describe(module).description
    assert description is not None
    shapes = {name: tuple(weight.shape) for name, weight in description.weights.items()}
    assert FAMILIES[family].parameter_shapes(description.encoder, description.head) == shapes


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
    from safetensors.torch import save_file

    shutil.copytree(tiny("bert"), tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    save_file({name: value.half() for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
    description = CrossEncoder(tmp_path / "model").pipeline.checkpoint.network(with_module=False).description
    assert description is not None
    assert {weight.dtype for weight in description.weights.values()} == {torch.float32}


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
    with pytest.raises(RuntimeError, match=r"model\.safetensors has changed since the model was loaded"):
        model.save(tmp_path / "elsewhere")
