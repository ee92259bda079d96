"""Saving and sharing, as a part of `CrossEncoder`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastce import legacy, scoring
from fastce.checkpoints.adapters import base_module
from fastce.checkpoints.chain import ModuleChain
from fastce.checkpoints.metadata import Metadata
from fastce.checkpoints.saving import CARD_FILE, may_write_card, push_checkpoint, save_checkpoint
from fastce.model_card import ModelCardData, model_card


class SaveMixin:
    """Adds saving to a model."""

    model: Any
    tokenizer: Any
    config: Any
    activation_fn: Any
    prompts: Mapping[str, str]
    default_prompt_name: str | None
    model_card_data: ModelCardData

    @legacy.method_arguments({}, ())
    def save(
        self,
        path: str | Path,
        model_name: str | None = None,
        create_model_card: bool = True,
        train_datasets: Sequence[str] | None = None,
        safe_serialization: bool = True,
    ) -> None:
        """Writes the model so that transformers, sentence-transformers and fastce load it. Adapters are merged.

        Args:
            path: A directory; made if missing. An interrupted save leaves the model that was in it.
            model_name: What its model card calls it.
            create_model_card: Whether to write a model card, `README.md`; one that is not fastce's stays.
            train_datasets: What the model card says that it was trained on.
            safe_serialization: Weights are written to safetensors whatever this says; False warns.

        Raises:
            OSError: The directory can't be written.
        """
        if not safe_serialization:
            warnings.warn("save: fastce writes safetensors, pickles it never does", stacklevel=3)
        name = scoring.activation_name(self.activation_fn)
        metadata = Metadata(activation_fn=name, prompts=self.prompts, default_prompt_name=self.default_prompt_name)
        card = self._model_card(model_name, train_datasets) if create_model_card else None
        save_checkpoint(path, self.model, self.tokenizer, metadata, card)

    save_pretrained = save

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads the model, as `save` writes it, to the Hugging Face Hub.

        Args:
            repo_id: Name of the repository; made if missing.
            **options: Options of `fastce.checkpoints.saving.push_checkpoint`, such as `token` and `private`.

        Returns:
            Address of the commit, or with `create_pr` of the pull request.
        """
        self.model_card_data.model_id = repo_id
        return push_checkpoint(self.save, repo_id, **options)

    def _model_card(self, name: str | None, train_datasets: Sequence[str] | None) -> str:
        data = self.model_card_data
        data.model_name = name or data.model_name
        if train_datasets:
            data.training = {**data.training, "datasets": ", ".join(train_datasets)}
        labels = [str(self.config.id2label.get(number, number)) for number in range(self.config.num_labels)]
        activation = type(self.activation_fn).__name__
        return model_card(data, labels, activation, not isinstance(base_module(self.model), ModuleChain))

    def _create_model_card(self, path: str | Path, model_name: str | None = None, *_: Any, **__: Any) -> None:
        """Writes the model card alone, for sentence-transformers' Trainer."""
        if may_write_card(Path(path)):
            (Path(path) / CARD_FILE).write_text(self._model_card(model_name, None), encoding="utf-8")
