"""Files of pairs in, lines of scores out, a piece at a time: memory does not grow with the file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastce.packing import MAX_BATCH_TOKENS
from fastce.progress import progress_bar

if TYPE_CHECKING:
    from fastce.cross_encoder import CrossEncoder

PAIRS_PER_PIECE = 4096
"""Pairs read, scored and written at once: enough to form batches of equal length."""


class Interrupted(KeyboardInterrupt):
    """Somebody stopped the scoring; the message says what is kept and how to go on."""


def score_stream(
    model: CrossEncoder,
    source: str,
    target: str,
    pairs: Iterator[tuple[str, str]],
    *,
    batch_size: int | None = None,
    max_batch_tokens: int = MAX_BATCH_TOKENS,
) -> None:
    """Scores pairs.

    Args:
        model: The model.
        source: Where the pairs come from, for messages.
        target: A .jsonl file, or `"-"` for standard output. A line for each pair, in order: `{"score": 0.5}`, or
            `{"scores": [...]}` for several labels. It is written as scoring goes.
        pairs: What to score, such as from `read_pairs`.
        batch_size: Pairs per batch at most; None leaves it to `max_batch_tokens`.
        max_batch_tokens: Tokens per batch at most.

    Raises:
        TypeError: A line holds something else than texts; the message says which.
        ValueError: A line is no pair, or the file's kind is unknown; the message says which.
        OSError: A file can't be read or written.
        Interrupted: On a keyboard interrupt.
    """
    if target != "-" and Path(target).exists() and source != "-" and Path(target).samefile(source):
        raise ValueError(f"{target}: it would be written over while it is read")
    number = 0
    first = list(islice(pairs, PAIRS_PER_PIECE))  # a source that can't be read leaves the target as it was
    key = "score" if model.num_labels == 1 else "scores"
    with (
        open_target(target) as lines,
        progress_bar(True, total=None, description="Scoring", unit="pairs") as progress,
    ):
        pieces = model.stream(
            pieces_from(first, pairs), batch_size=batch_size, max_batch_tokens=max_batch_tokens, advance=progress.update
        )
        try:
            for scores in pieces:
                lines.write("".join(json.dumps({key: score}) + "\n" for score in scores.tolist()))
                lines.flush()
                number += len(scores)
        except KeyboardInterrupt:
            kept = "standard output" if target == "-" else target
            raise Interrupted(
                f"interrupted; {kept} has the scores of the first {number} pairs of {source}, "
                "the pairs behind them can be scored into another file"
            ) from None


def pieces_from(first: list[tuple[str, str]], pairs: Iterator[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Pairs a piece at a time, until there are none."""
    piece = first
    while piece:
        yield piece
        piece = list(islice(pairs, PAIRS_PER_PIECE))


def open_target(name: str) -> Any:
    """Opens a file, or standard output for `"-"`, which is left open."""
    return nullcontext(sys.stdout) if name == "-" else open(name, "w", encoding="utf-8")
