"""Where the rows of sequences lie that are end to end: one row a token, or one row a sequence."""

from __future__ import annotations

from typing import Literal, TypeAlias

import triton
import triton.language as tl

Rows: TypeAlias = Literal["all", "first", "last"]
"""A row of each token, or one a sequence, of its first or last token."""


@triton.jit
def extent(cu_seqlens_ptr, sequence, ROWS: tl.constexpr):
    """Where the rows of a sequence lie.

    Args:
        cu_seqlens_ptr: [num_pairs + 1].
        sequence: Number of the sequence.
        ROWS: Which rows there are.

    Returns:
        The sequence's first token, its tokens, its first row, its rows, and the place of the first row's token in it.
    """
    start = tl.load(cu_seqlens_ptr + sequence)
    length = tl.load(cu_seqlens_ptr + sequence + 1) - start
    if ROWS == "all":
        return start, length, start, length, 0
    elif ROWS == "first":
        return start, length, sequence, 1, 0
    else:
        tl.static_assert(ROWS == "last")
        return start, length, sequence, 1, tl.maximum(length - 1, 0)
