"""Scores corpora of pairs: the function that people call, and what chooses who does the work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastce.checks import check_positive, check_precision
from fastce.corpus.folder import JobFolder
from fastce.corpus.job import FolderJob, run_in_folder
from fastce.corpus.plan import Input, Plan
from fastce.corpus.scorer import LocalScorer, Scorer, ScoringOptions
from fastce.corpus.single_file import STANDARD_OUTPUT, WINDOW, run_into_file
from fastce.corpus.statistics import Statistics
from fastce.corpus.workers import Assignment, RemoteScorer
from fastce.corpus.writers import ENDINGS, FORMATS, PART_FORMATS, format_of
from fastce.options import ModelOptions
from fastce.packing import MAX_BATCH_TOKENS
from fastce.pipeline import BatchLimits
from fastce.spec import Precision
from fastce.threads import usable_cpus

if TYPE_CHECKING:
    from fastce.cross_encoder import CrossEncoder

ROWS_PER_PART = 200_000

OnError = Literal["raise", "skip"]


def score_corpus(
    model: CrossEncoder | ModelOptions | str,
    pairs: str | Path,
    output: str | Path,
    *,
    queries: str | Path | None = None,
    documents: str | Path | None = None,
    columns: tuple[str, str] | None = None,
    has_header: bool = True,
    keep: Sequence[str] = (),
    output_format: str | None = None,
    top_k: int | None = None,
    rescore: Precision | None = None,
    rows_per_part: int = ROWS_PER_PART,
    batch_size: int | None = None,
    max_batch_tokens: int = MAX_BATCH_TOKENS,
    on_error: OnError = "raise",
    retry_failed: bool = False,
    overwrite: bool = False,
    other_machines: bool = False,
    shard_index: int = 0,
    num_shards: int = 1,
    workers: int = 1,
    devices: Sequence[str] = (),
    text_store: str | Path | None = None,
    show_progress_bar: bool | None = None,
) -> Statistics:
    """Scores the pairs of files, however many, into a folder of parts or a single file.

    A folder is written part by part; called again with the same arguments, a job that was stopped, killed or met with
    an error goes on behind the last whole part, and rows that were appended to the input are scored. Each row is scored
    exactly once, with the score that `CrossEncoder.predict` gives it. Memory does not grow with the input, but where
    `top_k` is given with what may be among the best.

    Args:
        model: A model, what it is loaded with, or its directory or Hub id.
        pairs: A file, a folder, a pattern, or an address that fsspec knows, of Parquet, Arrow, CSV, TSV or JSON lines,
            the last three compressed with gzip, zstd or bz2 too; `"-"` is JSON lines on standard input. With `queries`
            and `documents`, the pairs are of ids, and runs and judgements of TREC can be read, too.
        output: A folder, made if missing; or a file, named by what is in `fastce.corpus.writers.ENDINGS`; or `"-"`.
        queries: A table of ids and first texts.
        documents: A table of ids and second texts; a field `title` is put before the text.
        columns: The two fields of a pair; numbers from 1 up without a header. None takes well-known names.
        has_header: Whether the first row of a .csv or .tsv file has the columns' names.
        keep: Further fields of the pairs, which are written beside the scores.
        output_format: `"parquet"`, `"jsonl"`, `"csv"` or, for a single file, `"trec"`; None: as the file's name ends,
            Parquet for folders.
        top_k: How many of each query's rows are written, the best of the whole job; None: all.
        rescore: See `CrossEncoder.rank`.
        rows_per_part: Rows that are scored and written together. They are in memory, and pairs of equal length are
            batched among them; what is lost when the job is killed is a part at most.
        batch_size: See `CrossEncoder.predict`, as for the next.
        max_batch_tokens: Tokens per batch at most.
        on_error: Whether a row that can't be scored is an error, or skipped and noted with its reason in `_errors`.
        retry_failed: Whether rows that were skipped are tried again, and all else left as it is.
        overwrite: Whether to forget what the folder has.
        other_machines: Whether to go on with a job of another machine or version, whose last bits may differ.
        shard_index: Which of the shards this is, from 0 up; they write into one folder, and `merge` finishes it.
        num_shards: How many processes share the job so.
        workers: Processes that this one starts; the CPUs are shared out among them.
        devices: The devices of the workers, one each, such as `["cuda:0", "cuda:1"]`.
        text_store: Where tokenised texts of `queries` and `documents` are kept for later runs; None: `texts` in
            `FASTCE_CACHE`, or in fastce's folder in the user's cache.
        show_progress_bar: Whether to show a bar; None shows one where fastce's logger is at INFO or below.

    Returns:
        Numbers: rows read, scored and skipped, tokens, seconds and so on.

    Raises:
        FileNotFoundError: There is no such file or model.
        ValueError: A row can't be scored, or the folder has another job, or arguments don't go together; the message
            says which row and why, or what differs.
        OSError: A file can't be read or written. What was written stays whole.
    """
    scoring = ScoringOptions(top_k, rescore and check_precision(rescore, "rescore"))
    limits = BatchLimits.checked(batch_size, max_batch_tokens)
    if top_k is not None:
        check_positive(top_k, "top_k")
    for what, names in (("columns", columns), ("devices", devices)):
        if isinstance(names, str):
            raise ValueError(f"{what}: expected a list, got {names!r}")
    source = Input(
        str(pairs),
        None if queries is None else str(queries),
        None if documents is None else str(documents),
        columns,
        has_header,
        tuple(dict.fromkeys([keep] if isinstance(keep, str) else keep)),
        text_store,
    )
    name = chosen_format(str(output), output_format)
    is_file = str(output) == STANDARD_OUTPUT or format_of(str(output)) is not None
    check_positive(num_shards, "num_shards")
    if not 0 <= shard_index < num_shards:
        raise ValueError(f"shard_index: expected a number from 0 to {num_shards - 1}, got {shard_index}")
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error: expected 'raise' or 'skip', got {on_error!r}")
    for given, what in (
        (num_shards > 1, "num_shards"),
        (on_error == "skip", "on_error='skip'"),
        (retry_failed, "retry_failed"),
    ):
        if is_file and given:
            raise ValueError(f"{what} is for folders, and {output} is a file")
    check_places(source, str(output), is_file=is_file)  # before a model is loaded
    if name == "trec" and not source.has_ids:
        raise ValueError("output: a run of TREC needs pairs of ids; give --queries and --docs")
    loaded = load(model)
    rows = WINDOW if is_file else check_positive(rows_per_part, "rows_per_part")
    plan = Plan(loaded, source, scoring, limits, rows, is_ranked=top_k is not None or name == "trec")
    with chosen_scorer(model, loaded, scoring, check_positive(workers, "workers"), devices) as scorer:
        if is_file:
            return run_into_file(plan, scorer, str(output), name, show_progress_bar)
        folder = JobFolder(Path(output), name, is_ranked=plan.is_ranked)
        return run_in_folder(
            FolderJob(plan, folder, skips_bad_rows=on_error == "skip"),
            plan.manifest(name, scorer.machine, shard_index, num_shards),
            scorer,
            overwrite=overwrite,
            other_machines=other_machines,
            retry_failed=retry_failed,
            show_progress=show_progress_bar,
        )


def check_places(source: Input, output: str, *, is_file: bool) -> None:
    """Raises ValueError where what is written would be what is read, OSError where there is nothing to read."""
    rows = source.source()
    if "://" in output:
        raise ValueError(f"output: expected a folder or a file of this machine, got the address {output!r}")
    if output == STANDARD_OUTPUT:
        return
    target, folder = Path(output).resolve(), Path(source.pairs)
    if folder.is_dir() and not is_file and target.is_relative_to(folder.resolve()):
        raise ValueError(f"{output}: is in the folder that is read, and would be read the next time")
    tables = [name for name in (source.queries, source.documents) if name is not None]
    for name in (*(file.path for file in rows.files), *tables):
        place = Path(name)
        if "://" in name or not place.exists():
            continue
        if place.resolve() == target or (not is_file and place.resolve().parent == target):
            raise ValueError(
                f"{output}: it would be written over while it is read"
                if is_file
                else f"{output}: has what is read, {name}"
            )


def load(model: CrossEncoder | ModelOptions | str) -> CrossEncoder:
    """The model that somebody means.

    Raises:
        ValueError: It has no head.
    """
    options = ModelOptions(model) if isinstance(model, str) else model
    loaded = options.load() if isinstance(options, ModelOptions) else options
    if not loaded.pipeline.checkpoint.has_head():
        raise ValueError(
            f"{loaded.config._name_or_path} has no classification head, its scores would be random; train it first"
        )
    return loaded


def chosen_format(output: str, chosen: str | None) -> str:
    """The name of the format to write.

    Raises:
        ValueError: There is none of that name, or it is none of folders, or a file's name ends in something else.
    """
    by_name = format_of(output)
    ending = Path(output).suffix
    if by_name is None and ending[1:].isalpha() and not Path(output).is_dir():  # "scores-v1.0" may be a folder
        raise ValueError(f"output: expected a folder, or a file ending in {', '.join(ENDINGS)}, got {output!r}")
    if output == STANDARD_OUTPUT:
        by_name = "jsonl"
    known = PART_FORMATS if by_name is None else FORMATS
    name = chosen or by_name or next(iter(PART_FORMATS))
    if name not in known:
        raise ValueError(f"output_format: expected one of {', '.join(known)}, got {name!r}")
    return name


@contextmanager
def chosen_scorer(
    model: CrossEncoder | ModelOptions | str,
    loaded: CrossEncoder,
    scoring: ScoringOptions,
    workers: int,
    devices: Sequence[str],
) -> Iterator[Scorer]:
    """What scores: this process, or others.

    Raises:
        ValueError: There are as many devices as there are not workers.
    """
    local = LocalScorer(loaded, scoring)  # which checks the options, too
    if workers == 1 and not devices:
        yield local
        return
    if devices and workers not in (1, len(devices)):
        raise ValueError(f"workers: {workers}, but there are {len(devices)} devices, one a worker")
    options = ModelOptions(model) if isinstance(model, str) else model
    assignments = [Assignment(options, device) for device in devices] or [Assignment(options)] * workers
    threads = loaded.pipeline.num_threads or max(1, usable_cpus() // len(assignments))
    with RemoteScorer(assignments, scoring, threads) as remote:
        yield remote
