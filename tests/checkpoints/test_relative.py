"""Relative positions: rows of the tables, and DeBERTa's many settings, against transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import PAIRS, make_tiny_model, make_tokenizer, transformers_logits
from tolerance import LOGITS, close_to
from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

from fastce import CrossEncoder
from fastce.checkpoints.deberta import encoder
from fastce.checkpoints.relative import Rows, linear_rows, logarithmic_buckets, symmetric_buckets


def row(rows: Rows, distance: int) -> int:
    """As engines read them."""
    reach = len(rows) // 2
    return rows[max(-reach, min(reach, distance)) + reach]


@pytest.mark.parametrize("buckets", [32, 64, 8])
def test_rows_of_biases(buckets: int) -> None:
    rows = symmetric_buckets(buckets, 128)
    distances = torch.arange(-700, 701)
    expected = MPNetEncoder.relative_position_bucket(distances, num_buckets=buckets)
    assert [row(rows, distance) for distance in distances.tolist()] == expected.tolist()
    assert len(rows) <= 2 * 128 + 1


@pytest.mark.parametrize(("buckets", "most"), [(256, 512), (12, 24), (32, 128), (-1, 40), (64, 2048)])
def test_rows_of_disentangled_attention(buckets: int, most: int) -> None:
    span = buckets if buckets > 0 else most
    rows = logarithmic_buckets(span, most) if buckets > 0 else linear_rows(span)
    length = 900
    layer = torch.empty(1, length, 1)
    relative = build_relative_position(layer, layer, buckets, most)[0]  # [queries, keys]
    expected = (relative + span).clamp(0, 2 * span - 1)
    for query in (0, 450, length - 1):
        assert [row(rows, key - query) for key in range(length)] == expected[query].tolist()


SETTINGS: dict[str, dict[str, Any]] = {
    "as published": {},
    "content to position": {"pos_att_type": "c2p"},
    "position to content": {"pos_att_type": ["p2c"]},
    "projections of their own": {"share_att_key": False},
    "projections of their own, one term": {"share_att_key": False, "pos_att_type": ["p2c"]},
    "no buckets": {"position_buckets": -1, "max_relative_positions": 10},
    "as many positions as tokens": {"position_buckets": -1, "max_relative_positions": -1},
    "no norm of the positions": {"norm_rel_ebd": "none"},
    "absolute positions too": {"position_biased_input": True},
    "token types": {"type_vocab_size": 2},
    "three classes": {"num_labels": 3, "pooler_dropout": 0.1, "cls_dropout": 0.2, "pooler_hidden_act": "tanh"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_deberta(tmp_path: Path, name: str) -> None:
    module, tokenizer = make_tiny_model("deberta-v2", **SETTINGS[name]), make_tokenizer("deberta-v2")
    if module.config.type_vocab_size:
        tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    expected = transformers_logits(module, tokenizer, PAIRS, 64).double()
    module.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for backend in ("cpp", "reference"):
        model = CrossEncoder(str(tmp_path), backend=backend)
        found = model.predict(PAIRS, activation_fn=torch.nn.Identity(), convert_to_tensor=True)
        assert model.backend == backend
        assert close_to(found.double().view(expected.shape), expected, LOGITS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"relative_attention": False}, "relative_attention=False in the config"),
        ({"conv_kernel_size": 3}, "conv_kernel_size=3 in the config; only 0"),
        ({"pos_att_type": ["p2p"]}, r"pos_att_type \['p2p'\] is not one or both of c2p, p2c"),
        ({"pos_att_type": None}, "pos_att_type None is not one or both"),
        ({"embedding_size": 30}, "embedding_size=30 in the config; only 60"),
        ({"attention_head_size": 10}, "attention_head_size=10 in the config; only 20"),
        ({"position_buckets": 11}, "position_buckets=11 in the config; only even numbers"),
        ({"norm_rel_ebd": "batch_norm"}, "norm_rel_ebd 'batch_norm' is not one of none, layer_norm"),
        ({"hidden_act": "mish"}, "activation 'mish' is not one of"),
    ],
)
def test_settings_that_are_not_described(changes: dict[str, Any], message: str) -> None:
    config = make_tiny_model("deberta-v2").config
    for name, value in changes.items():
        setattr(config, name, value)
    with pytest.raises(ValueError, match=message):
        encoder(config)
