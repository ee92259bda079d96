from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import PAIRS, SENTENCES
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner, Result

import fastce
from fastce import CrossEncoder
from fastce.cli import app

Tiny = Callable[..., str]
READABLE = [pair for pair in PAIRS if all(pair)]  # a TSV line can't hold every text


def invoke(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def scores_in(text: str) -> list[float]:
    return [json.loads(line)["score"] for line in text.splitlines()]


def write(file: Path, pairs: list[tuple[str, str]]) -> Path:
    if file.suffix == ".jsonl":
        lines = [json.dumps(pair) for pair in pairs]
    else:
        delimiter = {".csv": ",", ".tsv": "\t"}[file.suffix]
        quote = '"' if file.suffix == ".csv" else ""
        lines = ["id,sentence1,sentence2".replace(",", delimiter)]
        lines += [delimiter.join(f"{quote}{field}{quote}" for field in ("7", *pair)) for pair in pairs]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_score_writes_a_line_for_each_pair_in_order(tiny: Tiny, tmp_path: Path, suffix: str) -> None:
    source, target = write(tmp_path / f"pairs{suffix}", READABLE), tmp_path / "scores.jsonl"
    result = invoke("score", "--model", tiny("bert"), "--in", source, "--out", target)
    assert result.exit_code == 0, result.output
    expected = CrossEncoder(tiny("bert")).predict(READABLE)
    assert np.allclose(scores_in(target.read_text()), expected, atol=1e-6)
    assert "Scoring" in result.stderr


def test_score_reads_standard_input_and_writes_standard_output(tiny: Tiny) -> None:
    lines = "\n".join(
        [
            json.dumps(["a guitar", "a stage"]),
            "",
            json.dumps({"id": "d7", "query": "a guitar", "document": "a stage"}),
            json.dumps({"left": "a guitar", "right": "a stage"}),
        ]
    )
    result = invoke("score", "--model", tiny("bert"), "--in", "-", stdin=lines)
    assert result.exit_code == 0, result.output
    scores = scores_in(result.stdout)
    assert len(scores) == 3
    assert len(set(scores)) == 1


def test_several_sources_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.jsonl", READABLE[:2]) for name in "ab"]
    result = invoke("score", "--model", tiny("bert"), "--in", files[0], "--in", files[1])
    assert result.exit_code == 2
    assert "--in: expected one, a pattern or a folder for several files" in result.stderr


def test_wrong_columns_are_one_line(tiny: Tiny, tmp_path: Path) -> None:
    source = write(tmp_path / "pairs.jsonl", READABLE[:2])
    result = invoke("score", "--model", tiny("bert"), "--in", source, "--text-columns", "query")
    assert result.stderr == "fastce: --text-columns: expected two names, separated by a comma, got 'query'\n"


def test_a_model_without_a_head_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    AutoModel.from_pretrained(tiny("bert")).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny("bert")).save_pretrained(tmp_path)
    result = invoke("score", "--model", tmp_path, "--in", "-", stdin='["a", "b"]\n')
    assert result.exit_code == 1
    assert "has no classification head, its scores would be random; train it first" in result.stderr


def test_score_with_several_labels(tiny: Tiny) -> None:
    result = invoke("score", "--model", tiny("bert", num_labels=3), "--in", "-", stdin='["a", "b"]\n')
    assert len(json.loads(result.stdout)["scores"]) == 3


def test_what_was_scored_before_a_bad_line_is_kept(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastce.corpus.score.WINDOW", 2)
    source, target = tmp_path / "pairs.jsonl", tmp_path / "scores.jsonl"
    source.write_text('["a", "b"]\n["a", "c"]\n["a"]\n["a", "d"]\n')
    result = invoke("score", "--model", tiny("bert"), "--in", source, "--out", target)
    assert result.exit_code == 1
    assert "pairs.jsonl, line 3: expected 2 texts, got 1" in result.stderr
    assert len(scores_in(target.read_text())) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "line 1: not valid JSON"),
        ("3", "line 1: expected a list of two texts or an object, got int"),
        ('["a", null]', "line 1[1]: expected str, got None"),
        ('{"a": "b", "c": "d", "e": "f"}', "line 1: which two of the fields a, c, e? Known names are query/document"),
    ],
)
def test_bad_lines_are_named(tiny: Tiny, line: str, message: str) -> None:
    result = invoke("score", "--model", tiny("bert"), "--in", "-", stdin=line)
    assert result.exit_code == 1
    assert f"-, {message}" in result.stderr


