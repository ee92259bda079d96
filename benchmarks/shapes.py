"""The shapes that benchmarks run on; nothing else lists any."""

from __future__ import annotations

from typing import Any

CHUNK_ROWS = 48
"""Rows that the engine gives to a matrix product."""

PRODUCTS = {
    "minilm-square": (384, 384),
    "minilm-up": (384, 1536),
    "minilm-down": (1536, 384),
    "base-up": (768, 3072),
    "base-down": (3072, 768),
    "large-up": (1024, 4096),
    "large-down": (4096, 1024),
}
"""Names to in_features and out_features."""


def bert(layers: int, heads: int, hidden: int, intermediate: int, **others: Any) -> dict[str, Any]:
    """The sizes of a BERT or a descendant, as its config has them."""
    return {
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "max_position_embeddings": 512,
    } | others


DEBERTA = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 256,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
}
QWEN3 = {"num_key_value_heads": 8, "head_dim": 128}

ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "minilm-l6": ("bert", bert(6, 12, 384, 1536)),
    "minilm-l12": ("bert", bert(12, 12, 384, 1536)),
    "bert-base": ("bert", bert(12, 12, 768, 3072)),
    "xlmr-large": ("xlm-roberta", bert(24, 16, 1024, 4096, max_position_embeddings=514, type_vocab_size=1)),
    "modernbert-base": ("modernbert", bert(22, 12, 768, 1152, max_position_embeddings=8192)),
    "deberta-v3-base": ("deberta-v2", bert(12, 12, 768, 3072, **DEBERTA)),
    "deberta-v3-xsmall": ("deberta-v2", bert(12, 6, 384, 1536, **DEBERTA)),
    "gte-base": ("gte", bert(12, 12, 768, 3072, max_position_embeddings=8192)),
    "mpnet-base": ("mpnet", bert(12, 12, 768, 3072, max_position_embeddings=514)),
    "qwen3-quarter": ("qwen3", bert(7, 16, 1024, 3072, max_position_embeddings=40960, **QWEN3)),
}
"""Names to a model type and its sizes; Qwen3-0.6B with a quarter of its 28 layers."""

LENGTHS = [150, 141, 133, 126, 120, 114, 109, 104, 100, 96, 92, 88, 84, 80, 76, 72, 68, 64, 59, 54]
"""Tokens of reranking pairs in descending order, 96.5 in the mean."""
