"""Their names to ours: where each parameter is, whole or stacked with others, and rotary frequencies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import NETWORKS
from tiny_models import CONFIGS, make_tiny_model
from transformers import LlamaConfig, ModernBertConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from fastce.checkpoints.family import Place, places, stored_shapes
from fastce.checkpoints.network import FAMILIES, network_of
from fastce.checkpoints.rotary import rotary_embedding


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_knows_the_shapes_of_its_weights(family: str) -> None:
    module = make_tiny_model(family, num_labels=3)
    known, config = FAMILIES[family], module.config
    encoder, head = known.encoder(config), known.head(config)
    found = places(known.classifier_names, encoder, head)
    expected = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    assert stored_shapes(found, encoder, head) == expected
    stored = network_of(module).description.weights
    assert stored.keys() == found.keys()
    for name, place in found.items():
        whole = module.get_parameter(place.name)
        assert stored[name].whole is whole
        assert torch.equal(stored[name].tensor, whole if place.rows is None else whole[place.rows])


def test_stacked_rows_have_places_of_their_own() -> None:
    encoder, head = NETWORKS["as Qwen"]
    names = {
        "tokens": "embeddings.word",
        "blocks.{}.n1": "layers.{}.attention_norm",
        "blocks.{}.qkv": ("layers.{}.query", "layers.{}.key", "layers.{}.value"),
        "blocks.{}.qn": "layers.{}.query_norm",
        "blocks.{}.kn": "layers.{}.key_norm",
        "blocks.{}.out": "layers.{}.attention_output",
        "blocks.{}.n2": "layers.{}.feed_forward_norm",
        "blocks.{}.wide": ("layers.{}.up", "layers.{}.gate"),
        "blocks.{}.narrow": "layers.{}.down",
        "norm": "final_norm",
        "score": "head.0",
    }
    found = places(names, encoder, head)
    assert found["layers.2.query.weight"] == Place("blocks.2.qkv.weight", slice(0, 56))
    assert found["layers.2.value.weight"] == Place("blocks.2.qkv.weight", slice(84, 112))
    assert found["layers.0.gate.weight"] == Place("blocks.0.wide.weight", slice(70, 140))
    assert stored_shapes(found, encoder, head)["blocks.0.wide.weight"] == (140, 52)
    del names["blocks.{}.n2"]
    with pytest.raises(ValueError, match=r"no names for layers\.0\.feed_forward_norm\.weight"):
        places(names, encoder, head)


SCALINGS: list[dict[str, Any]] = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 4.0},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
]


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda scaling: scaling["rope_type"])
def test_frequencies_are_those_of_transformers(scaling: dict[str, Any]) -> None:
    config = LlamaConfig(
        hidden_size=64,
        num_attention_heads=4,
        max_position_embeddings=128,
        rope_parameters={"rope_theta": 5000.0} | scaling,
    )
    theirs = LlamaRotaryEmbedding(config)
    ours = rotary_embedding(config, 16)
    assert ours.frequencies == tuple(theirs.inv_freq.tolist())
    assert ours.scale == pytest.approx(theirs.attention_scaling)


def test_frequencies_that_change_with_the_length_are_refused() -> None:
    config = ModernBertConfig(rope_scaling={"rope_type": "dynamic", "factor": 2.0})
    with pytest.raises(ValueError, match="rope_type 'dynamic' in the config is not one of default, linear"):
        rotary_embedding(config, 64, "full_attention")
