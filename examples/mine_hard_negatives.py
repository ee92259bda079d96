"""Mines hard negatives: documents that look relevant to a cross-encoder, and that nobody has judged so.

    python examples/mine_hard_negatives.py FOLDER --model MODEL [--out negatives.jsonl]

BM25 finds candidates for each query, the cross-encoder scores them in a job that can be interrupted and goes on when it
is run again, and the best ones that are clearly below a query's relevant documents are its negatives. A candidate that
scores nearly as high as those may well be relevant, which is why it is left out (Moreira et al., "NV-Retriever", 2024).

The folder is one of BEIR's kind: queries.tsv (id, text), docs.jsonl or docs.jsonl.gz (_id, title, text) and qrels.tsv
(query id, document id, grade).
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import pyarrow.dataset
import typer
from bm25 import BM25
from ranking_data import read_rows

from fastce import ModelOptions, score_corpus
from fastce.corpus.store import read_texts, table_of_texts


def main(
    data: Annotated[Path, typer.Argument(help="The folder.")],
    model: Annotated[str, typer.Option(help="A directory or Hub id.")] = "cross-encoder/ms-marco-MiniLM-L6-v2",
    out: Annotated[Path, typer.Option(help="A line for each query.")] = Path("output/negatives.jsonl"),
    candidates: Annotated[int, typer.Option(min=1, help="Documents that BM25 finds for each query.")] = 20,
    negatives: Annotated[int, typer.Option(min=1, help="Negatives of a query at most.")] = 4,
    share: Annotated[
        float, typer.Option(help="Of the best relevant document's score, what a negative stays below.")
    ] = 0.95,
    precision: Annotated[str, typer.Option(help="fp32, bf16, fp16 or int8.")] = "int8",
) -> None:
    """Find candidates, score them, and write the negatives."""
    out.parent.mkdir(parents=True, exist_ok=True)
    queries, documents = data / "queries.tsv", next(data.glob("docs.jsonl*"), data / "docs.jsonl")
    for needed in (queries, documents, data / "qrels.tsv"):
        if not needed.exists():
            raise typer.BadParameter(f"no {needed.name} in {data}")
    relevant = read_qrels(data / "qrels.tsv")
    pairs, scores = out.with_suffix(".pairs.tsv"), out.with_name(f"{out.stem}-scores")
    if not pairs.exists():  # another try goes on with the same ones
        texts = {row[0]: row[1] for row in read_rows(queries)}
        write_candidates(pairs, texts, dict(read_texts(table_of_texts(str(documents)))), relevant, candidates)
    options = ModelOptions(model, precision=precision)  # type: ignore[arg-type]
    found = score_corpus(options, pairs, scores, queries=queries, documents=documents, show_progress_bar=True)
    typer.echo(f"{found.rows_scored:,} pairs, {found.rows_per_second:,.0f} a second, in {scores}")

    rows = pyarrow.dataset.dataset(scores, format="parquet").to_table()
    by_query: dict[str, dict[str, float]] = defaultdict(dict)
    columns = (rows.column(name).to_pylist() for name in ("query_id", "document_id", "score"))
    for query, document, score in zip(*columns, strict=True):
        by_query[query][document] = score
    with out.open("w", encoding="utf-8") as file:
        for query, scored in by_query.items():
            best = max(scored[document] for document in relevant[query])
            below = [name for name in scored if name not in relevant[query] and scored[name] < share * best]
            hardest = sorted(below, key=scored.__getitem__, reverse=True)[:negatives]
            entry = {"query_id": query, "positive_ids": relevant[query], "negative_ids": hardest}
            file.write(json.dumps(entry) + "\n")
    typer.echo(f"{len(by_query):,} queries with negatives in {out}")


def read_qrels(file: Path) -> dict[str, list[str]]:
    """The relevant documents of each query."""
    relevant: dict[str, list[str]] = defaultdict(list)
    for query, document, grade in read_rows(file):
        if grade.isdecimal() and int(grade) > 0:  # a header is no grade
            relevant[query].append(document)
    return relevant


def write_candidates(
    file: Path, queries: dict[str, str], documents: dict[str, str], relevant: dict[str, list[str]], candidates: int
) -> None:
    """Writes the pairs of ids to score: for each query its relevant documents, and those that BM25 finds."""
    names, search = list(documents), BM25(list(documents.values()))
    lines = []
    for query, positives in relevant.items():
        found = [names[place] for place in search.search(queries[query], candidates)]
        lines += [f"{query}\t{document}\n" for document in dict.fromkeys([*positives, *found])]
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text("".join(lines), encoding="utf-8")
    unfinished.replace(file)


if __name__ == "__main__":
    typer.run(main)
