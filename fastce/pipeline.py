"""The way from texts to logits: tokenisation, packing and the encoder, one after the other."""

from __future__ import annotations

import torch

from fastce.backends.cache import Built, EncoderCache
from fastce.checkpoints.checkpoint import Checkpoint
from fastce.packing import length_ordered_batches, pack
from fastce.settings import default_num_threads, progress_bar
from fastce.spec import Precision
from fastce.tokenization import PairTokenizer, TokenizedPairs


class Pipeline:
    """Computes logits of pairs with one model. Safe to share between threads.

    Args:
        checkpoint: The model.
        backend: Name of the backend to score with, or `"auto"`.
        precision: The arithmetic of scoring.
        num_threads: CPU threads for scoring; None follows `fastce.set_num_threads`.
    """

    def __init__(self, checkpoint: Checkpoint, backend: str, precision: Precision, num_threads: int | None):
        self.checkpoint = checkpoint
        self.backend = backend
        self.precision: Precision = precision
        self.num_threads = num_threads
        self._encoders = EncoderCache()
        self._pair_tokenizer = PairTokenizer(checkpoint.tokenizer)

    def built_encoder(self, *, training: bool = False) -> Built:
        """The encoder that scores, or the one that trains; made again where the weights have changed since."""
        backend: tuple[str, Precision] = ("auto", "fp32") if training else (self.backend, self.precision)
        return self._encoders.get(self.checkpoint, *backend, training=training)

    def tokenize(self, first: list[str], second: list[str], max_length: int) -> TokenizedPairs:
        """Tokenises pairs of texts, truncated to `max_length`."""
        if self._pair_tokenizer.tokenizer is not self.checkpoint.tokenizer:
            self._pair_tokenizer = PairTokenizer(self.checkpoint.tokenizer)
        return self._pair_tokenizer(first, second, max_length)

    def logits(
        self, first: list[str], second: list[str], *, max_length: int, batch_size: int, show_progress_bar: bool | None
    ) -> torch.Tensor:
        """Computes logits; each distinct pair once, so that equal pairs have equal scores.

        Args:
            first: First text of each pair.
            second: Second text of each pair, as many.
            max_length: Tokens of a pair at most.
            batch_size: Pairs per batch at most.
            show_progress_bar: Whether to show a bar; None follows fastce's logger.

        Returns:
            float32 `[num_pairs, num_labels]` on the model's device, in the order of the pairs.
        """
        number: dict[tuple[str, str], int] = {}
        distinct = [number.setdefault(pair, len(number)) for pair in zip(first, second, strict=True)]
        pairs = self.tokenize([pair[0] for pair in number], [pair[1] for pair in number], max_length)
        built = self.built_encoder()
        logits = torch.empty(len(pairs), self.checkpoint.config.num_labels, device=self.checkpoint.device)
        num_threads = self.num_threads or default_num_threads()
        with progress_bar(show_progress_bar, total=len(pairs), description="Scoring", unit="pairs") as progress:
            for indices in length_ordered_batches(pairs.lengths, batch_size):
                logits[indices] = built.encoder.logits(pack(pairs, indices, built.positions), num_threads)
                progress.update(len(indices))
        return logits[distinct]
