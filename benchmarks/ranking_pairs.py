"""Writes the pairs of a first-stage ranking as JSON lines, for `fastce bench --pairs`.

    python benchmarks/ranking_pairs.py FOLDER --run bm25 --num-pairs 2000 --out pairs.jsonl

The folder has queries.tsv (id, text), docs.jsonl.gz (_id, title, text) and run.NAME.tsv.gz (query id, document id,
rank, score).
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Annotated

import typer

TEMPLATE = (
    "<|im_start|>system\n"
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
    "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: ",
    "\n<Document>: ",
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
)
"""What Qwen3-Reranker reads before a query, between it and its document, and behind that."""


def ranking_pairs(folder: Path, run: str) -> Iterator[tuple[str, str]]:
    """Query and document of each line of a run, in its order."""
    with (folder / "queries.tsv").open(encoding="utf-8", newline="") as lines:
        queries = dict(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    with gzip.open(folder / "docs.jsonl.gz", "rt", encoding="utf-8") as lines:
        documents = {entry["_id"]: f"{entry['title']} {entry['text']}".strip() for entry in map(json.loads, lines)}
    with gzip.open(folder / f"run.{run}.tsv.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            query, document = line.split("\t")[:2]
            yield queries[query], documents[document]


def top_of_each(pairs: Iterator[tuple[str, str]], documents: int) -> Iterator[tuple[str, str]]:
    """The first so many documents of each query."""
    for _, group in groupby(pairs, key=itemgetter(0)):
        yield from islice(group, documents)


def with_template(pair: tuple[str, str]) -> tuple[str, str]:
    """A pair as texts of a language model's prompt, the query with what comes before it, the document with the end."""
    before, between, behind = TEMPLATE
    return before + pair[0] + between, pair[1] + behind


def main(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option("--out", help="The .jsonl file to write.")],
    run: Annotated[str, typer.Option("--run", help="Which ranking.")] = "bm25",
    num_pairs: Annotated[int | None, typer.Option("--num-pairs", min=1, help="The first so many; default all.")] = None,
    documents: Annotated[
        int | None, typer.Option("--documents", min=1, help="The first so many of each query.")
    ] = None,
    template: Annotated[bool, typer.Option("--template", help="With a language model's prompt around them.")] = False,
) -> None:
    """Write the pairs of a ranking."""
    with out.open("w", encoding="utf-8") as lines:
        pairs = ranking_pairs(folder, run)
        for pair in islice(pairs if documents is None else top_of_each(pairs, documents), num_pairs):
            lines.write(json.dumps(with_template(pair) if template else pair, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    typer.run(main)
