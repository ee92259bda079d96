"""The commands that score files of pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

import fastce
from fastce.cli.app import (
    DEFAULT_MODEL,
    BackendOption,
    BatchSizeOption,
    MaxBatchTokensOption,
    MaxLengthOption,
    ModelOption,
    PrecisionOption,
    ThreadsOption,
    app,
    fail,
    model_options,
    names_of,
    two_names,
)

if TYPE_CHECKING:
    from fastce.corpus.score import OnError
    from fastce.corpus.statistics import Statistics
    from fastce.spec import Precision

TopKOption = Annotated[
    int | None, typer.Option("--top-k", min=1, help="Write the best rows of each query alone, so many.")
]
RescoreOption = Annotated[
    str | None,
    typer.Option("--rescore", help="With --top-k: score what may be among the best again in this precision."),
]
WorkersOption = Annotated[int, typer.Option("--workers", min=1, help="Processes, among which the CPUs are shared out.")]
DevicesOption = Annotated[str | None, typer.Option("--devices", help="A process for each, such as cuda:0,cuda:1.")]
TextStoreOption = Annotated[
    Path | None, typer.Option("--text-store", help="Where tokenised --queries and --docs are kept for later runs.")
]

EXAMPLES = """
\b
Exit codes: 0 all rows are scored, or skipped as asked for; 1 an error, and 130 or 143 interrupted or terminated: what
was written stays whole, and the same command goes on; 2 options that are unknown, missing or of no use.

\b
Examples:
  fastce score --in pairs.parquet --out scores/ --precision int8 --keep id
  fastce score --model M --queries q.tsv --docs docs.jsonl.gz --pairs run.tsv --out best/ --top-k 10
  cat pairs.jsonl | fastce score --model M --in - > scores.jsonl
