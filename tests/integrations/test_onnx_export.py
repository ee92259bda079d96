"""`fastce export --onnx`: ONNX Runtime computes what fastce does, on batches of any size and length."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from language_models import save_language_model
from tiny_models import CONFIGS, PAIRS, UNKNOWN_FAMILY
from torch import nn
from typer.testing import CliRunner

from fastce import CrossEncoder, export
from fastce.cli import app

Tiny = Callable[..., str]
pytestmark = pytest.mark.integrations
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def run_onnx(folder: Path, pairs: list[tuple[str, str]], batch_size: int, **padding: Any) -> np.ndarray:
    """Logits as somebody computes them who has the folder and no fastce, `[num_pairs, num_labels]`."""
    session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    names = [entry.name for entry in session.get_inputs()]
    assert {tuple(entry.shape) for entry in session.get_inputs()} == {("batch", "tokens")}
    logits = []
    for start in range(0, len(pairs), batch_size):
        first, second = map(list, zip(*pairs[start : start + batch_size], strict=True))
        encoded = tokenizer(first, second, **({"padding": True} | padding), truncation=True, return_tensors="np")
        logits.append(session.run(["logits"], {name: encoded[name].astype(np.int64) for name in names})[0])
    return np.concatenate(logits)


@pytest.mark.parametrize("family", [*CONFIGS, *UNKNOWN_FAMILY])
@pytest.mark.filterwarnings("ignore:the model runs padded")
def test_every_family(tiny: Tiny, tmp_path: Path, family: str) -> None:
    model = CrossEncoder(tiny(family, num_labels=3 if family == "electra" else 1), max_length=40)
    difference = export.export_onnx(model, tmp_path)
    expected = model.predict(PAIRS, activation_fn=nn.Identity()).reshape(len(PAIRS), -1)
    for batch_size, padding in ((1, {}), (7, {}), (len(PAIRS), {"padding": "max_length"})):
        assert np.abs(run_onnx(tmp_path, PAIRS, batch_size, **padding) - expected).max() < 2e-5
    assert difference < 1e-5


def test_the_command(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("bert")
    result = CliRunner().invoke(
        app, ["export", "--model", model, "--onnx", str(tmp_path / "out"), "--max-length", "16"]
    )
    assert result.exit_code == 0, result.output
    file = tmp_path / "out" / "onnx" / "model.onnx"
    assert re.fullmatch(rf"{file}: its logits differ by \d\.\de-\d\d at most from those of fastce\n", result.stdout)
    found = CrossEncoder(model, max_length=16).predict(PAIRS)
    assert np.array_equal(CrossEncoder(tmp_path / "out").predict(PAIRS), found)
    logits = run_onnx(tmp_path / "out", PAIRS, 5)[:, 0]
    assert np.abs(1 / (1 + np.exp(-logits)) - found).max() < 1e-5


def test_a_trained_model_is_exported_as_it_is(tiny: Tiny, tmp_path: Path) -> None:
    model = CrossEncoder(tiny("bert"), precision="int8", prompts={"ask": "ask: "}, default_prompt_name="ask")
    model.model.classifier.weight.data.mul_(-2)
    model.train()
    export.export_onnx(model, tmp_path)
    assert model.training
    expected = model.predict(PAIRS, prompt="", activation_fn=nn.Identity(), precision="fp32")
    assert np.abs(run_onnx(tmp_path, PAIRS, 16)[:, 0] - expected).max() < 2e-5


def test_what_differs_is_deleted(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = export.write_graph

    def other(module: Any, *rest: Any) -> None:
        module.classifier.bias.data.add_(0.01)
        write(module, *rest)

    monkeypatch.setattr(export, "write_graph", other)
    with pytest.raises(
        RuntimeError, match=r"its logits differ by \d\.\de-0[23] from those of fastce, and it was deleted"
    ):
        export.export_onnx(tiny("bert"), tmp_path)
    assert not list(tmp_path.rglob("*.onnx*"))


def test_what_can_not_be_exported(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a chain of modules"):
        export.export_onnx(save_language_model(tmp_path / "qwen"), tmp_path / "out")
    with pytest.raises(ValueError, match=r"model.onnx: expected a folder, which gets onnx/model.onnx"):
        export.export_onnx(tiny("bert"), tmp_path / "model.onnx")
    assert not (tmp_path / "out").exists()
