"""A loaded model: in its file until its Hugging Face module is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fastce.checkpoints.metadata import Metadata
from fastce.checkpoints.network import Network, describe


class Checkpoint:
    """A model's config, tokenizer and parameters.

    Engines that convert the weights need the module no longer than it takes to read them, so it is made only when
    somebody trains, saves or looks at it.

    Args:
        config: The Hugging Face config.
        tokenizer: The tokenizer.
        metadata: What sentence-transformers stores beside a model.
        read: Reads the network without the module; returns None where that can't be done.
        load: Makes the module: float32, in evaluation mode.
    """

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        metadata: Metadata,
        read: Callable[[], Network | None],
        load: Callable[[], Any],
    ):
        self.tokenizer = tokenizer
        self.metadata = metadata
        self.device = torch.device("cpu")
        self._config = config
        self._read = read
        self._load = load
        self._module: Any = None

    @property
    def config(self) -> Any:
        """The Hugging Face config."""
        return self._config if self._module is None else self._module.config

    @property
    def module(self) -> Any:
        """The Hugging Face module, made now if it has not been."""
        if self._module is None:
            self._module = self._load().to(self.device)
        return self._module

    @module.setter
    def module(self, module: Any) -> None:
        self._module = module
        self.device = next(iter(module.parameters())).device

    def to(self, device: torch.device) -> None:
        """Moves the module, now or when it is made."""
        if self._module is not None:
            self._module.to(device)
            device = next(iter(self._module.parameters())).device  # "cuda" has become "cuda:0"
        self.device = device

    def network(self, *, with_module: bool) -> Network:
        """Describes the network.

        Args:
            with_module: Whether the description must be of the module; without, it may be read from the file.
        """
        network = None if with_module or self._module is not None else self._read()
        return describe(self.module) if network is None else network

    def state(self) -> object:
        """Changes whenever the weights may have: another module, another parameter, or a parameter changed in place."""
        if self._module is None:
            return self.device
        return id(self._module), tuple((weight.data_ptr(), weight._version) for weight in self._module.parameters())
