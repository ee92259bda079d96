"""The best rows of each query of a whole job, in one process and in many."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import PAIRS, files_of, manifest_of, rows_of, write_pairs
from typer.testing import CliRunner

import fastce
from fastce import CrossEncoder, ModelOptions, score_corpus
from fastce.cli import app
from fastce.corpus.finish import merge
from fastce.corpus.workers import WorkerError

Tiny = Callable[..., str]


def expected_ranking(scores: np.ndarray, top_k: int) -> list[tuple[int, int]]:
    """Rows and ranks: the queries in the order of their first rows, their rows by score, equal ones in their order."""
    rows: dict[str, list[int]] = defaultdict(list)
    for number, (query, _) in enumerate(PAIRS):
        rows[query].append(number)
    return [
        (row, rank)
        for numbers in rows.values()
        for rank, row in enumerate(sorted(numbers, key=lambda number: -scores[number])[:top_k], start=1)
    ]


@pytest.mark.parametrize("top_k", [1, 4, 1000])
@pytest.mark.parametrize("rows_per_part", [11, 1000])
def test_the_best_of_the_whole_job(tiny: Tiny, tmp_path: Path, top_k: int, rows_per_part: int) -> None:
    model, source = CrossEncoder(tiny("bert")), write_pairs(tmp_path / "pairs.jsonl")
    out = tmp_path / "out"
    score_corpus(model, source, out, top_k=top_k, rows_per_part=rows_per_part, keep=["id"])
    scores = model.predict(PAIRS)
    rows = rows_of(out)
    assert [(row["id"], row["rank"]) for row in rows] == expected_ranking(scores, top_k)
    assert [np.float32(row["score"]) for row in rows] == [scores[row["id"]] for row in rows]
    assert set(rows[0]) == {"row", "id", "score", "rank"}
    score_corpus(model, source, tmp_path / "best.jsonl", top_k=top_k, keep=["id"])
    lines = [json.loads(line) for line in (tmp_path / "best.jsonl").read_text().splitlines()]
    assert [(line["id"], line["rank"]) for line in lines] == expected_ranking(scores, top_k)


@pytest.mark.parametrize("top_k", [1, 4])
def test_rescored_rows_are_the_best_of_the_exact_precision(tiny: Tiny, tmp_path: Path, top_k: int) -> None:
    pytest.importorskip("fastce._core", reason="int8 is the C++ engine's")
    source, exact = write_pairs(tmp_path / "pairs.jsonl"), CrossEncoder(tiny("bert"))
    fast = CrossEncoder(tiny("bert"), precision="int8")
    found = score_corpus(fast, source, tmp_path / "out", top_k=top_k, rescore="fp32", rows_per_part=50, keep=["id"])
    score_corpus(exact, source, tmp_path / "exact", top_k=top_k, rows_per_part=50, keep=["id"])
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "exact")
    assert 0 < found.pairs_rescored <= found.pairs_computed + 64


@pytest.mark.parametrize("top_k", [None, 3])
def test_shards_that_are_merged_are_the_whole_job(tiny: Tiny, tmp_path: Path, top_k: int | None) -> None:
    model, source = CrossEncoder(tiny("bert")), write_pairs(tmp_path / "pairs.jsonl")
    options: Any = {"rows_per_part": 25, "top_k": top_k, "keep": ["id"]}
    score_corpus(model, source, tmp_path / "whole", **options)
    out = tmp_path / "out"
    score_corpus(model, source, out, shard_index=1, num_shards=2, **options)
    with pytest.raises(ValueError, match="shard 0 of 2 has not begun"):
        merge(out)
    with pytest.raises(ValueError, match="num_shards was 2, now it is 3"):
        score_corpus(model, source, out, shard_index=2, num_shards=3, **options)
    score_corpus(model, source, out, shard_index=0, num_shards=2, **options)
    assert not (out / "_SUCCESS").exists()
    assert CliRunner().invoke(app, ["merge", str(out)]).stdout == f"{out}: 120 rows, 120 scored, 0 skipped\n"
    assert files_of(out) == files_of(tmp_path / "whole")
    assert manifest_of(out)["parts"] == manifest_of(tmp_path / "whole")["parts"]
    assert json.loads((out / "_stats.json").read_text())["rows_read"] == 120
    assert (out / "_SUCCESS").exists()
    # One process goes on with the whole, and what is merged again is all of it.
    write_pairs(source, [*PAIRS, ("one more", "pair")])
    score_corpus(model, source, out, **options)
    assert merge(out).rows_read == 121


def test_one_shard_begins_anew_alone(tiny: Tiny, tmp_path: Path) -> None:
    model, source, out = CrossEncoder(tiny("bert")), write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "out"
    for shard in range(2):
        score_corpus(model, source, out, shard_index=shard, num_shards=2, rows_per_part=25, overwrite=True)
    assert merge(out).rows_read == 120


def test_a_shard_that_is_not_done_or_was_changed(tiny: Tiny, tmp_path: Path) -> None:
    model, source, out = CrossEncoder(tiny("bert")), write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "out"
    for shard in range(3):
        score_corpus(model, source, out, shard_index=shard, num_shards=3, rows_per_part=25)
    manifest = out / "_manifest-00001-of-00003.json"
    whole = manifest.read_text()
    manifest.write_text(json.dumps(json.loads(whole) | {"rows": None}))
    with pytest.raises(ValueError, match="shard 1 of 3 is not done; run it again, it goes on"):
        merge(out)
    manifest.write_text(json.dumps(json.loads(whole) | {"parts": []}))
    with pytest.raises(ValueError, match="shard 1 of 3 is not done"):
        merge(out)
    for changes, message in (
        ({"files": [["pairs.jsonl", 7, "now"]]}, "different jobs"),
        ({"machine": json.loads(whole)["machine"] | {"fastce": "9.0"}}, "were made elsewhere .* --other-machines"),
    ):
        manifest.write_text(json.dumps(json.loads(whole) | changes))
        with pytest.raises(ValueError, match=rf"shards 0 and 1 (are of )?{message}"):
            merge(out)
    manifest.write_text(whole)
    part = out / "part-00004.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with pytest.raises(ValueError, match=r"part-00004\.parquet: is not the file that was written"):
        merge(out)


def test_workers_write_the_same_parts(tiny: Tiny, tmp_path: Path) -> None:
    source, options = write_pairs(tmp_path / "pairs.jsonl"), ModelOptions(tiny("bert"))
    score_corpus(options, source, tmp_path / "whole", rows_per_part=10)
    found = score_corpus(options, source, tmp_path / "out", rows_per_part=10, workers=2)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    assert (found.rows_scored, found.pairs_computed) == (120, 120)
    score_corpus(options, source, tmp_path / "scores.jsonl", devices=["cpu"])
    lines = (tmp_path / "scores.jsonl").read_text().splitlines()
    assert [json.loads(line)["score"] for line in lines] == [row["score"] for row in rows_of(tmp_path / "whole")]


@pytest.mark.stress
def test_workers_have_a_model_that_was_changed(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = fastce.__version__
    monkeypatch.setattr(fastce, "__version__", "9.0")  # of this process, which scores nothing
    source, model = write_pairs(tmp_path / "pairs.jsonl", PAIRS[:9]), CrossEncoder(tiny("bert"))
    model.model.classifier.weight.data.mul_(2.0)
    score_corpus(model, source, tmp_path / "out", workers=2)
    assert [np.float32(row["score"]) for row in rows_of(tmp_path / "out")] == model.predict(PAIRS[:9]).tolist()
    assert manifest_of(tmp_path / "out")["machine"]["fastce"] == version


def test_a_worker_that_dies_ends_the_job_within_seconds(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastce.corpus.folder import JobFolder

    write, pids = JobFolder.write_part, []

    def kill_one(self: JobFolder, *arguments: Any) -> Any:
        if not pids:
            pids.extend(children())
            os.kill(pids[0], signal.SIGKILL)
        return write(self, *arguments)

    source, options = write_pairs(tmp_path / "pairs.jsonl"), ModelOptions(tiny("bert"))
    with monkeypatch.context() as patched:
        patched.setattr(JobFolder, "write_part", kill_one)
        start = time.monotonic()
        with pytest.raises(WorkerError, match=r"worker \d \(process \d+\) ended with exit code -9"):
            score_corpus(options, source, tmp_path / "out", rows_per_part=2, workers=2)
        assert time.monotonic() - start < 60
    assert children() == [], "none is left"
    score_corpus(options, source, tmp_path / "out", rows_per_part=2)  # one process goes on where others were
    assert len(rows_of(tmp_path / "out")) == 120


def children() -> list[int]:
    """The workers of this process."""
    command = ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())]
    text = subprocess.run(command, capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in text.splitlines() if "fastce.corpus.worker" in line]


def test_what_a_worker_cannot_do_is_said(tiny: Tiny, tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "pairs.jsonl", PAIRS[:3])
    with pytest.raises(RuntimeError, match="device: no 'cuda:9' here"):
        score_corpus(ModelOptions(tiny("bert")), source, tmp_path / "out", devices=["cuda:9"])
    with pytest.raises(ValueError, match="workers: 3, but there are 2 devices"):
        score_corpus(ModelOptions(tiny("bert")), source, tmp_path / "out", devices=["cpu", "cpu"], workers=3)


def test_a_ranking_needs_one_label(tiny: Tiny, tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "pairs.jsonl", PAIRS[:3])
    with pytest.raises(ValueError, match="needs a model with one label, this one has 3"):
        score_corpus(tiny("bert", num_labels=3), source, tmp_path / "out", top_k=3)
