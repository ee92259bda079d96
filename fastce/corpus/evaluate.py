"""How good a ranking is, by judgements; the measures are those of ir-measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastce.corpus.readers.files import input_files, open_bytes
from fastce.corpus.readers.lines import text_lines
from fastce.corpus.writers import format_of

MEASURES = {"nDCG@10": "nDCG@10", "MRR@10": "RR@10"}
"""What the measures are called, here and in ir-measures."""


def check_measures(run: str, qrels: str) -> None:
    """Raises unless a run can be measured by judgements once it is written.

    Raises:
        ImportError: ir-measures is not installed.
        ValueError: It will be no .trec file, or be written over the judgements.
    """
    try:
        import ir_measures  # noqa: F401
    except ImportError as error:
        raise ImportError("--qrels needs the package ir-measures: pip install ir-measures") from error
    if format_of(run) != "trec":
        raise ValueError(f"--qrels: measures a .trec file, and {run} is none")
    input_files(qrels, ())
    if Path(run).exists() and Path(run).resolve() == Path(qrels).resolve():
        raise ValueError(f"{run}: it would be written over the judgements")


def measures(qrels: str, run: str) -> dict[str, float]:
    """Measures a run.

    Args:
        qrels: Judgements: lines of a query's id, perhaps a 0, a document's id and a grade, with a header or none.
        run: A run of TREC.

    Raises:
        ValueError: A line is none of judgements.
    """
    import ir_measures

    wanted = {name: ir_measures.parse_measure(theirs) for name, theirs in MEASURES.items()}
    found = ir_measures.calc_aggregate(list(wanted.values()), read_qrels(qrels), ir_measures.read_trec_run(run))
    return {name: float(found[measure]) for name, measure in wanted.items()}


def read_qrels(source: str) -> list[Any]:
    """Judgements."""
    import ir_measures

    found = []
    (file,) = input_files(source, ())
    with open_bytes(file) as stream, text_lines(stream, source) as lines:
        for number, line in enumerate(lines, start=1):
            fields = line.split()
            if len(fields) not in (0, 3, 4) or (fields and not is_grade(fields[-1]) and number > 1):
                raise ValueError(f"{source}, line {number}: expected ids and a grade, got {line.strip()!r}")
            if fields and is_grade(fields[-1]):  # else a header
                found.append(ir_measures.Qrel(fields[0], fields[-2], int(fields[-1])))
    return found


def is_grade(text: str) -> bool:
    """Whether a field is a whole number."""
    return text.lstrip("-").isdecimal()
