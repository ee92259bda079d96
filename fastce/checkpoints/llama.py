"""Llama (https://arxiv.org/abs/2302.13971)."""

from __future__ import annotations

from typing import Any

from fastce.checkpoints.decoder import decoder, decoder_family
from fastce.spec import EncoderSpec


def encoder(config: Any) -> EncoderSpec:
    """Biases where the config says so."""
    return decoder(
        config, bias=config.attention_bias, output_bias=config.attention_bias, feed_forward_bias=config.mlp_bias
    )


FAMILY = decoder_family(encoder)
