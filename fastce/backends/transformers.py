"""Runs the Hugging Face module itself, padded: for the families that no other backend takes."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.utils.rnn import pad_sequence

from fastce.backends.torch.engine import compute_dtype
from fastce.checkpoints.network import Network
from fastce.packing import PackedBatch
from fastce.settings import torch_threads
from fastce.spec import Precision


class TransformersEncoder:
    """Unpacks a batch, pads it and calls the module's own forward."""

    def __init__(self, module: torch.nn.Module, dtype: torch.dtype, device: torch.device):
        self.module = module
        self.dtype = dtype
        self.device = device
        self.takes_token_types = "token_type_ids" in inspect.signature(module.forward).parameters

    @torch.inference_mode()
    def logits(self, batch: PackedBatch, num_threads: int | None = None) -> torch.Tensor:
        """See `Encoder`."""
        was_training = self.module.training
        self.module.eval()
        with self._autocast(), torch_threads(num_threads):
            logits = self.training_logits(batch).float()
        self.module.train(was_training)
        return logits

    def training_logits(self, batch: PackedBatch) -> torch.Tensor:
        """See `TrainableEncoder`."""
        lengths = batch.lengths
        inputs = {
            "input_ids": self._pad(batch.input_ids, lengths, getattr(self.module.config, "pad_token_id", None) or 0),
            "attention_mask": self._pad(torch.ones_like(batch.input_ids), lengths, 0),
        }
        if self.takes_token_types:
            inputs["token_type_ids"] = self._pad(batch.token_type_ids, lengths, 0)
        logits: torch.Tensor = self.module(**inputs).logits
        return logits

    def _pad(self, tokens: torch.Tensor, lengths: list[int], value: int) -> torch.Tensor:
        """[total_tokens] -> int64 [num_pairs, max_seqlen]."""
        padded = pad_sequence(list(tokens.long().split(lengths)), batch_first=True, padding_value=value)
        return padded.to(self.device)

    def _autocast(self) -> AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)


class TransformersBackend:
    """Any sequence-classification module of transformers, in fp32, bf16 and fp16."""

    trainable = True
    needs_module = True

    def unsupported(self, network: Network | None, precision: Precision, device: torch.device) -> list[str]:
        """See `Backend`."""
        return ["it has no int8"] if precision == "int8" else []

    def build(self, network: Network, precision: Precision, device: torch.device) -> TransformersEncoder:
        """See `Backend`."""
        assert network.module is not None
        return TransformersEncoder(network.module, compute_dtype(precision, device), device)


BACKEND = TransformersBackend()
