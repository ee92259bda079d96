"""MTEB evaluates a fastce model, and sentence-transformers' class over the patch, on a task of its own kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sentence_transformers
from reranking import TEXTS, scores_of

import fastce
from fastce import CrossEncoder

pytestmark = pytest.mark.integrations
mteb = pytest.importorskip("mteb")
QUERIES = {"q1": "Is there a train to the sea?", "q2": "How long does it take to bake bread?"}
RELEVANT = {"q1": {"d7": 1}, "q2": {"d1": 1}}


@pytest.fixture
def task() -> Any:
    """Reranking with the texts at hand."""
    from datasets import Dataset
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    facts: dict[str, Any] = dict.fromkeys(
        ("date", "domains", "license", "annotations_creators", "dialect", "sample_creation", "bibtex_citation")
    )

    class Trains(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="Trains",
            description="Small.",
            reference=None,
            dataset={"path": "none/none", "revision": "1"},
            type="Reranking",
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="mrr_at_10",
            task_subtypes=None,
            **facts,
        )

        def load_data(self, *args: Any, **kwargs: Any) -> None:
            corpus = [{"id": f"d{number}", "title": "", "text": text} for number, text in enumerate(TEXTS)]
            self.dataset = {
                "default": {
                    "test": {
                        "corpus": Dataset.from_list(corpus),
                        "queries": Dataset.from_list([{"id": name, "text": text} for name, text in QUERIES.items()]),
                        "relevant_docs": RELEVANT,
                        "top_ranked": {name: [row["id"] for row in corpus] for name in QUERIES},
                    }
                }
            }
            self.data_loaded = True

    return Trains()


def evaluated(model: Any, task: Any) -> tuple[Any, float]:
    result = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
    return result, result.task_results[0].scores["test"][0]["mrr_at_10"]


@pytest.fixture
def expected(model_name: str) -> float:
    ranks = []
    for name, query in QUERIES.items():
        (relevant,) = RELEVANT[name]
        order = np.argsort(-np.array(scores_of(model_name, query)), kind="stable").tolist()
        ranks.append(order.index(int(relevant[1:])) + 1)
    return float(np.mean([1 / rank if rank <= 10 else 0 for rank in ranks]))


def test_a_model_is_evaluated(model_name: str, task: Any, expected: float, forward_passes: list[str]) -> None:
    _, score = evaluated(CrossEncoder(model_name), task)
    assert score == pytest.approx(expected, abs=1e-5)
    assert not forward_passes


def test_their_class_over_the_patch(model_name: str, task: Any, expected: float, forward_passes: list[str]) -> None:
    with fastce.patch_sentence_transformers():
        model = sentence_transformers.CrossEncoder(model_name)
        patched, score = evaluated(model, task)
        assert score == pytest.approx(expected, abs=1e-5)
        assert not forward_passes
    original, score = evaluated(model, task)
    assert score == pytest.approx(expected, abs=1e-5)
    assert forward_passes
    assert (patched.model_name, patched.model_revision) == (original.model_name, original.model_revision)
