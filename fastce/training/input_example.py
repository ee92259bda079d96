"""The training example of sentence-transformers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(eq=False, repr=False)
class InputExample:
    """One example for training or evaluation.

    Attributes:
        guid: An id of the caller's; fastce does not read it.
        texts: The texts, two for a cross-encoder.
        label: A score for models with one label, a class number for models with several.
    """

    guid: str = ""
    texts: list[str] | None = None
    label: int | float = 0

    def __str__(self) -> str:
        return f"<InputExample> label: {self.label}, texts: {'; '.join(self.texts or ())}"