def test_bad_arguments(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "pairs.xlsx").write_text("")
    folder = tmp_path / "out"
    for arguments, status, message in (
        (("--in", tmp_path / "none.jsonl"), 1, "no file"),
        (("--in", tmp_path / "pairs.xlsx"), 1, f"{tmp_path}/pairs.xlsx: expected a file ending in .jsonl, .ndjson"),
        (("--precision", "fp64"), 2, "--precision: expected one of fp32, bf16, fp16, int8, fp8, got 'fp64'"),
        (("--backend", "tvm"), 2, "--backend: expected 'auto' or one of"),
        (("--rescore", "fp32"), 2, "--rescore: needs --top-k; without it"),
        (("--rescore", "fp33", "--top-k", 1), 2, "--rescore: expected one of"),
        (("--format", "xml"), 2, "--format: expected one of"),
        (("--out", tmp_path / "scores.xml"), 2, "--out: expected a folder, or a file ending in"),
        (("--out", folder, "--on-error", "stop"), 2, "--on-error: expected 'raise' or 'skip', got 'stop'"),
        (("--out", folder, "--shard-index", 1), 2, "--shard-index: expected a number from 0 to 0, got 1"),
        (("--num-shards", 2), 2, "--num-shards is for folders, and - is a file"),
        (("--devices", "cpu", "--workers", 2), 2, "--workers: 2, but there are 1 devices"),
        (("--queries", "q.tsv"), 2, "--queries and documents: pairs of ids need a table of each"),
        (("--max-batch-tokens", 0), 2, "Invalid value for '--max-batch-tokens'"),
    ):
        sources = () if "--in" in arguments else ("--in", "-")
        result = invoke("score", "--model", tiny("bert"), *sources, *arguments, stdin="")
        assert result.exit_code == status, result.stderr
        assert message in result.stderr
        assert result.stderr.startswith(f"fastce: {message}") or "Invalid value" in message
    result = invoke("score", "--model", tmp_path, "--in", "-", stdin="")
    assert result.exit_code == 1
    assert "no config.json in it" in result.stderr


def test_rank_prints_the_best_lines(tiny: Tiny, tmp_path: Path) -> None:
    documents = tmp_path / "documents.txt"
    documents.write_text("\n".join([*SENTENCES, ""]), encoding="utf-8")
    result = invoke("rank", "--model", tiny("bert"), "--query", "the train", "--docs", documents, "--top", "3")
    assert result.exit_code == 0, result.output
    texts = [sentence for sentence in SENTENCES if sentence]
    expected = CrossEncoder(tiny("bert")).rank("the train", texts, top_k=3, return_documents=True)
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [text for _, text in lines] == [entry["text"] for entry in expected]
    assert [float(score) for score, _ in lines] == pytest.approx([entry["score"] for entry in expected], abs=1e-6)


def test_a_model_that_nobody_names_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "cross-encoder/ms-marco-MiniLM-L6-v2"
    documents = write(tmp_path / "documents.jsonl", READABLE[:1])
    arguments = ("rank", "--query", "a", "--docs", documents)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    offline = invoke(*arguments)
    assert offline.exit_code == 1
    assert f"fastce: {name}: no directory here, and not in the Hub's local cache, and HF_HUB_OFFLINE" in offline.stderr

    def stop(options: fastce.ModelOptions) -> None:
        raise ValueError(f"loads {options.model_name_or_path}")

    monkeypatch.setattr("fastce.corpus.score.load", stop)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    note = f"fastce: {name} is not in the cache yet and will be fetched from the Hugging Face Hub\n"
    failure = f"fastce: loads {name}\n"
    assert invoke(*arguments).stderr == note + failure
    assert invoke("score", "--in", "-", stdin="").stderr == note + failure
    assert invoke(*arguments, "--model", tmp_path).stderr == f"fastce: loads {tmp_path}\n"
    cached = tmp_path / "models--cross-encoder--ms-marco-MiniLM-L6-v2"
    for file in ("refs/main", "snapshots/0/config.json"):
        (cached / file).parent.mkdir(parents=True)
        (cached / file).write_text("0")
    assert invoke(*arguments).stderr == failure
    assert invoke(*arguments, "--model", "ms-marco-MiniLM-L6-v2").stderr == "fastce: loads ms-marco-MiniLM-L6-v2\n"


