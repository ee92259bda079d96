"""Learning-rate schedules under the names of sentence-transformers 2.2."""

from __future__ import annotations

from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import optimization

from fastce.checks import check_text

SCHEDULERS: dict[str, Callable[[Optimizer, int, int], LRScheduler]] = {
    "constantlr": lambda optimizer, warmup, total: optimization.get_constant_schedule(optimizer),
    "warmupconstant": lambda optimizer, warmup, total: optimization.get_constant_schedule_with_warmup(
        optimizer, warmup
    ),
    "warmuplinear": optimization.get_linear_schedule_with_warmup,
    "warmupcosine": optimization.get_cosine_schedule_with_warmup,
    "warmupcosinewithhardrestarts": optimization.get_cosine_with_hard_restarts_schedule_with_warmup,
}
"""Lower-case names to functions of optimizer, warm-up steps and total steps."""


def get_scheduler(name: str, optimizer: Optimizer, warmup_steps: int, total_steps: int) -> LRScheduler:
    """Makes a schedule.

    Args:
        name: A name of `SCHEDULERS`, in any case.
        optimizer: Whose learning rate to set.
        warmup_steps: Steps over which the learning rate rises.
        total_steps: Steps in all.

    Raises:
        TypeError: The name is no text.
        ValueError: There is no such schedule.
    """
    check_text(name, "scheduler")
    if name.lower() not in SCHEDULERS:
        raise ValueError(f"scheduler: expected one of {', '.join(SCHEDULERS)}, got {name!r}")
    return SCHEDULERS[name.lower()](optimizer, warmup_steps, total_steps)


def warms_up_to_the_end(name: str, warmup_steps: int, total_steps: int) -> bool:
    """Whether a schedule of `get_scheduler` never reaches the full learning rate."""
    return name.lower() != "constantlr" and warmup_steps >= total_steps
