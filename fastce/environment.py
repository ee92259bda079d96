"""What there is to run on: the device, the C++ module, the processor."""

from __future__ import annotations

import os
from typing import Any

import torch


def default_device() -> torch.device:
    """The best device at hand: CUDA, else Apple's GPU, else the CPU."""
    if torch.cuda.is_available():
        rank = os.environ.get("LOCAL_RANK")  # of a process that shares a run with others on this machine
        return torch.device("cuda" if rank is None else f"cuda:{rank}")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def check_device(device: Any) -> torch.device:
    """A device that somebody named.

    Raises:
        ValueError: There is none of that name here.
    """
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device: {device!r} is none ({str(error).splitlines()[0]})") from error
    if found.type == "cuda":
        count = torch.cuda.device_count()
        if (found.index or 0) >= count:
            there = f"there are {count}" if torch.backends.cuda.is_built() else "this PyTorch has no CUDA"
            raise ValueError(f"device: no {str(found)!r} here, {there}")
    return found


def cpp_facts() -> dict[str, str]:
    """What the C++ module says of itself and of this machine, by name.

    Raises:
        ValueError: `FASTCE_ISA` names a level that the processor lacks.
    """
    try:
        from fastce import _core
    except ImportError:
        return {"C++ module": "not built"}
    return {
        "C++ module": "built",
        "ISA level": f"{_core.choose_level()} of {', '.join(_core.isa_levels())}",
        "threads": str(_core.default_num_threads()),
    }
