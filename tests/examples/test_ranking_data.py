from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from ranking_data import Candidates, load_candidates
from ranking_training import ranking_evaluator

TEXTS = {"d1": "a red apple", "d2": "a green apple", "d3": "a blue sea", "d4": "a red sea", "d5": "bread"}


def write_folder(folder: Path, *, num_queries: int = 4, ending: str = "") -> None:
    """Queries q0, q1, ... that ask for red apples; d1 and d5 answer them well, d4 in part; d6 is judged but missing."""
    with gzip.open(folder / "docs.jsonl.gz", "wt", encoding="utf-8") as stream:
        for name, text in TEXTS.items():
            stream.write(json.dumps({"_id": name, "title": text.split()[0], "text": " ".join(text.split()[1:])}) + "\n")
    queries = range(num_queries)
    (folder / f"queries{ending}.tsv").write_text("".join(f"q{query}\tred apple {query}\n" for query in queries))
    judged = {"d1": 2, "d4": 1, "d3": 0, "d5": 2, "d6": 3}
    lines = [f"q{query}\t{name}\t{grade}\n" for query in queries for name, grade in judged.items()]
    (folder / f"qrels{ending}.tsv").write_text("".join(lines))


def write_run(folder: Path, ranking: list[str], *, num_queries: int = 4) -> None:
    with gzip.open(folder / "run.first.tsv.gz", "wt", encoding="utf-8") as stream:
        for query in range(num_queries):
            stream.writelines(f"q{query}\t{name}\t{rank}\t{-rank}\n" for rank, name in enumerate(ranking, start=1))


def test_what_a_run_has_found(tmp_path: Path) -> None:
    write_folder(tmp_path)
    write_run(tmp_path, ["d2", "d1", "d3", "d5"])
    splits = load_candidates(tmp_path, run="first", depth=3, relevant_grade=1)
    names = ["d2", "d1", "d3"]
    assert splits.train == [
        Candidates(f"red apple {query}", [TEXTS[name] for name in names], [0, 2, 0]) for query in (0, 1)
    ]
    assert ([one.query for one in splits.dev], [one.query for one in splits.test]) == (["red apple 2"], ["red apple 3"])
    assert splits.notes == [
        "train: 2 of queries.tsv, ranked by run.first.tsv.gz",
        "dev: 1 of queries.tsv, ranked by run.first.tsv.gz, held out from its end",
        "test: 1 of queries.tsv, ranked by run.first.tsv.gz, held out from its end",
    ]


def test_bm25_ranks_without_a_run(tmp_path: Path) -> None:
    write_folder(tmp_path)
    [candidates] = load_candidates(tmp_path, run="first", depth=2, relevant_grade=1, max_train=1).train
    assert (candidates.documents, candidates.grades) == ([TEXTS["d1"], TEXTS["d2"]], [2, 0])


def test_queries_for_training_in_files_of_their_own(tmp_path: Path) -> None:
    write_folder(tmp_path)
    write_folder(tmp_path, num_queries=3, ending="_train")
    splits = load_candidates(tmp_path, run="first", depth=2, relevant_grade=1)
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (2, 1, 4)
    assert splits.notes[0] == "train: 2 of queries_train.tsv, ranked by BM25"


def test_queries_without_relevant_or_without_other_documents_are_left_out(tmp_path: Path) -> None:
    write_folder(tmp_path, num_queries=6)
    write_run(tmp_path, ["d1", "d2"], num_queries=6)
    (tmp_path / "qrels.tsv").write_text("q0\td1\t1\nq1\td1\t2\nq2\td3\t0\nq3\td2\t2\nq4\td1\t2\nq4\td2\t2\nq5\td2\t3\n")
    splits = load_candidates(tmp_path, run="first", depth=2, relevant_grade=2)
    kept = [one.query for part in (splits.train, splits.dev, splits.test) for one in part]
    assert kept == ["red apple 1", "red apple 3", "red apple 5"]


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(*name: str, split: str) -> list[dict[str, object]]:
        asked.append((*name, split))
        passages = {"passage_text": ["a", "b"], "is_selected": [0, 1]}
        empty = {"passage_text": ["a", "b"], "is_selected": [0, 0]}
        return [{"query": split, "passages": passages}, {"query": "without an answer", "passages": empty}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    splits = load_candidates(None, run="", depth=2, relevant_grade=1)
    assert splits.train == [Candidates("train", ["a", "b"], [0, 1])]
    assert splits.test == [Candidates("validation[1000:2000]", ["a", "b"], [0, 1])]
    assert asked[0] == ("microsoft/ms_marco", "v1.1", "train")


def test_the_evaluator_compares_with_the_first_stage() -> None:
    [sample] = ranking_evaluator([Candidates("q", ["a", "b", "c"], [0, 1, 2])], "dev", relevant_grade=2).samples
    assert (sample.documents, sample.is_relevant.tolist()) == (["c", "a", "b"], [True, False, False])
    assert sample.first_stage is not None
    assert sample.first_stage.tolist() == [False, False, True]
