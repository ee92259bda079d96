"""What a backend is, the table of all of them, and the choice between them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol

import torch

from fastce.checkpoints.network import Network
from fastce.packing import PackedBatch
from fastce.spec import PRECISIONS, Precision

if TYPE_CHECKING:
    from fastce.cross_encoder import CrossEncoder


class Encoder(Protocol):
    """A network ready to run: weights converted once, called once a batch."""

    def logits(self, batch: PackedBatch, num_threads: int | None = None) -> torch.Tensor:
        """Computes float32 `[num_pairs, num_labels]` without gradients and without dropout.

        Args:
            batch: The sequences, on the CPU.
            num_threads: CPU threads; None leaves the number to the backend.
        """
        ...


class TrainableEncoder(Encoder, Protocol):
    """An encoder that gradients flow through, over the module's own parameters."""

    def training_logits(self, batch: PackedBatch) -> torch.Tensor:
        """Computes `[num_pairs, num_labels]` with gradients; with dropout where the module is in training mode."""
        ...

    def zero_gradients(self, *, for_good: bool = False) -> None:
        """Forgets the gradients of the module's parameters; `for_good` where no further step follows."""
        ...


class Backend(Protocol):
    """A way to run a network."""

    needs_module: bool
    """Whether `build` needs the network's module even for scoring."""

    def unsupported(self, network: Network | None, precision: Precision, device: torch.device) -> list[str]:
        """Says why this backend can't run the network, or any network for None; an empty list means that it can."""
        ...

    def build(self, network: Network, precision: Precision, device: torch.device) -> Encoder:
        """Converts the weights for `precision`, once. Called only where `unsupported` has no reasons."""
        ...

    def build_trainable(self, network: Network, device: torch.device) -> TrainableEncoder:
        """Makes an encoder over the float32 parameters of the network's module, live; called as `build` is."""
        ...


BACKENDS: dict[str, str] = {
    "cpp": "fastce.backends.cpp.engine",
    "torch": "fastce.backends.torch.engine",
    "transformers": "fastce.backends.transformers",
}
"""Backend names to the modules that hold their `BACKEND`, best first."""


def load_backend(name: str) -> Backend:
    """Imports a backend by its name in the table.

    Raises:
        ValueError: There is no such backend.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend: expected 'auto' or one of {', '.join(map(repr, BACKENDS))}, got {name!r}")
    backend: Backend = import_module(BACKENDS[name]).BACKEND
    return backend


def available_backends(
    model: CrossEncoder | None = None, *, precision: Precision = "fp32", device: str = "cpu"
) -> dict[str, list[str]]:
    """Says which backends can run a model, and why the others can't.

    Args:
        model: The model, whose own precision and device are then meant; None asks about this installation alone.
        precision: The precision to ask about where no model is given.
        device: The device to ask about where no model is given.

    Returns:
        Backend names, in order of preference, to reasons against them; an empty list means that the backend can run.
    """
    check_precision(precision)
    if model is not None:
        network, where = model.pipeline.checkpoint.network(with_module=False), model.device
        precision = model.pipeline.precision
    else:
        network, where = None, torch.device(device)
    return {name: load_backend(name).unsupported(network, precision, where) for name in BACKENDS}


def check_precision(precision: str) -> None:
    """Raises ValueError unless there is such a precision."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")


def choose(name: str, network: Network, precision: Precision, device: torch.device) -> tuple[str, Backend]:
    """Finds the backend to run a network with.

    Args:
        name: A backend's name, or `"auto"` for the first one that can. A named backend never gives way to another.
        network: What is to run.
        precision: In which precision.
        device: Where.

    Returns:
        The backend's name and the backend.

    Raises:
        ValueError: The named backend can't run the network, or none can; the message holds every reason.
    """
    check_precision(precision)
    refusals = []
    for candidate in BACKENDS if name == "auto" else (name,):
        backend = load_backend(candidate)
        reasons = backend.unsupported(network, precision, device)
        if not reasons:
            return candidate, backend
        refusals.append(f"{candidate}: {'; '.join(reasons)}")
    raise ValueError(f"no backend can run this model in {precision} on {device}. " + ". ".join(refusals))
