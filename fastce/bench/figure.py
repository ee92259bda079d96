"""The picture: throughput by precision, and latency over the number of documents."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from fastce.bench.results import Report, Result
from fastce.bench.systems.base import SYSTEMS

COLORS = ("#d1495b", "#8d99ae", "#5c6b7a", "#66a182", "#2e6f95", "#edae49", "#79589f", "#a98467")
"""A colour for each row of the table of systems, fastce first."""


def write_figure(report: Report, file: Path) -> bool:
    """Draws into a PNG file; False, and no file, where matplotlib is missing or nothing was timed."""
    timed = [result for result in report.results if result.timed]
    if find_spec("matplotlib") is None or not timed:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    bars, lines = figure.subplots(1, 2)
    draw_throughput(bars, report, timed)
    draw_latency(lines, timed)
    for axes in (bars, lines):
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = bars.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(file)
    return True


def color(system: str) -> str:
    """The colour of a system, the same in every picture."""
    return COLORS[list(SYSTEMS).index(system) % len(COLORS)]


def draw_throughput(axes: Any, report: Report, timed: list[Result]) -> None:
    """Bars of pairs per second, grouped by precision."""
    precisions = list(dict.fromkeys(result.precision for result in timed))
    width = 0.8 / max(sum(result.precision == precision for result in timed) for precision in precisions)
    labelled: set[str] = set()
    for place, precision in enumerate(precisions):
        group = [result for result in timed if result.precision == precision]
        for position, result in enumerate(group):
            rate = report.figures(result)["pairs"]
            bar = axes.bar(
                place + (position - (len(group) - 1) / 2) * width,
                rate,
                0.92 * width,
                color=color(result.system),
                label=None if result.system in labelled else result.system,
            )
            labelled.add(result.system)
            axes.bar_label(bar, fmt="%.0f" if rate is not None and rate >= 10 else "%.1f", fontsize=8, padding=1)
    axes.set_xticks(range(len(precisions)), precisions)
    axes.set_ylabel("pairs per second")
    axes.set_title(
        f"Throughput, {report.model['name']}, mean {report.workload['mean']:.0f} tokens, {report.threads} cores",
        fontsize=10,
    )


def draw_latency(axes: Any, timed: list[Result]) -> None:
    """A line for each system in the precision that ranks fastest, on logarithmic axes."""
    fastest: dict[str, Result] = {}
    for result in timed:
        best = fastest.get(result.system)
        if result.latency and (best is None or latency_of_most(result) < latency_of_most(best)):
            fastest[result.system] = result
    if not fastest:
        axes.set_visible(False)
        return
    for result in fastest.values():
        counts = sorted(result.latency)
        milliseconds = [1e3 * median(result.latency[count]) for count in counts]
        axes.plot(counts, milliseconds, marker="o", markersize=4, color=color(result.system), label=result.name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    counts = sorted({count for result in fastest.values() for count in result.latency})
    axes.set_xticks(counts, map(str, counts))
    axes.minorticks_off()
    ticks = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000]
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in ticks if low <= tick <= high], [str(t) for t in ticks if low <= t <= high])
    axes.grid(alpha=0.25)
    axes.set_xlabel("documents")
    axes.set_ylabel("milliseconds")
    axes.set_title("Latency of ranking one query, each in its fastest precision", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def latency_of_most(result: Result) -> float:
    """Median time of ranking the greatest number of documents."""
    return median(result.latency[max(result.latency)])
