"""Runs the systems: each in a process of its own, checked first, then timed in turns."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np

from fastce.bench.ceiling import peak_operations_per_second
from fastce.bench.checks import check_scores
from fastce.bench.machine import describe_machine, describe_versions
from fastce.bench.operations import count_operations, program_of
from fastce.bench.remote import RemoteWorker, WorkerError
from fastce.bench.results import Report, Result
from fastce.bench.systems.base import SYSTEMS, Task
from fastce.bench.workload import Workload, make_workload, ranking_pairs
from fastce.checkpoints.network import capped_length, length_limit
from fastce.progress import progress_bar
from fastce.spec import Precision

SAMPLE = 300
"""Pairs to calibrate and tune with at most."""

PAUSE = 0.05
"""Seconds between two turns, in which the threads of the last one fall asleep."""


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        model: A model's directory or Hub id.
        peers: Names of systems beside fastce.
        precisions: What to run them in, where they can.
        pairs: A file of pairs; None makes pairs.
        lengths: Distribution of the lengths of made pairs.
        num_pairs: How many pairs; None takes the whole file or makes 512.
        repeats: Rounds.
        threads: Cores to use; None takes all.
        documents: Numbers of documents to measure the latency of ranking with.
        device: Where to run.
    """

    model: str
    peers: Sequence[str]
    precisions: Sequence[Precision]
    pairs: str | None = None
    lengths: str = "lognormal:65"
    num_pairs: int | None = None
    repeats: int = 5
    threads: int | None = None
    documents: Sequence[int] = (1, 2, 5, 10, 20, 50, 100)
    device: str = "cpu"


