"""Jobs: their speed beside `predict`, memory over millions of pairs, tokenisation of ids, and rescoring.

    python benchmarks/end_to_end/bench_corpus.py MODEL FOLDER --out benchmarks/results/NAME

The folder has queries.tsv (id, text), docs.jsonl.gz (_id, title, text) and run.bm25.tsv.gz (query id, document id,
rank, score). Everything runs in this process but the job whose memory is looked at. Run it alone on the machine.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import typer
from ranking_pairs import ranking_pairs

from fastce import CrossEncoder, score_corpus
from fastce.bench.machine import describe_machine
from fastce.corpus.score import ROWS_PER_PART
from fastce.corpus.store import StoredPairs, read_texts, stored_texts, table_of_texts
from fastce.pipeline import Window

SAMPLE_SECONDS = 1.0
"""Between two looks at a job's memory."""


def main(
    model: Annotated[str, typer.Argument(help="A directory or Hub id.")],
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The texts.")],
    out: Annotated[Path, typer.Option(help="A folder for corpus.json.")],
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of job and predict in turns.")] = 3,
    num_pairs: Annotated[int, typer.Option(min=1, help="Pairs of a round.")] = 2000,
    memory_pairs: Annotated[int, typer.Option(min=1, help="Pairs of the job whose memory is looked at.")] = 20_000_000,
    memory_seconds: Annotated[float, typer.Option(help="How long it is looked at.")] = 150.0,
) -> None:
    """Measure and write."""
    found: dict[str, Any] = {"machine": describe_machine(), "model": Path(model).name}
    with TemporaryDirectory() as name:
        scratch = Path(name)
        for measure in (
            lambda: speed(model, folder, scratch, rounds, num_pairs),
            lambda: tokenisation(model, folder, scratch),
            lambda: rescoring(model, folder),
            lambda: memory(model, folder, scratch, memory_pairs, memory_seconds),
        ):
            found |= measure()
            typer.echo(json.dumps(found, indent=1))
    out.mkdir(parents=True, exist_ok=True)
    (out / "corpus.json").write_text(json.dumps(found, indent=1) + "\n")


