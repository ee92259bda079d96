"""A loaded model: in its file until its Hugging Face module is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.weak import WeakTensorKeyDictionary

from fastce.checkpoints.adapters import adapter_state, merged_module
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
        self._read_from: tuple[str, object] | None = None

    @property
    def config(self) -> Any:
        """The Hugging Face config."""
        return self._config if self._module is None else self._module.config

    @property
    def module(self) -> Any:
        """The Hugging Face module, made now if it has not been.

        Raises:
            RuntimeError: The file that the weights were read from is not what it was any more.
        """
        if self._module is None:
            if self._read_from is not None and file_identity(self._read_from[0]) != self._read_from[1]:
                raise RuntimeError(f"{self._read_from[0]} has changed since the model was loaded; load it again")
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
            with_module: Whether the description must be of the module itself; without, it may be read from the file,
                and adapters are merged.
        """
        network = None if with_module or self._module is not None else self._read()
        if network is None:
            network = describe(self.module) if with_module else self._merged_network()
        elif network.file is not None:
            self._read_from = (network.file, file_identity(network.file))
        return replace(network, tokenizer=self.tokenizer)

    def _merged_network(self) -> Network:
        try:
            return describe(merged_module(self.module))
        except ValueError as error:
            return Network(self.module, None, str(error))

    def state(self) -> object:
        """Changes with the weights: another module, parameter or adapter, an optimizer's step, a change in place.

        Changes through `parameter.data` outside of an optimizer leave no trace and are not noticed.
        """
        if self._module is None:
            return self.device
        versions = tuple(
            (weight.data_ptr(), weight._version, OPTIMIZER_STEPS.get(weight)) for weight in self._module.parameters()
        )
        return id(self._module), versions, adapter_state(self._module)


OPTIMIZER_STEPS = WeakTensorKeyDictionary()
"""Parameters to the last step of an optimizer, of all steps anywhere, that has changed them."""

STEP_NUMBERS = count()


def note_step(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Notes a step of any optimizer of torch's kind: fused ones change parameters behind their version counters."""
    number = next(STEP_NUMBERS)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            OPTIMIZER_STEPS[parameter] = number


register_optimizer_step_post_hook(note_step)


def file_identity(path: str) -> object:
    """What differs when a file has been replaced or written to; None where there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
