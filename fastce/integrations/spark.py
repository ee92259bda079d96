"""Spark: a column of scores for a DataFrame."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fastce.corpus.readers.fields import Names
from fastce.integrations.columns import ColumnScorer, says_threads
from fastce.options import ModelOptions
from fastce.packing import MAX_BATCH_TOKENS

if TYPE_CHECKING:
    from fastce.cross_encoder import CrossEncoder


class TaskScorer(ColumnScorer):
    """A scorer with as many threads as a task has cores."""

    def num_threads(self) -> int | None:
        """The cores of a task (`spark.task.cpus`)."""
        from pyspark import TaskContext

        task = None if says_threads() else TaskContext.get()
        return None if task is None else int(task.cpus())


def with_scores(
    frame: Any,
    model: CrossEncoder | ModelOptions | str,
    text_columns: Names,
    *,
    max_batch_tokens: int = MAX_BATCH_TOKENS,
) -> Any:
    """Adds a column of scores, `score`, or `score_LABEL` for each of several labels.

    Each Python worker of Spark loads the model once. Scoring is lazy, as all of Spark is.

    Args:
        frame: A `pyspark.sql.DataFrame`.
        model: See `ColumnScorer`; its files must be where the workers find them.
        text_columns: The columns of first and second texts.
        max_batch_tokens: See `CrossEncoder.predict`.

    Returns:
        The DataFrame with the scores, as 32-bit floats.

    Raises:
        ValueError: A column is missing.
    """
    from pyspark.sql.types import FloatType, StructField, StructType

    for name in text_columns:
        if name not in frame.columns:
            raise ValueError(f"text_columns: no column is called {name!r}, there are {', '.join(frame.columns)}")
    scorer = TaskScorer(model, text_columns, max_batch_tokens)
    names = scorer.score_names()
    scores = [StructField(name, FloatType(), nullable=False) for name in names]
    pickled = pickle.dumps(scorer)

    def score(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return scored(pickled, batches)

    return frame.mapInArrow(score, StructType([*frame.schema.fields, *scores]))


def scored(pickled: bytes, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Batches with their scores, on a worker."""
    scorer = unpickled(pickled)
    waiting: deque[pa.RecordBatch] = deque()  # those whose scores are not there yet

    def columns() -> Iterator[dict[str, list[str]]]:
        for batch in batches:
            waiting.append(batch)
            yield {name: batch.column(name).to_pylist() for name in scorer.text_columns}

    for found in scorer.stream(columns()):
        batch = waiting.popleft()
        arrays = [*batch.columns, *map(pa.array, found.values())]
        yield pa.RecordBatch.from_arrays(arrays, names=[*batch.schema.names, *found])


@lru_cache(maxsize=2)
def unpickled(pickled: bytes) -> ColumnScorer:
    """A scorer, made once a worker."""
    scorer: ColumnScorer = pickle.loads(pickled)
    return scorer
