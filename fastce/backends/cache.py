"""Keeps built encoders, and notices when the weights that they were built from have changed."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from fastce.backends.base import Encoder, choose
from fastce.checkpoints.checkpoint import Checkpoint
from fastce.spec import PositionScheme, Precision


@dataclass(frozen=True)
class Built:
    """An encoder and what its batches need to know.

    Attributes:
        backend: Name of the backend that it runs on.
        encoder: The encoder.
        positions: How it counts positions.
    """

    backend: str
    encoder: Encoder
    positions: PositionScheme


class EncoderCache:
    """The encoders of one model, one for scoring and one for training. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._built: dict[bool, tuple[object, Built]] = {}

    def get(self, checkpoint: Checkpoint, backend: str, precision: Precision, *, training: bool) -> Built:
        """Returns the encoder, built again where the weights or the settings differ from those it was built with.

        Raises:
            ValueError: No backend can run the model so; the message holds every reason.
        """
        with self._lock:
            kept, built = self._built.get(training, (None, None))
            if built is None or kept != (backend, precision, checkpoint.state()):
                self._built.pop(training, None)  # the old weights go before the new ones come
                network = checkpoint.network(with_module=training)
                name, chosen = choose(backend, network, precision, checkpoint.device)
                if chosen.needs_module:
                    network = checkpoint.network(with_module=True)
                if training:
                    encoder: Encoder = chosen.build_trainable(network, checkpoint.device)
                else:
                    encoder = chosen.build(network, precision, checkpoint.device)
                built = Built(name, encoder, network.positions)
                self._built[training] = ((backend, precision, checkpoint.state()), built)
            return built

    def __getstate__(self) -> dict[str, object]:
        """Copies and pickles start empty: encoders are made again from the weights."""
        return {}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__()  # type: ignore[misc]
