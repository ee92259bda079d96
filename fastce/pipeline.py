"""The way from texts to logits: tokenisation, packing and the encoder, window after window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from threading import Thread
from typing import Any, NamedTuple, TypeVar

import torch

from fastce.backends.base import Request, check_backend
from fastce.backends.cache import Built, EncoderCache
from fastce.checkpoints.checkpoint import Checkpoint
from fastce.checks import check_positive
from fastce.packing import MAX_BATCH_TOKENS, order_by_length, ordered_batches, pack
from fastce.prefixes import PREFIX_MEMORY, order_by_beginning, share_prefixes
from fastce.spec import Precision
from fastce.threads import chosen_num_threads
from fastce.tokenization import TokenizedPairs

T = TypeVar("T")


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


class Tokenized(NamedTuple):
    """A window's distinct pairs, and which of them each pair is."""

    pairs: TokenizedPairs
    distinct: list[int]


class Pipeline:
    """Computes logits of pairs with one model. Safe to share between threads.

    Args:
        checkpoint: The model.
        backend: Name of the backend to run, or `"auto"`.
        precision: The arithmetic of scoring.
        num_threads: CPU threads for scoring; None follows `fastce.set_num_threads`.
    """

    def __init__(self, checkpoint: Checkpoint, backend: str, precision: Precision, num_threads: int | None):
        self.checkpoint = checkpoint
        self.backend = check_backend(backend)
        self.precision: Precision = precision
        self.num_threads = num_threads
        self._encoders = EncoderCache()
        self._pair_tokenizer = checkpoint.pair_tokenizer()

    def built_encoder(self, *, training: bool = False) -> Built:
        """The encoder that scores, or the one that trains; made again where the weights have changed since."""
        precision: Precision = "fp32" if training else self.precision
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

    def tokenize(self, window: Window, max_length: int) -> TokenizedPairs:
        """Tokenises pairs of texts, truncated to `max_length`."""
        self._pair_tokenizer.tokenizer = self.checkpoint.tokenizer
        return self._pair_tokenizer(window.first, window.second, max_length, window.prompt)

    def logits(
        self, window: Window, max_length: int, limits: BatchLimits, advance: Callable[[int], object]
    ) -> torch.Tensor:
        """The logits of a single window; see `stream`."""
        return self._compute(self._tokenize_window(window, max_length), limits, advance)

    def stream(
        self, windows: Iterable[Window], max_length: int, limits: BatchLimits, advance: Callable[[int], object]
    ) -> Iterator[torch.Tensor]:
        """Computes the logits of windows of pairs, each while the next one is read and tokenised.

        A window's pairs are batched in order of length, and each distinct pair is computed once, so that equal pairs of
        a window have equal scores on every backend.

        Args:
            windows: The pairs. What taking the next window raises is raised when this one's logits have been given.
            max_length: Tokens of a pair at most.
            limits: What a batch may hold.
            advance: Told of every batch how many distinct pairs it had, and of the pairs that needed no computing.

        Yields:
            For each window float32 `[num_pairs, num_labels]` on the model's device, in the order of its pairs.
        """
        remaining = iter(windows)

        def following() -> Tokenized | None:
            window = next(remaining, None)
            return None if window is None else self._tokenize_window(window, max_length)

        tokenized = following()
        while tokenized is not None:
            ahead = in_background(following)
            yield self._compute(tokenized, limits, advance)
            tokenized = ahead.result()

    def _tokenize_window(self, window: Window, max_length: int) -> Tokenized:
        number: dict[tuple[str, str], int] = {}
        distinct = [number.setdefault(pair, len(number)) for pair in zip(window.first, window.second, strict=True)]
        texts = Window([pair[0] for pair in number], [pair[1] for pair in number], window.prompt)
        return Tokenized(self.tokenize(texts, max_length), distinct)

    def _compute(self, tokenized: Tokenized, limits: BatchLimits, advance: Callable[[int], object]) -> torch.Tensor:
        pairs, distinct = tokenized
        built = self.built_encoder()
        logits = torch.empty(
            len(pairs), self.checkpoint.config.num_labels, dtype=torch.float32, device=self.checkpoint.device
        )
        num_threads = chosen_num_threads() if self.num_threads is None else self.num_threads
        shared_bytes = built.encoder.shared_bytes
        order = order_by_beginning(pairs) if shared_bytes else order_by_length(pairs.lengths)
        for indices in ordered_batches(order, pairs.lengths, *limits):
            batch = pack(pairs, indices, built.positions)
            if shared_bytes:
                batch = share_prefixes(batch, PREFIX_MEMORY // shared_bytes)
            logits[indices] = built.encoder.logits(batch, num_threads)
            advance(len(indices))
        advance(len(distinct) - len(pairs))
        return logits[distinct]


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
