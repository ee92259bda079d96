"""The training example of sentence-transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(eq=False, repr=False)
class InputExample:
    """One example for training or evaluation.

    Attributes:
        guid: An id of the caller's; fastce does not read it.
        texts: Two texts; for the losses of rankings, in `fastce.losses`, a query and its documents.
        label: A score for models with one label; for models with several, a class number or a list of a number for
            each; for the losses of rankings a number for each document.
    """

    guid: str = ""
    texts: list[str] | None = None
    label: int | float | Sequence[float] = 0

    def __str__(self) -> str:
        return f"<InputExample> label: {self.label}, texts: {'; '.join(self.texts or ())}"
