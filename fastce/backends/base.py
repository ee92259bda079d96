"""What a backend is, the table of all of them, and the choice between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, NamedTuple, Protocol

import torch

from fastce.checkpoints.network import Network
from fastce.checks import check_precision, describe
from fastce.features import features, missing
from fastce.packing import PackedBatch
from fastce.spec import Precision


class Encoder(Protocol):
    """A network ready to run: weights converted once, called once a batch."""

    shared_bytes: int
    """Bytes that a token takes while pairs share it as a part of their prefix; 0 where batches can't have prefixes."""
    batches_exactly: bool
    """Whether a pair's logits are the same, bit for bit, whatever it is batched with."""
    remarks: Sequence[str]
    """What was done to the weights beyond rounding them, in words."""

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


@dataclass(frozen=True)
class Request:
    """What a backend is asked to run.

    Attributes:
        network: The network, or None to ask about any.
        precision: In which precision.
        device: Where.
        training: Whether gradients are wanted.
        named: Whether the user asks for the very backend that is asked, not for the fastest one.
    """

    network: Network | None
    precision: Precision
    device: torch.device
    training: bool = False
    named: bool = False


class Backend(Protocol):
    """A way to run a network."""

    needs_module: bool
    """Whether `build` needs the network's module even for scoring."""

    def unsupported(self, request: Request) -> list[str]:
        """Says why this backend can't run what is asked; an empty list means that it can."""
        ...

    def build(self, request: Request) -> Encoder:
        """Converts the weights, once. Called only where `unsupported` has no reasons, with a network."""
        ...

    def build_trainable(self, request: Request) -> TrainableEncoder:
        """Makes an encoder over the float32 parameters of the network's module, live; called as `build` is."""
        ...


BACKENDS: dict[str, str] = {
    "cpp": "fastce.backends.cpp.engine",
    "triton": "fastce.backends.triton.engine",
    "reference": "fastce.backends.reference.engine",
    "transformers": "fastce.backends.transformers",
}
"""Backend names to the modules that hold their `BACKEND`, best first."""

SLOWEST = "transformers"
"""The backend that pads: where only this one is left, a warning says why."""

OTHER_NAMES: dict[str, str] = {"torch": "auto"}
"""Names that mean others: `"torch"` is the default of sentence-transformers, and arrives from its users as such."""

FOREIGN_NAMES = ("onnx", "openvino")
"""Names of sentence-transformers that fastce has no use for."""


@dataclass(frozen=True)
class Availability:
    """Whether a backend can run: true where nothing is against it.

    Attributes:
        reasons: What is against it, in sentences.
    """

    reasons: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether the backend can run."""
        return not self.reasons

    def __repr__(self) -> str:
        return f"<unavailable: {'; '.join(self.reasons)}>" if self.reasons else "<available>"


class Choice(NamedTuple):
    """The backend that runs a request.

    Attributes:
        name: Its name.
        backend: The backend.
        passed_over: The names before it in the table to what is against them.
    """

    name: str
    backend: Backend
    passed_over: Mapping[str, Availability]


def load_backend(name: str) -> Backend:
    """Imports a backend by its name in the table."""
    backend: Backend = import_module(BACKENDS[name]).BACKEND
    return backend


def check_backend(name: object) -> str:
    """The name in the table, or `"auto"`, that a caller's name means.

    Raises:
        ValueError: There is no such backend.
    """
    if name in FOREIGN_NAMES:
        raise ValueError(
            f"backend: {name!r} is one of sentence-transformers; fastce brings its own engines, and 'auto' takes the "
            "fastest"
        )
    known = OTHER_NAMES.get(name, name) if isinstance(name, str) else name
    if known != "auto" and known not in BACKENDS:
        raise ValueError(f"backend: expected 'auto' or one of {', '.join(map(repr, BACKENDS))}, got {name!r}")
    return str(known)


def available_backends(
    model: Any = None, *, precision: Precision = "fp32", device: str = "cpu"
) -> dict[str, Availability]:
    """Says which backends can run a model, and why the others can't.

    Args:
        model: A `CrossEncoder`, whose own precision and device are then meant; None asks about this installation alone.
        precision: The precision to ask about where no model is given.
        device: The device to ask about where no model is given.

    Returns:
        Backend names, in order of preference, to objects that are true where the backend can run and hold the reasons
        where not.

    Raises:
        TypeError: `model` is no `CrossEncoder` of fastce.
    """
    precision = check_precision(precision)
    if model is not None and not hasattr(model, "pipeline"):
        raise TypeError(f"model: expected a fastce.CrossEncoder, got {describe(model)}")
    request = Request(None, precision, torch.device(device)) if model is None else model.pipeline.request()
    return {name: Availability(tuple(load_backend(name).unsupported(request))) for name in BACKENDS}


def not_understood(network: Network | None, can: frozenset[str]) -> list[str]:
    """What a backend with these features has against a network."""
    if network is None:
        return []
    if isinstance(network.understood, str):
        return [network.understood]
    return missing(features(network.understood.encoder, network.understood.head), can)


def choose(name: str, request: Request) -> Choice:
    """Finds the backend to run a network with.

    Args:
        name: A backend's name, or `"auto"` for the first one that can. A named backend never gives way to another.
        request: What is to run.

    Raises:
        ValueError: The named backend can't run the network, or none can; the message holds every reason.
    """
    passed_over: dict[str, Availability] = {}
    request = replace(request, named=name != "auto")
    for candidate in BACKENDS if name == "auto" else (name,):
        backend = load_backend(candidate)
        found = Availability(tuple(backend.unsupported(request)))
        if found:
            return Choice(candidate, backend, passed_over)
        passed_over[candidate] = found
    reasons = ". ".join(f"{candidate}: {'; '.join(found.reasons)}" for candidate, found in passed_over.items())
    task = "train this model" if request.training else f"run this model in {request.precision}"
    raise ValueError(f"no backend can {task} on {request.device}. {reasons}")
