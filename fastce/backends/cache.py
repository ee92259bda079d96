"""Keeps built encoders, and notices when the weights that they were built from have changed."""

from __future__ import annotations

import threading
from typing import Any

import torch

from fastce.backends.base import Encoder, choose
from fastce.checkpoints.network import describe
from fastce.spec import Precision


class EncoderCache:
    """The encoders of one model, one for scoring and one for training. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._built: dict[bool, tuple[object, Encoder]] = {}

    def get(self, module: Any, backend: str, precision: Precision, device: torch.device, *, training: bool) -> Encoder:
        """Returns the encoder, built again where the module or the settings differ from those it was built with.

        Raises:
            ValueError: No backend can run the module so; the message holds every reason.
        """
        state = (id(module), backend, precision, weights_state(module))
        with self._lock:
            if training not in self._built or self._built[training][0] != state:
                network = describe(module)
                _, chosen = choose(backend, network, precision, device, training=training)
                self._built[training] = (state, chosen.build(network, precision, device))
            return self._built[training][1]

    def __getstate__(self) -> dict[str, object]:
        """Copies and pickles start empty: encoders are made again from the weights."""
        return {}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__()  # type: ignore[misc]


def weights_state(module: torch.nn.Module) -> tuple[tuple[int, int], ...]:
    """Address and version of each parameter; the version counts in-place changes, such as an optimizer's."""
    return tuple((parameter.data_ptr(), parameter._version) for parameter in module.parameters())
