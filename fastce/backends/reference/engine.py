"""Runs a described network with the reference ops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from fastce.backends.base import Request, not_understood
from fastce.backends.encoder import OpsEncoder
from fastce.backends.reference import ops
from fastce.checkpoints.network import Description, Stored
from fastce.features import features_of
from fastce.parameters import parameters
from fastce.spec import ON_CPU, Precision
from fastce.steps import program

if TYPE_CHECKING:
    from fastce.backends.ops import Ops

    OPS: Ops = ops

CAN = features_of(
    """
    LayerNorm LayerNorm.bias=yes|no RMSNorm PostNorm PreNorm Layer.stored
    Embeddings.norm Embeddings.positions AbsolutePositions AbsolutePositions.padding_id
    Attention.bias=yes|no Attention.output_bias=yes|no Attention.kv_heads Attention.qk_norm
    Attention.relation RotaryEmbedding RelativeBias Attention.window Attention.causal=yes|no
    DisentangledAttention DisentangledAttention.content_to_position=yes|no DisentangledAttention.norm
    DisentangledAttention.position_to_content=yes|no DisentangledAttention.shared_projections=yes|no
    FeedForward.activation=gelu|gelu_tanh|relu|silu|tanh FeedForward.gated=yes|no
    FeedForward.bias=yes|no FeedForward.output_bias=yes|no
    HeadSpec.pooling=first|last|mean
    Dense Dense.bias=yes|no Dense.activation=gelu|gelu_tanh|relu|silu|tanh Normalize Dropout TokenDifference
    """
)


DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of the matrix products."""
    return DTYPES[ON_CPU[precision] if device.type == "cpu" else precision]


def converted(description: Description, dtype: torch.dtype, device: torch.device, *, own: bool) -> Mapping[str, Stored]:
    """Casts the layers' matrix products; tables, norms and the small head stay float32, and float32 stays live.

    Args:
        description: The network.
        dtype: What the products are cast to.
        device: Where to.
        own: Whether to copy also what stays as it is.
    """
    roles = parameters(description.encoder, description.head)
    wholes: dict[tuple[int, torch.dtype], torch.Tensor] = {}

    def convert(name: str, stored: Stored) -> Stored:
        target = dtype if roles[name].role in ("matrix", "bias") else stored.whole.dtype
        if target == stored.whole.dtype and not own:
            return stored._replace(whole=stored.whole.to(device))
        key = (id(stored.whole), target)  # stacked rows stay together
        if key not in wholes:
            wholes[key] = stored.whole.detach().to(device, target, copy=True)
        return stored._replace(whole=wholes[key])

    return {name: convert(name, stored) for name, stored in description.weights.items()}


class ReferenceBackend:
    """Plain PyTorch: any device, every described family, fp32, bf16 and fp16."""

    needs_module = False

    def unsupported(self, request: Request) -> list[str]:
        """See `Backend`."""
        reasons = not_understood(request.network, CAN)
        if request.precision not in DTYPES:
            reasons.append(f"it has no {request.precision}")
        return reasons

    def build(self, request: Request) -> OpsEncoder:
        """See `Backend`. In fp32 the encoder computes with the module's own parameters, live."""
        assert request.network is not None
        description = request.network.description
        dtype, is_read = compute_dtype(request.precision, request.device), request.network.file is not None
        weights = converted(description, dtype, request.device, own=is_read)  # that file may be written to
        return OpsEncoder(ops, program(description.encoder, description.head), weights, request.device)

    def build_trainable(self, request: Request) -> OpsEncoder:
        """See `Backend`."""
        assert request.network is not None
        description, module = request.network.description, request.network.module
        return OpsEncoder(
            ops, program(description.encoder, description.head), description.weights, request.device, module
        )


BACKEND = ReferenceBackend()
