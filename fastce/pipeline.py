"""The way from texts to logits: tokenisation, packing and the encoder, window after window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from threading import Thread
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch

from fastce.backends.base import Request, check_backend
from fastce.backends.cache import Built, EncoderCache
from fastce.checkpoints.checkpoint import Checkpoint
from fastce.checks import check_positive
from fastce.packing import MAX_BATCH_TOKENS, order_by_length, ordered_batches, pack
from fastce.prefixes import PREFIX_MEMORY, order_by_beginning, share_prefixes
from fastce.spec import Precision
from fastce.threads import chosen_num_threads
from fastce.tokenization import PairTokenizer, TokenizedPairs

T = TypeVar("T")


class Tokenized(NamedTuple):
    """A window's distinct pairs, and which of them each pair is."""

    pairs: TokenizedPairs
    distinct: np.ndarray

    def chosen(self, numbers: np.ndarray) -> Tokenized:
        """Some of the window's pairs, which are then all there are, `[num_chosen]`."""
        distinct, among = np.unique(self.distinct[numbers], return_inverse=True)
        return Tokenized(self.pairs.chosen(distinct), among)


class Pairs(Protocol):
    """Pairs that can be tokenised: a window of texts, or numbers of texts in a store."""

    def tokenized(self, tokenizer: PairTokenizer, max_length: int) -> Tokenized:
        """Tokenises the pairs, each distinct one once, truncated to `max_length`."""
        ...


class Window(NamedTuple):
    """Pairs of texts.

    Attributes:
        first: Their first texts.
        second: Their second texts, as many.
        prompt: The prompt of all of them, or None.
    """

    first: Sequence[str]
    second: Sequence[str]
    prompt: str | None = None

    def tokenized(self, tokenizer: PairTokenizer, max_length: int) -> Tokenized:
        """See `Pairs`."""
        number: dict[tuple[str, str], int] = {}
        distinct = [number.setdefault(pair, len(number)) for pair in zip(self.first, self.second, strict=True)]
        first, second = ([pair[at] for pair in number] for at in (0, 1))
        return Tokenized(tokenizer(first, second, max_length, self.prompt), np.array(distinct, dtype=np.int64))


class BatchLimits(NamedTuple):
    """What a batch may hold.

    Attributes:
        max_pairs: Pairs at most; None leaves it to the tokens.
        max_tokens: Tokens at most; a single longer pair still makes a batch.
    """

    max_pairs: int | None = None
    max_tokens: int = MAX_BATCH_TOKENS

    @classmethod
    def checked(cls, batch_size: Any, max_batch_tokens: Any) -> BatchLimits:
        """The limits that a caller asks for.

        Raises:
            TypeError: One is not a whole number.
            ValueError: One is less than 1.
        """
        most = None if batch_size is None else check_positive(batch_size, "batch_size")
        return cls(most, check_positive(max_batch_tokens, "max_batch_tokens"))