def test_info(monkeypatch: pytest.MonkeyPatch) -> None:
    result = invoke("info")
    assert result.exit_code == 0
    assert f"fastce {fastce.__version__}" in result.stdout
    assert "backend reference, fp32 on" in result.stdout
    assert "backend reference, int8 on cpu: it has no int8" in result.stdout
    monkeypatch.setenv("FASTCE_NUM_THREADS", "7")
    assert "threads: 7" in invoke("info").stdout


def test_help_answers_in_half_a_second() -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        output = subprocess.run(
            [sys.executable, "-m", "fastce.cli", "--help"], check=True, capture_output=True, text=True
        )
        seconds.append(time.perf_counter() - start)
        assert {"score", "rank", "info"} <= set(output.stdout.split())
    assert min(seconds) < 0.5


def test_a_source_is_not_written_over(tiny: Tiny, tmp_path: Path) -> None:
    source = write(tmp_path / "pairs.jsonl", READABLE[:3])
    before = source.read_text()
    result = invoke("score", "--model", tiny("bert"), "--in", source, "--out", source)
    assert result.exit_code == 1
    assert "it would be written over while it is read" in result.stderr
    assert source.read_text() == before


def test_scores_of_an_earlier_run_stay_where_the_source_is_unusable(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "pairs.xlsx").write_text("")
    (tmp_path / "scores.jsonl").write_text("kept")
    invoke("score", "--model", tiny("bert"), "--in", tmp_path / "pairs.xlsx", "--out", tmp_path / "scores.jsonl")
    assert (tmp_path / "scores.jsonl").read_text() == "kept"


def test_spreadsheets(tiny: Tiny, tmp_path: Path) -> None:
    """A byte-order mark, a field of more than 128 KiB, and a row with more fields than the header."""
    source = tmp_path / "pairs.csv"
    source.write_text("query,document\na,b\na," + "long " * 40_000 + "\n", encoding="utf-8-sig")
    result = invoke("score", "--model", tiny("bert"), "--in", source)
    assert result.exit_code == 0, result.output
    assert len(scores_in(result.stdout)) == 2
    source.write_text("query,document\na,b,c\n")
    result = invoke("score", "--model", tiny("bert"), "--in", source)
    assert result.exit_code == 1
    assert "pairs.csv, line 2: more fields than the header has" in result.stderr


def test_tables_without_a_header(tiny: Tiny, tmp_path: Path) -> None:
    source = tmp_path / "pairs.csv"
    source.write_text("a guitar,a stage\nbread,flour\n")
    result = invoke("score", "--model", tiny("bert"), "--in", source)
    assert result.exit_code == 1
    assert "pairs.csv, line 1: which two of the fields a guitar, a stage?" in result.stderr
    model = CrossEncoder(tiny("bert"))
    for arguments, pairs in (
        (("--no-header",), [("a guitar", "a stage"), ("bread", "flour")]),
        (("--no-header", "--text-columns", "2,1"), [("a stage", "a guitar"), ("flour", "bread")]),
        (("--text-columns", "a guitar,a stage"), [("bread", "flour")]),
        (("--text-columns", '"a guitar","a stage"'), [("bread", "flour")]),
    ):
        result = invoke("score", "--model", tiny("bert"), "--in", source, *arguments)
        assert result.exit_code == 0, result.output
        assert scores_in(result.stdout) == pytest.approx(model.predict(pairs), abs=1e-6)
    result = invoke("score", "--model", tiny("bert"), "--in", source, "--text-columns", "a guitar")
    assert result.exit_code == 2
    assert "--text-columns: expected two names, separated by a comma, got 'a guitar'" in result.stderr


def test_documents_have_an_encoding(tiny: Tiny, tmp_path: Path) -> None:
    documents = tmp_path / "documents.txt"
    arguments = ("rank", "--model", tiny("bert"), "--query", "the train", "--docs", documents, "--top-k", 5)
    documents.write_bytes("straße\r\n\r\nnaïve\r\n".encode("utf-16"))
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert sorted(line.split("\t")[1] for line in result.stdout.splitlines()) == ["naïve", "straße"]
    documents.write_bytes(b"plain\nna\xefve\n")
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert "documents.txt, line 2: byte 0xEF is not UTF-8" in result.stderr


def test_a_folder_is_no_file_of_pairs(tiny: Tiny, tmp_path: Path) -> None:
    result = invoke("score", "--model", tiny("bert"), "--in", tmp_path)
    assert result.exit_code == 1
    assert "no file in it ends in .jsonl, .ndjson, .csv, .tsv" in result.stderr


