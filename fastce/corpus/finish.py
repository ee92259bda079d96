"""The end of a job: parts of all shards are checked, the best of each query found, and the folder sealed."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path, PurePath
from typing import Any

from pyarrow import parquet

from fastce.corpus.folder import STATISTICS, SUCCESS, JobFolder, RefusedError, write_table
from fastce.corpus.manifest import Manifest, Part, differences, write_whole
from fastce.corpus.output import ranking
from fastce.corpus.statistics import Statistics


def merge(path: Path, *, other_machines: bool = False) -> Statistics:
    """Checks the shards of a job, and finishes it.

    Args:
        path: The job's folder, with the parts and manifests of all its shards.
        other_machines: Whether shards of other machines or versions belong together, whose last bits may differ.

    Returns:
        The rows of the whole job.

    Raises:
        RefusedError: A shard is missing or not done, or a part is not what was written; the message says which.
        ValueError: A manifest can't be read.
    """
    found = sorted(path.glob("_manifest*.json"))
    if not found:
        raise RefusedError(f"{path}: has no manifest of a job")
    first = Manifest.read(found[0])
    folder = JobFolder(path, first.settings["format"], is_ranked=first.settings["top_k"] is not None)
    with folder.locked(first.num_shards, first.num_shards):  # besides the shards' own
        shards = [folder.manifest_of(shard, first.num_shards) for shard in range(first.num_shards)]
        check_shards(path, shards, other_machines=other_machines)
        parts = {number: part for shard in shards for number, part in shard.parts.items()}
        whole = replace(first, shard=0, num_shards=1, parts=parts)
        check_parts(folder, whole)
        statistics = Statistics(
            rows_read=sum(part.rows for part in parts.values()),
            rows_scored=sum(part.scored for part in parts.values()),
            rows_skipped=sum(part.skipped for part in parts.values()),
        )
        whole.write(path)
        for shard in shards:
            if shard.name != whole.name:  # what they say is in the whole one now
                (path / shard.name).unlink()
        finish(folder, whole, statistics)
    return statistics


def finish(folder: JobFolder, whole: Manifest, statistics: Statistics) -> None:
    """Writes what comes last: the best of each query where these are wanted, the statistics, and that all is done."""
    top_k, name = whole.settings["top_k"], whole.settings["format"]
    if top_k is not None and whole.parts:
        table = ranking((parquet.read_table(folder.path / part.file) for part in in_order(whole)), top_k)
        size = whole.settings["rows_per_part"]
        starts = range(0, max(1, table.num_rows), size)
        for number, start in enumerate(starts):
            write_table(folder.path / f"part-{number:05}.{name}", name, table.slice(start, size))
        for file in folder.path.glob(f"part-*.{name}"):  # of a ranking that had more
            if int(file.stem.removeprefix("part-")) >= len(starts):
                file.unlink()
    facts = json.dumps(asdict(statistics), indent=1).encode() + b"\n"
    write_whole(folder.path / STATISTICS, lambda file: file.write(facts))
    write_whole(folder.path / SUCCESS, lambda file: file.write(b""))


def check_shards(path: Path, shards: list[Manifest], *, other_machines: bool) -> None:
    """Raises RefusedError unless all shards are done, of one job, and of machines that give the same bits."""
    first = shards[0]
    for shard in shards:
        if not shard.is_complete:
            raise RefusedError(
                f"{path}: shard {shard.shard} of {shard.num_shards} is not done; run it again, it goes on"
            )
        changed = differences(facts_of(first), facts_of(shard))
        if changed:
            raise RefusedError(
                f"{path}: shards {first.shard} and {shard.shard} are of different jobs ({'; '.join(changed)})"
            )
        changed = differences(first.machine, shard.machine)
        if changed and not other_machines:
            raise RefusedError(
                f"{path}: shards {first.shard} and {shard.shard} were made elsewhere ({'; '.join(changed)}), where the "
                "last bits of scores may differ; --other-machines takes them all the same"
            )


def facts_of(shard: Manifest) -> dict[str, Any]:
    """What shards of one job have in common; their files may lie elsewhere, and be copies."""
    files = [(PurePath(path).name, size) for path, size, _ in shard.files]
    return {**shard.settings, "rows": shard.rows, "files": files, "texts": shard.texts}


def check_parts(folder: JobFolder, whole: Manifest) -> None:
    """Raises RefusedError unless parts hold every row once, as they were written."""
    end = 0
    for part in in_order(whole):
        if part.start != end:
            raise RefusedError(f"{folder.path}: rows {end + 1} to {part.start} are in no part")
        end = part.start + part.rows
        folder.check_part(part, whole=True)
    if end != whole.rows:
        raise RefusedError(f"{folder.path}: rows {end + 1} to {whole.rows} are in no part")


def in_order(manifest: Manifest) -> list[Part]:
    """The parts by their numbers."""
    return [manifest.parts[number] for number in sorted(manifest.parts)]
