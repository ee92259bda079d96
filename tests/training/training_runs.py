"""Short training runs of tiny models, for the tests of training."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tiny_models import PAIRS
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from fastce import CrossEncoder, InputExample
from fastce.threads import torch_threads

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
FAST: dict[str, Any] = {"warmup_steps": 0, "optimizer_params": {"lr": 1e-3}, "show_progress_bar": False}
SGD: dict[str, Any] = FAST | {"optimizer_class": torch.optim.SGD, "optimizer_params": {"lr": 0.05}}


def examples(count: int, num_labels: int = 1) -> list[InputExample]:
    chooser = random.Random(0)
    chosen = chooser.sample(PAIRS, count)
    labels = [chooser.random() if num_labels == 1 else chooser.randrange(num_labels) for _ in chosen]
    return [InputExample(texts=list(pair), label=label) for pair, label in zip(chosen, labels, strict=True)]


def loader(
    count: int = 32, batch_size: int = 4, *, num_labels: int = 1, shuffle: bool = True
) -> DataLoader[InputExample]:
    return DataLoader(examples(count, num_labels), batch_size=batch_size, shuffle=shuffle)


def weights_after(directory: str, data: Any, **options: Any) -> dict[str, torch.Tensor]:
    model = CrossEncoder(directory)
    model.fit(data, **(FAST | options))
    return {name: weight.clone() for name, weight in model.model.state_dict().items()}


def distance(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """With more, whose number follows the load, PyTorch's products of odd sizes differ in their last bit."""
    with torch_threads(1):
        yield


class StoppedError(Exception):
    """Stands in for whatever may kill a run."""


def stop_at(step: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    steps = iter(range(1, 10_000))

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if next(steps) == step:
            raise StoppedError
        return nn.functional.binary_cross_entropy_with_logits(logits, labels)

    return loss


class LazySampler(Sampler[int]):
    """A random order whose numbers are drawn one by one, while the training goes on."""

    def __init__(self, size: int):
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        waiting = list(range(self.size))
        while waiting:
            yield waiting.pop(int(torch.randint(len(waiting), ())))


class DrawnTexts(Dataset[InputExample]):
    """Texts that lose words at random, anew each time; `drawn` has the first texts that were handed out."""

    def __init__(self, size: int = 32):
        self.size = size
        self.drawn: list[str] = []

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> InputExample:
        first, second = PAIRS[index % len(PAIRS)]
        self.drawn.append(" ".join(word for word in (first + " " + second).split() if random.random() < 0.5))
        return InputExample(texts=[self.drawn[-1], second], label=index % 5 / 4)
