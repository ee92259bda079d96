"""Reranks runs that are in memory, as evaluation packages have them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastce.checks import check_positive, check_precision, check_text, describe
from fastce.corpus.score import load
from fastce.corpus.scorer import LocalScorer, ScoringOptions, Task
from fastce.corpus.single_file import WINDOW
from fastce.corpus.source import with_title
from fastce.options import ModelOptions
from fastce.packing import MAX_BATCH_TOKENS
from fastce.pipeline import BatchLimits, Window
from fastce.progress import progress_bar
from fastce.ranking import best
from fastce.spec import Precision

if TYPE_CHECKING:
    from fastce.cross_encoder import CrossEncoder

Candidates = dict[str, list[str]]
"""The ids of each query's documents."""
Ranking = dict[str, dict[str, float]]
"""Each query's documents and their scores, best first."""
Kind = tuple[Candidates, Callable[[Ranking], Any]]
"""What a run holds, and what makes a run of its kind."""


def rerank_run(
    model: CrossEncoder | ModelOptions | str,
    run: Any,
    queries: Mapping[str, str],
    corpus: Mapping[str, Any],
    top_k: int | None = None,
    *,
    rescore: Precision | None = None,
    batch_size: int | None = None,
    max_batch_tokens: int = MAX_BATCH_TOKENS,
    show_progress_bar: bool | None = None,
) -> Any:
    """Reranks a run in memory, as `fastce rerank` does with files, with the scores of `CrossEncoder.predict`.

    Args:
        model: A model with one label, what it is loaded with, or its directory or Hub id.
        run: `{query id: {document id: score}}`, a `ranx.Run`, or `ScoredDoc`s of ir-measures, any iterable of them.
        queries: The text of each query, by its id.
        corpus: Each document by its id: a text, or as BEIR has it `{"title": ..., "text": ...}`.
        top_k: How many of each query's documents are kept, the best; None: all.
        rescore: See `CrossEncoder.rank`.
        batch_size: See `CrossEncoder.predict`.
        max_batch_tokens: See `CrossEncoder.predict`.
        show_progress_bar: See `CrossEncoder.predict`.

    Returns:
        A run of the same kind, a list for an iterable: the queries in their order, the documents best first, ties in
        the order that they came in.

    Raises:
        TypeError: The run is of no kind that is known, or something is not a text; the message says what and where.
        ValueError: A query or a document is missing, the model has no head or several labels, or an argument is out of
            range.
    """
    top_k = None if top_k is None else check_positive(top_k, "top_k")
    limits = BatchLimits.checked(batch_size, max_batch_tokens)
    candidates, rebuild = kind_of(run)
    first, second, groups = texts_of(candidates, queries, corpus)
    loaded = load(model)
    if loaded.num_labels != 1:
        raise ValueError(f"rerank_run: needs a model with one label, this one has {loaded.num_labels}")
    scorer = LocalScorer(loaded, ScoringOptions(top_k, rescore and check_precision(rescore)))
    prompt = loaded.prompt_of(None, None)

    def tasks() -> Iterator[tuple[int, Task]]:
        for start in range(0, len(first), WINDOW):
            rows = slice(start, start + WINDOW)
            _, numbered = np.unique(groups[rows], return_inverse=True)
            yield start, Task(Window(first[rows], second[rows], prompt), numbered, limits)

    kept, scores = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    with progress_bar(show_progress_bar, total=len(first), description="Scoring", unit="pairs") as progress:
        for start, scored in scorer.stream(tasks(), progress.update):
            kept.append(start + scored.kept)
            scores.append(scored.scores)
    rows, found = np.concatenate(kept), np.concatenate(scores)
    ids = [(query, document) for query, documents in candidates.items() for document in documents]
    ranking: Ranking = {query: {} for query in candidates}
    for place in best(found, groups[rows], top_k).tolist():
        query, document = ids[rows[place]]
        ranking[query][document] = float(found[place])
    return rebuild(ranking)


def texts_of(
    candidates: Candidates, queries: Mapping[str, str], corpus: Mapping[str, Any]
) -> tuple[list[str], list[str], np.ndarray]:
    """The texts of all pairs, and the number of each one's query, int64 `[num_pairs]`.

    Raises:
        TypeError: A query or a document has no text.
        ValueError: A query or a document is missing.
    """
    first: list[str] = []
    second: list[str] = []
    for query, documents in candidates.items():
        if query not in queries:
            raise ValueError(f"run: query {query!r} is not in queries")
        check_text(queries[query], f"queries[{query!r}]")
        for document in documents:
            if document not in corpus:
                raise ValueError(f"run: document {document!r} of query {query!r} is not in corpus")
            entry = corpus[document]
            text = with_title(entry.get("text"), entry.get("title")) if isinstance(entry, Mapping) else entry
            check_text(text, f"corpus[{document!r}]")
            first.append(queries[query])
            second.append(text)
    return first, second, np.repeat(np.arange(len(candidates)), [len(found) for found in candidates.values()])


def kind_of(run: Any) -> Kind:
    """What a run holds, and what makes one of its kind.

    Raises:
        TypeError: It is of none that is known.
    """
    for kind in KINDS:
        if (found := kind(run)) is not None:
            return found
    raise TypeError(
        f"run: expected {{query id: {{document id: score}}}}, a ranx.Run or ScoredDocs, got {describe(run)}"
    )


def mapping(run: Any) -> Kind | None:
    """Of dictionaries."""
    if not isinstance(run, Mapping):
        return None
    for query, documents in run.items():
        if not isinstance(documents, Mapping):
            raise TypeError(f"run[{query!r}]: expected {{document id: score}}, got {describe(documents)}")
    return {query: list(documents) for query, documents in run.items()}, lambda ranking: ranking


def ranx_run(run: Any) -> Kind | None:
    """Of ranx."""
    ranx = sys.modules.get("ranx")
    if ranx is None or not isinstance(run, ranx.Run):
        return None
    candidates = {query: list(documents) for query, documents in run.to_dict().items()}
    return candidates, lambda ranking: ranx.Run(ranking, name=run.name)


def scored_documents(run: Any) -> Kind | None:
    """Of ir-measures."""
    if isinstance(run, str) or not isinstance(run, Iterable):
        return None
    entries: dict[tuple[str, str], Any] = {}
    candidates: Candidates = {}
    for number, entry in enumerate(run):
        if not (hasattr(entry, "query_id") and hasattr(entry, "doc_id")):
            raise TypeError(f"run[{number}]: expected a ScoredDoc, got {describe(entry)}")
        if entries.setdefault((entry.query_id, entry.doc_id), entry) is entry:
            candidates.setdefault(entry.query_id, []).append(entry.doc_id)

    def rebuild(ranking: Ranking) -> list[Any]:
        return [
            entries[query, document]._replace(score=score)
            for query, documents in ranking.items()
            for document, score in documents.items()
        ]

    return candidates, rebuild


KINDS: tuple[Callable[[Any], Kind | None], ...] = (mapping, ranx_run, scored_documents)
"""What reads each kind of run; None says that it is of another."""
