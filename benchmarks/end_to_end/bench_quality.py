"""What models trained by fastce score on test sets, beside those trained by sentence-transformers' loop of 2.2.

    python benchmarks/end_to_end/bench_quality.py --model FOLDER --data FOLDER --out FOLDER

Runs the training scripts in examples/ with each library and several seeds. A seed sets the new head, the order of the
examples and dropout, so both libraries start with the same weights. What is in the JSON already is not run again.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
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


def trained_score(task: Task, system: System, seed: int, common: Sequence[str]) -> float:
    """Trains once; the score on the test set, in hundredths."""
    with tempfile.TemporaryDirectory() as output:
        options = [*task.options, *system.options, *common, f"--seed={seed}", f"--learning-rate={LEARNING_RATE}"]
        command = [sys.executable, str(EXAMPLES / f"{task.script}.py"), *options, f"--output={output}"]
        finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = re.search(rf"^{task.metric} on the test set: (\S+)$", finished.stdout, re.MULTILINE)
    if found is None:
        raise typer.BadParameter(f"{task.script} printed no score:\n{finished.stdout}")
    return float(found[1])


def scores_of(runs: list[dict[str, Any]], task: Task, system: System) -> dict[int, float]:
    """Seeds to scores."""
    key = (task.name, system.name, system.precision)
    return {run["seed"]: run["score"] for run in runs if (run["task"], run["system"], run["precision"]) == key}


def table(runs: list[dict[str, Any]], seeds: Sequence[int]) -> str:
    """The runs in Markdown, a column for each seed."""
    lines = [
        f"| task | system | precision | {' | '.join(f'seed {seed}' for seed in seeds)} | mean |",
        f"|---|---|---|{'--:|' * (len(seeds) + 1)}",
    ]
    for task in TASKS:
        for system in SYSTEMS:
            scores = scores_of(runs, task, system)
            cells = [f"{scores[seed]:.2f}" if seed in scores else "" for seed in seeds]
            average = f"{mean(scores.values()):.2f}" if scores else ""
            name = f"{task.name}, {task.metric}"
            lines.append(f"| {name} | {system.name} | {system.precision} | {' | '.join(cells)} | {average} |")
    return "\n".join(lines)


def main(
    model: Annotated[str, typer.Option(help="Where to start from: a folder or a name on the Hub.")],
    data: Annotated[Path, typer.Option(exists=True, file_okay=False, help="The folder that the scripts read.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="A folder for the table and the JSON.")],
    seeds: Annotated[int, typer.Option(min=1, help="How many runs of each.")] = 3,
    max_train: Annotated[int | None, typer.Option(min=1, help="Train on the first so many examples only.")] = None,
) -> None:
    """Train with each system and each seed, and compare the scores on the test sets."""
    out.mkdir(parents=True, exist_ok=True)
    results = out / "quality.json"
    runs = json.loads(results.read_text(encoding="utf-8"))["runs"] if results.exists() else []
    common = [f"--model={model}", f"--data={data}", *([] if max_train is None else [f"--max-train={max_train}"])]
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "model": Path(model).name,
        "learning_rate": float(LEARNING_RATE),
        "max_train": max_train,
        "machine": describe_machine(),
        "versions": describe_versions(),
        "tasks": {task.name: " ".join((f"{task.script}.py", *task.options)) for task in TASKS},
        "runs": runs,
    }
    for seed in range(seeds):
        for task in TASKS:
            for system in SYSTEMS:
                if seed in scores_of(runs, task, system):
                    continue
                score = trained_score(task, system, seed, common)
                run = {"task": task.name, "system": system.name, "precision": system.precision, "seed": seed}
                runs.append(run | {"score": score})
                results.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
                typer.echo(f"{task.name}, {system.name} {system.precision}, seed {seed}: {score:.2f}")
    (out / "quality.md").write_text(table(runs, range(seeds)) + "\n", encoding="utf-8")
    typer.echo(table(runs, range(seeds)))


if __name__ == "__main__":
    typer.run(main)
