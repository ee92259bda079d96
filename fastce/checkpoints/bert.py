"""BERT (https://arxiv.org/abs/1810.04805): the pooler is the head's dense layer."""

from __future__ import annotations

from typing import Any

from fastce.checkpoints.family import Family, bert_encoder_spec, bert_layer_names, classifier_dropout
from fastce.spec import EncoderSpec, HeadSpec, PositionScheme


def encoder(config: Any) -> EncoderSpec:
    """Positions count from 0 and every token has one."""
    return bert_encoder_spec(config, positions=PositionScheme())


def head(config: Any) -> HeadSpec:
    """Pooler with tanh, dropout, classifier."""
    return HeadSpec(
        num_labels=config.num_labels, activation="tanh", input_dropout=0.0, dropout=classifier_dropout(config)
    )


FAMILY = Family(
    encoder=encoder,
    head=head,
    names=bert_layer_names("bert") | {"head.dense": "bert.pooler.dense", "head.output": "classifier"},
    fresh=("classifier.", "bert.pooler."),
    unused=("cls.", "qa_outputs.", "bert.embeddings.position_ids", "embeddings.position_ids"),
)