def seconds_of(function: Callable[[], Any]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def speed(model: str, folder: Path, scratch: Path, rounds: int, num_pairs: int) -> dict[str, Any]:
    """A job of text pairs and one of ids beside `predict` on pairs in memory, in turns, int8."""
    pairs = list(islice(ranking_pairs(folder, "bm25"), num_pairs))
    encoder = CrossEncoder(model, precision="int8")
    texts = scratch / "pairs.parquet"
    pyarrow.parquet.write_table(pa.table({"query": [a for a, _ in pairs], "document": [b for _, b in pairs]}), texts)
    ids = scratch / "ids.tsv"
    ids.write_text("".join(f"{query}\t{document}\n" for query, document in run_of(folder)[:num_pairs]))
    tables: Any = {"queries": folder / "queries.tsv", "documents": folder / "docs.jsonl.gz"}
    score_corpus(encoder, ids, scratch / "warm", text_store=scratch / "store", **tables)  # tokenises the documents
    times: dict[str, list[float]] = {"predict": [], "job": [], "job_of_ids": []}
    for number in range(rounds):
        times["predict"].append(seconds_of(lambda: encoder.predict(pairs)))
        done = score_corpus(encoder, texts, scratch / f"texts-{number}")
        times["job"].append(done.seconds)
        done = score_corpus(encoder, ids, scratch / f"ids-{number}", text_store=scratch / "store", **tables)
        times["job_of_ids"].append(done.seconds)
    command = [
        sys.executable,
        "-m",
        "fastce",
        "score",
        "--model",
        model,
        "--precision",
        "int8",
        "--rows-per-part",
        "100",
    ]
    start = time.time()
    process = subprocess.Popen(
        [*command, "--in", str(texts), "--out", str(scratch / "first")], stderr=subprocess.DEVNULL
    )
    while not (scratch / "first" / "part-00000.parquet").exists() and process.poll() is None:
        time.sleep(0.01)
    seconds_to_first_part = time.time() - start
    process.kill()
    process.wait()
    rates = {name: num_pairs / median(seconds) for name, seconds in times.items()}
    return {
        "pairs_per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "of_predict": {name: round(rates[name] / rates["predict"], 3) for name in ("job", "job_of_ids")},
        "seconds_from_command_to_first_part_of_100": round(seconds_to_first_part, 2),
    }


def run_of(folder: Path) -> list[tuple[str, str]]:
    """The ids of queries and documents of a run."""
    with gzip.open(folder / "run.bm25.tsv.gz", "rt") as lines:
        return [(fields[0], fields[1]) for fields in (line.split("\t") for line in lines)]


def tokenisation(model: str, folder: Path, scratch: Path) -> dict[str, Any]:
    """What it takes to tokenise the pairs of the run as texts, pair by pair as others do, and as ids."""
    encoder = CrossEncoder(model)
    pairs = list(ranking_pairs(folder, "bm25"))
    texts = dict(read_texts(table_of_texts(str(folder / "docs.jsonl.gz"))))
    queries = dict(read_texts(table_of_texts(str(folder / "queries.tsv"))))
    named = run_of(folder)
    characters = sum(len(a) + len(b) for a, b in pairs)
    once = sum(map(len, {queries[a] for a, _ in named})) + sum(len(texts[name]) for name in {b for _, b in named})
    by_pair = seconds_of(lambda: encoder.tokenizer([a for a, _ in pairs], [b for _, b in pairs]))
    window = Window([a for a, _ in pairs], [b for _, b in pairs])
    by_text = seconds_of(lambda: encoder.pipeline.tokenized(window, encoder.max_length))
    tokenizer = encoder.pipeline.pair_tokenizer
    stores = [
        stored_texts(table_of_texts(str(folder / name)), tokenizer, None, scratch / "store")
        for name in ("queries.tsv", "docs.jsonl.gz")
    ]

    def of_ids() -> None:
        numbers = [store.numbers(list(ids)) for store, ids in zip(stores, zip(*named, strict=True), strict=True)]
        encoder.pipeline.tokenized(StoredPairs(stores[0].folder, stores[1].folder, *numbers), encoder.max_length)

    by_id = seconds_of(of_ids)
    return {
        "tokenisation": {
            "pairs": len(pairs),
            "documents_per_query": round(len(pairs) / len(queries)),
            "characters_pair_by_pair": characters,
            "characters_of_distinct_texts": once,
            "seconds_pair_by_pair": round(by_pair, 3),
            "seconds_of_distinct_texts": round(by_text, 3),
            "seconds_of_stored_texts": round(by_id, 3),
            "stored_texts_are_faster": round(by_pair / by_id, 1),
        }
    }


def rescoring(model: str, folder: Path, top_k: int = 10) -> dict[str, Any]:
    """Rankings of each query of the run: in fp32, in int8, and in int8 with rescoring."""
    encoder = CrossEncoder(model)
    grouped = groupby(ranking_pairs(folder, "bm25"), itemgetter(0))
    lists = [(query, [text for _, text in group]) for query, group in grouped]
    for precision in ("fp32", "int8"):
        encoder.predict([("a", "b")], precision=precision)  # builds the engine
    counted = 0
    compute = encoder.pipeline.compute

    def counting(tokenized: Any, limits: Any, advance: Any = lambda _: None, precision: Any = None) -> Any:
        nonlocal counted
        counted += len(tokenized.pairs) if precision == "fp32" else 0
        return compute(tokenized, limits, advance, precision)

    encoder.pipeline.compute = counting  # type: ignore[method-assign]
    ways: dict[str, dict[str, Any]] = {
        "fp32": {},
        "int8": {"precision": "int8"},
        "rescored": {"precision": "int8", "rescore": "fp32"},
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    tops: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in ways}
    rescored = 0
    for query, documents in lists:  # in turns
        for name, options in ways.items():
            counted = 0
            start = time.perf_counter()
            tops[name].append(encoder.rank(query, documents, top_k=top_k, **options))
            times[name].append(time.perf_counter() - start)
            rescored += counted if name == "rescored" else 0
    total = sum(len(documents) for _, documents in lists)
    equal = [a == b for a, b in zip(tops["rescored"], tops["fp32"], strict=True)]
    seconds = {name: sum(found) for name, found in times.items()}

    def same(name: str) -> int:
        ids = [{entry["corpus_id"] for entry in top} for top in tops[name]]
        exact = [{entry["corpus_id"] for entry in top} for top in tops["fp32"]]
        return int(np.sum([a == b for a, b in zip(ids, exact, strict=True)]))

    return {
        "rescoring": {
            "queries": len(lists),
            "pairs": total,
            "top_k": top_k,
            "queries_with_the_top_of_fp32": {name: same(name) for name in ("int8", "rescored")},
            "rankings_equal_to_fp32_with_scores": sum(equal),
            "share_scored_again": round(rescored / total, 3),
            "bound": str(encoder.pipeline.built_encoder(precision="int8").errors["fp32"]),
            "pairs_per_second": {name: round(total / found, 1) for name, found in seconds.items()},
            "faster_than_fp32": round(seconds["fp32"] / seconds["rescored"], 2),
        }
    }


def memory(model: str, folder: Path, scratch: Path, num_pairs: int, seconds: float) -> dict[str, Any]:
    """The memory of jobs over a file of very many pairs of ids, as they go."""
    queries = np.array([name for name, _ in read_texts(table_of_texts(str(folder / "queries.tsv")))])
    documents = np.array([name for name, _ in read_texts(table_of_texts(str(folder / "docs.jsonl.gz")))])
    generator = np.random.default_rng(0)
    ids = scratch / "very-many.parquet"
    schema = pa.schema({"qid": pa.string(), "docid": pa.string()})
    with pyarrow.parquet.ParquetWriter(ids, schema) as writer:
        for start in range(0, num_pairs, 1_000_000):
            size = min(1_000_000, num_pairs - start)
            columns = [pa.array(names[generator.integers(len(names), size=size)]) for names in (queries, documents)]
            writer.write_table(pa.table(columns, schema=schema))
    found: dict[str, Any] = {
        "pairs_in_the_file": num_pairs,
        "megabytes_of_the_model_alone": round(model_alone_megabytes(model)),
    }
    for rows_per_part in (5_000, ROWS_PER_PART):
        out = scratch / f"memory-{rows_per_part}"
        command = [
            *(sys.executable, "-m", "fastce", "score", "--model", model, "--precision", "int8"),
            *("--queries", str(folder / "queries.tsv"), "--docs", str(folder / "docs.jsonl.gz"), "--pairs", str(ids)),
            *("--out", str(out), "--text-store", str(scratch / "store"), "--rows-per-part", str(rows_per_part)),
        ]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        began, samples = time.monotonic(), []
        while time.monotonic() - began < seconds and process.poll() is None:
            time.sleep(SAMPLE_SECONDS)
            samples.append(resident_megabytes(process.pid))
        parts = json.loads((out / "_manifest.json").read_text())["parts"]
        process.kill()
        process.wait()
        thirds = np.array_split(samples[len(samples) // 4 :], 3)  # behind the start
        found[f"{rows_per_part}_rows_per_part"] = {
            "rows_in_parts": sum(part["rows"] for part in parts),
            "peak_megabytes": round(max(samples)),
            "median_megabytes_of_thirds": [round(median(part)) for part in thirds],
        }
    return {"memory": found}


def resident_megabytes(process: int) -> float:
    """The memory of a process."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1]) / 1024
    return 0.0


def model_alone_megabytes(model: str) -> float:
    """The memory of a process that has loaded the model and scored a pair."""
    code = (
        "import sys; from pathlib import Path; from fastce import CrossEncoder\n"
        "CrossEncoder(sys.argv[1], precision='int8').predict([('a', 'b')])\n"
        "print(Path('/proc/self/status').read_text())"
    )
    text = subprocess.run([sys.executable, "-c", code, model], capture_output=True, text=True, check=True).stdout
    return next(float(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("VmRSS:"))


if __name__ == "__main__":
    typer.run(main)
