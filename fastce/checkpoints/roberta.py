"""RoBERTa (https://arxiv.org/abs/1907.11692), XLM-RoBERTa (https://arxiv.org/abs/1911.02116) and CamemBERT."""

from __future__ import annotations

from typing import Any

from fastce.checkpoints.family import Family, bert_encoder, bert_names, classifier_dropout
from fastce.spec import Dense, Dropout, EncoderSpec, HeadSpec


def encoder(config: Any) -> EncoderSpec:
    """Positions count from the padding id on, and a padding token inside a text takes none."""
    return bert_encoder(config, offset=config.pad_token_id + 1, padding_id=config.pad_token_id)


def head(config: Any) -> HeadSpec:
    """Dropout, dense with tanh, dropout, out_proj."""
    dropout = Dropout(classifier_dropout(config))
    return HeadSpec("first", (dropout, Dense(config.hidden_size, "tanh"), dropout, Dense(config.num_labels)))


FAMILY = Family(
    encoder=encoder,
    head=head,
    prefix="roberta",
    names=bert_names(),
    head_names={"classifier.dense": "head.1", "classifier.out_proj": "head.3"},
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
