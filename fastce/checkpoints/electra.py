"""ELECTRA (https://arxiv.org/abs/2003.10555), the discriminator: embeddings may be narrower than the layers."""

from __future__ import annotations

from typing import Any

from fastce.checkpoints.family import Family, bert_encoder, bert_names, classifier_dropout
from fastce.spec import Dense, Dropout, EncoderSpec, HeadSpec


def encoder(config: Any) -> EncoderSpec:
    """As BERT, with the width of the embeddings given separately."""
    return bert_encoder(config, embedding_size=config.embedding_size)


def head(config: Any) -> HeadSpec:
    """Dropout, dense with GELU whatever the layers use, dropout, out_proj."""
    dropout = Dropout(classifier_dropout(config))
    return HeadSpec("first", (dropout, Dense(config.hidden_size, "gelu"), dropout, Dense(config.num_labels)))


FAMILY = Family(
    encoder=encoder,
    head=head,
    prefix="electra",
    names=bert_names() | {"embeddings_project": "embeddings.projection"},
    head_names={"classifier.dense": "head.1", "classifier.out_proj": "head.3"},
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