"""


@app.command(epilog=EXAMPLES)
def score(
    sources: Annotated[
        list[str],
        typer.Option("--in", "--pairs", help="A file, folder, pattern or address; - or a pipe gives JSON lines."),
    ],
    model: ModelOption = DEFAULT_MODEL,
    target: Annotated[
        str, typer.Option("--out", help="A folder of parts, or a .parquet, .jsonl, .csv or .trec file, or - .")
    ] = "-",
    text_columns: Annotated[
        str | None,
        typer.Option("--text-columns", help="The two fields of a pair, such as a,b; numbers from 1 without a header."),
    ] = None,
    no_header: Annotated[
        bool, typer.Option("--no-header", help="The first line of a .csv or .tsv file is a pair, too.")
    ] = False,
    queries: Annotated[str | None, typer.Option("--queries", help="A table of ids and first texts.")] = None,
    documents: Annotated[str | None, typer.Option("--docs", help="A table of ids and second texts.")] = None,
    id_column: Annotated[
        str | None, typer.Option("--id-column", help="The field that names a row, to be kept.")
    ] = None,
    keep: Annotated[
        str | None, typer.Option("--keep", help="Fields to write beside the scores, such as id,url.")
    ] = None,
    output_format: Annotated[
        str | None, typer.Option("--format", help="parquet (the default in folders), jsonl or csv.")
    ] = None,
    top_k: TopKOption = None,
    rescore: RescoreOption = None,
    rows_per_part: Annotated[
        int, typer.Option("--rows-per-part", min=1, help="Rows read, scored and written together.")
    ] = 200_000,
    on_error: Annotated[str, typer.Option("--on-error", help="raise, or skip: bad rows go to _errors.")] = "raise",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try skipped rows again.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Forget what the folder has.")] = False,
    other_machines: Annotated[
        bool, typer.Option("--other-machines", help="Go on with a job of another machine or version.")
    ] = False,
    shard_index: Annotated[int, typer.Option("--shard-index", min=0, help="Which shard this is, from 0.")] = 0,
    num_shards: Annotated[int, typer.Option("--num-shards", min=1, help="Commands that share the job.")] = 1,
    workers: WorkersOption = 1,
    devices: DevicesOption = None,
    text_store: TextStoreOption = None,
    summary: Annotated[bool, typer.Option("--summary", help="Print numbers as JSON on standard error.")] = False,
    batch_size: BatchSizeOption = None,
    max_batch_tokens: MaxBatchTokensOption = 16384,
    max_length: MaxLengthOption = None,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
) -> None:
    """Score pairs of texts, or of ids, of files of any size.

    Into a folder, part by part: run the same command again, and a job that was stopped goes on, each row exactly once.
    A .jsonl file has one line {"score": ...} for each pair, in order; {"scores": [...]} for classes.

    Pairs are fields of well-known names, such as query and document or sentence1 and sentence2, or those of
    --text-columns; a JSON line may be a list of two texts. Text files are UTF-8, or UTF-16 or UTF-32 with a byte-order
    mark, and may be compressed (.gz, .zst, .bz2). With --queries and --docs, pairs are of ids; TREC runs too.
    """
    if len(sources) > 1:
        fail(f"--in: expected one, a pattern or a folder for several files, got {' and '.join(sources)}")
    options = model_options(model, max_length, backend, precision, threads)
    with errors_told():
        found = fastce.score_corpus(
            options,
            sources[0],
            target,
            queries=queries,
            documents=documents,
            columns=None if text_columns is None else two_names(text_columns),
            has_header=not no_header,
            keep=[*names_of(id_column or ""), *names_of(keep or "")],
            output_format=output_format,
            top_k=top_k,
            rescore=cast("Precision | None", rescore),
            rows_per_part=rows_per_part,
            batch_size=batch_size,
            max_batch_tokens=max_batch_tokens,
            on_error=cast("OnError", on_error),
            retry_failed=retry_failed,
            overwrite=overwrite,
            other_machines=other_machines,
            shard_index=shard_index,
            num_shards=num_shards,
            workers=workers,
            devices=names_of(devices or ""),
            text_store=text_store,
            show_progress_bar=True,
        )
    tell(found, summary)
    if num_shards > 1:
        typer.echo(f"shard {shard_index} of {num_shards} is done; fastce merge {target} finishes the job", err=True)


@app.command()
def rerank(
    queries: Annotated[str, typer.Option("--queries", help="A table of ids and queries.")],
    corpus: Annotated[str, typer.Option("--corpus", "--docs", help="A table of ids and documents.")],
    run: Annotated[str, typer.Option("--run", help="What to rerank: a TREC run, or a table of ids.")],
    target: Annotated[str, typer.Option("--out", help="The new run: a .trec file, or .parquet, .jsonl or .csv.")],
    model: ModelOption = DEFAULT_MODEL,
    qrels: Annotated[
        str | None, typer.Option("--qrels", help="Judgements: print nDCG@10 and MRR@10; needs ir-measures.")
    ] = None,
    top_k: TopKOption = None,
    rescore: RescoreOption = None,
    workers: WorkersOption = 1,
    devices: DevicesOption = None,
    text_store: TextStoreOption = None,
    batch_size: BatchSizeOption = None,
    max_batch_tokens: MaxBatchTokensOption = 16384,
    max_length: MaxLengthOption = None,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
) -> None:
    """Rerank a run of TREC or BEIR.

    Tables are .tsv, .csv, .jsonl (with _id, title and text as BEIR has them) or Parquet files, compressed or not.
    """
    from fastce.corpus.evaluate import check_measures, measures
    from fastce.corpus.writers import ENDINGS, format_of

    options = model_options(model, max_length, backend, precision, threads)
    with errors_told():
        if format_of(target) is None:
            fail(f"--out: expected a file ending in {', '.join(ENDINGS)}, got {target}; fastce score writes folders")
        if qrels is not None:
            check_measures(target, qrels)
        found = fastce.score_corpus(
            options,
            run,
            target,
            queries=queries,
            documents=corpus,
            top_k=top_k,
            rescore=cast("Precision | None", rescore),
            batch_size=batch_size,
            max_batch_tokens=max_batch_tokens,
            workers=workers,
            devices=names_of(devices or ""),
            text_store=text_store,
            show_progress_bar=True,
        )
        if qrels is not None:
            for name, value in measures(qrels, target).items():
                typer.echo(f"{name}\t{value:.4f}")
    tell(found, summary=False)


@app.command()
def merge(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The folder of a job.")],
    other_machines: Annotated[
        bool, typer.Option("--other-machines", help="Take shards of another machine or version, too.")
    ] = False,
) -> None:
    """Check the parts of all shards, find the best of each query where these are wanted, and seal the folder."""
    from fastce.corpus.finish import merge as merge_shards

    with errors_told():
        found = merge_shards(folder, other_machines=other_machines)
    typer.echo(f"{folder}: {found.rows_read:,} rows, {found.rows_scored:,} scored, {found.rows_skipped:,} skipped")


@contextmanager
def errors_told() -> Iterator[None]:
    """Ends the program with one line where the user can do something about it."""
    try:
        yield
    except BrokenPipeError:
        raise  # nobody reads on, which is no fault
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        fail(str(error))


def tell(found: Statistics, summary: bool) -> None:
    """Says what was done, on standard error."""
    if found.rows_read and found.rows_before == found.rows_read and not found.pairs_computed:
        typer.echo(f"nothing to do: all {found.rows_read:,} rows were scored before", err=True)
    if summary:
        typer.echo(json.dumps(asdict(found)), err=True)
    elif found.rows_skipped:
        typer.echo(f"{found.rows_skipped:,} of {found.rows_read:,} rows were skipped; _errors says why", err=True)
    if found.pairs_rescored:
        share = found.pairs_rescored / max(1, found.pairs_computed)
        typer.echo(f"{found.pairs_rescored:,} pairs ({share:.1%}) were scored again", err=True)
