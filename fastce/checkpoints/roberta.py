"""RoBERTa (https://arxiv.org/abs/1907.11692), XLM-RoBERTa (https://arxiv.org/abs/1911.02116) and CamemBERT."""

from __future__ import annotations

from typing import Any

from fastce.checkpoints.family import Family, bert_encoder_spec, bert_layer_names, classifier_dropout
from fastce.spec import EncoderSpec, HeadSpec, PositionScheme


def encoder(config: Any) -> EncoderSpec:
    """Positions count from the padding id on, and a padding token inside a text takes none."""
    padding_id = config.pad_token_id
    return bert_encoder_spec(config, positions=PositionScheme(offset=padding_id + 1, padding_id=padding_id))


def head(config: Any) -> HeadSpec:
    """Dropout, dense with tanh, dropout, out_proj."""
    dropout = classifier_dropout(config)
    return HeadSpec(num_labels=config.num_labels, activation="tanh", input_dropout=dropout, dropout=dropout)


FAMILY = Family(
    encoder=encoder,
    head=head,
    names=bert_layer_names("roberta") | {"head.dense": "classifier.dense", "head.output": "classifier.out_proj"},
    fresh=("classifier.",),
    unused=(
        "lm_head.",
        "qa_outputs.",
        "pooler.",
        "roberta.pooler.",
        "roberta.embeddings.position_ids",
        "embeddings.position_ids",
    ),
)
