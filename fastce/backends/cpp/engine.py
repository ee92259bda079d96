"""Scores with the C++ engine, trains with its ops."""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING

import torch

from fastce.backends.torch.engine import TorchEncoder
from fastce.checkpoints.network import Description, Network
from fastce.packing import PackedBatch
from fastce.spec import Precision

if TYPE_CHECKING:
    from fastce import _core

FORMATS: dict[Precision, str] = {"fp32": "fp32", "bf16": "bf16", "fp16": "bf16", "int8": "int8"}
"""What the layers' products compute in. CPUs have no fast float16 arithmetic, so fp16 means bfloat16 as well."""


class CppEncoder:
    """An encoder with packed weights. Any number of threads may share it."""

    def __init__(self, description: Description, precision: Precision):
        from fastce import _core

        arrays = {name: parameter.detach().float().numpy() for name, parameter in description.weights.items()}
        self.core: _core.Encoder = _core.Encoder(description.encoder, description.head, arrays, FORMATS[precision])

    def logits(self, batch: PackedBatch, num_threads: int | None = None) -> torch.Tensor:
        """See `Encoder`. By default takes `OMP_NUM_THREADS`, else every CPU that the process may use."""
        logits = self.core.logits(
            batch.input_ids.numpy(),
            batch.token_type_ids.numpy(),
            batch.position_ids.numpy(),
            batch.cu_seqlens.numpy(),
            num_threads=num_threads or 0,
        )
        return torch.from_numpy(logits)


@cache
def warn_without_module() -> None:
    """Says once that fastce is slower than it could be: pip hides what an installation has to say."""
    message = (
        "fastce was installed without its C++ module and scores with PyTorch; install it again with a C++17 compiler"
    )
    warnings.warn(message, stacklevel=2)


class CppBackend:
    """The C++ engine: CPUs, every described family, every precision."""

    needs_module = False

    def unsupported(self, network: Network | None, precision: Precision, device: torch.device) -> list[str]:
        """See `Backend`.

        Raises:
            ValueError: `FASTCE_ISA` names a level that the processor lacks.
        """
        reasons = []
        if device.type != "cpu":
            reasons.append(f"it runs on the CPU, not on {device}")
        try:
            from fastce._core import choose_level
        except ImportError:
            warn_without_module()
            return [*reasons, "fastce was installed without its C++ module"]
        choose_level()
        if network is not None and network.description is None:
            reasons.append(network.objection)
        return reasons

    def build(self, network: Network, precision: Precision, device: torch.device) -> CppEncoder:
        """See `Backend`."""
        assert network.description is not None
        return CppEncoder(network.description, precision)

    def build_trainable(self, network: Network, device: torch.device) -> TorchEncoder:
        """See `Backend`."""
        from fastce.backends.cpp import ops

        assert network.description is not None
        for name, weight in network.description.weights.items():
            if weight.dtype != torch.float32:
                raise ValueError(
                    f"training needs float32 parameters, and {name} is {weight.dtype}: call model.model.float()"
                )
        return TorchEncoder(network.module, network.description, device, ops)


BACKEND = CppBackend()
