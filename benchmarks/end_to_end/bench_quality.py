"""What models trained by fastce score on test sets, beside those trained by sentence-transformers' loop of 2.2.

    python benchmarks/end_to_end/bench_quality.py --model FOLDER --data FOLDER --out FOLDER

Runs the training scripts in examples/ with each library and several seeds. A seed sets the new head, the order of the
examples and dropout, so both libraries start with the same weights. Runs that the JSON in the folder has are not
repeated, so a benchmark that was stopped goes on.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, NamedTuple

import typer

from fastce.bench.machine import describe_machine, describe_versions

EXAMPLES = Path(__file__).parents[2] / "examples"
LEARNING_RATE = "5e-5"


class Task(NamedTuple):
    """A script in examples/ and its options; what a score is called there."""

    name: str
    script: str
    options: tuple[str, ...]
    metric: str


class System(NamedTuple):
    """A library, the precision that it trains in, and the options for both."""

    name: str
    precision: str
    options: tuple[str, ...]


TASKS = (
    Task("STS-B", "training_stsbenchmark", ("--epochs=3", "--no-both-directions"), "Spearman"),
    Task("SNLI", "training_nli", ("--epochs=1",), "Accuracy"),
    Task("Quora", "training_quora_duplicate_questions", ("--epochs=1", "--no-both-directions"), "Average precision"),
)
SYSTEMS = (
    System("sentence-transformers", "fp32", ("--library=sentence-transformers",)),
    System("fastce", "fp32", ()),
    System("fastce", "bf16", ("--use-amp",)),
)


def trained_scores(task: Task, system: System, seed: int, common: Sequence[str]) -> dict[str, float]:
    """Trains once; the precisions of the test to scores, in hundredths."""
    with tempfile.TemporaryDirectory() as output:
        options = [*task.options, *system.options, *common, f"--seed={seed}", f"--learning-rate={LEARNING_RATE}"]
        command = [sys.executable, str(EXAMPLES / f"{task.script}.py"), *options, f"--output={output}"]
        finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = re.findall(rf"^{task.metric} on the test set(?: in (\S+))?: (\S+)$", finished.stdout, re.MULTILINE)
    if not found:
        raise typer.BadParameter(f"{task.script} printed no score:\n{finished.stdout}")
    return {precision or "fp32": float(score) for precision, score in found}


def scores_of(runs: list[dict[str, Any]], task: Task, system: System) -> dict[int, float]:
    """Seeds to scores in fp32."""
    key = (task.name, system.name, system.precision)
    return {run["seed"]: run["scores"]["fp32"] for run in runs if (run["task"], run["system"], run["precision"]) == key}


def table(runs: list[dict[str, Any]], seeds: Sequence[int]) -> str:
    """The runs in Markdown, a column for each seed; systems without a run are left out."""
    lines = [
        f"| task | trained by | in | {' | '.join(f'seed {seed}' for seed in seeds)} | mean | spread |",
        f"|---|---|---|{'--:|' * (len(seeds) + 2)}",
    ]
    for task in TASKS:
        for system in SYSTEMS:
            found = scores_of(runs, task, system)
            scores = [found[seed] for seed in seeds if seed in found]
            if not scores:
                continue
            cells = [f"{found[seed]:.2f}" if seed in found else "" for seed in seeds]
            cells += [f"{mean(scores):.2f}", f"{max(scores) - min(scores):.2f}" if len(scores) > 1 else ""]
            lines.append(f"| {task.name}, {task.metric} | {system.name} | {system.precision} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(
    model: Annotated[str, typer.Option(help="Where to start from: a folder or a name on the Hub.")],
    data: Annotated[Path, typer.Option(exists=True, file_okay=False, help="The folder that the scripts read.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="A folder for the table and the JSON.")],
    seeds: Annotated[int, typer.Option(min=1, help="How many runs of each.")] = 3,
    max_train: Annotated[int | None, typer.Option(min=1, help="Train on the first so many examples only.")] = None,
) -> None:
    """Train with each system and each seed, and compare the scores on the test sets."""
    settings: dict[str, Any] = {
        "model": Path(model).name if Path(model).exists() else model,
        "learning_rate": float(LEARNING_RATE),
        "max_train": max_train,
        "tasks": {task.name: " ".join((f"{task.script}.py", *task.options)) for task in TASKS},
    }
    runs: list[dict[str, Any]] = []
    results = out / "quality.json"
    if results.exists():
        report = json.loads(results.read_text(encoding="utf-8"))
        if report["settings"] != settings:
            raise typer.BadParameter(f"{results} is of runs with other settings: {report['settings']}")
        runs = report["runs"]
    out.mkdir(parents=True, exist_ok=True)
    common = [f"--model={model}", f"--data={data}", *([] if max_train is None else [f"--max-train={max_train}"])]
    for seed, task, system in product(range(seeds), TASKS, SYSTEMS):
        if seed in scores_of(runs, task, system):
            continue
        run = {
            "task": task.name,
            "system": system.name,
            "precision": system.precision,
            "seed": seed,
            "date": time.strftime("%Y-%m-%d"),
            "scores": trained_scores(task, system, seed, common),
        }
        runs.append(run)
        report = {"settings": settings, "machine": describe_machine(), "versions": describe_versions(), "runs": runs}
        results.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        typer.echo(f"{task.name}, {system.name} {system.precision}, seed {seed}: {run['scores']}")
    (out / "quality.md").write_text(table(runs, range(seeds)) + "\n", encoding="utf-8")
    typer.echo(table(runs, range(seeds)))


if __name__ == "__main__":
    typer.run(main)
