"""Which models run where: a table of the families, made of what the backends say themselves.

python -m fastce.bench.support
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from fastce.backends.base import BACKENDS, SLOWEST, Request, load_backend
from fastce.checkpoints.logit_score import head_of
from fastce.checkpoints.network import FAMILIES, Description, Network
from fastce.spec import Precision

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")


@dataclass(frozen=True)
class Row:
    """Models of one kind.

    Attributes:
        models: What they are called.
        model_type: The `model_type` of their configs.
        example: A published one.
        settings: What their configs say that a default one does not.
        is_language_model: Whether they are scored by the difference of two tokens.
    """

    models: str
    model_type: str
    example: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    is_language_model: bool = False


DEBERTA: dict[str, Any] = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 256,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
}

ROWS = (
    Row("BERT, MiniLM", "bert", "cross-encoder/ms-marco-MiniLM-L6-v2"),
    Row("RoBERTa", "roberta", "cross-encoder/stsb-roberta-base"),
    Row("XLM-RoBERTa", "xlm-roberta", "BAAI/bge-reranker-v2-m3"),
    Row("CamemBERT", "camembert", "dangvantuan/CrossEncoder-camembert-large"),
    Row("DistilBERT", "distilbert", "distilbert-base-uncased"),
    Row("ELECTRA", "electra", "cross-encoder/ms-marco-electra-base"),
    Row("ModernBERT, Ettin", "modernbert", "Alibaba-NLP/gte-reranker-modernbert-base"),
    Row("DeBERTa-v2, -v3", "deberta-v2", "mixedbread-ai/mxbai-rerank-base-v1", DEBERTA),
    Row("GTE", "gte", "Alibaba-NLP/gte-multilingual-reranker-base"),
    Row("MPNet", "mpnet", "microsoft/mpnet-base"),
    Row("ALBERT", "albert", "albert-base-v2"),
    Row("Qwen3", "qwen3", "Qwen/Qwen3-Reranker-0.6B", {}, True),
    Row("Qwen2, Qwen2.5", "qwen2", "mixedbread-ai/mxbai-rerank-base-v2", {}, True),
    Row("Llama", "llama", "any LlamaForSequenceClassification"),
)


def network_of(row: Row) -> Network:
    """The network of a row, without weights."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(row.model_type, num_labels=1, **row.settings)
    family = FAMILIES[row.model_type]
    head = head_of(1, 0) if row.is_language_model else family.head(config)
    return Network(None, Description(family.encoder(config), head, {}))


def lines() -> Iterator[str]:
    """The table in Markdown, of the backends that run on every machine."""
    anything = Request(None, "fp32", torch.device("cpu"))
    own = [name for name in BACKENDS if name != SLOWEST and not load_backend(name).unsupported(anything)]
    yield f"| models | `model_type` | such as | {' | '.join(f'`{name}`' for name in own)} |"
    yield "|---" * (3 + len(own)) + "|"
    for row in ROWS:
        cells = [abilities(name, network_of(row)) for name in own]
        yield f"| {row.models} | `{row.model_type}` | {row.example} | {' | '.join(cells)} |"


def abilities(backend: str, network: Network) -> str:
    """The precisions that a backend scores a network in, and whether it trains it."""
    loaded, cpu = load_backend(backend), torch.device("cpu")
    found: list[str] = [
        precision for precision in PRECISIONS if not loaded.unsupported(Request(network, precision, cpu))
    ]
    if not loaded.unsupported(Request(network, "fp32", cpu, training=True)):
        found.append("training")
    return ", ".join(found) or "no"


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines()) + "\n")
