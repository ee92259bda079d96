"""Pairs of texts with labels, from files or from the Hugging Face Hub, for the examples that train on them."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import typer

from fastce import InputExample

HELD_OUT_SHARE = 0.1
LARGEST_HELD_OUT = 10_000

T = TypeVar("T")


@dataclass(frozen=True)
class PairSource:
    """Where the pairs of a task are.

    Attributes:
        files: The file of each split, without .tsv.gz. It has a header line and three columns or more: label, first
            text, second text.
        file_label: Turns the label of a file into that of an example.
        hub: Name and, if there are several, configuration of the dataset on the Hugging Face Hub.
        hub_splits: What the dataset calls each split.
        hub_columns: What it calls first text, second text and label.
        hub_label: Turns its label into that of an example.
    """

    files: Mapping[str, str]
    file_label: Callable[[str], float]
    hub: tuple[str, ...]
    hub_splits: Mapping[str, str]
    hub_columns: tuple[str, str, str]
    hub_label: Callable[[Any], float]


NLI_CLASSES = {"contradiction": 0, "entailment": 1, "neutral": 2}
"""As the published NLI cross-encoders number them."""
HUB_NLI_CLASSES = ("entailment", "neutral", "contradiction")
"""As the dataset on the Hub numbers them."""

STSB = PairSource(
    files={"train": "stsb_train", "dev": "stsb_dev", "test": "stsb_test"},
    file_label=lambda score: float(score) / 5,
    hub=("sentence-transformers/stsb",),
    hub_splits={"train": "train", "dev": "validation", "test": "test"},
    hub_columns=("sentence1", "sentence2", "score"),
    hub_label=float,
)
QUORA = PairSource(
    files={"train": "quora_dev", "test": "quora_test"},
    file_label=int,
    hub=("sentence-transformers/quora-duplicates", "pair-class"),
    hub_splits={"train": "train"},
    hub_columns=("sentence1", "sentence2", "label"),
    hub_label=int,
)
NLI = PairSource(
    files={"train": "snli_dev", "test": "snli_test"},
    file_label=NLI_CLASSES.__getitem__,
    hub=("sentence-transformers/all-nli", "pair-class"),
    hub_splits={"train": "train", "dev": "dev", "test": "test"},
    hub_columns=("premise", "hypothesis", "label"),
    hub_label=lambda number: NLI_CLASSES[HUB_NLI_CLASSES[number]],
)


@dataclass
class Splits(Generic[T]):
    """What to train on, what to choose the best model by, and what to test it on.

    Attributes:
        train: To train on.
        dev: To choose the best model by.
        test: To test it on.
        notes: Where each comes from, a line each.
    """

    train: list[T]
    dev: list[T]
    test: list[T]
    notes: list[str] = field(default_factory=list)


def load_pairs(source: PairSource, data: Path | None, max_train: int | None = None) -> Splits[InputExample]:
    """Loads the examples of a task.

    Args:
        source: Where they are.
        data: The folder with the files; None loads from the Hub.
        max_train: Train on the first so many pairs only.

    Raises:
        typer.BadParameter: A file or what reads the Hub is missing.
        ValueError: A line of a file is wrong; the message says where.
    """
    if data is None:
        places = {split: ": ".join((*source.hub, name)) for split, name in source.hub_splits.items()}
        found = {split: read_hub_pairs(source, name) for split, name in source.hub_splits.items()}
    else:
        files = {split: data / f"{name}.tsv.gz" for split, name in source.files.items()}
        places = {split: file.name for split, file in files.items()}
        found = {split: read_pairs(file, source.file_label) for split, file in files.items()}
    return complete_splits(found, places, max_train)


def read_pairs(file: Path, read_label: Callable[[str], float]) -> list[InputExample]:
    """Reads a file; `PairSource.files` describes it.

    Raises:
        typer.BadParameter: There is no such file.
        ValueError: A line has less than three columns or an unknown label; the message says where.
    """
    if not file.exists():
        raise typer.BadParameter(f"{file} does not exist")
    examples = []
    with gzip.open(file, "rt", encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        next(rows, None)
        for number, row in enumerate(rows, start=2):
            try:
                label, first, second = row[:3]
                examples.append(InputExample(texts=[first, second], label=read_label(label)))
            except (KeyError, ValueError):
                raise ValueError(f"{file}, line {number}: expected label, text and text, got {row}") from None
    return examples


def read_hub_pairs(source: PairSource, split: str) -> list[InputExample]:
    """Reads one split of a dataset on the Hub."""
    dataset = load_hub(*source.hub, split=split)
    firsts, seconds, labels = (dataset[column] for column in source.hub_columns)
    return [
        InputExample(texts=[first, second], label=source.hub_label(label))
        for first, second, label in zip(firsts, seconds, labels, strict=True)
    ]


def load_hub(*name: str, split: str) -> Any:
    """Downloads a dataset, or takes it from the cache.

    Raises:
        typer.BadParameter: The package datasets is not installed, or the Hub is out of reach.
    """
    try:
        from datasets import load_dataset
    except ImportError:
        raise typer.BadParameter("give --data FOLDER, or read from the Hub after: pip install datasets") from None
    try:
        return load_dataset(*name, split=split)
    except OSError as error:
        raise typer.BadParameter(
            f"give --data FOLDER, for the Hub does not give {': '.join(name)} ({error})"
        ) from error


def complete_splits(found: Mapping[str, list[T]], places: Mapping[str, str], max_train: int | None) -> Splits[T]:
    """Holds out the end of the training data for each split that is missing.

    The end, and not a sample: neighbours often share a text.

    Args:
        found: What to train on, and perhaps dev and test.
        places: Where each was found.
        max_train: Train on the first so many of those that are left.
    """
    splits = dict(found)
    for split in ("test", "dev"):
        if split not in splits:
            splits["train"], splits[split] = hold_out(splits["train"])
    train = splits["train"][:max_train]
    here = {"train": train, "dev": splits["dev"], "test": splits["test"]}
    notes = [
        f"{split}: {len(part)} of "
        + (places[split] if split in places else f"{places['train']}, held out from its end")
        for split, part in here.items()
    ]
    return Splits(**here, notes=notes)


def hold_out(items: list[T]) -> tuple[list[T], list[T]]:
    """Splits off the last tenth, 10,000 at most and one at least."""
    number = max(min(int(HELD_OUT_SHARE * len(items)), LARGEST_HELD_OUT), 1)
    return items[:-number], items[-number:]


def with_both_directions(examples: list[InputExample]) -> list[InputExample]:
    """Each pair in both orders."""
    return [
        InputExample(texts=texts, label=example.label)
        for example in examples
        for texts in (list(example.texts or ()), list(reversed(example.texts or ())))
    ]
