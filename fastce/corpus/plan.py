"""What a job is to do, put together from what a caller asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from fastce.checkpoints.fingerprint import scoring_facts
from fastce.corpus.manifest import Manifest
from fastce.corpus.output import table_of_rows
from fastce.corpus.readers.fields import ID_NAMES, Fields
from fastce.corpus.scorer import ScoringOptions, Task
from fastce.corpus.source import RowSource
from fastce.corpus.store import StoredPairs, TextStore, stored_texts, table_of_texts
from fastce.corpus.windows import BadRow, RowWindow
from fastce.pipeline import BatchLimits, Pairs, Window

if TYPE_CHECKING:
    from fastce.cross_encoder import CrossEncoder


@dataclass(frozen=True)
class Input:
    """What is read.

    Attributes:
        pairs: Files of pairs of texts, or of ids where there are tables of texts.
        queries: A table of the first texts, or None.
        documents: A table of the second texts, or None.
        columns: The fields of the pair; None takes well-known names.
        has_header: Whether the first row of a .csv or .tsv file has the columns' names.
        kept: Further fields, which are written beside the scores.
        text_store: Where tokenised texts are kept; None: in the cache folder.
    """

    pairs: str
    queries: str | None = None
    documents: str | None = None
    columns: tuple[str, str] | None = None
    has_header: bool = True
    kept: tuple[str, ...] = ()
    text_store: str | Path | None = None

    @property
    def has_ids(self) -> bool:
        """Whether pairs are of ids."""
        return self.queries is not None

    def source(self) -> RowSource:
        """The rows.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: A file is of no kind that can be read, or only one table of texts was given.
        """
        if (self.queries is None) != (self.documents is None):
            raise ValueError("queries and documents: pairs of ids need a table of each, --queries and --docs")
        if not self.has_ids:
            return RowSource.of(self.pairs, Fields(self.columns, others=self.kept, has_header=self.has_header))
        header = None if self.has_header else False
        fields = Fields(self.columns, ID_NAMES, others=self.kept, has_header=header)
        return RowSource.of(self.pairs, fields, (True, True))


class Rows(NamedTuple):
    """A window's rows, as far as they are needed behind its scoring.

    Attributes:
        part: The window's number.
        start: The number of its first row.
        num_rows: How many rows were read.
        table: What is written beside the scores.
        bad: The rows that can't be scored.
        digest: Of those that can; see `RowWindow.digest`.
    """

    part: int
    start: int
    num_rows: int
    table: pa.Table
    bad: list[BadRow]
    digest: str


class Plan:
    """A model, what it reads, and how it scores that.

    Args:
        model: The model.
        source: What it reads.
        scoring: How it scores.
        limits: What a batch may hold.
        window: Rows of a window.
        is_ranked: Whether the rows of each query are ranked.

    Attributes:
        source: The rows.
        stores: The texts of the queries and documents, where pairs are of ids.
        labels: The names of the model's labels.
    """

    def __init__(
        self,
        model: CrossEncoder,
        source: Input,
        scoring: ScoringOptions,
        limits: BatchLimits,
        window: int,
        *,
        is_ranked: bool,
    ):
        self.model = model
        self.input = source
        self.scoring = scoring
        self.limits = limits
        self.window = window
        self.is_ranked = is_ranked
        self.source = source.source()
        names = getattr(model.config, "id2label", None) or {}
        self.labels = [str(names.get(number, number)) for number in range(model.num_labels)]
        if is_ranked and model.num_labels != 1:
            raise ValueError(f"ranking needs a model with one label, this one has {model.num_labels}")
        self.prompt = model.prompt_of(None, None)
        self.stores: tuple[TextStore, TextStore] | None = None
        if source.queries is not None and source.documents is not None:
            first = self._store(source.queries, self.prompt)
            self.stores = first, self._store(source.documents, None)

    def no_others(self) -> pa.Table:
        """The further fields of no rows."""
        return pa.table({name: pa.array([], pa.string()) for name in self.input.kept})

    def _store(self, name: str, prompt: str | None) -> TextStore:
        folder = None if self.input.text_store is None else Path(self.input.text_store)
        return stored_texts(table_of_texts(name), self.model.pipeline.pair_tokenizer, prompt, folder)

    def resolved(self, window: RowWindow) -> tuple[RowWindow, Pairs]:
        """A window without the rows whose ids nobody knows, and its pairs."""
        if self.stores is None:
            return window, Window(window.first, window.second, self.prompt)
        numbers = [store.numbers(ids) for store, ids in zip(self.stores, (window.first, window.second), strict=True)]
        missing: dict[int, str] = {}
        for found, ids, name in zip(numbers, (window.first, window.second), self._tables(), strict=True):
            for place in np.flatnonzero(found < 0).tolist():
                row = int(window.rows[place]) + 1
                missing.setdefault(place, f"{self.input.pairs}, row {row}: no id {ids[place]!r} in {name}")
        known = (numbers[0] >= 0) & (numbers[1] >= 0)
        queries, documents = self.stores
        pairs = StoredPairs(queries.folder, documents.folder, numbers[0][known], numbers[1][known])
        return window.without(missing), pairs

    def _tables(self) -> tuple[str, str]:
        return str(self.input.queries), str(self.input.documents)

    def item(self, window: RowWindow, pairs: Pairs) -> tuple[Rows, Task]:
        """A window as something to score, with what is needed behind it."""
        groups = np.zeros(len(window.rows), dtype=np.int64)
        if self.is_ranked:
            number: dict[str, int] = {}
            groups = np.array([number.setdefault(query, len(number)) for query in window.first], dtype=np.int64)
        has_ids, kept = self.input.has_ids, self.input.kept
        table = table_of_rows(window, self.labels, kept, has_ids=has_ids, is_ranked=self.is_ranked)
        rows = Rows(window.part, window.start, window.num_rows, table, window.bad, window.digest(window.num_rows))
        return rows, Task(pairs, groups, self.limits)

    def manifest(self, part_format: str, machine: dict[str, str], shard: int, num_shards: int) -> Manifest:
        """The job, before anything is done."""
        settings: dict[str, Any] = {
            "pairs_of": "ids" if self.input.has_ids else "texts",
            "columns": None if self.input.columns is None else list(self.input.columns),
            "has_header": self.input.has_header,
            "keep": list(self.input.kept),
            "format": part_format,
            "rows_per_part": self.window,
            "top_k": self.scoring.top_k,
            "rescore": self.scoring.rescore,
            "labels": self.labels,
            **scoring_facts(self.model),
        }
        return Manifest(settings, machine, shard, num_shards, files=self.files(), texts=self.texts())

    def files(self) -> list[list[Any]]:
        """The files of pairs as they are."""
        return [[file.path, file.size, file.changed] for file in self.source.files]

    def texts(self) -> dict[str, list[Any]]:
        """The number of texts and their digest, of each table."""
        stores = {} if self.stores is None else dict(zip(("queries", "documents"), self.stores, strict=True))
        return {name: [store.num_texts, store.digest] for name, store in stores.items()}