class Pipeline:
    """Computes logits of pairs with one model. Safe to share between threads.

    Args:
        checkpoint: The model.
        backend: Name of the backend to run, or `"auto"`.
        precision: The arithmetic of scoring.
        num_threads: CPU threads for scoring; None follows `fastce.set_num_threads`.
        deterministic: Whether a pair's logits shall be the same, bit for bit, whatever it is batched with: an engine
            that does not see to that itself computes a pair at a time.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        backend: str,
        precision: Precision,
        num_threads: int | None,
        *,
        deterministic: bool = False,
    ):
        self.checkpoint = checkpoint
        self.backend = check_backend(backend)
        self.precision: Precision = precision
        self.num_threads = num_threads
        self.deterministic = deterministic
        self._encoders = EncoderCache()
        self._pair_tokenizer: PairTokenizer | None = checkpoint.pair_tokenizer()

    def built_encoder(self, *, training: bool = False, precision: Precision | None = None) -> Built:
        """The encoder that scores, or the one that trains; made again where the weights have changed since.

        Args:
            training: Whether for training, which is in fp32.
            precision: Of scoring; None: the pipeline's own.
        """
        precision = "fp32" if training else precision or self.precision
        return self._encoders.get(self.checkpoint, self.backend, precision, training=training)

    @property
    def description(self) -> str:
        """What runs, on what and how, and what is against faster backends."""
        try:
            built = self.built_encoder()
        except (ValueError, RuntimeError) as error:
            return f"nothing runs it: {error}"
        threads = chosen_num_threads() if self.num_threads is None else self.num_threads
        device, number = str(self.checkpoint.device), "all" if threads is None else threads
        facts = f"backend={built.backend!r}, precision={self.precision!r}, device={device!r}, num_threads={number}"
        against = [f"not {name}: {', '.join(found.reasons)}" for name, found in built.choice.passed_over.items()]
        return "; ".join([facts, *built.encoder.remarks, *against])

    def request(self) -> Request:
        """What its backend is asked to run."""
        return Request(self.checkpoint.network(with_module=False), self.precision, self.checkpoint.device)

    @property
    def pair_tokenizer(self) -> PairTokenizer:
        """What tokenises the model's pairs, with the model's tokenizer and padding token as they are now."""
        pair_tokenizer = self._pair_tokenizer or self.checkpoint.pair_tokenizer()
        pair_tokenizer.tokenizer, pair_tokenizer.trailing_id = self.checkpoint.tokenizer, self.checkpoint.trailing_id
        self._pair_tokenizer = pair_tokenizer
        return pair_tokenizer

    def __getstate__(self) -> dict[str, Any]:
        """Without what is made of the tokenizer, which may not be carried along."""
        return {**vars(self), "_pair_tokenizer": None}

    def tokenize(self, window: Window, max_length: int) -> TokenizedPairs:
        """Tokenises pairs of texts, truncated to `max_length`."""
        return self.pair_tokenizer(window.first, window.second, max_length, window.prompt)

    def tokenized(self, pairs: Pairs, max_length: int) -> Tokenized:
        """Tokenises pairs, each distinct one once, truncated to `max_length`."""
        return pairs.tokenized(self.pair_tokenizer, max_length)

    def stream(
        self, windows: Iterable[Pairs], max_length: int, limits: BatchLimits, advance: Callable[[int], object]
    ) -> Iterator[torch.Tensor]:
        """Computes the logits of windows of pairs, each while the next one is read and tokenised.

        Args:
            windows: The pairs. What taking the next window raises is raised when this one's logits have been given.
            max_length: Tokens of a pair at most.
            limits: See `compute`.
            advance: See `compute`.

        Yields:
            For each window what `compute` returns.
        """
        for tokenized in one_ahead(self.tokenized(window, max_length) for window in windows):
            yield self.compute(tokenized, limits, advance)

    def compute(
        self,
        tokenized: Tokenized,
        limits: BatchLimits,
        advance: Callable[[int], object] = lambda _: None,
        precision: Precision | None = None,
    ) -> torch.Tensor:
        """Computes the logits of pairs, in batches of similar length.

        Each distinct pair is computed once, so that equal pairs have equal scores on every backend.

        Args:
            tokenized: The pairs.
            limits: What a batch may hold.
            advance: Told of every batch how many distinct pairs it had, and of the pairs that needed no computing.
            precision: The arithmetic; None: the pipeline's own.

        Returns:
            float32 `[num_pairs, num_labels]` on the model's device, in the order of the pairs.
        """
        pairs, distinct = tokenized
        built = self.built_encoder(precision=precision)
        if self.deterministic and not built.encoder.batches_exactly:
            limits = limits._replace(max_pairs=1)
        # Put in order at the end, once: on a GPU that waits for all that was started, while batches are still packed.
        parts = [torch.empty(0, self.checkpoint.num_labels, dtype=torch.float32, device=self.checkpoint.device)]
        places, done = np.empty(len(pairs), dtype=np.int64), 0
        num_threads = chosen_num_threads() if self.num_threads is None else self.num_threads
        shared_bytes = built.encoder.shared_bytes
        order = order_by_beginning(pairs) if shared_bytes else order_by_length(pairs.lengths)
        for indices in ordered_batches(order, pairs.lengths, *limits):
            batch = pack(pairs, indices, built.positions)
            if shared_bytes:
                batch = share_prefixes(batch, PREFIX_MEMORY // shared_bytes)
            parts.append(built.encoder.logits(batch, num_threads))
            places[indices] = np.arange(done, done + len(indices))
            done += len(indices)
            advance(len(indices))
        advance(len(distinct) - len(pairs))
        return torch.cat(parts)[places[distinct]]


def one_ahead(values: Iterator[T]) -> Iterator[T]:
    """Gives values, each while the next one is made in the background; what making it raises comes in its place."""
    waiting: Future[T | None] = Future()
    waiting.set_result(next(values, None))
    while (value := waiting.result()) is not None:
        waiting = in_background(lambda: next(values, None))
        yield value


def in_background(function: Callable[[], T]) -> Future[T]:
    """Calls a function in a thread that nobody waits for at the end: a source that has nothing to give may block it."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(function())
        except BaseException as error:  # for whoever asks for the result
            result.set_exception(error)

    Thread(target=run, name="fastce-reader", daemon=True).start()
    return result
