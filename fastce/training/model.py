"""What training needs of the model that it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch

from fastce.model_card import ModelCardData
from fastce.pipeline import Pipeline


class TrainableModel(Protocol):
    """A `CrossEncoder`, as far as training is concerned."""

    model: Any
    pipeline: Pipeline
    max_length: int
    model_card_data: ModelCardData

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        ...

    @property
    def config(self) -> Any:
        """The Hugging Face config."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        ...

    @property
    def num_labels(self) -> int:
        """Number of logits per pair."""
        ...

    def save(self, path: str | Path) -> None:
        """Writes the model."""
        ...
