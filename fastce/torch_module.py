"""A CrossEncoder as a module of PyTorch: what losses, trainers and loops of one's own ask of it.

The Hugging Face module is its only part, and is made when somebody asks for parts, parameters or training.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import nn

from fastce import legacy
from fastce.backends.base import TrainableEncoder
from fastce.backends.reference.engine import DTYPES
from fastce.checks import check_precision
from fastce.environment import check_device
from fastce.inputs import is_single_pair, split_pairs
from fastce.packing import pack, pack_padded, padded
from fastce.pipeline import Pipeline, Window
from fastce.processing import max_length_of
from fastce.threads import chosen_num_threads

REFERENCE = "sentence_transformers.cross_encoder.model"
"""The module whose class a CrossEncoder says to be, once somebody has imported it."""

GIVEN = ("_modules", "training")
"""What a module of PyTorch keeps, and a CrossEncoder finds in the Hugging Face module."""


class Transformer(nn.Module):
    """The first module of a CrossEncoder in sentence-transformers, whose parameters are called `0.model. ...`.

    Args:
        model: The Hugging Face module.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model


class TorchModule(nn.Module):
    """What a CrossEncoder has of a module of PyTorch, and of sentence-transformers' CrossEncoder as one.

    `forward` gives logits through which gradients flow, so that a loss, a Trainer or a loop of your own can train it.
    """

    pipeline: Pipeline
    max_length: int
    tokenizer: Any
    model: Any
    _first: Transformer | None = None

    def __init__(self) -> None:
        vars(self).update({name: value for name, value in vars(nn.Module()).items() if name not in GIVEN})

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """sentence-transformers' CrossEncoder where that is loaded, whose libraries ask `isinstance`; else its own."""
        return getattr(sys.modules.get(REFERENCE), "CrossEncoder", type(self))

    def __reduce__(self) -> tuple[Any, ...]:
        """As for any object: pickle would otherwise stumble over `__class__`."""
        return object.__new__, (type(self),), {name: value for name, value in vars(self).items() if name != "_first"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return [str(name) for name in object.__dir__(self)]

    @property
    def _modules(self) -> dict[str, nn.Module | None]:  # type: ignore[override]
        model = self.pipeline.checkpoint.module
        if self._first is None or self._first.model is not model:
            self._first = Transformer(model)
        return {"0": self._first}

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Refuses: nothing would run it."""
        raise TypeError(f"{name}: a CrossEncoder has one part, its Hugging Face module, and runs no others")

    register_module = add_module

    def check_hooks(self) -> None:
        """Raises ValueError for hooks that scoring would skip. Those of the Hugging Face module's parts it obeys."""
        if self._forward_hooks or self._forward_pre_hooks:
            raise ValueError("hooks of the model itself run in forward alone; put them on parts of model.model")

    def __getattr__(self, name: str) -> Any:
        return self._modules[name] if name == "0" else super().__getattr__(name)

    @property
    def training(self) -> bool:
        """Whether dropout applies in `forward`; scoring never has it."""
        return self.pipeline.checkpoint.is_training

    @training.setter
    def training(self, mode: bool) -> None:
        self.train(mode)

    def train(self, mode: bool = True) -> TorchModule:
        """Switches dropout in `forward` on or off, and returns the model."""
        if mode or self.training:
            self.model.train(mode)
        return self

    def _apply(self, function: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> TorchModule:
        super()._apply(function, recurse)
        self.pipeline.checkpoint.module = self.model  # which may be on another device now
        return self

    def to(self, *args: Any, **kwargs: Any) -> TorchModule:
        """Moves the model to a device, or sets the precision by a dtype, or both, and returns it.

        Training and saving stay in float32.

        Raises:
            ValueError: There is no such device or precision.
        """
        for value in (*args, *kwargs.values()):
            if isinstance(value, torch.dtype):
                self.pipeline.precision = check_precision(value, "dtype")
            elif not isinstance(value, bool) and value is not None:
                self.pipeline.checkpoint.to(check_device(value))
        return self

    def cpu(self) -> TorchModule:
        """Moves the model to the CPU, and returns it."""
        return self.to("cpu")

    def cuda(self, device: int | torch.device | None = None) -> TorchModule:
        """Moves the model to a GPU, and returns it."""
        return self.to("cuda" if device is None else device)

    def float(self) -> TorchModule:
        """Sets the precision to fp32, and returns the model."""
        return self.to(torch.float32)

    def half(self) -> TorchModule:
        """Sets the precision to fp16, and returns the model."""
        return self.to(torch.float16)

    def bfloat16(self) -> TorchModule:
        """Sets the precision to bf16, and returns the model."""
        return self.to(torch.bfloat16)

    def double(self) -> TorchModule:
        """Refuses: there is no such precision."""
        return self.to(torch.float64)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the precision in which the model scores; int8 counts as what it is given and gives, float32."""
        precision = self.pipeline.precision
        return DTYPES.get(precision, torch.float32)

    def compile(self, *_: Any, **__: Any) -> None:
        """Does nothing: the engines are compiled."""

    def preprocess(
        self, inputs: Any, prompt: str | None = None, *, processing_kwargs: Any = None, **_: Any
    ) -> dict[str, torch.Tensor]:
        """Tokenises pairs as `predict` does.

        Args:
            inputs: Pairs of texts.
            prompt: The text to put before each first text.
            processing_kwargs: As for `predict`.

        Returns:
            `input_ids`, `attention_mask` and, where the model has them, `token_type_ids`: int64 `[num_pairs, tokens]`.

        Raises:
            TypeError: Something is not a text; the message says where.
            ValueError: A pair has not two texts.
        """
        first, second, _single = split_pairs(inputs)
        length = max_length_of(processing_kwargs, self.max_length, self.pipeline.checkpoint.config)
        pairs = self.pipeline.tokenize(Window(first, second, prompt or None), length)
        return padded(pack(pairs, range(len(pairs)), None), self.tokenizer)

    def tokenize(self, texts: Any, **options: Any) -> dict[str, torch.Tensor]:
        """The older name of `preprocess`."""
        legacy.deprecated("CrossEncoder: tokenize is now called preprocess", stacklevel=2)
        return self.preprocess(texts, **options)

    def forward(self, input: Mapping[str, Any], **_: Any) -> dict[str, Any]:  # noqa: A002
        """Computes the logits of tokenised pairs, for training where gradients are recorded.

        Args:
            input: What `preprocess` gives.

        Returns:
            The same, and `scores`: logits `[num_pairs, num_labels]`, without the activation function.
        """
        recorded = torch.is_grad_enabled()
        built = self.pipeline.built_encoder(training=recorded)
        batch = pack_padded(input, built.positions)
        if recorded:
            logits = cast(TrainableEncoder, built.encoder).training_logits(batch)
        else:
            logits = built.encoder.logits(batch, self.pipeline.num_threads or chosen_num_threads())
        return {**input, "scores": logits}

    def evaluate(self, evaluator: Callable[..., Any], output_path: str | os.PathLike[str] | None = None) -> Any:
        """Calls an evaluator, which writes to `output_path`, a folder that is made if missing; returns its results."""
        if output_path is not None:
            os.makedirs(output_path, exist_ok=True)
        return evaluator(self, output_path=None if output_path is None else str(output_path))

    def is_singular_input(self, inputs: Any) -> bool:
        """Whether `predict` takes inputs as one pair rather than several."""
        return is_single_pair(inputs)

    def gradient_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Computes activations twice in training rather than keep them; see the Hugging Face module's method."""
        self.model.gradient_checkpointing_enable(*args, **kwargs)

    @property
    def processor(self) -> Any:
        """The tokenizer."""
        return self.tokenizer

    @property
    def transformers_model(self) -> Any:
        """The Hugging Face module."""
        return self.model

    @property
    def modalities(self) -> list[str]:
        """What can be scored: texts."""
        return ["text"]

    def supports(self, modality: Any) -> bool:
        """Whether a modality is one of `modalities`."""
        return modality in self.modalities

    def get_max_seq_length(self) -> int:
        """Tokens of a pair at most."""
        return self.max_length

    def get_backend(self) -> str:
        """Name of the backend that scores."""
        return self.pipeline.built_encoder().backend
