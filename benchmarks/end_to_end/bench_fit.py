"""Training with fastce beside sentence-transformers' loop of 2.2 (`old_fit`): speed and memory.

    gunzip -c stsb_train.tsv.gz | cut -f 2,3 > STS-B.tsv
    python benchmarks/ranking_pairs.py trec_dl19_passage --num-pairs 2000 --out "TREC DL 2019.jsonl"
    python benchmarks/end_to_end/bench_fit.py --model FOLDER --pairs STS-B.tsv --pairs "TREC DL 2019.jsonl" --out FOLDER

Each system runs in a process of its own, and all take turns: a round is one call of `fit` over the same examples, a
random sample of the file, in the same order, tokenisation included. Before anything is timed, the losses of one batch
without dropout must agree.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from fastce.bench.machine import describe_machine, describe_versions
from fastce.pair_files import read_pairs

BATCH_SIZE = 16
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")


class System(NamedTuple):
    """What is timed, and how far a loss of it may be from the first one's: the rounding of logits."""

    package: str
    method: str
    precision: str
    agreement: float


SYSTEMS = (
    System("sentence_transformers", "old_fit", "fp32", 0.0),
    System("fastce", "fit", "fp32", 1e-5),
    System("fastce", "fit", "bf16", 2e-2),
)

Pairs = list[tuple[str, str]]


def serve(system: System, start: str, threads: int, pairs: Pairs, pipe: Connection) -> None:
    """Trains on the pairs for each folder of a model that comes, and answers loss, seconds and peak memory in MB."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits
    from torch.utils.data import DataLoader

    torch.set_num_threads(threads)
    package: Any = importlib.import_module(system.package)
    examples: Any = [package.InputExample(texts=list(pair), label=number % 5 / 4) for number, pair in enumerate(pairs)]
    loaded, model = "", None
    while folder := pipe.recv():
        if folder != loaded:
            del model
            loaded, model = folder, package.CrossEncoder(folder, device="cpu", max_length=512)
        losses: list[float] = []

        def loss_fct(logits: torch.Tensor, labels: torch.Tensor, losses: list[float] = losses) -> torch.Tensor:
            loss = binary_cross_entropy_with_logits(logits, labels)
            losses.append(loss.item())
            return loss

        loader: Any = DataLoader(examples if folder == start else examples[:BATCH_SIZE], batch_size=BATCH_SIZE)
        begin = time.perf_counter()
        getattr(model, system.method)(
            loader,
            loss_fct=loss_fct,
            warmup_steps=0,
            use_amp=system.precision == "bf16",
            show_progress_bar=False,
        )
        seconds = time.perf_counter() - begin
        pipe.send((losses[0], seconds, peak_memory()))


def peak_memory() -> float:
    """Of this process, in MB: its own peak, where getrusage also tells of the process that started it."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].removesuffix("kB")) / 1024


@contextmanager
def process(system: System, start: str, threads: int, pairs: Pairs) -> Iterator[Connection]:
    """A system in a process of its own, and the pipe to it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=serve, args=(system, start, threads, pairs, theirs))
    worker.start()
    try:
        yield ours
    finally:
        ours.send("")
        worker.join()


def ask(pipe: Connection, folder: str) -> tuple[float, float, float]:
    """Loss of the first batch, seconds and peak memory of one `fit`."""
    pipe.send(folder)
    answer: tuple[float, float, float] = pipe.recv()
    return answer


def write_models(model: str, folder: Path) -> tuple[str, str]:
    """Saves the model to start from, and the same without dropout."""
    from fastce import CrossEncoder

    cross_encoder = CrossEncoder(model, num_labels=1)
    for name in ("start", "without_dropout"):
        cross_encoder.save(folder / name)
        for key in DROPOUTS:
            if hasattr(cross_encoder.config, key):
                setattr(cross_encoder.config, key, 0.0)
    return str(folder / "start"), str(folder / "without_dropout")


def measure(model: str, pairs: Pairs, threads: int, repeats: int) -> list[dict[str, Any]]:
    """Checks and times all systems on some pairs."""
    with ExitStack() as stack:
        start, without_dropout = write_models(model, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        pipes = {system: stack.enter_context(process(system, start, threads, pairs)) for system in SYSTEMS}
        losses = {system: ask(pipe, without_dropout)[0] for system, pipe in pipes.items()}
        for system, loss in losses.items():
            if abs(loss - losses[SYSTEMS[0]]) > system.agreement:
                raise typer.BadParameter(f"{system.package} {system.precision}: loss {loss}, not {losses[SYSTEMS[0]]}")
        seconds: dict[System, list[float]] = {system: [] for system in SYSTEMS}
        peaks = dict.fromkeys(SYSTEMS, 0.0)
        for number in range(repeats + 1):  # the first round warms up
            for system, pipe in pipes.items():
                _, elapsed, peaks[system] = ask(pipe, start)
                if number > 0:
                    seconds[system].append(elapsed)
    speeds = {system: len(pairs) / statistics.median(seconds[system]) for system in SYSTEMS}
    return [
        {
            "system": system.package.replace("_", "-"),
            "precision": system.precision,
            "pairs/s": speeds[system],
            "ratio": speeds[system] / speeds[SYSTEMS[0]],
            "peak MB": peaks[system],
            "memory ratio": peaks[system] / peaks[SYSTEMS[0]],
        }
        for system in SYSTEMS
    ]


def table(results: list[dict[str, Any]]) -> str:
    """The results in Markdown."""
    lines = ["| pairs | system | precision | pairs/s | ratio | peak MB | ratio |", "|---|---|---|--:|--:|--:|--:|"]
    for row in results:
        lines.append(
            f"| {row['pairs']} | {row['system']} | {row['precision']} | {row['pairs/s']:.1f} | {row['ratio']:.2f} "
            f"| {row['peak MB']:.0f} | {row['memory ratio']:.2f} |"
        )
    return "\n".join(lines)


def main(
    model: Annotated[str, typer.Option(help="Where to start from: a folder or a name on the Hub.")],
    pairs: Annotated[list[Path], typer.Option(exists=True, help="A file of pairs, as for fastce score.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="A folder for the table and the JSON.")],
    num_pairs: Annotated[int, typer.Option(min=BATCH_SIZE, help="So many of each file, drawn at random.")] = 320,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds over all systems.")] = 3,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Train with each system in turns, and compare."""
    results = []
    for path in pairs:
        found = list(read_pairs(str(path)))
        chosen = random.Random(0).sample(found, min(num_pairs, len(found)))
        results += [{"pairs": path.stem} | row for row in measure(model, chosen, threads, repeats)]
    out.mkdir(parents=True, exist_ok=True)
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "model": Path(model).name,
        "batch_size": BATCH_SIZE,
        "num_pairs": len(chosen),
        "threads": threads,
        "machine": describe_machine(),
        "versions": describe_versions(),
        "results": results,
    }
    (out / "fit.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / "fit.md").write_text(table(results) + "\n", encoding="utf-8")
    typer.echo(table(results))


if __name__ == "__main__":
    typer.run(main)
