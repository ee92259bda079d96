"""Texts by their ids, each tokenised once: files that are mapped into memory, and shared by processes and later runs.

A store is a folder. `ids.npy` has digests of the ids in their order, `rows.npy` which text each is of, `values.bin` the
token ids of the texts end to end, or their bytes where a model's chat template wants texts, and `ends.npy` where each
text ends in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple

import numpy as np

from fastce.corpus.manifest import sync
from fastce.corpus.readers.fields import TABLE_NAMES, Fields
from fastce.corpus.readers.files import InputFile
from fastce.corpus.source import RowSource, with_title
from fastce.pipeline import Tokenized
from fastce.text_tokenizers import digest_of
from fastce.tokenization import EncodedTexts, PairTokenizer

FORMAT = 1
UNFINISHED = ".making-"
A_DAY = 24 * 60 * 60
UNUSED_FOR = 30 * A_DAY
"""Seconds after which a store in the cache folder that no run has used is removed, when another one is made."""
TEXTS_PER_WRITE = 16_384

Text = tuple[str, str]
"""An id and its text."""


def cache_folder() -> Path:
    """Where stores are kept: `FASTCE_CACHE`, else `fastce` in the user's cache folder."""
    chosen = os.environ.get("FASTCE_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastce"


def table_of_texts(name: str) -> RowSource:
    """A table of ids and texts, with titles where there are any."""
    fields = Fields(None, TABLE_NAMES, others=("title",), are_optional=True, option="a header", has_header=None)
    return RowSource.of(name, fields, (True, False))


def read_texts(source: RowSource, limit: int | None = None) -> Iterator[Text]:
    """The ids and texts of a table, a document's title before its text.

    Args:
        source: See `table_of_texts`.
        limit: How many rows to read; None: all.

    Raises:
        ValueError: A row has no id or no text; the message says which.
    """
    for chunk in source.chunks():
        if chunk.bad:
            raise next(iter(chunk.bad.values()))
        size = len(chunk) if limit is None else min(limit, len(chunk))
        titles = chunk.others.column(0).to_pylist()
        for number, text, title in islice(zip(chunk.first, chunk.second, titles, strict=True), size):
            yield number, with_title(text, title)
        if limit is not None and (limit := limit - size) <= 0:
            return


def digest_of_texts(texts: Iterable[Text]) -> str:
    """A digest of ids and texts, in hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        digest.update(json.dumps(text).encode())
    return digest.hexdigest()


def digests_of_ids(ids: Iterable[str]) -> np.ndarray:
    """Digests of ids, 16 bytes each, so that no two ids that ever were have the same, `[num_ids]`."""
    digests = (hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=16).digest() for name in ids)
    return np.frombuffer(b"".join(digests), dtype="S16")


class TextStore:
    """Texts of one table as one tokenizer sees them.

    Args:
        folder: Where it is.

    Attributes:
        num_texts: How many texts there are.
        digest: Of the ids and texts; see `digest_of_texts`.
        prompt: What was put before each text, or None.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        facts = json.loads((folder / "store.json").read_text())
        self.num_texts: int = facts["num_texts"]
        self.digest: str = facts["digest"]
        self.prompt: str | None = facts["prompt"]
        self.has_tokens: bool = facts["has_tokens"]
        self._ids, self._rows, self._ends = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS)
        kind = np.int32 if self.has_tokens else np.uint8
        expected = int(self._ends[-1]) * np.dtype(kind).itemsize if self.num_texts else 0
        if (folder / "values.bin").stat().st_size != expected:
            raise ValueError(f"{folder}: the stored texts are cut; delete the folder, and they are made again")
        is_empty = self.num_texts == 0 or self._ends[-1] == 0
        self._values = np.empty(0, kind) if is_empty else np.memmap(folder / "values.bin", dtype=kind, mode="r")

    @property
    def sorted_ids(self) -> tuple[np.ndarray, np.ndarray]:
        """Digests of the ids in their order, and the text of each."""
        return self._ids, self._rows

    def numbers(self, ids: list[str]) -> np.ndarray:
        """The numbers of the texts with these ids; -1 where there is none, int64 `[num_ids]`."""
        if self.num_texts == 0 or not ids:
            return np.full(len(ids), -1, dtype=np.int64)
        distinct, among = np.unique(digests_of_ids(ids), return_inverse=True)
        at = np.minimum(np.searchsorted(self._ids, distinct), self.num_texts - 1)
        return np.where(self._ids[at] == distinct, self._rows[at], -1)[among]

    def sizes(self, numbers: np.ndarray) -> np.ndarray:
        """Tokens, or bytes, of texts, int64 `[num_numbers]`."""
        starts = np.where(numbers > 0, self._ends[numbers - 1], 0)
        sizes: np.ndarray = self._ends[numbers] - starts
        return sizes

    def values(self, numbers: np.ndarray) -> np.ndarray:
        """Token ids, or bytes, of texts end to end."""
        sizes = self.sizes(numbers)
        behind = np.cumsum(sizes)
        source = np.arange(sizes.sum()) + np.repeat(self._ends[numbers] - behind, sizes)
        return np.asarray(self._values[source])

    def tokens(self, numbers: np.ndarray) -> EncodedTexts:
        """The token ids of texts."""
        return EncodedTexts(self.values(numbers), self.sizes(numbers))

    def texts(self, numbers: np.ndarray) -> list[str]:
        """Texts, where these are stored."""
        parts = np.split(self.values(numbers), np.cumsum(self.sizes(numbers))[:-1])
        return [part.tobytes().decode(errors="surrogatepass") for part in parts[: len(numbers)]]