def run(plan: Plan) -> Report:
    """Runs the plan. A system that fails is reported as such; the others go on.

    Raises:
        ValueError: The model or the pairs are no good.
        OSError: As `ValueError`.
        WorkerError: transformers itself can't run the model.
    """
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(plan.model)
    tokenizer: Any = AutoTokenizer.from_pretrained(plan.model)
    network = program_of(config)
    max_length = capped_length(length_limit(tokenizer), config, warn=False)
    workload = make_workload(
        tokenizer, max_length, source=plan.pairs, distribution=plan.lengths, num_pairs=plan.num_pairs
    )
    cpus = len(os.sched_getaffinity(0))
    threads = min(plan.threads or cpus, cpus)
    results, left_out = choose_systems(("fastce", *plan.peers), plan.precisions, plan.device)
    on_cpu = plan.device == "cpu"
    ceilings = {name: peak_operations_per_second(name, threads) for name in plan.precisions if on_cpu}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        session = Session(plan, workload, threads, max_length, Path(folder), stack)
        session.start(results)
        session.time(results)
        session.time_ranking(results)
    return Report(
        date=date.today().isoformat(),
        model={"name": Path(plan.model).name, "type": config.model_type, "max_length": max_length}
        | ({} if network is None else {"layers": len(network.steps) // 2, "hidden": network.hidden_size}),
        workload=workload.summary(),
        threads=threads,
        operations=None if network is None else count_operations(network, workload.lengths),
        ceilings=ceilings,
        machine=describe_machine(plan.device),
        versions=describe_versions(),
        results=results,
        left_out=left_out,
    )


def choose_systems(
    names: Iterable[str], precisions: Sequence[Precision], device: str = "cpu"
) -> tuple[list[Result], list[str]]:
    """Empty results for every system in each of its precisions, and a line for each that can't run here.

    Raises:
        ValueError: A name is not in the table.
    """
    results, left_out = [], []
    for name in dict.fromkeys(names):
        if name not in SYSTEMS:
            raise ValueError(f"peers: no system {name!r}; known are {', '.join(SYSTEMS)}")
        if missing := SYSTEMS[name].missing_packages():
            left_out.append(f"{name} is left out; to install it: pip install {' '.join(missing)}")
            continue
        known = SYSTEMS[name].precisions if device == "cpu" else SYSTEMS[name].on_gpus
        if not known:
            left_out.append(f"{name} is left out: it runs on CPUs here, not on {device}")
        results += [Result(name, precision) for precision in precisions if precision in known]
    return results, left_out


class Session:
    """The workers of one run.

    Args:
        plan: What to run.
        workload: What to score.
        threads: Cores to use.
        max_length: Tokens of a pair at most.
        folder: Where converted models and logs go.
        stack: Closes the workers.
    """

    def __init__(self, plan: Plan, workload: Workload, threads: int, max_length: int, folder: Path, stack: ExitStack):
        self.plan, self.workload, self.threads, self.max_length = plan, workload, threads, max_length
        self.folder, self.stack = folder, stack
        self.workers: dict[str, RemoteWorker] = {}

    def start(self, results: Sequence[Result]) -> None:
        """Prepares, loads and checks every system; the ones that pass get a worker that stays."""
        with progress_bar(True, total=len(results) + 1, description="Preparing and checking", unit="systems") as bar:
            with self.worker(Result("transformers", "fp32")) as worker:
                worker.call("load")
                reference = worker.call("scores")
            bar.update()
            for result in results:
                bar.set_postfix_str(result.name)
                try:
                    self.admit(result, reference)
                except WorkerError as error:
                    result.problem = str(error)
                bar.update()

    def admit(self, result: Result, reference: np.ndarray) -> None:
        """Converts in one process, loads in another, and keeps that one where the scores are right."""
        if SYSTEMS[result.system].converts:
            with self.worker(result) as worker:
                worker.call("prepare")
        worker = self.stack.enter_context(self.worker(result))
        result.settings, result.load_seconds = worker.call("load")
        result.loaded_memory = worker.call("memory", "VmRSS")
        verdict = check_scores(worker.call("scores"), reference, result.precision)
        result.spearman, result.largest_difference = verdict.spearman, verdict.largest_difference
        if verdict.problem:
            result.problem = f"wrong: {verdict.problem}"
            worker.close()
        else:
            self.workers[result.name] = worker

    def worker(self, result: Result) -> RemoteWorker:
        """A new process for a system."""
        folder = self.folder / result.name.replace(" ", "-")
        folder.mkdir(exist_ok=True)
        pairs = self.workload.pairs
        task = Task(
            self.plan.model,
            result.precision,
            self.threads,
            self.max_length,
            pairs[:: -(-len(pairs) // SAMPLE)],
            folder,
            self.plan.device,
        )
        return RemoteWorker(SYSTEMS[result.system].path, task, pairs, self.folder / f"{folder.name}.log")

    def time(self, results: Sequence[Result]) -> None:
        """Times all pairs, in rounds over the systems."""
        with self.rounds(results, "Throughput") as bar:
            for turns in self.schedule(results):
                for result in turns:
                    seconds = self.ask(result, "throughput")
                    result.seconds += [] if seconds is None else [seconds]
                    bar.update()
        for result in self.active(results):
            result.peak_memory = self.ask(result, "memory", "VmHWM")

    def time_ranking(self, results: Sequence[Result]) -> None:
        """Times one query with few documents, in rounds over the systems."""
        if not self.plan.documents:
            return
        questions = {count: ranking_pairs(self.workload.pairs, count) for count in self.plan.documents}
        with self.rounds(results, "Latency") as bar:
            for turns in self.schedule(results):
                for count, pairs in questions.items():
                    for result in turns:
                        result.latency.setdefault(count, []).extend(self.ask(result, "latency", pairs) or [])
                bar.update(len(turns))

    def rounds(self, results: Sequence[Result], description: str) -> Any:
        """A bar over all turns."""
        total = self.plan.repeats * len(self.active(results))
        return progress_bar(True, total=total, description=description, unit="turns")

    def schedule(self, results: Sequence[Result]) -> Iterator[list[Result]]:
        """The systems of each round, each time another one first, so that none always follows the same one."""
        for number in range(self.plan.repeats):
            active = self.active(results)
            first = number % max(1, len(active))
            yield active[first:] + active[:first]

    def active(self, results: Sequence[Result]) -> list[Result]:
        """Systems that have had no problem."""
        return [result for result in results if not result.problem]

    def ask(self, result: Result, method: str, *arguments: object) -> Any:
        """Calls a worker while all others sleep; None, and a problem, where that fails."""
        sleep(PAUSE)
        try:
            return self.workers[result.name].call(method, *arguments)
        except WorkerError as error:
            result.problem = str(error)
            return None
