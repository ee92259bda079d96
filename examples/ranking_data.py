"""Queries with ranked documents, from files or from the Hugging Face Hub, for the examples that train rerankers."""

from __future__ import annotations

import csv
import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bm25 import BM25
from pair_data import Splits, complete_splits, load_hub

HUB = ("microsoft/ms_marco", "v1.1")
HUB_SPLITS = {"train": "train", "dev": "validation[:1000]", "test": "validation[1000:2000]"}


class Candidates(NamedTuple):
    """A query and the documents that a first stage has found for it.

    Attributes:
        query: The query.
        documents: Best first.
        grades: How relevant each is, `[num_documents]`.
    """

    query: str
    documents: list[str]
    grades: list[int]

    def relevant(self, grade: int) -> list[str]:
        """Documents of this grade or a higher one."""
        return [document for document, own in zip(self.documents, self.grades, strict=True) if own >= grade]

    def irrelevant(self, grade: int) -> list[str]:
        """Documents of a lower grade."""
        return [document for document, own in zip(self.documents, self.grades, strict=True) if own < grade]


def load_candidates(
    data: Path | None, *, run: str, depth: int, relevant_grade: int, max_train: int | None = None
) -> Splits[Candidates]:
    """Loads candidates for those queries for which the first stage has found relevant and irrelevant documents.

    Args:
        data: A folder with docs.jsonl.gz (_id, title, text), queries.tsv (query id, text), qrels.tsv (query id,
            document id, grade) and perhaps run.NAME.tsv.gz (query id, document id, rank, score); without a run, BM25
            ranks. Queries for training are in queries_train.tsv and qrels_train.tsv, or held out from the others.
            None loads MS MARCO from the Hub.
        run: Which ranking of the folder.
        depth: How many documents of a ranking to keep.
        relevant_grade: Grades from this on count as relevant.
        max_train: Train on the first so many queries only.
    """
    if data is None:
        places = {split: ": ".join((*HUB, name)) for split, name in HUB_SPLITS.items()}
        read = {split: list(read_hub(name)) for split, name in HUB_SPLITS.items()}
    else:
        endings = {"train": "_train", "test": ""} if (data / "queries_train.tsv").exists() else {"train": ""}
        run_file = data / f"run.{run}.tsv.gz"
        ranking = run_file.name if run_file.exists() else "BM25"
        places = {split: f"queries{ending}.tsv, ranked by {ranking}" for split, ending in endings.items()}
        read = read_folder(data, endings, run_file, depth)
    found = {
        split: [one for one in part if one.relevant(relevant_grade) and one.irrelevant(relevant_grade)]
        for split, part in read.items()
    }
    return complete_splits(found, places, max_train)


def read_hub(split: str) -> Iterator[Candidates]:
    """Reads MS MARCO from the Hub: the passages that a search engine found, one or more of them selected by people."""
    for row in load_hub(*HUB, split=split):
        passages = row["passages"]
        yield Candidates(row["query"], passages["passage_text"], passages["is_selected"])


def read_folder(data: Path, endings: dict[str, str], run_file: Path, depth: int) -> dict[str, list[Candidates]]:
    """Reads a folder; `load_candidates` describes it.

    Args:
        data: The folder.
        endings: What the names of the files of each split end with.
        run_file: The ranking; without it, BM25 ranks.
        depth: How many documents to keep for each query.
    """
    with gzip.open(data / "docs.jsonl.gz", "rt", encoding="utf-8") as lines:
        documents = {entry["_id"]: f"{entry['title']} {entry['text']}".strip() for entry in map(json.loads, lines)}
    search = first_stage(run_file, documents, depth)
    found: dict[str, list[Candidates]] = {}
    for split, ending in endings.items():
        grades: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for query, document, grade in read_rows(data / f"qrels{ending}.tsv"):
            grades[query][document] = int(grade)
        found[split] = []
        for query, text in read_rows(data / f"queries{ending}.tsv"):
            ranked = search(query, text)
            found[split].append(
                Candidates(
                    text,
                    [documents[document] for document in ranked],
                    [grades[query].get(document, 0) for document in ranked],
                )
            )
    return found


def first_stage(run_file: Path, documents: dict[str, str], depth: int) -> Callable[[str, str], list[str]]:
    """From the id and the text of a query to ids of documents, best first.

    Args:
        run_file: The ranking; without it, BM25 ranks.
        documents: Texts by id.
        depth: How many to find.
    """
    if run_file.exists():
        ranked: defaultdict[str, list[str]] = defaultdict(list)
        with gzip.open(run_file, "rt", encoding="utf-8") as lines:
            for line in lines:
                query, document = line.split("\t")[:2]
                ranked[query].append(document)
        return lambda query, _: ranked[query][:depth]
    names, index = list(documents), BM25(list(documents.values()))
    return lambda _, text: [names[position] for position in index.search(text, depth)]


def read_rows(file: Path) -> Iterator[list[str]]:
    """The rows of a tab-separated file."""
    with file.open(encoding="utf-8", newline="") as lines:
        yield from csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
