"""Runs the Hugging Face module itself, padded: for the families that no other backend takes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from fastce.backends.torch.engine import compute_dtype
from fastce.checkpoints.network import Network
from fastce.packing import PackedBatch
from fastce.settings import torch_threads
from fastce.spec import Precision


class TransformersEncoder:
    """Unpacks a batch, pads it as the model's tokenizer does, and calls the module's own forward."""

    def __init__(self, module: torch.nn.Module, tokenizer: Any, dtype: torch.dtype, device: torch.device):
        self.module = module
        self.tokenizer = tokenizer
        self.dtype = dtype
        self.device = device

    @torch.inference_mode()
    def logits(self, batch: PackedBatch, num_threads: int | None = None) -> torch.Tensor:
        """See `Encoder`."""
        was_training = self.module.training
        self.module.eval()
        try:
            with self._autocast(), torch_threads(num_threads):
                return self.training_logits(batch).float()
        finally:
            self.module.train(was_training)

    def training_logits(self, batch: PackedBatch) -> torch.Tensor:
        """See `TrainableEncoder`."""
        features = {"input_ids": split(batch.input_ids, batch)}
        if "token_type_ids" in self.tokenizer.model_input_names:
            features["token_type_ids"] = split(batch.token_type_ids, batch)
        with_padding = len(set(batch.lengths)) > 1  # without, models that have no padding token run too
        inputs = self.tokenizer.pad(features, padding=with_padding, return_tensors="pt").to(self.device)
        logits: torch.Tensor = self.module(**inputs).logits
        return logits

    def zero_gradients(self, *, for_good: bool = False) -> None:
        """See `TrainableEncoder`."""
        self.module.zero_grad()

    def _autocast(self) -> AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)


def split(tokens: torch.Tensor, batch: PackedBatch) -> list[list[int]]:
    """[total_tokens] -> a list for each sequence."""
    return [sequence.tolist() for sequence in tokens.split(batch.lengths)]


class TransformersBackend:
    """Any sequence-classification module of transformers, in fp32, bf16 and fp16."""

    needs_module = True

    def unsupported(self, network: Network | None, precision: Precision, device: torch.device) -> list[str]:
        """See `Backend`."""
        return ["it has no int8"] if precision == "int8" else []

    def build(self, network: Network, precision: Precision, device: torch.device) -> TransformersEncoder:
        """See `Backend`."""
        assert network.module is not None
        return TransformersEncoder(network.module, network.tokenizer, compute_dtype(precision, device), device)

    def build_trainable(self, network: Network, device: torch.device) -> TransformersEncoder:
        """See `Backend`."""
        return self.build(network, "fp32", device)


BACKEND = TransformersBackend()
