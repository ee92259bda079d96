"""Steps and parameters, as they follow from descriptions."""

from __future__ import annotations

import pytest
from networks import NETWORKS

from fastce.parameters import parameters
from fastce.spec import LayerNorm, RMSNorm
from fastce.steps import Attend, Feed, num_labels, program


def ends(name: str) -> list[tuple[str, str]]:
    return [(step.end.name, step.end.keep) for step in program(*NETWORKS[name]).steps]


def test_norms_behind_sublayers_are_the_sublayers_own() -> None:
    network = program(*NETWORKS["as BERT"])
    assert network.first.norm is None
    assert ends("as BERT")[:2] == [("layers.0.attention_norm", "normed"), ("layers.0.feed_forward_norm", "normed")]
    assert ends("as BERT")[-1] == ("layers.2.feed_forward_norm", "normed")


def test_norms_before_sublayers_stand_behind_the_one_before() -> None:
    network = program(*NETWORKS["norms before sublayers"])
    assert (network.first.norm, network.first.name) == (LayerNorm(1e-5), "layers.0.attention_norm")
    assert ends("norms before sublayers") == [
        ("layers.0.feed_forward_norm", "sum"),
        ("layers.1.attention_norm", "sum"),
        ("layers.1.feed_forward_norm", "sum"),
        ("layers.2.attention_norm", "sum"),
        ("layers.2.feed_forward_norm", "sum"),
        ("final_norm", "sum"),
    ]


def test_a_norm_of_the_embeddings_is_the_first_sublayers() -> None:
    network = program(*NETWORKS["as ModernBERT"])
    assert network.first.norm is None
    assert "layers.0.attention_norm.weight" not in parameters(*NETWORKS["as ModernBERT"])


def test_shared_layers_have_one_name() -> None:
    network = program(*NETWORKS["shared layers"])
    assert [step.name for step in network.steps[::2]] == ["layers.0", "layers.0", "layers.2", "layers.0"]
    layers = {name.split(".")[1] for name in parameters(*NETWORKS["shared layers"]) if name.startswith("layers.")}
    assert layers == {"0", "2"}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_last_attention_computes_the_rows_that_the_head_reads(name: str) -> None:
    network = program(*NETWORKS[name])
    kinds = [type(step) for step in network.steps]
    assert kinds == [Attend, Feed] * (len(kinds) // 2)
    pooled = [step.pooled for step in network.steps if isinstance(step, Attend)]
    assert pooled == [False] * (len(pooled) - 1) + [network.head.pooling != "mean"]


def test_names_and_shapes_of_parameters() -> None:
    found = parameters(*NETWORKS["as Qwen"])
    assert found["layers.1.query.weight"] == ((56, 52), "matrix")
    assert found["layers.1.key.weight"] == ((28, 52), "matrix")
    assert found["layers.1.gate.weight"] == ((70, 52), "matrix")
    assert found["layers.1.down.weight"] == ((52, 70), "matrix")
    assert found["final_norm.weight"] == ((52,), "norm")
    assert found["head.0.weight"] == ((1, 52), "head matrix")
    assert not any(name.endswith("bias") for name in found)
    narrow = parameters(*NETWORKS["narrow embeddings"])
    assert narrow["embeddings.word.weight"] == ((50, 20), "table")
    assert narrow["embeddings.norm.bias"] == ((20,), "norm")
    assert narrow["embeddings.projection.weight"] == ((52, 20), "head matrix")


def test_norms_have_the_parameters_of_their_kind() -> None:
    for name, kind, has_bias in (
        ("as BERT", LayerNorm, True),
        ("norms without biases", LayerNorm, False),
        ("RMSNorm", RMSNorm, False),
    ):
        found = parameters(*NETWORKS[name])
        assert isinstance(program(*NETWORKS[name]).steps[0].end.norm, kind)
        assert ("layers.0.attention_norm.bias" in found) is has_bias


def test_labels_are_the_width_of_the_last_step() -> None:
    assert num_labels(NETWORKS["as BERT"][1]) == 2
    assert num_labels(NETWORKS["a longer chain"][1]) == 3
