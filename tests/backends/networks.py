"""Networks of no family, made from the variants of the description: every feature that a backend can have."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from fastce.backends.base import Request
from fastce.checkpoints.network import Description, Network, Stored
from fastce.packing import PackedBatch, Spans, position_ids
from fastce.parameters import parameters
from fastce.spec import (
    AbsolutePositions,
    Activation,
    Attention,
    Dense,
    DisentangledAttention,
    Dropout,
    Embeddings,
    EncoderSpec,
    FeedForward,
    HeadSpec,
    Layer,
    LayerNorm,
    Norm,
    Normalize,
    Pooling,
    PostNorm,
    Precision,
    PreNorm,
    RelativeBias,
    RMSNorm,
    RotaryEmbedding,
    TokenDifference,
)

Parts = tuple[EncoderSpec, HeadSpec]

VOCABULARY = 50
HIDDEN = 52
RELATIVE = RelativeBias(9, (8, 7, 7, 6, 5, 0, 1, 2, 3, 3, 4))
NEAR = tuple(range(1, 12))
"""Rows of relative positions that have one each, up to a distance of 5."""
BUCKETS = (1, *(2,) * 20, *(3,) * 9, *range(4, 9), *(9,) * 9, *(10,) * 20, 11)
"""The same in buckets that grow, up to a distance of 32."""
ROTARY = RotaryEmbedding(tuple(0.5**number for number in range(13)))
ROTARY_7 = RotaryEmbedding((1.0, 0.2, 0.04))
FAR = AbsolutePositions(320)
LENGTHS = [1, 2, 17, 64, 33, 5, 1, 48, 49, 31, 16, 3, 20, 90, 9, 7, 50]
"""One, odd, around panels and chunks of queries, in no order."""


def network(
    *,
    layers: int = 3,
    attention: Attention = Attention(2, 26),  # noqa: B008
    feed_forward: FeedForward = FeedForward(70, "gelu"),  # noqa: B008
    norm: Norm = LayerNorm(1e-5),  # noqa: B008
    placement: type = PostNorm,
    pooling: Pooling = "first",
    head: tuple[Any, ...] = (Dense(52, "tanh"), Dropout(0.1), Dense(2)),
    stored: tuple[int | None, ...] | None = None,
    embedding_norm: Norm | None = LayerNorm(1e-5),  # noqa: B008
    **embeddings: Any,
) -> Parts:
    """BERT's network in uneven sizes, with what is asked for."""
    embeddings = {
        "vocab_size": VOCABULARY,
        "size": HIDDEN,
        "norm": embedding_norm,
        "token_types": 2,
        "positions": AbsolutePositions(128),
    } | embeddings
    layer = Layer(attention, feed_forward)
    return (
        EncoderSpec(
            hidden_size=HIDDEN,
            max_length=128,
            embeddings=Embeddings(**embeddings),
            layers=tuple(replace(layer, stored=number) for number in (stored or (None,) * layers)),
            placement=placement(norm),
        ),
        HeadSpec(pooling, head),
    )


def disentangled(
    rows: tuple[int, ...], *, c2p: bool = True, p2c: bool = True, shared: bool = True, **others: Any
) -> Parts:
    """DeBERTa's attention."""
    norm = others.pop("relative_norm", LayerNorm(1e-5))
    relation = DisentangledAttention(6, rows, c2p, p2c, shared, norm)
    return network(attention=Attention(2, 26, relation=relation, **others), token_types=0, positions=None)


def gated(activation: Activation, **others: Any) -> Parts:
    """A gated feed-forward network."""
    return network(feed_forward=FeedForward(70, activation, gated=True, **others))


PLAIN_NORM = LayerNorm(1e-5, bias=False)
UNBIASED = {"bias": False, "output_bias": False}
CHAIN = (Dense(40, "gelu", bias=False), Normalize(PLAIN_NORM), Dense(30, "silu"), Normalize(RMSNorm(1e-6)), Dense(3))

