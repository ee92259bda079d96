"""Ray Data: `dataset.map_batches(Scorer, ...)`, a model in each actor of a pool."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from fastce.integrations.columns import ColumnScorer, says_threads


class Scorer(ColumnScorer):
    """Adds a column of scores to batches, `score`, or `score_LABEL` for each of several labels.

    Ray makes one in each actor:

        dataset.map_batches(
            Scorer,
            fn_constructor_args=(ModelOptions("a/model", precision="int8"), ("query", "text")),
            batch_format="pyarrow",
            batch_size=4096,
            num_cpus=4,
            compute=ray.data.ActorPoolStrategy(size=8),
        )

    Takes batches in Ray's formats `"pyarrow"` and `"numpy"`, and scores with as many threads as an actor has CPUs.
    """

    def num_threads(self) -> int | None:
        """The CPUs of the actor."""
        if says_threads():
            return None
        import ray

        if not ray.is_initialized():
            return None
        return max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))

    def __call__(self, batch: Any) -> Any:
        """Scores a batch.

        Args:
            batch: A `pyarrow.Table`, or names of columns to NumPy arrays.

        Returns:
            The same with the scores.
        """
        if isinstance(batch, pa.Table):
            columns = {name: batch.column(name).to_pylist() for name in batch.column_names if name in self.text_columns}
            for name, scores in self.score(columns).items():
                batch = batch.append_column(name, pa.array(scores))
            return batch
        return {**batch, **self.score(batch)}
