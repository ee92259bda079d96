"""ELECTRA (https://arxiv.org/abs/2003.10555), the discriminator: embeddings may be narrower than the layers."""

from __future__ import annotations

from typing import Any

from fastce.checkpoints.family import Family, bert_encoder_spec, bert_layer_names, classifier_dropout
from fastce.spec import EncoderSpec, HeadSpec, PositionScheme


def encoder(config: Any) -> EncoderSpec:
    """As BERT, with the width of the embeddings given separately."""
    return bert_encoder_spec(config, embedding_size=config.embedding_size, positions=PositionScheme())


def head(config: Any) -> HeadSpec:
    """Dropout, dense with GELU whatever the layers use, dropout, out_proj."""
    dropout = classifier_dropout(config)
    return HeadSpec(num_labels=config.num_labels, activation="gelu", input_dropout=dropout, dropout=dropout)


FAMILY = Family(
    encoder=encoder,
    head=head,
    names=bert_layer_names("electra")
    | {
        "embeddings.projection": "electra.embeddings_project",
        "head.dense": "classifier.dense",
        "head.output": "classifier.out_proj",
    },
    fresh=("classifier.",),
    unused=(
        "discriminator_predictions.",
        "generator_predictions.",
        "generator_lm_head.",
        "qa_outputs.",
        "electra.embeddings.position_ids",
        "embeddings.position_ids",
    ),
)
