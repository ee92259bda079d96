"""Runs a described network with the reference ops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from fastce.backends.encoder import encoder_logits
from fastce.backends.torch import ops as torch_ops
from fastce.checkpoints.network import Description, Network
from fastce.packing import PackedBatch
from fastce.settings import torch_threads
from fastce.spec import Precision


class TorchEncoder:
    """Runs the network op by op, with the parameters of the description.

    Args:
        module: The module, for `training_logits`.
        description: The network.
        device: Where to run.
        ops: The functions to compute with.
    """

    def __init__(
        self,
        module: torch.nn.Module | None,
        description: Description,
        device: torch.device,
        ops: Any = torch_ops,
    ):
        self.ops = ops
        self.module = module
        self.description = description
        self.device = device
        adapted = {
            name: torch_ops.AdaptedWeight(description.weights[name], updates)
            for name, updates in description.updates.items()
        }
        self.weights = {**description.weights, **adapted}

    @torch.inference_mode()
    def logits(self, batch: PackedBatch, num_threads: int | None = None) -> torch.Tensor:
        """See `Encoder`."""
        with torch_threads(num_threads):
            return self._run(batch, training=False).float()

    def training_logits(self, batch: PackedBatch) -> torch.Tensor:
        """See `TrainableEncoder`. Recomputes activations where the module has gradient checkpointing enabled."""
        assert self.module is not None
        training = self.module.training
        recompute = training and any(getattr(part, "gradient_checkpointing", False) for part in self.module.modules())
        return self._run(batch, training=training, recompute=recompute)

    def zero_gradients(self, *, for_good: bool = False) -> None:
        """See `TrainableEncoder`."""
        assert self.module is not None
        self.ops.zero_gradients(self.module.parameters(), for_good=for_good)

    def _run(self, batch: PackedBatch, *, training: bool, recompute: bool = False) -> torch.Tensor:
        return encoder_logits(
            self.ops,
            self.description.encoder,
            self.description.head,
            self.weights,
            batch.to(self.device),
            training=training,
            recompute=recompute,
        )


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of the matrix products. CPUs have no fast float16 arithmetic, so there fp16 means bfloat16."""
    if precision == "fp16" and device.type != "cpu":
        return torch.float16
    return torch.float32 if precision == "fp32" else torch.bfloat16


def convert(name: str, weight: torch.Tensor, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Casts the layers' matrix products; tables, norms and the small head stay float32, and float32 stays live."""
    is_linear = name.startswith("layers.") and "_norm." not in name
    return weight.detach().to(device, dtype) if is_linear and dtype != weight.dtype else weight.to(device)


class TorchBackend:
    """Plain PyTorch: any device, every described family, fp32, bf16 and fp16."""

    needs_module = False

    def unsupported(self, network: Network | None, precision: Precision, device: torch.device) -> list[str]:
        """See `Backend`."""
        reasons = [network.objection] if network is not None and network.description is None else []
        if precision == "int8":
            reasons.append("it has no int8")
        return reasons

    def build(self, network: Network, precision: Precision, device: torch.device) -> TorchEncoder:
        """See `Backend`. In fp32 the encoder computes with the module's own parameters, live."""
        assert network.description is not None
        dtype = compute_dtype(precision, device)
        weights = {name: convert(name, weight, dtype, device) for name, weight in network.description.weights.items()}
        return TorchEncoder(network.module, replace(network.description, weights=weights), device)

    def build_trainable(self, network: Network, device: torch.device) -> TorchEncoder:
        """See `Backend`."""
        assert network.description is not None
        return TorchEncoder(network.module, network.description, device)


BACKEND = TorchBackend()
