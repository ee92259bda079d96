"""The model behind the server: loaded and warmed up, it turns requests' texts into logits."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import NamedTuple

import numpy as np

from fastce.cross_encoder import CrossEncoder
from fastce.options import ModelOptions
from fastce.packing import MAX_BATCH_TOKENS
from fastce.pipeline import BatchLimits, Tokenized, Window
from fastce.server.batching import Batcher
from fastce.server.errors import RequestError
from fastce.server.metrics import Metrics
from fastce.server.settings import Settings
from fastce.threads import chosen_num_threads, usable_cpus
from fastce.tokenization import TokenizedPairs

logger = logging.getLogger(__name__)

THREAD_TOKENS = 2048
"""Tokens of a batch for each CPU thread: blocks enough to share them out evenly, and a batch is over soon."""

TOKENIZER_THREADS = 4
"""Requests tokenised at once, at most."""

UNCUT = 2**30
"""Tokens of a pair that nothing is cut off."""


class Ask(NamedTuple):
    """Which pairs a request wants scored.

    Attributes:
        first: Their first texts.
        second: Their second texts, as many, one at least.
        max_length: Tokens of a pair at most, if fewer than the model's.
        cuts: Whether longer pairs are cut; else they are refused.
        cut_side: Where they are cut, `"left"` or `"right"`; None: where the model's tokenizer does.
        document_tokens: Tokens that documents are to be cut to by themselves. Pairs that this could change are refused.
    """

    first: Sequence[str]
    second: Sequence[str]
    max_length: int | None = None
    cuts: bool = True
    cut_side: str | None = None
    document_tokens: int | None = None


class Scored(NamedTuple):
    """What became of a request's pairs.

    Attributes:
        logits: float32 `[num_pairs, num_labels]`.
        tokens: Tokens of all pairs.
        seconds: Time in each stage: tokenization, queue, inference.
    """

    logits: np.ndarray
    tokens: int
    seconds: dict[str, float]


class Service:
    """Scores requests' pairs with one model.

    Args:
        options: What the model is loaded with.
        settings: The limits.
        metrics: Where to count.

    Attributes:
        model: The model, once it is loaded.
        ready: Set when it has scored for the first time.
    """

    def __init__(self, options: ModelOptions, settings: Settings, metrics: Metrics):
        self.options = options
        self.settings = settings
        self.metrics = metrics
        self.model: CrossEncoder
        self.ready = asyncio.Event()
        self._batcher: Batcher
        self._waiting = 0
        self._engine = ThreadPoolExecutor(1, thread_name_prefix="fastce-engine")
        self._tokenizers = ThreadPoolExecutor(
            min(TOKENIZER_THREADS, usable_cpus()), thread_name_prefix="fastce-tokenizer"
        )

    @property
    def batch_tokens(self) -> int:
        """Tokens of a batch at most."""
        if self.settings.max_batch_tokens is not None:
            return self.settings.max_batch_tokens
        threads = self.options.num_threads or chosen_num_threads() or usable_cpus()
        return MAX_BATCH_TOKENS if self.model.device.type != "cpu" else min(MAX_BATCH_TOKENS, THREAD_TOKENS * threads)

    async def run(self) -> None:
        """Loads the model, scores a pair to warm it up, and then what requests bring, for ever.

        Raises:
            ValueError: The model can't be loaded or run; the message says why.
            OSError: Its files can't be read.
        """
        loop = asyncio.get_running_loop()
        self.model = await loop.run_in_executor(self._engine, self.options.load)
        await loop.run_in_executor(self._engine, partial(self.model.predict, [("warm", "up")], show_progress_bar=False))
        self._batcher = Batcher(self._compute, self._engine, self.batch_tokens, self.metrics.observe_batch)
        self.ready.set()
        logger.info("%r is ready", self.model)
        await self._batcher.run()

    def close(self) -> None:
        """Ends the threads when they are done with what they have begun."""
        for executor in (self._engine, self._tokenizers):
            executor.shutdown(wait=True, cancel_futures=True)

    async def scored(self, ask: Ask, *, ranks: bool) -> Scored:
        """Scores pairs, among those of other requests.

        Args:
            ask: The pairs.
            ranks: Whether it takes a model with one label.

        Raises:
            RequestError: There are too many of them, for a request or at the moment, or a pair is too long, or the
                model has several labels.
        """
        count = len(ask.first)
        if count > self.settings.max_documents:
            raise RequestError(422, f"{count} documents are more than the {self.settings.max_documents} of a request")
        with self._admitted(count):
            await self.ready.wait()
            if ranks and self.model.num_labels != 1:
                raise RequestError(
                    422, f"the model has {self.model.num_labels} labels, which make no ranking; use /predict"
                )
            before = perf_counter()
            tokenized = await asyncio.get_running_loop().run_in_executor(self._tokenizers, self._tokenized, ask)
            tokenizing = perf_counter() - before
            computed = await self._batcher.computed(tokenized.pairs)
        tokens = int(tokenized.pairs.lengths[tokenized.distinct].sum())
        seconds = {"tokenization": tokenizing, "queue": computed.queued, "inference": computed.computing}
        for stage, time in seconds.items():
            self.metrics.stages.labels(stage).observe(time)
        return Scored(computed.logits[tokenized.distinct], tokens, seconds)

    @contextmanager
    def _admitted(self, count: int) -> Iterator[None]:
        """Counts documents as waiting for as long as their request does."""
        if over := self._over(count):
            seconds = math.ceil(over / self._rate) if self._rate else 1
            message = f"{self._waiting} documents are waiting, {over} too many to take {count} more; try again later"
            raise RequestError(429, message, {"Retry-After": str(seconds)})
        self._waiting += count
        self.metrics.waiting.inc(count)
        try:
            yield
        finally:
            self._waiting -= count
            self.metrics.waiting.dec(count)

    @property
    def _rate(self) -> float:
        """Documents a second, of late; 0 where nothing was computed yet."""
        return self._batcher.pairs_per_second if self.ready.is_set() else 0.0

    def _over(self, count: int) -> int:
        """How many of the waiting documents must be done before `count` more may wait.

        No more may wait than `max_waiting`. The next ones must wait while those before them are likely to take more
        than half of a request's time; how many the next ones are is no matter, or large requests would never get in.
        """
        likely = self._rate * self.settings.timeout / 2 if self._rate else math.inf
        return max(0, self._waiting + count - self.settings.max_waiting, math.ceil(max(0.0, self._waiting - likely)))

    def _tokenized(self, ask: Ask) -> Tokenized:
        most = min(self.model.max_length, ask.max_length or self.model.max_length)
        side = self.model.tokenizer.truncation_side
        if ask.cut_side not in (None, side):
            raise RequestError(422, f"the model's texts are cut on the {side}, not on the {ask.cut_side}")
        window = Window(ask.first, ask.second, self.model.prompt_of(None, None))
        try:
            tokenized = self.model.pipeline.tokenized(window, most if ask.cuts else UNCUT)
        except ValueError as error:  # no room beside the special tokens
            raise RequestError(422, str(error)) from error
        longest = int(tokenized.pairs.lengths.max())
        if longest > most:
            raise RequestError(413, f"a pair has {longest} tokens, which are more than {most}, and must not be cut")
        if ask.document_tokens is not None and longest > ask.document_tokens:
            raise RequestError(
                422, f"a pair has {longest} tokens: documents can't be cut to {ask.document_tokens} by themselves"
            )
        return tokenized

    def _compute(self, pairs: TokenizedPairs) -> np.ndarray:
        limits = BatchLimits(max_tokens=self.batch_tokens)
        logits = self.model.pipeline.compute(Tokenized(pairs, np.arange(len(pairs))), limits)
        return logits.cpu().numpy()
