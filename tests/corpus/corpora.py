"""Corpora for tests, and what is in the folders of jobs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.dataset
from tiny_models import SENTENCES

FIRST = [sentence for sentence in SENTENCES if sentence.strip()]
PAIRS = [(FIRST[number % 7], f"{FIRST[number % 5]} {number % 35}") for number in range(120)]
"""Pairs of seven queries, spread; the first 35 occur again and again."""


def write_lines(file: Path, values: Sequence[Any]) -> Path:
    file.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return file


def write_pairs(file: Path, pairs: Sequence[tuple[str, str]] = PAIRS) -> Path:
    rows = [{"id": number, "query": pair[0], "document": pair[1]} for number, pair in enumerate(pairs)]
    return write_lines(file, rows)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """All rows of a folder of Parquet files, as pyarrow finds them."""
    rows: list[dict[str, Any]] = pyarrow.dataset.dataset(folder, format="parquet").to_table().to_pylist()
    return rows


def files_of(folder: Path) -> dict[str, bytes]:
    """The parts of a folder and its files of reasons, by name."""
    names = [*folder.glob("part-*"), *folder.glob("_errors/*"), *folder.glob("_candidates/*")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in names}


def manifest_of(folder: Path) -> Any:
    return json.loads((folder / "_manifest.json").read_text())
