"""Jobs that are killed, run out of disk, or share their work: nothing is lost, nothing is there twice."""

from __future__ import annotations

import gzip
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from corpora import files_of, manifest_of, rows_of
from reference_data import SHARED
from tiny_models import make_tiny_model
from transformers import AutoTokenizer

from fastce import score_corpus

Command = list[str]
Whole = Callable[[Path, int], Path]

PAIRS, ROWS = 9_000, 200
"""Of a short job, in all and in a part."""


def command(*arguments: object) -> Command:
    return [sys.executable, "-m", "fastce", "score", *map(str, arguments)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with real queries and documents, and a tiny model with a real vocabulary."""
    data = SHARED / "data" / "ranking" / "trec_dl19_passage"
    vocabulary = SHARED / "tokenizers" / "bert-base-uncased"
    if not data.exists() or not vocabulary.exists():
        pytest.skip("the reference data is not here")
    folder = tmp_path_factory.mktemp("corpus")
    tokenizer: Any = AutoTokenizer.from_pretrained(vocabulary)
    make_tiny_model("bert", vocab_size=len(tokenizer)).save_pretrained(folder / "model")
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(folder / "model")
    (folder / "queries.tsv").write_bytes((data / "queries.tsv").read_bytes())
    (folder / "docs.jsonl.gz").write_bytes((data / "docs.jsonl.gz").read_bytes())
    return folder


def write_ids(corpus: Path, number: int) -> Path:
    """Queries crossed with documents, so many pairs."""
    queries = [line.split("\t")[0] for line in (corpus / "queries.tsv").read_text().splitlines()]
    with gzip.open(corpus / "docs.jsonl.gz", "rt", encoding="utf-8") as lines:
        documents = [json.loads(line)["_id"] for line in lines]
    ids = [(queries[place % len(queries)], documents[place * 7919 % len(documents)]) for place in range(number)]
    file = corpus / f"pairs-{number}.parquet"
    table = pa.table(
        {"qid": [query for query, _ in ids], "docid": [document for _, document in ids], "id": range(number)}
    )
    pyarrow.parquet.write_table(table, file)
    return file


def job(corpus: Path, pairs: Path, out: Path, rows_per_part: int) -> Command:
    """A command that scores pairs of ids."""
    return command(
        *("--model", corpus / "model", "--queries", corpus / "queries.tsv", "--docs", corpus / "docs.jsonl.gz"),
        *("--pairs", pairs, "--out", out, "--rows-per-part", rows_per_part, "--keep", "id"),
        *("--text-store", corpus / "store"),
    )


@pytest.fixture(scope="module")
def whole(corpus: Path) -> Whole:
    """The folders of jobs that nobody disturbs, each made once."""

    def get(source: Path, rows_per_part: int) -> Path:
        folder = corpus / f"{source.stem}-{rows_per_part}"
        if not folder.exists():
            score_corpus(
                str(corpus / "model"),
                source,
                folder,
                queries=corpus / "queries.tsv",
                documents=corpus / "docs.jsonl.gz",
                rows_per_part=rows_per_part,
                keep=["id"],
                text_store=corpus / "store",
            )
        return folder

    return get


def run(arguments: Command) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr


def killed_at_random(arguments: Command, out: Path, times: int, chooser: random.Random) -> int:
    """Starts a job and kills it, until it has been killed so often or is done; returns how often it was."""
    for count in range(times):
        process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
        parts = len(list(out.glob("part-*")))
        while process.poll() is None and len(list(out.glob("part-*"))) <= parts + chooser.randint(0, 2):
            time.sleep(0.002)  # from before the first row is read to behind the third part
        time.sleep(chooser.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            return count
    return times


@pytest.mark.parametrize(
    ("pairs", "rows_per_part", "kills"),
    [
        pytest.param(PAIRS, ROWS, 3, id="short"),
        pytest.param(200_000, 4_000, 20, id="long", marks=pytest.mark.chaos),
    ],
)
def test_a_job_that_is_killed_at_random_moments(
    corpus: Path, whole: Whole, tmp_path: Path, pairs: int, rows_per_part: int, kills: int
) -> None:
    source, out = write_ids(corpus, pairs), tmp_path / "out"
    arguments = job(corpus, source, out, rows_per_part)
    assert killed_at_random(arguments, out, kills, random.Random(pairs)) == kills
    assert not (out / "_SUCCESS").exists()
    assert 0 < len(manifest_of(out)["parts"]) < pairs / rows_per_part
    run(arguments)
    assert files_of(out) == files_of(whole(source, rows_per_part))
    assert [row["id"] for row in rows_of(out)] == list(range(pairs))
    assert not list(out.glob(".*")), "nothing unfinished is left"


def test_two_shards_at_once(corpus: Path, whole: Whole, tmp_path: Path) -> None:
    source, out = write_ids(corpus, PAIRS), tmp_path / "out"
    shards = [
        subprocess.Popen([*job(corpus, source, out, ROWS), "--num-shards", "2", "--shard-index", str(shard)])
        for shard in range(2)
    ]
    assert [shard.wait(timeout=300) for shard in shards] == [0, 0]
    subprocess.run([sys.executable, "-m", "fastce", "merge", out], check=True)
    assert files_of(out) == files_of(whole(source, ROWS))


@pytest.mark.chaos
def test_workers_end_with_a_parent_that_is_killed(corpus: Path, tmp_path: Path) -> None:
    source, out = write_ids(corpus, 200_000), tmp_path / "out"
    process = subprocess.Popen([*job(corpus, source, out, 200_000), "--workers", "2"], stderr=subprocess.DEVNULL)
    while process.poll() is None and len(children(process.pid)) < 2:
        time.sleep(0.01)
    workers = children(process.pid)
    time.sleep(12)  # one of them is in the midst of its part, half a minute from its end
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]


def children(process: int) -> list[int]:
    """The workers of a process."""
    command = ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(process)]
    found = subprocess.run(command, capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in found.splitlines() if "fastce.corpus.worker" in line]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_job_that_is_asked_to_stop(corpus: Path, tmp_path: Path, number: signal.Signals, status: int) -> None:
    source, out = write_ids(corpus, PAIRS), tmp_path / "out"
    arguments = job(corpus, source, out, ROWS)
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and len(list(out.glob("part-*"))) < 2:
        time.sleep(0.01)
    process.send_signal(number)
    message = process.communicate(timeout=60)[1].replace("\r", "\n").splitlines()[-1]
    assert process.returncode == status
    done = len(manifest_of(out)["parts"])
    assert (
        message
        == f"fastce: interrupted; {out} has {done} whole parts of {done * ROWS:,} rows; the same command goes on"
    )
    assert len(files_of(out)) == done


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 768 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=768k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("file systems can't be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(corpus: Path, whole: Whole, small_disk: Path) -> None:
    source, out = write_ids(corpus, PAIRS), small_disk / "out"
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(600 * 1024))
    arguments = job(corpus, source, out, ROWS)
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    message = done.stderr.replace("\r", "\n").splitlines()[-1]
    assert message.startswith("fastce: ")
    assert "No space left on device" in message
    parts = manifest_of(out)["parts"]
    assert f"{out} has {len(parts)} whole parts of {len(parts) * ROWS:,} rows; the same command goes on" in message
    assert 0 < len(parts) < PAIRS / ROWS
    ballast.unlink()
    run(arguments)
    assert files_of(out) == files_of(whole(source, ROWS))
