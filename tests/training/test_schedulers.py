from __future__ import annotations

import pytest
import torch
from transformers import optimization

from fastce.training.schedulers import SCHEDULERS, get_scheduler

EXPECTED = {
    "constantlr": lambda optimizer: optimization.get_constant_schedule(optimizer),
    "WarmupConstant": lambda optimizer: optimization.get_constant_schedule_with_warmup(optimizer, 3),
    "WarmupLinear": lambda optimizer: optimization.get_linear_schedule_with_warmup(optimizer, 3, 12),
    "warmupcosine": lambda optimizer: optimization.get_cosine_schedule_with_warmup(optimizer, 3, 12),
    "warmupcosinewithhardrestarts": lambda optimizer: optimization.get_cosine_with_hard_restarts_schedule_with_warmup(
        optimizer, 3, 12
    ),
}


def rates(make: object) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    found = []
    for _ in range(12):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("name", EXPECTED)
def test_schedules_are_those_of_the_names(name: str) -> None:
    assert rates(lambda optimizer: get_scheduler(name, optimizer, 3, 12)) == rates(EXPECTED[name])


def test_every_schedule_is_tested() -> None:
    assert {name.lower() for name in EXPECTED} == SCHEDULERS.keys()


def test_an_unknown_schedule() -> None:
    with pytest.raises(ValueError, match=r"scheduler: expected one of constantlr, .*, got 'linear'"):
        get_scheduler("linear", torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), 3, 12)
