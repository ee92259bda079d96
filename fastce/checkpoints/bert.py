"""BERT (https://arxiv.org/abs/1810.04805): the pooler is the head's dense layer."""

from __future__ import annotations

from typing import Any

from fastce.checkpoints.family import Family, bert_encoder, bert_names, classifier_dropout
from fastce.spec import Dense, Dropout, HeadSpec


def head(config: Any) -> HeadSpec:
    """Pooler with tanh, dropout, classifier."""
    return HeadSpec(
        "first",
        (Dense(config.hidden_size, "tanh"), Dropout(classifier_dropout(config)), Dense(config.num_labels)),
    )


FAMILY = Family(
    encoder=bert_encoder,
    head=head,
    prefix="bert",
    names=bert_names(),
    head_names={"bert.pooler.dense": "head.0", "classifier": "head.2"},
    fresh=("classifier.", "bert.pooler."),
    unused=("cls.", "qa_outputs.", "pooler.", "bert.embeddings.position_ids", "embeddings.position_ids"),
)
