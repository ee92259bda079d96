"""Pairs of ids with tables of texts: equal scores, each text tokenised once."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from corpora import FIRST, rows_of, write_lines
from language_models import save_language_model

from fastce import CrossEncoder, score_corpus
from fastce.corpus import store
from fastce.tokenization import PairTokenizer

Tiny = Callable[..., str]
QUERIES = {f"q{number}": FIRST[number] for number in range(6)}
DOCUMENTS = {str(number): f"{FIRST[number % len(FIRST)]} {number}" for number in range(30)} | {"empty": ""}
IDS = [(f"q{number % 6}", str(number * 7 % 30)) for number in range(80)] + [("q1", "empty"), ("q1", "empty")]
TEXTS = [(QUERIES[query], DOCUMENTS[document]) for query, document in IDS]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTCE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "texts"


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Any]:
    queries, documents = tmp_path / "queries.tsv", tmp_path / "docs.jsonl.gz"
    queries.write_text("".join(f"{name}\t{text}\n" for name, text in QUERIES.items()), encoding="utf-8")
    with gzip.open(documents, "wt", encoding="utf-8") as lines:
        for name, text in DOCUMENTS.items():
            title, _, rest = text.partition(" ")
            lines.write(json.dumps({"_id": name, "title": title, "text": rest}) + "\n")
    return {"queries": queries, "documents": documents}


def write_ids(file: Path, ids: list[tuple[str, str]] = IDS) -> Path:
    file.write_text("".join(f"{query}\t{document}\n" for query, document in ids))
    return file


def scores_of(folder: Path) -> np.ndarray:
    return np.array([row["score"] for row in rows_of(folder)], np.float32)


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_scores_are_those_of_the_texts(tiny: Tiny, tmp_path: Path, tables: dict[str, Any], family: str) -> None:
    model = CrossEncoder(tiny(family), prompts={"ask": "Which one? "}, default_prompt_name="ask", max_length=24)
    score_corpus(model, write_ids(tmp_path / "pairs.tsv"), tmp_path / "out", rows_per_part=30, **tables)
    rows = rows_of(tmp_path / "out")
    assert [(row["query_id"], row["document_id"]) for row in rows] == IDS
    assert np.array_equal(scores_of(tmp_path / "out"), model.predict(TEXTS))


def test_scores_of_a_language_model(tmp_path: Path, tables: dict[str, Any]) -> None:
    model = CrossEncoder(save_language_model(tmp_path / "model"))
    score_corpus(model, write_ids(tmp_path / "pairs.tsv", IDS[:9]), tmp_path / "out", **tables)
    assert np.array_equal(scores_of(tmp_path / "out"), model.predict(TEXTS[:9]))


@pytest.mark.parametrize("kind", ["run", "qrels", "tsv with a header", "parquet", "csv with other names"])
def test_files_of_ids(tiny: Tiny, tmp_path: Path, tables: dict[str, Any], kind: str) -> None:
    columns = None
    if kind == "run":
        source = tmp_path / "run.txt"
        source.write_text(
            "".join(f"{query} Q0 {document} {rank} {-rank} x\n" for rank, (query, document) in enumerate(IDS))
        )
    elif kind == "qrels":
        source = tmp_path / "qrels.tsv"
        source.write_text("".join(f"{query}\t0\t{document}\t1\n" for query, document in IDS))
    elif kind == "tsv with a header":
        source = tmp_path / "test.tsv"
        source.write_text(
            "query-id\tcorpus-id\tscore\n" + "".join(f"{query}\t{document}\t1\n" for query, document in IDS)
        )
    elif kind == "parquet":
        source = tmp_path / "pairs.parquet"
        table = pa.table({"qid": [query for query, _ in IDS], "docid": [document for _, document in IDS]})
        pyarrow.parquet.write_table(table, source)
    else:
        source, columns = tmp_path / "pairs.csv", ("topic", "page")
        source.write_text("page,topic\n" + "".join(f"{document},{query}\n" for query, document in IDS))
    model = CrossEncoder(tiny("bert"))
    score_corpus(model, source, tmp_path / "out", columns=columns, **tables)
    assert np.array_equal(scores_of(tmp_path / "out"), model.predict(TEXTS))


def test_ids_that_are_numbers(tiny: Tiny, tmp_path: Path) -> None:
    table = pa.table({"id": pa.array([10, 20], pa.int64()), "text": FIRST[:2]})
    pyarrow.parquet.write_table(table, tmp_path / "texts.parquet")
    source = write_lines(tmp_path / "pairs.jsonl", [{"qid": 10, "docid": 20}, {"qid": "20", "docid": "10"}])
    model = CrossEncoder(tiny("bert"))
    texts = {"queries": tmp_path / "texts.parquet", "documents": tmp_path / "texts.parquet"}
    score_corpus(model, source, tmp_path / "out", **texts)
    assert np.array_equal(scores_of(tmp_path / "out"), model.predict([(FIRST[0], FIRST[1]), (FIRST[1], FIRST[0])]))


def test_each_text_is_tokenised_once_and_by_nobody_later(
    tiny: Tiny, tmp_path: Path, tables: dict[str, Any], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenised: list[str] = []
    encode = PairTokenizer.encode

    def counted(self: PairTokenizer, texts: Any) -> Any:
        tokenised.extend(texts)
        return encode(self, texts)

    monkeypatch.setattr(PairTokenizer, "encode", counted)
    monkeypatch.setattr(PairTokenizer, "__call__", None)
    model, source = CrossEncoder(tiny("bert")), write_ids(tmp_path / "pairs.tsv", [*IDS, *IDS, *IDS])
    score_corpus(model, source, tmp_path / "out", rows_per_part=50, **tables)
    assert sorted(tokenised) == sorted([*QUERIES.values(), *DOCUMENTS.values()])
    score_corpus(CrossEncoder(tiny("bert")), source, tmp_path / "again", rows_per_part=50, **tables)
    assert len(tokenised) == len(QUERIES) + len(DOCUMENTS)
    assert len(list(cache.iterdir())) == 2
    score_corpus(CrossEncoder(tiny("roberta")), source, tmp_path / "other", **tables)
    assert len(tokenised) == 2 * (len(QUERIES) + len(DOCUMENTS)), "another tokenizer has other ids"
    assert len(list(cache.iterdir())) == 4


def test_ids_that_nobody_knows(tiny: Tiny, tmp_path: Path, tables: dict[str, Any]) -> None:
    ids = [*IDS[:5], ("q1", "nowhere"), ("nobody", "1"), *IDS[5:]]
    source, model = write_ids(tmp_path / "pairs.tsv", ids), CrossEncoder(tiny("bert"))
    with pytest.raises(ValueError, match=r"pairs\.tsv, row 6: no id 'nowhere' in .*docs\.jsonl\.gz"):
        score_corpus(model, source, tmp_path / "out", **tables)
    found = score_corpus(model, source, tmp_path / "out", on_error="skip", **tables)
    assert (found.rows_skipped, found.rows_scored) == (2, len(IDS))
    assert np.array_equal(scores_of(tmp_path / "out"), model.predict(TEXTS))
    assert "no id 'nobody' in" in (tmp_path / "out" / "_errors" / "part-00000.jsonl").read_text()
    # Once the table has the document, what was skipped can be scored, and nothing else is.
    with gzip.open(tables["documents"], "at", encoding="utf-8") as lines:
        lines.write(json.dumps({"_id": "nowhere", "text": FIRST[0]}) + "\n")
    found = score_corpus(model, source, tmp_path / "out", on_error="skip", retry_failed=True, **tables)
    assert (found.rows_skipped, found.pairs_computed) == (1, 1)
    texts = [*TEXTS[:5], (QUERIES["q1"], FIRST[0]), *TEXTS[5:]]
    assert np.array_equal(scores_of(tmp_path / "out"), model.predict(texts))


def test_texts_that_have_changed_are_refused(tiny: Tiny, tmp_path: Path, tables: dict[str, Any]) -> None:
    source, model = write_ids(tmp_path / "pairs.tsv"), CrossEncoder(tiny("bert"))
    score_corpus(model, source, tmp_path / "out", **tables)
    text = tables["queries"].read_text()
    tables["queries"].write_text(text + "q99\tanother one\n")
    assert score_corpus(model, source, tmp_path / "out", **tables).pairs_computed == 0
    tables["queries"].write_text(text.replace(FIRST[2], "changed"))
    with pytest.raises(ValueError, match="the queries are not those that it was begun with"):
        score_corpus(model, source, tmp_path / "out", **tables)


def test_an_id_of_two_texts(tiny: Tiny, tmp_path: Path, tables: dict[str, Any]) -> None:
    source, model = write_ids(tmp_path / "pairs.tsv"), CrossEncoder(tiny("bert"))
    text = tables["queries"].read_text()
    tables["queries"].write_text(text + f"q2\t{FIRST[2]}\n")
    score_corpus(model, source, tmp_path / "out", **tables)
    tables["queries"].write_text(text + "q2\tanother text\n")
    with pytest.raises(ValueError, match=r"queries\.tsv: the id 'q2' stands for two texts, in rows 3 and 7"):
        score_corpus(model, source, tmp_path / "other", **tables)


def test_a_store_is_whole_or_not_there(
    tiny: Tiny, tmp_path: Path, tables: dict[str, Any], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, model = write_ids(tmp_path / "pairs.tsv"), CrossEncoder(tiny("bert"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(store, "check_ids", full)
        with pytest.raises(OSError, match="No space left on device"):
            score_corpus(model, source, tmp_path / "out", **tables)
    assert list(cache.iterdir()) == []
    score_corpus(model, source, tmp_path / "out", **tables)
    assert np.array_equal(scores_of(tmp_path / "out"), model.predict(TEXTS))


def test_stores_that_nobody_has_used_for_a_month_make_way(
    tiny: Tiny, tables: dict[str, Any], cache: Path, tmp_path: Path
) -> None:
    model, source = CrossEncoder(tiny("bert")), write_ids(tmp_path / "pairs.tsv", IDS[:5])
    score_corpus(model, source, tmp_path / "first", **tables)
    stores = {Path(json.loads(file.read_text())["source"]).name: file.parent for file in cache.glob("*/store.json")}
    chosen = tmp_path / "chosen" / "store"
    chosen.mkdir(parents=True)
    (chosen / "store.json").touch()
    for folder in (*stores.values(), chosen):
        os.utime(folder, (0, 0))
    tables["documents"].write_bytes(gzip.compress(gzip.decompress(tables["documents"].read_bytes()) + b"\n"))
    score_corpus(model, source, tmp_path / "second", text_store=chosen.parent, **tables)
    assert chosen.exists(), "a folder that somebody has chosen is theirs"
    score_corpus(model, source, tmp_path / "third", **tables)
    assert stores["queries.tsv"].exists(), "it was used again"
    assert not stores["docs.jsonl.gz"].exists()
