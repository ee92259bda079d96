"""Lines of a file, in any encoding that says what it is."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, TextIOWrapper
from typing import IO, Any, cast

ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    b"": "utf-8-sig",
}
"""What a file begins with to its encoding, tried in this order."""


@contextmanager
def text_lines(stream: IO[bytes], source: str) -> Iterator[Iterator[str]]:
    """The lines of a stream with their ends; what is not encoded as it should be is in them as surrogates.

    They are UTF-8 unless a byte-order mark says otherwise. The stream stays open.

    Raises:
        ValueError: The stream ends within a character.
    """
    buffered = BufferedReader(cast(Any, stream))
    start = buffered.peek(4)
    encoding = next(name for mark, name in ENCODINGS.items() if start.startswith(mark))
    text = TextIOWrapper(buffered, encoding, errors="surrogateescape", newline="")
    try:
        yield whole_lines(text, source)
    finally:
        text.detach()
        buffered.detach()


def whole_lines(text: TextIOWrapper, source: str) -> Iterator[str]:
    """The lines of a text."""
    number = 1
    try:
        for line in text:
            yield line
            number += 1
    except UnicodeDecodeError as error:
        raise ValueError(f"{source}, line {number}: not {text.encoding} ({error.reason})") from None


def check_characters(line: str, place: str) -> None:
    """Raises ValueError where a line has characters that stand for bytes of another encoding."""
    if "\0" in line:
        raise ValueError(f"{place}: a NUL character; UTF-16 needs a byte-order mark")
    try:
        line.encode()
    except UnicodeEncodeError as error:
        byte = ord(error.object[error.start]) & 0xFF
        remedy = "convert the file, for example with iconv -f latin1 -t utf-8"
        raise ValueError(f"{place}: byte 0x{byte:02X} is not UTF-8; {remedy}") from None