NETWORKS: dict[str, Parts] = {
    "as BERT": network(),
    "one layer": network(layers=1),
    "narrow embeddings": network(size=20),
    "words alone": network(token_types=0, positions=None),
    "positions that skip padding": network(positions=AbsolutePositions(130, offset=2, padding_id=1)),
    "embeddings without a norm": network(embedding_norm=None),
    "norms without biases": network(norm=PLAIN_NORM),
    "RMSNorm": network(norm=RMSNorm(1e-6)),
    "norms before sublayers": network(placement=PreNorm, embedding_norm=None),
    "norms before sublayers, narrow embeddings": network(placement=PreNorm, embedding_norm=None, size=20),
    "norms before sublayers, one of the embeddings": network(placement=PreNorm, embedding_norm=RMSNorm(1e-6)),
    "no biases": network(attention=Attention(2, 26, **UNBIASED), feed_forward=FeedForward(70, "relu", **UNBIASED)),
    "odd heads": network(attention=Attention(3, 13)),
    "wide heads": network(attention=Attention(2, 80)),
    "rotary": network(attention=Attention(2, 26, relation=ROTARY), positions=None),
    "rotary in part, scaled": network(attention=Attention(2, 26, relation=RotaryEmbedding((1.0, 0.3, 0.01), 1.2))),
    "rotary, odd heads": network(attention=Attention(3, 13, relation=RotaryEmbedding((1.0, 0.1)))),
    "window of 0": network(attention=Attention(2, 26, window=0)),
    "window of 5": network(attention=Attention(2, 26, window=5)),
    "window of 40, rotary": network(attention=Attention(2, 26, window=40, relation=ROTARY)),
    "causal": network(attention=Attention(2, 26, causal=True)),
    "causal, last token": network(attention=Attention(2, 26, causal=True, relation=ROTARY), pooling="last"),
    "causal window, last token": network(attention=Attention(2, 26, causal=True, window=9), pooling="last"),
    "last token": network(pooling="last"),
    "mean": network(pooling="mean"),
    "mean of a window": network(attention=Attention(2, 26, window=7), pooling="mean"),
    "shared keys and values": network(attention=Attention(4, 14, kv_heads=2)),
    "one head of keys, rotary": network(attention=Attention(4, 14, kv_heads=1, relation=RotaryEmbedding((1.0,)))),
    "norms of queries and keys": network(
        attention=Attention(4, 14, kv_heads=2, qk_norm=RMSNorm(1e-6), relation=ROTARY_7)
    ),
    "norms of queries and keys, all seen": network(attention=Attention(2, 26, qk_norm=LayerNorm(1e-5))),
    "bias by distance": network(attention=Attention(2, 26, relation=RELATIVE), positions=FAR),
    "bias by distance, window": network(
        attention=Attention(3, 13, relation=RELATIVE, window=7), pooling="mean", positions=FAR
    ),
    "bias by distance, causal": network(
        attention=Attention(4, 14, kv_heads=2, relation=RELATIVE, causal=True), pooling="last", positions=FAR
    ),
    "disentangled": disentangled(NEAR),
    "disentangled, buckets": disentangled(BUCKETS),
    "disentangled, positions of their own": disentangled(BUCKETS, shared=False, relative_norm=None),
    "disentangled, content to position": disentangled(BUCKETS, p2c=False),
    "disentangled, position to content": disentangled(NEAR, c2p=False, shared=False),
    "disentangled without biases": disentangled(BUCKETS, shared=False, **UNBIASED),
    "disentangled, causal window": disentangled(BUCKETS, causal=True, window=20),
    "two tokens' difference": network(pooling="last", head=(TokenDifference(3, 5),)),
    "gated GELU": gated("gelu"),
    "gated GELU without biases": gated("gelu", **UNBIASED),
    "gated GELU by tanh": gated("gelu_tanh"),
    "gated SiLU": gated("silu", bias=False),
    "gated ReLU": gated("relu"),
    "gated tanh": gated("tanh"),
    "SiLU": network(feed_forward=FeedForward(70, "silu")),
    "GELU by tanh": network(feed_forward=FeedForward(70, "gelu_tanh")),
    "tanh": network(feed_forward=FeedForward(70, "tanh")),
    "shared layers": network(stored=(0, 0, 2, 0)),
    "shared layers, norms before": network(stored=(0, 0, 0), placement=PreNorm, embedding_norm=None),
    "a longer chain": network(head=CHAIN),
    "one dense layer": network(head=(Dense(1),)),
    "ReLU in the head": network(head=(Dense(9, "relu"), Dense(9, "gelu_tanh"), Dense(2, bias=False))),
    "as ModernBERT": network(
        layers=4,
        attention=Attention(2, 26, relation=ROTARY, window=8, **UNBIASED),
        feed_forward=FeedForward(70, "gelu", gated=True, **UNBIASED),
        norm=PLAIN_NORM,
        embedding_norm=PLAIN_NORM,
        placement=PreNorm,
        head=CHAIN,
        token_types=0,
        positions=None,
    ),
    "as Qwen": network(
        attention=Attention(4, 14, kv_heads=2, causal=True, relation=ROTARY_7, qk_norm=RMSNorm(1e-6), **UNBIASED),
        feed_forward=FeedForward(70, "silu", gated=True, **UNBIASED),
        norm=RMSNorm(1e-6),
        embedding_norm=None,
        placement=PreNorm,
        pooling="last",
        head=(Dense(1, bias=False),),
        token_types=0,
        positions=None,
    ),
}