@pytest.mark.parametrize(("name", "status"), [("bfloat16", 0), ("BF16", 0), ("float8", 2)])
def test_precisions_by_names_of_torch(tiny: Tiny, name: str, status: int) -> None:
    result = invoke("score", "--model", tiny("bert"), "--in", "-", "--precision", name, stdin='["a", "b"]\n')
    assert result.exit_code == status, result.output
    if status:
        assert "--precision: expected one of fp32, bf16, fp16, int8, fp8, got 'float8'" in result.stderr


def test_the_module_is_the_command() -> None:
    output = subprocess.run([sys.executable, "-m", "fastce", "--version"], check=True, capture_output=True, text=True)
    assert output.stdout == f"fastce {fastce.__version__}\n"
    assert invoke("--version").stdout == f"fastce {fastce.__version__}\n"


@pytest.fixture
def scoring(tiny: Tiny, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`fastce score` at work, after its first scores, with pairs that would take it long."""
    source = tmp_path / "pairs"
    os.mkfifo(source)
    command = ["-m", "fastce", "score", "--model", tiny("bert"), "--in", str(source)]
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )

    def feed() -> None:
        with suppress(BrokenPipeError), source.open("w") as stream:
            while True:
                stream.write('["a guitar", "a stage"]\n' * 1000)

    threading.Thread(target=feed, daemon=True).start()
    yield process
    process.kill()
    process.communicate()


def messages_of(process: subprocess.Popen[str]) -> list[str]:
    """What a process wrote to standard error, without the bar."""
    lines = process.communicate(timeout=60)[1].replace("\r", "\n").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("Scoring")]


def test_a_reader_that_has_enough_is_no_fault(scoring: subprocess.Popen[str]) -> None:
    assert scoring.stdout is not None
    assert "score" in scoring.stdout.readline()
    scoring.stdout.close()
    scoring.stdout = None
    assert messages_of(scoring) == []
    assert scoring.returncode == 1


def test_an_interrupt_is_one_line(scoring: subprocess.Popen[str]) -> None:
    assert scoring.stdout is not None
    assert "score" in scoring.stdout.readline()
    scoring.send_signal(signal.SIGINT)
    (message,) = messages_of(scoring)
    assert re.fullmatch(
        r"fastce: interrupted; standard output has the scores of the first \d+ pairs of .*pairs, .* into another file",
        message,
    )
    assert scoring.returncode == 130


def test_an_interrupt_while_a_model_is_loaded(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastce.corpus.score.load", interrupted)
    result = invoke("score", "--model", tiny("bert"), "--in", "-", stdin="")
    assert (result.exit_code, result.stderr) == (130, "fastce: interrupted\n")


def change_config(directory: Path, **changes: object) -> None:
    config = json.loads((directory / "config.json").read_text()) | changes
    (directory / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("kind", ["model.safetensors", "shards", "pytorch_model.bin"])
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "ernie"])
def test_a_head_is_known_by_its_weights(tiny: Tiny, tmp_path: Path, family: str, kind: str) -> None:
    """Where the config names no architecture."""
    expected = CrossEncoder(tiny(family, num_labels=3)).predict(READABLE[:3])
    module = AutoModelForSequenceClassification.from_pretrained(tiny(family, num_labels=3))
    module.save_pretrained(tmp_path, max_shard_size="30KB" if kind == "shards" else "1GB")
    AutoTokenizer.from_pretrained(tiny(family)).save_pretrained(tmp_path)
    if kind == "pytorch_model.bin":
        (tmp_path / "model.safetensors").unlink()
        torch.save(module.state_dict(), tmp_path / kind)
    change_config(tmp_path, architectures=None)
    result = invoke(
        "score", "--model", tmp_path, "--in", "-", stdin="".join(json.dumps(pair) + "\n" for pair in READABLE[:3])
    )
    assert result.exit_code == 0, result.output
    scores = [json.loads(line)["scores"] for line in result.stdout.splitlines()]
    assert np.allclose(scores, expected, atol=1e-6)


def test_a_head_that_only_the_config_has_is_none(tiny: Tiny, tmp_path: Path) -> None:
    AutoModel.from_pretrained(tiny("bert")).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny("bert")).save_pretrained(tmp_path)
    change_config(tmp_path, architectures=["BertForSequenceClassification"])
    result = invoke("score", "--model", tmp_path, "--in", "-", stdin='["a", "b"]\n')
    assert result.exit_code == 1
    assert "has no classification head" in result.stderr
    change_config(tmp_path, architectures=None)
    assert "has no classification head" in invoke("score", "--model", tmp_path, "--in", "-", stdin="").stderr
