"""The processes that share a training run, started by `torchrun`, or by `accelerate launch` on GPUs."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch

T = TypeVar("T")

WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where launchers say how many processes there are: torchrun, and several kinds of MPI."""


class Processes:
    """All processes of a run, seen from one of them. A run without others is its own main process.

    Args:
        device: Where they train.

    Attributes:
        count: How many there are.
        rank: Which one this is.
    """

    def __init__(self, device: torch.device):
        self._accelerator: Any = None
        self.count, self.rank = 1, 0
        if any(int(os.environ.get(name, "1")) > 1 for name in WORLD_SIZES):
            from accelerate import Accelerator

            self._accelerator = Accelerator(cpu=device.type == "cpu")
            atexit.register(self._accelerator.state.destroy_process_group)  # its threads may abort an exiting process
            self.count, self.rank = self._accelerator.num_processes, self._accelerator.process_index

    @property
    def is_main(self) -> bool:
        """Whether this is the one that evaluates, saves and reports."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """What this process does of a step's work."""
        return items[self.rank :: self.count]

    def total(self, number: float) -> float:
        """The sum of everybody's number."""
        if self._accelerator is None:
            return number
        device = self._accelerator.device
        return float(self._accelerator.reduce(torch.tensor(number, dtype=torch.float64, device=device), "sum"))

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Gives everybody the sums of the gradients; a parameter that nobody has one of keeps none."""
        if self._accelerator is None:
            return
        flags = torch.tensor([parameter.grad is not None for parameter in parameters], device=self._accelerator.device)
        counts = self._accelerator.reduce(flags.int(), "sum").tolist()
        used = [parameter for parameter, count in zip(parameters, counts, strict=True) if count > 0]
        flat = self._accelerator.reduce(torch.cat([flat_gradient(parameter) for parameter in used]), "sum")
        for parameter, part in zip(used, flat.split([parameter.numel() for parameter in used]), strict=True):
            parameter.grad = part.view_as(parameter)

    def main_value(self, value: T) -> T:
        """The main process's value."""
        if self._accelerator is None:
            return value
        from accelerate.utils import broadcast_object_list

        values = [value]
        broadcast_object_list(values)
        return values[0]

    def take_weights_of_main(self, tensors: Iterable[torch.Tensor]) -> None:
        """Sets tensors to the main process's, in place: weights that were drawn differ from process to process."""
        if self._accelerator is None:
            return
        from accelerate.utils import broadcast

        with torch.no_grad():
            for tensor in tensors:
                tensor.copy_(broadcast(tensor.detach().clone()))

    def gather(self, value: T) -> list[T]:
        """Everybody's value, in order of rank."""
        if self._accelerator is None:
            return [value]
        from accelerate.utils import gather_object

        values: list[T] = gather_object([value])
        return values

    def wait(self) -> None:
        """Returns when all processes have come here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()


def flat_gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    """A parameter's gradient, `[size]`, or zeros."""
    return torch.zeros_like(parameter).flatten() if parameter.grad is None else parameter.grad.flatten()