def shallow(name: str) -> Parts:
    """A network in two layers, one that leaves all rows and the last: what Triton's interpreter, a thousand times as
    slow as a GPU, need not compute a third time."""
    encoder, head = NETWORKS[name]
    return replace(encoder, layers=encoder.layers[:2]), head


class Parameters(nn.Module):
    """Random parameters under fastce's names."""

    def __init__(self, encoder: EncoderSpec, head: HeadSpec, dtype: torch.dtype = torch.float32):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.by_name: dict[str, nn.Parameter] = {}
        for name, (shape, role) in parameters(encoder, head).items():
            noise = torch.randn(shape, generator=generator)
            if role in ("matrix", "head matrix"):
                value = noise * (1.3 / shape[1] ** 0.5)
            elif role == "table":
                value = noise
            else:
                value = 0.2 * noise + float(role == "norm" and name.endswith("weight"))
            self.by_name[name] = nn.Parameter(value.to(dtype))
            self.register_parameter(name.replace(".", "_"), self.by_name[name])


def device_of(backend: str) -> str:
    """Where a backend is tested: Triton on a GPU where it is not interpreted, all else on the CPU."""
    return "cuda" if backend == "triton" and os.environ["TRITON_INTERPRET"] == "0" else "cpu"


def request(
    parts: Parts, module: Parameters, precision: Precision = "fp32", *, training: bool = False, device: str = "cpu"
) -> Request:
    """What a backend is asked to run, by its name."""
    weights = {name: Stored(parameter) for name, parameter in module.by_name.items()}
    network = Network(module, Description(*parts, weights))
    return Request(network, precision, torch.device(device), training, named=True)


def random_batch(encoder: EncoderSpec, lengths: list[int]) -> PackedBatch:
    """Random ids in sequences of these lengths."""
    generator = np.random.default_rng(0)
    spans, total = Spans.of(lengths), sum(lengths)
    input_ids = generator.integers(0, encoder.embeddings.vocab_size, total).astype(np.int32)
    token_types = generator.integers(0, max(encoder.embeddings.token_types, 1), total).astype(np.int32)
    places = position_ids(input_ids, spans.cu_seqlens.numpy(), encoder.embeddings.positions)
    return PackedBatch(torch.from_numpy(input_ids), torch.from_numpy(token_types), torch.from_numpy(places), spans)


def chosen(batch: PackedBatch, indices: list[int]) -> PackedBatch:
    """Some of a batch's pairs, in the given order."""
    ends = batch.spans.cu_seqlens.tolist()
    rows = torch.cat([torch.arange(ends[i], ends[i + 1]) for i in indices])
    spans = Spans.of([batch.spans.lengths[i] for i in indices])
    return PackedBatch(batch.input_ids[rows], batch.token_type_ids[rows], batch.position_ids[rows], spans)