ARRAYS = ("ids", "rows", "ends")


@lru_cache(maxsize=8)
def open_store(folder: Path) -> TextStore:
    """Opens a store, once a process."""
    return TextStore(folder)


class StoredPairs(NamedTuple):
    """Pairs of texts in two stores; small to send to another process.

    Attributes:
        queries: The folder of the first texts' store.
        documents: The folder of the second texts' store.
        first: Numbers of the first texts, int64 `[num_pairs]`.
        second: Numbers of the second texts, int64 `[num_pairs]`.
    """

    queries: Path
    documents: Path
    first: np.ndarray
    second: np.ndarray

    def tokenized(self, tokenizer: PairTokenizer, max_length: int) -> Tokenized:
        """See `fastce.pipeline.Pairs`."""
        queries, documents = open_store(self.queries), open_store(self.documents)
        both = self.first * documents.num_texts + self.second
        _, chosen, distinct = np.unique(both, return_index=True, return_inverse=True)
        first, first_of_pair = np.unique(self.first[chosen], return_inverse=True)
        second, second_of_pair = np.unique(self.second[chosen], return_inverse=True)
        if not tokenizer.joins_texts:
            one, other = queries.texts(first), documents.texts(second)
            texts = [one[at] for at in first_of_pair], [other[at] for at in second_of_pair]
            return Tokenized(tokenizer(*texts, max_length, queries.prompt), distinct)
        parts = queries.tokens(first), documents.tokens(second)
        texts_of_both = EncodedTexts(
            np.concatenate([part.token_ids for part in parts]), np.concatenate([part.sizes for part in parts])
        )
        pair_texts = np.stack([first_of_pair, len(first) + second_of_pair])
        return Tokenized(tokenizer.pairs_of(texts_of_both, pair_texts, max_length), distinct)


