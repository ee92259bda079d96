"""GTE (https://arxiv.org/abs/2407.19669): BERT with rotary embeddings and gated layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastce.checkpoints.family import Family, classifier_dropout, hidden_activation, post_norm_encoder, reject_others
from fastce.checkpoints.rotary import rotary_embedding
from fastce.spec import Dense, Dropout, Embeddings, EncoderSpec, FeedForward, HeadSpec, LayerNorm


def encoder(config: Any) -> EncoderSpec:
    """BERT's network without a table of positions."""
    head_dim = config.hidden_size // max(config.num_attention_heads, 1)
    reject_others(vars(config), {"head_dim": head_dim})
    return post_norm_encoder(
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        max_length=config.max_position_embeddings,
        embeddings=Embeddings(
            vocab_size=config.vocab_size,
            size=config.hidden_size,
            norm=LayerNorm(config.layer_norm_eps),
            token_types=config.type_vocab_size,
            dropout=config.hidden_dropout_prob,
        ),
        heads=config.num_attention_heads,
        relation=rotary_embedding(config, head_dim),
        attention_dropout=config.attention_probs_dropout_prob,
        attention_output_dropout=config.hidden_dropout_prob,
        feed_forward=FeedForward(
            size=config.intermediate_size,
            activation=hidden_activation(config.hidden_act),
            gated=True,
            bias=False,
            dropout=config.hidden_dropout_prob,
            output_dropout=config.hidden_dropout_prob,
        ),
        norm=LayerNorm(config.layer_norm_eps),
    )


def head(config: Any) -> HeadSpec:
    """The pooler (dense with tanh), dropout, classifier."""
    dropout = Dropout(classifier_dropout(config))
    return HeadSpec("first", (Dense(config.hidden_size, "tanh"), dropout, Dense(config.num_labels)))


FOREIGN = {
    "layer_norm_type": "layer_norm",
    "position_embedding_type": "rope",
    "logn_attention_scale": False,
    "pack_qkv": True,
}
"""What configs of the older files must say, where they say anything."""


def config_of_older_files(fields: Mapping[str, Any]) -> Any:
    """The config of files from before transformers had the family, whose own code is in their folder.

    Args:
        fields: What is in their `config.json`, of the `model_type` "new".

    Raises:
        ValueError: It asks for what the class of transformers can't do.
    """
    from transformers import GteConfig

    reject_others(fields, FOREIGN)
    scaling = fields.get("rope_scaling") or {"type": "none"}
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": float(fields.get("rope_theta", 10000.0))}
    if scaling.get("type") == "ntk" and scaling.get("mixed_b") is None:
        # Their code multiplies the base and divides the frequencies; the latter is what linear scaling does.
        factor = float(scaling["factor"])
        head_dim = fields["hidden_size"] // fields["num_attention_heads"]
        rope = {"rope_type": "linear", "rope_theta": rope["rope_theta"] * factor, "factor": factor ** (2.0 / head_dim)}
    elif scaling["type"] != "none":
        raise ValueError(f"rope_scaling {scaling!r} in the config is not of type 'ntk'")
    known = {name: value for name, value in fields.items() if name not in ("auto_map", "model_type", *FOREIGN)}
    known = {name: value for name, value in known.items() if not name.startswith("rope_")}
    return GteConfig(**known | {"rope_parameters": rope, "architectures": ["GteForSequenceClassification"]})


FAMILY = Family(
    encoder=encoder,
    head=head,
    prefix="gte",
    names={
        "embeddings.word_embeddings": "embeddings.word",
        "embeddings.token_type_embeddings": "embeddings.token_type",
        "embeddings.LayerNorm": "embeddings.norm",
        "layers.{}.self_attn.q_proj": "layers.{}.query",
        "layers.{}.self_attn.k_proj": "layers.{}.key",
        "layers.{}.self_attn.v_proj": "layers.{}.value",
        "layers.{}.self_attn.o_proj": "layers.{}.attention_output",
        "layers.{}.post_attention_layernorm": "layers.{}.attention_norm",
        "layers.{}.mlp.gate_proj": "layers.{}.gate",
        "layers.{}.mlp.up_proj": "layers.{}.up",
        "layers.{}.mlp.down_proj": "layers.{}.down",
        "layers.{}.post_mlp_layernorm": "layers.{}.feed_forward_norm",
    },
    head_names={"gte.pooler.dense": "head.0", "classifier": "head.2"},
    fresh=("gte.pooler.", "classifier."),
    unused=("lm_head.",),
    file_names={
        "embeddings.word_embeddings": "embeddings.word",
        "embeddings.token_type_embeddings": "embeddings.token_type",
        "embeddings.LayerNorm": "embeddings.norm",
        "encoder.layer.{}.attention.qkv_proj": ("layers.{}.query", "layers.{}.key", "layers.{}.value"),
        "encoder.layer.{}.attention.o_proj": "layers.{}.attention_output",
        "encoder.layer.{}.attn_ln": "layers.{}.attention_norm",
        "encoder.layer.{}.mlp.up_gate_proj": ("layers.{}.up", "layers.{}.gate"),
        "encoder.layer.{}.mlp.down_proj": "layers.{}.down",
        "encoder.layer.{}.mlp_ln": "layers.{}.feed_forward_norm",
    },
    file_prefixes=("gte", "new"),
)
