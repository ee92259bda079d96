"""Scores with the C++ engine, trains with its ops."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import torch

from fastce.backends.base import Request, not_understood
from fastce.backends.cpp.smoothing import smoothed
from fastce.backends.encoder import OpsEncoder
from fastce.checkpoints.network import Description
from fastce.features import features_of
from fastce.installation import why_without_module
from fastce.packing import PackedBatch
from fastce.spec import ON_CPU, Precision
from fastce.steps import program

if TYPE_CHECKING:
    from fastce import _core


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


class CppEncoder:
    """An encoder with packed weights. Any number of threads may share it."""

    batches_exactly = True

    def __init__(self, description: Description, precision: Precision):
        from fastce import _core

        arrays = {name: stored.tensor.detach().float().numpy() for name, stored in description.weights.items()}
        network = program(description.encoder, description.head)
        self.remarks: Sequence[str] = ()
        if precision == "int8":
            arrays, places = smoothed(network, arrays)
            self.remarks = (f"outliers smoothed in {places} places",) if places else ()
        self.core: _core.Encoder = _core.Encoder(network, arrays, ON_CPU[precision])
        self.shared_bytes = self.core.shared_bytes

    def logits(self, batch: PackedBatch, num_threads: int | None = None) -> torch.Tensor:
        """See `Encoder`. By default takes `OMP_NUM_THREADS`, else every CPU that the process may use."""
        logits = self.core.logits(
            batch.input_ids.numpy(),
            batch.token_type_ids.numpy(),
            batch.position_ids.numpy(),
            batch.spans.cu_seqlens.numpy(),
            None if batch.prefixes is None else batch.prefixes.numpy(),
            num_threads=num_threads or 0,
        )
        return torch.from_numpy(logits)


@cache
def warn_without_module() -> None:
    """Says once that fastce is slower than it could be: pip hides what an installation has to say."""
    warnings.warn(why_without_module(), stacklevel=2)


class CppBackend:
    """The C++ engine: CPUs, every described family, every precision."""

    needs_module = False

    def unsupported(self, request: Request) -> list[str]:
        """See `Backend`.

        Raises:
            ValueError: `FASTCE_ISA` names a level that the processor lacks.
        """
        reasons = [] if request.precision in ON_CPU else [f"it has no {request.precision}"]
        if request.device.type != "cpu":
            reasons.append(f"it runs on the CPU, not on {request.device}")
        try:
            from fastce._core import choose_level
        except ImportError:
            warn_without_module()
            return [*reasons, "fastce is without its C++ module"]
        choose_level()
        return reasons + not_understood(request.network, CAN)

    def build(self, request: Request) -> CppEncoder:
        """See `Backend`."""
        assert request.network is not None
        return CppEncoder(request.network.description, request.precision)

    def build_trainable(self, request: Request) -> OpsEncoder:
        """See `Backend`."""
        from fastce.backends.cpp import ops

        assert request.network is not None
        description = request.network.description
        for name, stored in description.weights.items():
            if stored.whole.dtype != torch.float32:
                raise ValueError(
                    f"training needs float32 parameters, and {name} is {stored.whole.dtype}: call model.model.float()"
                )
        network = program(description.encoder, description.head)
        return OpsEncoder(ops, network, description.weights, request.device, request.network.module)


BACKEND = CppBackend()
