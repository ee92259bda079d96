"""Runs a job into a folder, part by part."""

from __future__ import annotations

import errno
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa

from fastce.corpus.finish import finish
from fastce.corpus.folder import SUCCESS, JobFolder, RefusedError
from fastce.corpus.interrupts import interrupts_explained
from fastce.corpus.manifest import Manifest, Part
from fastce.corpus.output import with_scores
from fastce.corpus.plan import Plan, Rows
from fastce.corpus.scorer import Scored, Scorer, Task
from fastce.corpus.statistics import Progress, Statistics
from fastce.corpus.store import digest_of_texts, read_texts, table_of_texts
from fastce.corpus.windows import RowWindow, Windows
from fastce.corpus.writers import FORMATS, check_kept
from fastce.pipeline import in_background


class FolderJob:
    """A job whose scores go to a folder.

    Args:
        plan: What is scored.
        folder: Where to.
        skips_bad_rows: Whether rows that can't be scored are noted and passed over, and not errors.
    """

    def __init__(self, plan: Plan, folder: JobFolder, *, skips_bad_rows: bool):
        self.plan = plan
        self.folder = folder
        self.skips_bad_rows = skips_bad_rows
        self.in_one_column = FORMATS[folder.part_format].LABELS_IN_ONE_COLUMN

    def run(self, manifest: Manifest, scorer: Scorer, progress: Progress, *, retry_failed: bool) -> None:
        """Scores what is missing.

        Args:
            manifest: What was done; kept up to date.
            scorer: What scores.
            progress: What counts.
            retry_failed: Whether rows that could not be scored are tried again.

        Raises:
            RefusedError: The input is not what it was.
            ValueError: A row can't be scored.
            OSError: A file can't be read or written; what was written stays whole.
        """
        self.manifest = manifest
        has_changed = manifest.files != self.plan.files()
        if manifest.parts and self.plan.source.is_stream:
            raise RefusedError(
                f"{self.folder.path}: a stream can't be read again from its beginning; save it to a file"
            )
        if manifest.kept is not None:  # rows that come later may look otherwise
            kept = pa.ipc.read_schema(pa.py_buffer(b64decode(manifest.kept)))
            self.plan.source = replace(self.plan.source, schema=kept)
        self._check_texts()
        for part in manifest.parts.values():
            self.folder.check_part(part, whole=False)
            progress.resume(part.rows, part.skipped)
        retried = {number for number, part in manifest.parts.items() if part.skipped} if retry_failed else set()
        if has_changed or retried or not manifest.is_complete:
            (self.folder.path / SUCCESS).unlink(missing_ok=True)
            windows = self._windows(has_changed, retried)
            self._score(self._missing(windows, retried), scorer, progress)
            end = max((part.start + part.rows for part in manifest.parts.values()), default=0)
            if has_changed and windows.end < end:
                raise RefusedError(
                    f"{self.folder.path}: the input is not the one that it was begun with: it has {windows.end} rows, "
                    f"and had {end}; choose another folder, or --overwrite to begin anew"
                )
            manifest.files, manifest.texts = self.plan.files(), self.plan.texts()
            manifest.rows = max(windows.end, end)
            manifest.write(self.folder.path)

    def _check_texts(self) -> None:
        """Refuses tables of texts that are not what they were; they may have grown at their end."""
        for name, (count, digest) in self.manifest.texts.items():
            now_count, now_digest = self.plan.texts()[name]
            if [now_count, now_digest] == [count, digest]:
                continue
            table = table_of_texts(str(getattr(self.plan.input, name)))
            if now_count < count or digest_of_texts(read_texts(table, count)) != digest:
                raise RefusedError(f"{self.folder.path}: the {name} are not those that it was begun with")

    def _windows(self, has_changed: bool, retried: set[int]) -> Windows:
        """The windows without a part, or all of this shard where the input has changed."""
        shard, num_shards, done = self.manifest.shard, self.manifest.num_shards, self.manifest.parts
        first = shard
        while first in done and first not in retried:
            first += num_shards
        # Whatever lies behind the last part that is done is read, for the end of the input.
        first = 0 if has_changed else max(0, first - num_shards + 1)

        def is_wanted(part: int) -> bool:
            return part % num_shards == shard and (has_changed or part in retried or part not in done)

        return Windows(self.plan.source, self.plan.window, first, is_wanted)

    def _missing(self, windows: Windows, retried: set[int]) -> Iterator[RowWindow]:
        """The windows with rows that are in no part."""
        for window in windows:
            part = self.manifest.parts.get(window.part)
            if part is None or self._has_grown(window, part) or part.number in retried:
                yield window

    def _has_grown(self, window: RowWindow, part: Part) -> bool:
        """Whether there are more rows than a part has; refuses other ones."""
        known = {bad.row for bad in self.folder.bad_rows(part)}
        places = {place: "" for place, row in enumerate(window.rows.tolist()) if row in known}
        seen, _ = self.plan.resolved(window.without(places))
        if window.num_rows < part.rows or seen.digest(part.rows) != part.input_digest:
            raise RefusedError(
                f"{self.folder.path}: the input is not the one that it was begun with: rows {part.start + 1} to "
                f"{part.start + part.rows} differ; choose another folder, or --overwrite to begin anew"
            )
        return window.num_rows > part.rows

    def _score(self, windows: Iterator[RowWindow], scorer: Scorer, progress: Progress) -> None:
        """Scores windows, and writes each while the next one is scored."""
        waiting = in_background(lambda: None)
        try:
            for rows, scored in scorer.stream(self._items(windows), progress.advance):
                waiting.result()
                waiting = in_background(partial(self._write, rows, scored, progress))
        finally:  # what was scored is written, whatever the next window met with
            waiting.result()

    def _items(self, windows: Iterator[RowWindow]) -> Iterator[tuple[Rows, Task]]:
        for window in windows:
            good, pairs = self.plan.resolved(window)
            if good.bad and not self.skips_bad_rows:
                raise ValueError(good.bad[0].reason)
            check_kept(window.others.schema, self.manifest.settings["format"])
            self.manifest.kept = b64encode(window.others.schema.serialize().to_pybytes()).decode()
            part = self.manifest.parts.get(window.part)
            if part is not None and part.rows == window.num_rows:  # rows that could not be scored
                before = {bad.row for bad in self.folder.bad_rows(part)}
                others = {place: "" for place, row in enumerate(good.rows.tolist()) if row not in before}
                digest = good.digest(good.num_rows)
                retried, pairs = self.plan.resolved(good.without(others))
                rows, task = self.plan.item(retried._replace(bad=good.bad), pairs)
                yield rows._replace(digest=digest), task
            else:
                yield self.plan.item(good, pairs)

    def _write(self, rows: Rows, scored: Scored, progress: Progress) -> None:
        """Writes a part, then that it is there."""
        table = with_scores(rows.table, scored, self.plan.labels, in_one_column=self.in_one_column)
        before = self.manifest.parts.get(rows.part)
        if before is not None and before.rows == rows.num_rows:
            table = pa.concat_tables([self.folder.read_part(before, table.schema), table])
            table = table.take(pa.array(np.argsort(table.column("row").to_numpy(), kind="stable")))
        if before is not None:  # from now on its file may be the old one or the new one
            self.manifest.rows = None
            del self.manifest.parts[rows.part]
            self.manifest.write(self.folder.path)
        file = self.folder.write_part(rows.part, table, rows.bad)
        skipped = len(rows.bad)
        part = Part(
            rows.part, rows.start, rows.num_rows, rows.num_rows - skipped, skipped, **file, input_digest=rows.digest
        )
        replace(self.manifest, parts={**self.manifest.parts, rows.part: part}).write(self.folder.path)
        self.manifest.parts[rows.part] = part
        if before is not None:
            progress.resume(-before.rows, -before.skipped)
        progress.written(rows.num_rows, skipped, scored.computed, scored.tokens, scored.rescored)


