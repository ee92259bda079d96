"""Runs the Hugging Face module itself, padded: for the families that no other backend takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from fastce.backends.base import Request
from fastce.backends.reference.engine import DTYPES, compute_dtype
from fastce.packing import PackedBatch, padded
from fastce.threads import torch_threads


class TransformersEncoder:
    """Unpacks a batch, pads it as the model's tokenizer does, and calls the module's own forward."""

    shared_bytes = 0
    batches_exactly = False
    remarks: Sequence[str] = ()

    def __init__(self, module: torch.nn.Module, tokenizer: Any, dtype: torch.dtype, device: torch.device):
        self.module = module
        self.tokenizer = tokenizer
        self.dtype = dtype
        self.device = device
        self._lock = threading.Lock()
        self._scoring = 0  # threads
        self._in_training: list[torch.nn.Module] = []  # parts of the module that were, before the first of them

    @torch.inference_mode()
    def logits(self, batch: PackedBatch, num_threads: int | None = None) -> torch.Tensor:
        """See `Encoder`."""
        with self._evaluation(), self._autocast(), torch_threads(num_threads):
            return self.training_logits(batch).float()

    def training_logits(self, batch: PackedBatch) -> torch.Tensor:
        """See `TrainableEncoder`."""
        inputs = {name: values.to(self.device) for name, values in padded(batch, self.tokenizer).items()}
        logits: torch.Tensor = self.module(**inputs).logits
        return logits

    def zero_gradients(self, *, for_good: bool = False) -> None:
        """See `TrainableEncoder`."""
        self.module.zero_grad()

    @contextmanager
    def _evaluation(self) -> Iterator[None]:
        """Evaluation mode until the last of the threads that share the module has left."""
        with self._lock:
            if self._scoring == 0:
                self._in_training = [part for part in self.module.modules() if part.training]
                for part in self._in_training:
                    part.training = False
            self._scoring += 1
        try:
            yield
        finally:
            with self._lock:
                self._scoring -= 1
                if self._scoring == 0:
                    for part in self._in_training:
                        part.training = True

    def _autocast(self) -> AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)


class TransformersBackend:
    """Any sequence-classification module of transformers, in fp32, bf16 and fp16."""

    needs_module = True

    def unsupported(self, request: Request) -> list[str]:
        """See `Backend`."""
        return [] if request.precision in DTYPES else [f"it has no {request.precision}"]

    def build(self, request: Request) -> TransformersEncoder:
        """See `Backend`."""
        network = request.network
        assert network is not None
        assert network.module is not None
        dtype = compute_dtype(request.precision, request.device)
        return TransformersEncoder(network.module, network.tokenizer, dtype, request.device)

    def build_trainable(self, request: Request) -> TransformersEncoder:
        """See `Backend`."""
        return self.build(request)


BACKEND = TransformersBackend()
