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
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer


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


def main(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option("--out", help="The .jsonl file to write.")],
    run: Annotated[str, typer.Option("--run", help="Which ranking.")] = "bm25",
    num_pairs: Annotated[int | None, typer.Option("--num-pairs", min=1, help="The first so many; default all.")] = None,
) -> None:
    """Write the pairs of a ranking."""
    with out.open("w", encoding="utf-8") as lines:
        for pair in islice(ranking_pairs(folder, run), num_pairs):
            lines.write(json.dumps(pair, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    typer.run(main)
