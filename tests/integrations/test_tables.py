"""Ray, Spark and datasets score as `predict` does, bit for bit, with the real packages in local mode."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors.torch import load_file, save_file
from tiny_models import PAIRS

from fastce import CrossEncoder, ModelOptions
from fastce.integrations.columns import ColumnScorer

Tiny = Callable[..., str]
COLUMNS = ("query", "document")
TABLE = {"id": list(range(len(PAIRS))), "query": [pair[0] for pair in PAIRS], "document": [pair[1] for pair in PAIRS]}


@pytest.fixture(params=["name", "options", "edited"])
def model(request: pytest.FixtureRequest, tiny: Tiny) -> Any:
    """What people pass as a model."""
    if request.param == "name":
        return tiny("bert")
    if request.param == "options":
        return ModelOptions(tiny("bert", num_labels=3), max_length=20)
    edited = CrossEncoder(tiny("bert"))
    edited.model.classifier.weight.data.mul_(2.0)
    return edited


def expected(model: Any) -> np.ndarray:
    """Scores of all pairs, `[num_pairs, num_labels]`."""
    if isinstance(model, str):
        model = CrossEncoder(model)
    elif isinstance(model, ModelOptions):
        model = model.load()
    scores: np.ndarray = model.predict(PAIRS)
    return scores.reshape(len(PAIRS), -1)


def found(columns: dict[str, Any], ids: Any) -> np.ndarray:
    """Columns of scores in the order of the ids."""
    names = sorted(name for name in columns if name.startswith("score"))
    scores = np.stack([np.asarray(columns[name], np.float32) for name in names], axis=1)
    return scores[np.argsort(ids)]


@pytest.mark.integrations
class TestRay:
    @pytest.fixture(scope="class", autouse=True)
    def cluster(self) -> Iterator[None]:
        ray = pytest.importorskip("ray")
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()

    @pytest.mark.parametrize("batch_format", ["pyarrow", "numpy"])
    def test_scores_are_those_of_predict(self, model: Any, batch_format: str) -> None:
        import ray

        from fastce.integrations.ray import Scorer

        dataset = ray.data.from_arrow(pa.table(TABLE)).repartition(4)
        scored = dataset.map_batches(
            Scorer,
            fn_constructor_args=(model, COLUMNS),
            batch_format=batch_format,
            batch_size=16,
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(size=2),
        ).to_pandas()
        assert np.array_equal(found(scored, scored["id"]), expected(model))
        assert list(scored.sort_values("id")["query"]) == TABLE["query"]

    def test_an_actor_has_as_many_threads_as_cpus(self, tiny: Tiny) -> None:
        import ray

        from fastce.integrations.ray import Scorer

        actor = ray.remote(num_cpus=2)(Scorer).remote(tiny("bert"), COLUMNS)
        assert ray.get(actor.num_threads.remote()) == 2


@pytest.mark.integrations
@pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning")
class TestSpark:
    @pytest.fixture(scope="class")
    def spark(self) -> Iterator[Any]:
        sql = pytest.importorskip("pyspark.sql")
        if shutil.which("java") is None:
            pytest.skip("Spark needs a Java runtime")
        os.environ["PYSPARK_PYTHON"] = sys.executable
        builder = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
        session = builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", "16").getOrCreate()
        session.sparkContext.setLogLevel("ERROR")
        yield session
        session.stop()

    def test_scores_are_those_of_predict(self, spark: Any, model: Any) -> None:
        from fastce.integrations.spark import with_scores

        frame = spark.createDataFrame(list(zip(*TABLE.values(), strict=True)), list(TABLE)).repartition(3)
        rows = [row.asDict() for row in with_scores(frame, model, COLUMNS).collect()]
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        assert np.array_equal(found(columns, columns["id"]), expected(model))
        by_id = {row["id"]: row["document"] for row in rows}
        assert [by_id[number] for number in TABLE["id"]] == TABLE["document"]

    def test_a_worker_loads_its_model_once(self, tiny: Tiny) -> None:
        from fastce.integrations.spark import TaskScorer, scored, unpickled

        pickled = pickle.dumps(TaskScorer(tiny("bert"), COLUMNS))
        assert len(pickled) < 1000
        batch = pa.RecordBatch.from_pydict(TABLE)
        loaded = []
        for _ in range(2):
            list(scored(pickled, [batch, batch]))
            loaded.append(unpickled(pickled).model)
        assert loaded[0] is loaded[1]

    def test_a_column_that_is_missing(self, spark: Any, tiny: Tiny) -> None:
        from fastce.integrations.spark import with_scores

        frame = spark.createDataFrame([(1, "a", "b")], list(TABLE))
        with pytest.raises(ValueError, match="no column is called 'passage', there are id, query, document"):
            with_scores(frame, tiny("bert"), ("query", "passage"))


class TestDatasets:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        datasets = pytest.importorskip("datasets")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def dataset(self, folder: Path) -> Any:
        import datasets

        datasets.Dataset.from_dict(TABLE).save_to_disk(folder)
        return datasets.load_from_disk(folder)

    @pytest.mark.parametrize("processes", [None, 2])
    def test_scores_are_those_of_predict(self, model: Any, tmp_path: Path, processes: int | None) -> None:
        from fastce.integrations.datasets import Scorer

        dataset = self.dataset(tmp_path / "data")
        scored = dataset.map(Scorer(model, COLUMNS), batched=True, batch_size=16, num_proc=processes)
        assert np.array_equal(found(scored.to_dict(), scored["id"]), expected(model))

    def test_the_cache_knows_the_model(self, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from fastce.integrations.datasets import Scorer

        calls = 0
        score = ColumnScorer.score

        def counted(self: ColumnScorer, batch: Any) -> Any:
            nonlocal calls
            calls += 1
            return score(self, batch)

        monkeypatch.setattr(ColumnScorer, "score", counted)
        folder = Path(shutil.copytree(tiny("bert"), tmp_path / "model"))
        dataset = self.dataset(tmp_path / "data")

        def calls_of(source: Any, columns: tuple[str, str] = COLUMNS) -> int:
            before = calls
            dataset.map(Scorer(source, columns), batched=True)
            return calls - before

        assert calls_of(str(folder)) == 1
        assert calls_of(str(folder)) == 0
        (folder / "model.safetensors").touch()
        assert calls_of(ModelOptions(str(folder))) == 0
        assert calls_of(ModelOptions(str(folder), max_length=12)) == 1
        assert calls_of(str(folder), ("document", "query")) == 1
        weights = load_file(folder / "model.safetensors")
        weights["classifier.weight"] += 1
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        assert calls_of(str(folder)) == 1
        edited = CrossEncoder(folder)
        assert [calls_of(edited), calls_of(CrossEncoder(folder))] == [1, 0]
        edited.model.classifier.bias.data.add_(1.0)
        assert calls_of(edited) == 1


def test_bad_columns(tiny: Tiny) -> None:
    scorer = ColumnScorer(tiny("bert"), COLUMNS)
    with pytest.raises(ValueError, match="text_columns: no column is called 'query', there are text"):
        scorer.score({"text": ["a"]})
    with pytest.raises(TypeError, match=r"document\[1\]: expected str, got None"):
        scorer.score({"query": ["a", "b"], "document": ["a", None]})
