"""The attributes of a CrossEncoder by the names that scripts for sentence-transformers set."""

from __future__ import annotations

from typing import Any

import torch

from fastce import legacy, scoring
from fastce.checkpoints.network import capped_length, length_limit
from fastce.checks import check_positive
from fastce.pipeline import Pipeline

CONSTRUCTOR_ONLY = (
    "backend",
    "cache_folder",
    "config_kwargs",
    "deterministic",
    "local_files_only",
    "model_kwargs",
    "model_name_or_path",
    "num_threads",
    "precision",
    "processor_kwargs",
    "revision",
    "token",
    "trust_remote_code",
)
"""What is said once, when a model is loaded; a later change would have no effect."""

WITHOUT_EFFECT = frozenset(
    (
        *CONSTRUCTOR_ONLY,
        *("_target_device", "activation_fct", "active_adapter", "active_adapters", "append", "best_score"),
        *("check_peft_compatible_model", "clear_placement_cache", "default_huggingface_organization", "delete_adapter"),
        *("disable_adapters", "enable_adapters", "extend", "get_adapter_state_dict", "get_default_activation_fn"),
        *("get_model_kwargs", "has_peft_compatible_model", "insert", "is_hpu_graph_enabled", "keep_in_fp32_modules"),
        *("load_adapter", "merge", "model_card_data_class", "model_type", "module_kwargs", "old_fit", "pop"),
        *("save_to_hub", "set_adapter", "set_keep_in_fp32_modules", "smart_batching_collate"),
        "smart_batching_collate_text_only",
    )
)
"""Attributes of sentence-transformers' CrossEncoder that fastce does not have."""


class Attributes:
    """The attributes that scripts for sentence-transformers set on a CrossEncoder; refuses those it can't obey."""

    pipeline: Pipeline

    @property
    def max_length(self) -> int:
        """Tokens of a pair at most, special ones included: the tokenizer's `model_max_length`, whoever sets it.

        Setting it beyond the model's positions warns and caps.
        """
        checkpoint = self.pipeline.checkpoint
        if checkpoint.tokenizer.model_max_length != self._max_length:
            self.max_length = length_limit(checkpoint.tokenizer)
        return self._max_length

    @max_length.setter
    def max_length(self, value: int) -> None:
        checkpoint = self.pipeline.checkpoint
        self._max_length = capped_length(check_positive(value, "max_length"), checkpoint.config)
        checkpoint.tokenizer.model_max_length = self._max_length  # saved with the tokenizer

    @property
    def activation_fn(self) -> scoring.ActivationFn:
        """Turns logits `[num_pairs, num_labels]` into scores. Setting it takes a name of `torch.nn` too.

        On CPUs it is applied so that equal pairs have equal scores, bit for bit: the plain classes of `torch.nn` that a
        config may name to blocks of one size, every other function to a row at a time. One that compares pairs with
        each other, such as a softmax over all of them, gets all at once, and its scores depend on all.
        """
        return self._activation_fn

    @activation_fn.setter
    def activation_fn(self, activation_fn: scoring.ActivationFn | str) -> None:
        self._activation_fn = scoring.check_activation(activation_fn)

    @property
    def max_seq_length(self) -> int:
        """What sentence-transformers calls `max_length` from 5.4 on."""
        return self.max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self.max_length = value

    @property
    def default_activation_function(self) -> scoring.ActivationFn:
        """The older name of `activation_fn`."""
        legacy.deprecated("CrossEncoder: default_activation_function is now called activation_fn", stacklevel=2)
        return self.activation_fn

    @default_activation_function.setter
    def default_activation_function(self, value: scoring.ActivationFn | str) -> None:
        legacy.deprecated("CrossEncoder: default_activation_function is now called activation_fn", stacklevel=3)
        self.activation_fn = value

    @property
    def model(self) -> Any:
        """The Hugging Face module, with float32 parameters; made from the file when it is first asked for."""
        return self.pipeline.checkpoint.module

    @model.setter
    def model(self, module: Any) -> None:
        self.pipeline.checkpoint.module = module

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return self.pipeline.checkpoint.tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        self.pipeline.checkpoint.tokenizer = tokenizer

    @property
    def backend(self) -> str:
        """Name of the backend that scores."""
        return self.pipeline.built_encoder().backend

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.pipeline.checkpoint.device

    @property
    def config(self) -> Any:
        """The Hugging Face config."""
        return self.pipeline.checkpoint.config

    @property
    def num_labels(self) -> int:
        """Number of logits per pair."""
        return self.pipeline.checkpoint.num_labels

    def __setattr__(self, name: str, value: Any) -> None:
        # What a class of the caller's own keeps under these names is its business.
        if name in WITHOUT_EFFECT and not hasattr(type(self), name) and Attributes in type(self).__bases__:
            how = "it is chosen when a model is loaded" if name in CONSTRUCTOR_ONLY else "fastce has no such attribute"
            raise AttributeError(f"CrossEncoder: setting {name} would have no effect, {how}")
        object.__setattr__(self, name, value)  # modules and parameters too are attributes like others here