def stored_texts(source: RowSource, tokenizer: PairTokenizer, prompt: str | None, folder: Path | None) -> TextStore:
    """The store of a table, made where there is none of these files as they are now and this tokenizer.

    Args:
        source: The table.
        tokenizer: What tokenises the texts.
        prompt: What to put before each text, or None.
        folder: Where stores are kept; None: in the cache folder.

    Raises:
        ValueError: A row has no id or no text, or an id stands for two texts; the message says where.
        OSError: The table can't be read, or the store not be written.
    """
    if source.is_stream:
        raise ValueError(f"{source.name}: texts are looked up by their ids, which takes a file that can be read again")
    facts = (FORMAT, *map(absolute, source.files), source.fields, prompt, tokenizer.joins_texts and tokenizer.digest())
    home = (cache_folder() / "texts" if folder is None else folder).absolute() / digest_of(*facts)
    if not (home / "store.json").exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        remove_older(home.parent.glob(f"{UNFINISHED}*"), A_DAY)  # by processes that were killed
        if folder is None:
            remove_older((store.parent for store in home.parent.glob("*/store.json")), UNUSED_FOR)
        made = Path(mkdtemp(prefix=UNFINISHED, dir=home.parent))
        try:
            write_store(made, source, tokenizer, prompt)
            for file in made.iterdir():
                sync(file)
            made.rename(home)
            sync(home.parent)
        except OSError:
            if not (home / "store.json").exists():  # another process was faster
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    with suppress(OSError):  # of another user's cache
        os.utime(home)  # it is in use
    return open_store(home)


def remove_older(folders: Iterable[Path], seconds: float) -> None:
    """Removes folders that nobody has touched for so long."""
    for folder in folders:
        with suppress(FileNotFoundError):  # another process was faster
            if time.time() - folder.stat().st_mtime > seconds:
                shutil.rmtree(folder, ignore_errors=True)


def absolute(file: InputFile) -> InputFile:
    """The file by a name that means it in every folder."""
    return file if "://" in file.path else replace(file, path=os.path.abspath(file.path))


def write_store(folder: Path, source: RowSource, tokenizer: PairTokenizer, prompt: str | None) -> None:
    """Reads a table and writes the files of a store."""
    digest = hashlib.blake2b(digest_size=16)
    ids: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    remaining = read_texts(source)
    with (folder / "values.bin").open("wb") as values:
        while piece := list(islice(remaining, TEXTS_PER_WRITE)):
            digest.update(b"".join(json.dumps(text).encode() for text in piece))
            ids.append(digests_of_ids(name for name, _ in piece))
            if tokenizer.joins_texts:
                encoded = tokenizer.encode([(prompt or "") + text for _, text in piece])
                encoded.token_ids.tofile(values)
                sizes.append(encoded.sizes)
            else:
                parts = [text.encode(errors="surrogatepass") for _, text in piece]
                values.write(b"".join(parts))
                sizes.append(np.array([len(part) for part in parts], dtype=np.int64))
    names = np.concatenate(ids or [np.empty(0, "S16")])
    ends = np.cumsum(np.concatenate(sizes or [np.empty(0, np.int64)]), dtype=np.int64)
    rows = np.argsort(names, kind="stable")
    for name, array in zip(ARRAYS, (names[rows], rows, ends), strict=True):
        np.save(folder / f"{name}.npy", array)
    facts = {
        "num_texts": len(names),
        "digest": digest.hexdigest(),
        "prompt": prompt,
        "has_tokens": tokenizer.joins_texts,
        "source": source.name,
    }
    (folder / "store.json").write_text(json.dumps(facts, indent=1))
    check_ids(TextStore(folder), source)


def check_ids(store: TextStore, source: RowSource) -> None:
    """Raises ValueError where an id stands for two texts; twice for the same one it may."""
    ids, rows = store.sorted_ids
    for at in np.flatnonzero(ids[1:] == ids[:-1]):
        one, other = (store.values(rows[[place]]) for place in (at, at + 1))
        if not np.array_equal(one, other):
            name, _ = next(islice(read_texts(source), int(rows[at]), None))
            raise ValueError(
                f"{source.name}: the id {name!r} stands for two texts, in rows {rows[at] + 1} and {rows[at + 1] + 1}"
            )
