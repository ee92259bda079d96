"""Keeps built encoders, and notices when the weights that they were built from have changed."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastce.backends.base import SLOWEST, Choice, Encoder, Request, choose
from fastce.checkpoints.checkpoint import Checkpoint
from fastce.spec import AbsolutePositions, Precision

if TYPE_CHECKING:
    from fastce.rescoring import Errors

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Built:
    """An encoder and what its batches need to know.

    Attributes:
        choice: The backend that it runs on, and those that were passed over.
        encoder: The encoder.
        positions: How it counts positions; None from 0 on.
        errors: What was measured of its logits against those of other precisions.
    """

    choice: Choice
    encoder: Encoder
    positions: AbsolutePositions | None
    errors: dict[Precision, Errors] = field(default_factory=dict)

    @property
    def backend(self) -> str:
        """Name of the backend."""
        return self.choice.name


class EncoderCache:
    """The encoders of one model, one for each precision and one for training. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._built: dict[tuple[Precision, bool], tuple[object, Built]] = {}
        self._warned = False

    def get(self, checkpoint: Checkpoint, backend: str, precision: Precision, *, training: bool) -> Built:
        """Returns the encoder, built again where the weights or the settings differ from those it was built with.

        Raises:
            ValueError: No backend can run the model so; the message holds every reason.
        """
        with self._lock:
            key, state = (precision, training), (backend, checkpoint.state())
            kept, built = self._built.get(key, (None, None))
            if built is None or kept != state:
                # The old weights go before the new ones come.
                self._built = {
                    other: found for other, found in self._built.items() if other != key and found[0] == state
                }
                built = self._build(checkpoint, backend, precision, training)
                self._built[key] = ((backend, checkpoint.state()), built)
            return built

    def _build(self, checkpoint: Checkpoint, backend: str, precision: Precision, training: bool) -> Built:
        network = checkpoint.network(with_module=training)
        choice = choose(backend, Request(network, precision, checkpoint.device, training))
        if choice.backend.needs_module:
            network = checkpoint.network(with_module=True)
        request = Request(network, precision, checkpoint.device, training)
        encoder = choice.backend.build_trainable(request) if training else choice.backend.build(request)
        if choice.name == SLOWEST and choice.passed_over and not self._warned:
            self._warned = True
            reasons = "; ".join(f"{name}: {', '.join(found.reasons)}" for name, found in choice.passed_over.items())
            logger.warning("the model runs padded, as its transformers module, no faster than there (%s)", reasons)
        if network.file is not None:
            checkpoint.check_file()  # what was read is now what the encoder holds
        return Built(choice, encoder, network.positions)

    def __getstate__(self) -> dict[str, object]:
        """Copies and pickles start empty: encoders are made again from the weights."""
        return {}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__()  # type: ignore[misc]
