"""Qwen2 and Qwen2.5 (https://arxiv.org/abs/2407.10671): biases of queries, keys and values."""

from __future__ import annotations

from typing import Any

from fastce.checkpoints.decoder import decoder, decoder_family
from fastce.spec import EncoderSpec


def encoder(config: Any) -> EncoderSpec:
    """Those biases always."""
    return decoder(config, bias=True, output_bias=False)


FAMILY = decoder_family(encoder)
