"""What a run found out."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any

from fastce.spec import Precision

BASELINE = ("sentence-transformers", "fp32")


@dataclass
class Result:
    """One system in one precision.

    Attributes:
        system: Its name in the table of systems.
        precision: The arithmetic.
        settings: How it ran, in words.
        problem: Why there are no times; empty where there are.
        spearman: Rank correlation with fp32.
        largest_difference: Greatest absolute difference of a logit from fp32.
        load_seconds: Time to load the (converted) model.
        loaded_memory: Resident memory after loading, bytes.
        peak_memory: Resident memory at its peak after scoring all pairs, bytes.
        seconds: Time to score all pairs, of each round.
        latency: Number of documents to the times of ranking them, in seconds.
    """

    system: str
    precision: Precision
    settings: str = ""
    problem: str = ""
    spearman: float | None = None
    largest_difference: float | None = None
    load_seconds: float | None = None
    loaded_memory: int | None = None
    peak_memory: int | None = None
    seconds: list[float] = field(default_factory=list)
    latency: dict[int, list[float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """System and precision."""
        return f"{self.system} {self.precision}"

    @property
    def timed(self) -> bool:
        """Whether there are times to believe."""
        return not self.problem and bool(self.seconds)


@dataclass(frozen=True)
class Report:
    """A whole run.

    Attributes:
        date: The day, ISO format.
        model: The model's name and sizes.
        workload: See `Workload.summary`.
        threads: Cores in use.
        operations: Arithmetic operations of scoring all pairs once; None where the network is unknown.
        ceilings: Precisions to operations per second that the cores allow; None where it can't be measured.
        machine: Processor, cores, instruction sets, memory.
        versions: Packages to versions.
        results: All systems.
        left_out: A line for each system that did not run.
    """

    date: str
    model: dict[str, Any]
    workload: dict[str, float | int | str]
    threads: int
    operations: int | None
    ceilings: dict[Precision, float | None]
    machine: dict[str, Any]
    versions: dict[str, str]
    results: list[Result]
    left_out: list[str]

    def figures(self, result: Result) -> dict[str, float | None]:
        """The derived figures of one system: rates per second, shares and ratios, None where unknown."""
        if not result.timed:
            return dict.fromkeys(("pairs", "tokens", "operations", "share", "ratio"))
        seconds = median(result.seconds)
        operations = None if self.operations is None else self.operations / seconds
        ceiling = self.ceilings.get(result.precision)
        baseline = next((r for r in self.results if (r.system, r.precision) == BASELINE and r.timed), None)
        return {
            "pairs": int(self.workload["num_pairs"]) / seconds,
            "tokens": int(self.workload["tokens"]) / seconds,
            "operations": operations,
            "share": None if operations is None or ceiling is None else operations / ceiling,
            "ratio": None if baseline is None else median(baseline.seconds) / seconds,
        }