def run_in_folder(
    job: FolderJob,
    manifest: Manifest,
    scorer: Scorer,
    *,
    overwrite: bool,
    other_machines: bool,
    retry_failed: bool,
    show_progress: bool | None,
) -> Statistics:
    """Runs a job, and finishes it where it is all there is.

    Args:
        job: The job.
        manifest: The job before anything is done.
        scorer: What scores.
        overwrite: Whether to forget what is in the folder.
        other_machines: Whether to go on with what another machine has begun.
        retry_failed: Whether to try rows again that could not be scored.
        show_progress: Whether to show a bar.
    """
    folder = job.folder
    with folder.locked(manifest.shard, manifest.num_shards):
        found = folder.begin(manifest, overwrite=overwrite, other_machines=other_machines)

        def kept() -> str:
            done = sum(part.rows for part in found.parts.values())
            how = " without --overwrite" if overwrite else ""
            return f"{folder.path} has {len(found.parts)} whole parts of {done:,} rows; the same command{how} goes on"

        def count() -> int | None:
            total = job.plan.source.count()
            return None if total is None else total // found.num_shards

        try:
            with interrupts_explained(kept), Progress(show_progress, count) as progress:
                job.run(found, scorer, progress, retry_failed=retry_failed)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise OSError(error.errno, f"{error.strerror}; {kept()}", error.filename) from error
        if found.num_shards == 1 and not folder.is_done:
            finish(folder, found, progress.statistics)
        return progress.statistics
