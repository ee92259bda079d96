"""Qwen3 (https://arxiv.org/abs/2505.09388): norms of each head's query and key."""

from __future__ import annotations

from typing import Any

from fastce.checkpoints.decoder import decoder, decoder_family
from fastce.spec import EncoderSpec, RMSNorm


def encoder(config: Any) -> EncoderSpec:
    """Biases where the config says so."""
    bias = config.attention_bias
    return decoder(config, bias=bias, output_bias=bias, qk_norm=RMSNorm(config.rms_norm_eps))


FAMILY = decoder_family(encoder)
