"""What a job has done: its settings, the machine, what it has read, and a line for each part that is whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

VERSION = 1


@dataclass(frozen=True)
class Part:
    """A window of rows that was scored and written.

    Attributes:
        number: Its number, from 0 up.
        start: The number of its first row.
        rows: How many rows were read.
        scored: How many of them have scores.
        skipped: How many are bad; the reasons are in the file of the part's name in `_errors`.
        written: How many are in the part's file; fewer than scored where only the best of each query are kept.
        file: The name of its file.
        bytes: The size of it.
        digest: Of its bytes.
        input_digest: Of the rows that were read; see `RowWindow.digest`.
    """

    number: int
    start: int
    rows: int
    scored: int
    skipped: int
    written: int
    file: str
    bytes: int
    digest: str
    input_digest: str


@dataclass
class Manifest:
    """The state of a job, or of a shard of one.

    Attributes:
        settings: What the scores depend on, by name.
        machine: What their last bits depend on, by name.
        shard: The number of the shard, from 0 up.
        num_shards: How many there are.
        files: The files that were read, as they were: path, size and time of change of each.
        texts: The number of texts and their digest of each table of texts, by its name.
        parts: The parts that are whole, by number.
        rows: How many rows the input has; None until the end of it was seen.
        kept: The types of the further fields that are kept, as Arrow writes a schema, in base64; None until known.
    """

    settings: dict[str, Any]
    machine: dict[str, Any]
    shard: int = 0
    num_shards: int = 1
    files: list[list[Any]] = field(default_factory=list)
    texts: dict[str, list[Any]] = field(default_factory=dict)
    parts: dict[int, Part] = field(default_factory=dict)
    rows: int | None = None
    kept: str | None = None

    @property
    def name(self) -> str:
        """The name of its file."""
        return manifest_name(self.shard, self.num_shards)

    @property
    def is_complete(self) -> bool:
        """Whether the end of the input was seen, and every part of this shard is there."""
        if self.rows is None:
            return False
        number = -(-self.rows // self.settings["rows_per_part"])
        return all(part in self.parts for part in range(self.shard, number, self.num_shards))

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Reads a manifest.

        Raises:
            ValueError: It is none, or of another version of this program.
            OSError: It can't be read.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.pop("version") != VERSION:
                raise ValueError("it is of another version of fastce")
            values["parts"] = {part["number"]: Part(**part) for part in values["parts"]}
            return cls(**values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}: not a manifest that can be read ({error})") from error

    def write(self, folder: Path) -> None:
        """Writes the manifest; whoever reads it finds the old one or the new one."""
        parts = [self.parts[number] for number in sorted(self.parts)]
        values = {"version": VERSION, **asdict(self), "parts": [asdict(part) for part in parts]}
        write_whole(folder / self.name, lambda file: file.write(json.dumps(values, indent=1).encode()))


def manifest_name(shard: int, num_shards: int) -> str:
    """The name of a manifest's file."""
    return "_manifest.json" if num_shards == 1 else f"_manifest-{shard:05}-of-{num_shards:05}.json"


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Says what of some settings differs."""
    return [
        f"{name} was {before.get(name)!r}, now it is {now.get(name)!r}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file so that nobody ever finds a part of it, not even behind a power cut.

    Args:
        path: The file.
        write: Writes it.

    Raises:
        OSError: It can't be written; what was there before stays.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Makes sure that a file, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
