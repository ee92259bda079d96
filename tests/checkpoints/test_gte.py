"""GTE's older files: other names, the config of code that is in their folder, and what is not read of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import PAIRS, make_tiny_model
from transformers import AutoModelForSequenceClassification
from transformers.models.gte.modeling_gte import GteRotaryEmbedding

from fastce import CrossEncoder
from fastce.checkpoints.gte import config_of_older_files, encoder
from fastce.spec import RotaryEmbedding

Tiny = Callable[..., str]

OLD = {
    "model_type": "new",
    "architectures": ["NewForSequenceClassification"],
    "auto_map": {"AutoConfig": "someone/new-impl--configuration.NewConfig"},
    "layer_norm_type": "layer_norm",
    "logn_attention_clip1": False,
    "logn_attention_scale": False,
    "pack_qkv": True,
    "position_embedding_type": "rope",
    "rope_theta": 20000,
    "rope_scaling": {"factor": 8.0, "type": "ntk"},
    "unpad_inputs": False,
    "use_memory_efficient_attention": False,
}


def make_old(directory: Path, **changes: Any) -> str:
    """Turns a saved model into one of the older files: their names, their config, no code."""
    path = directory / "model.safetensors"
    weights = load_file(path)
    save_file({name.replace("gte.", "new.", 1): weight for name, weight in weights.items()}, path)
    config = json.loads((directory / "config.json").read_text())
    kept = {name: value for name, value in config.items() if name not in ("rope_parameters", "transformers_version")}
    (directory / "config.json").write_text(json.dumps(kept | OLD | changes))
    return str(directory)


def frequencies_of_their_code(theta: float, factor: float, dim: int) -> torch.Tensor:
    """NTK scaling (https://kexue.fm/archives/9706) as the older code has it: a larger base, and a common divisor."""
    return 1.0 / ((theta * factor) ** (torch.arange(0, dim, 2).float() / dim)) / factor ** (2 / dim)


def test_frequencies_of_older_files() -> None:
    config = config_of_older_files(OLD | {"hidden_size": 768, "num_attention_heads": 12})
    expected = frequencies_of_their_code(20000, 8.0, 64)
    relation = encoder(config).layers[0].attention.relation
    assert isinstance(relation, RotaryEmbedding)
    assert torch.allclose(torch.tensor(relation.frequencies), expected, rtol=1e-6)
    assert torch.allclose(GteRotaryEmbedding(config).inv_freq, expected, rtol=1e-6)


def test_older_files_load_without_their_code(tiny: Tiny, tmp_path: Path) -> None:
    make_tiny_model("gte").save_pretrained(tmp_path)
    CrossEncoder(tiny("gte")).tokenizer.save_pretrained(tmp_path)
    model = CrossEncoder(make_old(tmp_path))
    scores = model.predict(PAIRS)
    assert model.backend == "cpp"
    assert model.pipeline.checkpoint._module is None, "read from the file, by our own table"
    module = make_tiny_model("gte", rope_parameters=model.config.rope_parameters)
    theirs = CrossEncoder(tiny("gte"))
    theirs.model = module
    assert np.array_equal(theirs.predict(PAIRS), scores)
    assert not np.allclose(CrossEncoder(tiny("gte")).predict(PAIRS), scores, atol=1e-3), "scaling changes nothing"
    reference = CrossEncoder(str(tmp_path), backend="transformers")
    assert np.allclose(reference.predict(PAIRS), scores, atol=1e-5)
    model.save(str(tmp_path / "saved"))
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["model_type"] == "gte"
    assert np.array_equal(CrossEncoder(str(tmp_path / "saved")).predict(PAIRS), scores)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert torch.equal(again.gte.layers[0].mlp.up_proj.weight, module.gte.layers[0].mlp.up_proj.weight)


def test_new_files_are_read_by_our_own_table(tiny: Tiny) -> None:
    model = CrossEncoder(tiny("gte"))
    model.predict(PAIRS[:3])
    assert model.pipeline.checkpoint._module is None


@pytest.mark.parametrize(
    "changes",
    [
        {"layer_norm_type": "rms_norm"},
        {"position_embedding_type": "absolute"},
        {"logn_attention_scale": True},
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        {"rope_scaling": {"type": "ntk", "factor": 2.0, "mixed_b": 0.5}},
    ],
)
def test_what_older_files_ask_for_and_nobody_describes(tiny: Tiny, tmp_path: Path, changes: dict[str, Any]) -> None:
    make_tiny_model("gte").save_pretrained(tmp_path)
    CrossEncoder(tiny("gte")).tokenizer.save_pretrained(tmp_path)
    name = next(iter(changes))
    with pytest.raises(ValueError, match=rf"{name}.*; trust_remote_code=True runs the model's own code"):
        CrossEncoder(make_old(tmp_path, **changes))
