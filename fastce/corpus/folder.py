"""The folder of a job: parts that are whole or not there, and the manifest that says which are."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from fastce.corpus.manifest import Manifest, Part, differences, manifest_name, write_whole
from fastce.corpus.windows import BadRow
from fastce.corpus.writers import FORMATS, PART_FORMATS

SUCCESS = "_SUCCESS"
STATISTICS = "_stats.json"
ERRORS = "_errors"
CANDIDATES = "_candidates"
"""Where the parts of a job that looks for the best of each query are, until it has them."""


class RefusedError(ValueError):
    """A folder has another job, or the same one of other input; the message says what differs."""


class JobFolder:
    """A job's folder.

    Args:
        path: Where it is; made if missing.
        part_format: What the parts are.
        is_ranked: Whether the parts have candidates, for the best of each query.
    """

    def __init__(self, path: Path, part_format: str, *, is_ranked: bool = False):
        self.path = path
        self.part_format = "parquet" if is_ranked else part_format
        self.parts = path / CANDIDATES if is_ranked else path

    @property
    def is_done(self) -> bool:
        """Whether all there is to do was done."""
        return (self.path / SUCCESS).exists()

    @contextmanager
    def locked(self, shard: int, num_shards: int) -> Iterator[None]:
        """Keeps other processes from doing the same shard; whoever is killed lets go.

        Raises:
            RefusedError: Another process is at it.
        """
        self.parts.mkdir(parents=True, exist_ok=True)
        with (self.path / f"_lock-{shard:05}").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RefusedError(f"{self.path}: another process is writing there") from None
            yield

    def begin(self, now: Manifest, *, overwrite: bool, other_machines: bool) -> Manifest:
        """Finds the job that is here, or begins one.

        Args:
            now: The job as it is meant.
            overwrite: Whether to forget what is here.
            other_machines: Whether another machine, or another version of the program, may go on with it.

        Raises:
            RefusedError: What is here is another job, or no job.
        """
        for file in self.parts.glob(".part-*.unfinished"):  # of a run that was killed; other shards' may be in work
            if int(file.name.split("-")[1].split(".")[0]) % now.num_shards == now.shard:
                file.unlink()
        found = {file.name: Manifest.read(file) for file in sorted(self.path.glob("_manifest*.json"))}
        if overwrite:
            self._clear(now, list(found.values()))
        elif found:
            # Of another shard the settings are to be the same too; a job that has done nothing yet has no say.
            before = found.get(now.name) or next(iter(found.values()))
            if before.parts or before.name != now.name:
                self._check(before, now, other_machines)
            if before.name == now.name and before.parts:
                return before
        elif any(file for file in self.path.iterdir() if not file.name.startswith(("_", "."))):
            raise RefusedError(
                f"{self.path}: has files but no manifest of a job; choose an empty folder or --overwrite"
            )
        now.write(self.path)
        return now

    def _check(self, before: Manifest, now: Manifest, other_machines: bool) -> None:
        changed = differences(
            {**before.settings, "num_shards": before.num_shards}, {**now.settings, "num_shards": now.num_shards}
        )
        if changed:
            raise RefusedError(
                f"{self.path}: has another job ({'; '.join(changed)}); choose another folder, "
                "or --overwrite to begin anew"
            )
        changed = differences(before.machine, now.machine)
        if changed and not other_machines:
            raise RefusedError(
                f"{self.path}: was begun elsewhere ({'; '.join(changed)}), where the last bits of scores may differ; "
                "--other-machines goes on all the same"
            )

    def _clear(self, now: Manifest, found: list[Manifest]) -> None:
        """Removes what jobs have written: that nobody need do anything more first, what they have done last.

        Of the shards of this very job, only what this one has written: the others may be at work.
        """
        (self.path / SUCCESS).unlink(missing_ok=True)
        (self.path / STATISTICS).unlink(missing_ok=True)
        own = [before for before in found if before.name == now.name]
        is_shard = now.num_shards > 1 and all(before.num_shards == now.num_shards for before in found)
        for before in own if is_shard else found:
            ending = before.settings["format"]
            names = [part.file for part in before.parts.values()]
            names += [f"{ERRORS}/part-{part.number:05}.jsonl" for part in before.parts.values()]
            if before.settings["top_k"] is not None:  # what was made of the parts
                names += [file.name for file in self.path.glob(f"part-*.{ending}")]
            for name in names:
                (self.path / name).unlink(missing_ok=True)
            (self.path / before.name).unlink()

    def write_part(self, number: int, table: pa.Table, bad: list[BadRow]) -> dict[str, Any]:
        """Writes a part and the reasons of its bad rows; returns what a `Part` says of its file."""
        name = f"part-{number:05}"
        errors = self.path / ERRORS / f"{name}.jsonl"
        if bad:
            errors.parent.mkdir(exist_ok=True)
            lines = "".join(json.dumps(row._asdict()) + "\n" for row in bad)
            write_whole(errors, lambda file: file.write(lines.encode()))
        else:
            errors.unlink(missing_ok=True)
        file = self.parts / f"{name}.{self.part_format}"
        write_table(file, self.part_format, table)
        size, digest = digest_of_file(file)
        return {"file": str(file.relative_to(self.path)), "bytes": size, "digest": digest, "written": table.num_rows}

    def read_part(self, part: Part, schema: pa.Schema) -> pa.Table:
        """The rows of a part that was written."""
        return PART_FORMATS[self.part_format].read_file(self.path / part.file, schema)

    def bad_rows(self, part: Part) -> list[BadRow]:
        """The bad rows of a part."""
        file = self.path / ERRORS / f"part-{part.number:05}.jsonl"
        if not part.skipped:
            return []
        return [BadRow(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]

    def check_part(self, part: Part, *, whole: bool) -> None:
        """Raises RefusedError where a part's file is gone or is not what was written.

        Args:
            part: The part.
            whole: Whether to look at every byte, and not at the size alone.
        """
        file = self.path / part.file
        if not file.exists():
            raise RefusedError(f"{file}: is gone, though it was written; bring it back, or begin anew with --overwrite")
        size = file.stat().st_size
        if size != part.bytes or (whole and digest_of_file(file)[1] != part.digest):
            raise RefusedError(
                f"{file}: is not the file that was written; bring that back, or begin anew with --overwrite"
            )

    def manifest_of(self, shard: int, num_shards: int) -> Manifest:
        """The manifest of a shard.

        Raises:
            RefusedError: There is none.
        """
        path = self.path / manifest_name(shard, num_shards)
        if not path.exists():
            raise RefusedError(f"{self.path}: shard {shard} of {num_shards} has not begun, there is no {path.name}")
        return Manifest.read(path)


def write_table(path: Path, name: str, table: pa.Table) -> None:
    """Writes a file of a format so that it is whole or not there."""

    def write(file: IO[bytes]) -> None:
        writer = FORMATS[name].open_file(file, table.schema)
        writer.write(table.combine_chunks())
        writer.close()

    write_whole(path, write)


def digest_of_file(path: Path) -> tuple[int, str]:
    """The size of a file and a digest of its bytes, in hexadecimal digits."""
    size, digest = 0, hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            size += len(piece)
            digest.update(piece)
    return size, digest.hexdigest()
