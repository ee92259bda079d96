"""Files by name, pattern, folder or address, and their bytes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

import fsspec
from fsspec.core import split_protocol, url_to_fs

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
"""Endings of compressed files to what Arrow calls the compression."""

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class InputFile:
    """A file that is read.

    Attributes:
        path: Its path or address.
        size: Its bytes; None for a stream, such as a pipe.
        changed: Changes when the file does: its time of change, or what its file system has in place of that.
    """

    path: str
    size: int | None
    changed: str

    @property
    def ending(self) -> str:
        """What its name ends in, without the ending of a compression, in small letters."""
        name = PurePosixPath(self.path).name.lower()
        for ending in COMPRESSIONS:
            name = name.removesuffix(ending)
        return PurePosixPath(name).suffix

    @property
    def compression(self) -> str | None:
        """How it is compressed."""
        return COMPRESSIONS.get(PurePosixPath(self.path).suffix.lower())


def input_files(source: str, endings: tuple[str, ...]) -> list[InputFile]:
    """The files that a name means, in the order of their paths.

    Args:
        source: A file, a folder, a pattern with wildcards, an address that fsspec knows, or `"-"` for standard input.
        endings: What the files of a folder end in; others are passed over, and those hidden or beginning with `_`.

    Raises:
        FileNotFoundError: There is no such file, or the folder has none.
    """
    if source == STANDARD_INPUT:
        return [InputFile(source, None, "")]
    files, path = url_to_fs(source)
    is_url = split_protocol(source)[0] is not None
    if files.isdir(path):
        there = [InputFile(found, 0, "") for found in files.find(path)]
        found = [file.path for file in there if file.ending in endings and not is_hidden(file.path, path)]
        if not found:
            raise FileNotFoundError(f"{source}: no file in it ends in {', '.join(filter(None, endings))}")
    elif any(sign in source for sign in "*?[") and not files.exists(path):
        found = [name for name in files.glob(path) if not files.isdir(name)]
        if not found:
            raise FileNotFoundError(f"{source}: no file is called so")
    elif files.exists(path):
        found = [path]
    else:
        raise FileNotFoundError(f"no file {source}")
    local = len(found) == 1 and found[0] == path and not is_url
    names = [source] if local else [files.unstrip_protocol(name) if is_url else name for name in sorted(found)]
    return [input_file(files, path, name) for path, name in zip(sorted(found), names, strict=True)]


def is_hidden(path: str, folder: str) -> bool:
    """Whether a file is one of those that Spark, Hive and pyarrow pass over."""
    return any(part.startswith(("_", ".")) for part in PurePosixPath(path).relative_to(folder).parts)


def input_file(files: Any, path: str, name: str) -> InputFile:
    """A file as it is now."""
    facts = files.info(path)
    if facts.get("type") != "file":
        return InputFile(name, None, "")
    return InputFile(name, int(facts["size"]), str(facts["mtime"] if "mtime" in facts else files.ukey(path)))


def standard_input() -> Any:
    """Standard input as bytes, which stays open; or what somebody has put in its place.

    A file of our own: Python's is locked at the end where another thread still waits for a line.
    """
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except OSError:  # it has no file
        return nullcontext(sys.stdin.buffer)


def opened(path: str) -> Any:
    """The bytes of a file as they are; of a path of this machine Python's own, for it may be a pipe."""
    if path == STANDARD_INPUT:
        return standard_input()
    return open(path, "rb") if split_protocol(path)[0] is None else fsspec.open(path, "rb")


@contextmanager
def open_bytes(file: InputFile) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed.

    Raises:
        OSError: It can't be read.
        ValueError: It is not compressed as its name says.
    """
    with opened(file.path) as stream:
        if file.compression is None:
            yield stream
            return
        import pyarrow

        with pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, mode="r"), file.compression) as whole:
            yield whole
