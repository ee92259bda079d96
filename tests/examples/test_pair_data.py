from __future__ import annotations

import gzip
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from pair_data import (
    NLI,
    QUORA,
    STSB,
    PairSource,
    complete_splits,
    hold_out,
    load_hub,
    load_pairs,
    with_both_directions,
)

from fastce import InputExample


def write_pairs(file: Path, labels: list[str]) -> None:
    """As many pairs as labels, with a quotation mark and a fourth column, which are nothing special."""
    rows = [
        f'{label}\t"{file.stem} first {number}\tsecond {number}\tid\n' for number, label in enumerate(labels, start=1)
    ]
    with gzip.open(file, "wt", encoding="utf-8") as stream:
        stream.writelines(["label\ta\tb\tid\n", *rows])


def rows(examples: list[InputExample]) -> list[tuple[str, str, float]]:
    return [(*(example.texts or ()), example.label) for example in examples]  # type: ignore[misc]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Stands in for the Hub, and remembers what it was asked for."""
    asked: list[tuple[Any, ...]] = []

    def load_dataset(*name: str, split: str) -> dict[str, list[Any]]:
        asked.append((*name, split))
        first, second, label = (STSB if "stsb" in name[0] else NLI if "nli" in name[0] else QUORA).hub_columns
        return {
            first: [f"{split} {number}" for number in range(20)],
            second: ["other"] * 20,
            label: [number % 3 if "nli" in name[0] else number % 2 for number in range(20)],
        }

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return asked


def test_scores_of_files(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        write_pairs(tmp_path / f"stsb_{split}.tsv.gz", ["5.000", "2.5", "0"])
    splits = load_pairs(STSB, tmp_path)
    for split in ("train", "dev", "test"):
        name = f"stsb_{split}.tsv"
        assert rows(getattr(splits, split)) == [
            (f'"{name} first 1', "second 1", 1.0),
            (f'"{name} first 2', "second 2", 0.5),
            (f'"{name} first 3', "second 3", 0.0),
        ]
    assert splits.notes == [f"{split}: 3 of stsb_{split}.tsv.gz" for split in ("train", "dev", "test")]


def test_missing_development_pairs_are_the_end_of_the_training_file(tmp_path: Path) -> None:
    write_pairs(tmp_path / "quora_dev.tsv.gz", ["0", "1"] * 10)
    write_pairs(tmp_path / "quora_test.tsv.gz", ["1"])
    splits = load_pairs(QUORA, tmp_path, max_train=5)
    assert [example.label for example in splits.train] == [0, 1, 0, 1, 0]
    assert [(example.texts or [])[1] for example in splits.dev] == ["second 19", "second 20"]
    assert rows(splits.test) == [('"quora_test.tsv first 1', "second 1", 1)]
    assert splits.notes == [
        "train: 5 of quora_dev.tsv.gz",
        "dev: 2 of quora_dev.tsv.gz, held out from its end",
        "test: 1 of quora_test.tsv.gz",
    ]


def test_classes_of_files(tmp_path: Path) -> None:
    names = ["contradiction", "entailment", "neutral"]
    write_pairs(tmp_path / "snli_dev.tsv.gz", names)
    write_pairs(tmp_path / "snli_test.tsv.gz", names)
    assert [example.label for example in load_pairs(NLI, tmp_path).test] == [0, 1, 2]


def test_the_hub(hub: list[tuple[Any, ...]]) -> None:
    splits = load_pairs(STSB, None)
    assert hub == [("sentence-transformers/stsb", split) for split in ("train", "validation", "test")]
    assert rows(splits.dev[:2]) == [("validation 0", "other", 0.0), ("validation 1", "other", 1.0)]
    assert splits.notes[1] == "dev: 20 of sentence-transformers/stsb: validation"


def test_classes_of_the_hub(hub: list[tuple[Any, ...]]) -> None:
    splits = load_pairs(NLI, None)
    assert hub[1] == ("sentence-transformers/all-nli", "pair-class", "dev")
    assert [example.label for example in splits.test[:3]] == [1, 2, 0], "entailment, neutral, contradiction"


def test_both_missing_splits_are_held_out(hub: list[tuple[Any, ...]]) -> None:
    splits = load_pairs(QUORA, None)
    assert hub == [("sentence-transformers/quora-duplicates", "pair-class", "train")]
    texts = [(example.texts or [])[0] for part in (splits.train, splits.dev, splits.test) for example in part]
    assert texts == [f"train {number}" for number in range(20)]
    assert (len(splits.dev), len(splits.test)) == (1, 2)


@pytest.mark.parametrize(("number", "held_out"), [(2, 1), (19, 1), (20, 2), (100_000, 10_000), (400_000, 10_000)])
def test_how_much_is_held_out(number: int, held_out: int) -> None:
    kept, last = hold_out(list(range(number)))
    assert kept + last == list(range(number))
    assert len(last) == held_out


def test_nothing_is_held_out_where_all_is_there() -> None:
    places = dict.fromkeys(("train", "dev", "test"), "place")
    splits = complete_splits({"train": [1, 2], "dev": [3], "test": [4]}, places, None)
    assert (splits.train, splits.dev, splits.test) == ([1, 2], [3], [4])


def test_both_directions() -> None:
    examples = with_both_directions([InputExample(texts=["a", "b"], label=1), InputExample(texts=["c", "d"], label=0)])
    assert rows(examples) == [("a", "b", 1), ("b", "a", 1), ("c", "d", 0), ("d", "c", 0)]


@pytest.mark.parametrize(("source", "label"), [(STSB, "high"), (QUORA, "0.5"), (NLI, "-")])
def test_a_wrong_label_is_found(source: PairSource, label: str, tmp_path: Path) -> None:
    for name in source.files.values():
        write_pairs(tmp_path / f"{name}.tsv.gz", [label])
    with pytest.raises(
        ValueError, match=rf"{source.files['train']}.tsv.gz, line 2: expected label, text and text, got"
    ):
        load_pairs(source, tmp_path)


def test_a_line_without_a_second_text_is_found(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "quora_dev.tsv.gz", "wt") as stream:
        stream.write("label\ta\tb\n1\tone\ttwo\n0\tone\n")
    with pytest.raises(
        ValueError, match=r"quora_dev.tsv.gz, line 3: expected label, text and text, got \['0', 'one'\]"
    ):
        load_pairs(QUORA, tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match=r"stsb_train.tsv.gz does not exist"):
        load_pairs(STSB, tmp_path)


def test_says_how_to_read_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(typer.BadParameter, match="pip install datasets"):
        load_hub("name", split="train")
