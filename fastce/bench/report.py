"""A report as a Markdown table, as JSON, and as a table in the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastce.bench.figure import write_figure
from fastce.bench.results import Report, Result

Cell = Callable[[Result, dict[str, float | None]], str]


def number(value: float | None, form: str, scale: float = 1.0) -> str:
    """A number in a format, or nothing."""
    return "" if value is None else format(value * scale, form)


PLAIN_WIDTH = 120
"""Columns of the printed table where no terminal says how wide it is."""

COLUMNS: dict[str, Cell] = {
    "system": lambda result, figures: result.system,
    "precision": lambda result, figures: result.precision,
    "pairs/s": lambda result, figures: number(figures["pairs"], ".1f"),
    "tokens/s": lambda result, figures: number(figures["tokens"], ",.0f"),
    "Gop/s": lambda result, figures: number(figures["operations"], ".1f", 1e-9),
    "ceiling": lambda result, figures: number(figures["share"], ".0%"),
    "peak MB": lambda result, figures: number(result.peak_memory, ".0f", 1e-6),
    "Spearman": lambda result, figures: number(result.spearman, ".5f"),
    "ratio": lambda result, figures: number(figures["ratio"], ".2f"),
}
"""Headings to what stands below them."""


def rows(report: Report) -> list[list[str]]:
    """The table's cells. A system without a time says so in the place of its rate."""
    table = []
    for result in report.results:
        figures = report.figures(result)
        cells = [cell(result, figures) for cell in COLUMNS.values()]
        if not result.timed:
            cells[2] = "wrong" if result.problem.startswith("wrong") else "failed"
        table.append(cells)
    return table


def notes(report: Report) -> list[str]:
    """What a reader has to know beside the table, a line each."""
    machine, workload, model = report.machine, report.workload, report.model
    sizes = f" ({model['layers']} layers, width {model['hidden']})" if "layers" in model else ""
    gpu = f"{machine['gpu']}, " if "gpu" in machine else ""
    ceilings = [f"{name} {value * 1e-9:.0f} Gop/s" for name, value in report.ceilings.items() if value is not None]
    return [
        f"{model['name']}{sizes}, {workload['num_pairs']} pairs, {workload['source']}, mean {workload['mean']} tokens, "
        f"p50 {workload['p50']}, p90 {workload['p90']}, max {workload['max']}; tokenisation included.",
        f"{gpu}{machine['cpu']}, {report.threads} of {machine['cores']} cores, {report.date}; medians of rounds over "
        "all systems in one run.",
        "Gop/s: the operations that scores can't do without, over the time. Spearman: against transformers in fp32. "
        "Ratio: to sentence-transformers in fp32.",
        *([f"Ceiling: share of what the cores' registers allow, measured: {', '.join(ceilings)}."] if ceilings else []),
        *(f"{result.name}: {result.problem}." for result in report.results if result.problem),
        *(f"{line}." for line in report.left_out),
    ]


def markdown(report: Report) -> str:
    """The table and its notes."""
    lines = [
        " | ".join(COLUMNS),
        " | ".join(["---"] * 2 + ["---:"] * (len(COLUMNS) - 2)),
        *(" | ".join(cells) for cells in rows(report)),
    ]
    table = "".join(f"| {line} |\n" for line in lines)
    return table + "\n" + "".join(f"{note}  \n" for note in notes(report))


def as_json(report: Report) -> dict[str, Any]:
    """Everything, raw times included."""
    values = asdict(report)
    for value, result in zip(values["results"], report.results, strict=True):
        value["figures"] = report.figures(result)
    return values


def write(report: Report, folder: Path) -> list[Path]:
    """Writes the table, the JSON and the picture (where matplotlib is installed).

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table, data, picture = folder / "benchmark.md", folder / "benchmark.json", folder / "benchmark.png"
    table.write_text(markdown(report), encoding="utf-8")
    data.write_text(json.dumps(as_json(report), indent=1) + "\n", encoding="utf-8")
    return [table, data, *([picture] if write_figure(report, picture) else [])]


def show(report: Report) -> None:
    """Prints the table and its notes."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 1))
    for position, heading in enumerate(COLUMNS):
        table.add_column(heading, justify="left" if position < 2 else "right", overflow="fold")
    for cells in rows(report):
        table.add_row(*cells)
    console = Console()
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    console.print(table)
    for note in notes(report):
        console.print(note, highlight=False, markup=False)
