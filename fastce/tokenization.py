"""(1) Texts to token ids: each distinct text is tokenised once, pairs are assembled from ids.

The result equals `tokenizer(first, second, truncation=True, max_length=max_length)` of transformers for every pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

TEXTS_PER_CALL = 4096
"""Texts handed to the tokenizer at once: enough for its threads, little enough for memory."""


class Piece(NamedTuple):
    """A part of a pair's template: special tokens, or the place of the first (0) or second (1) text."""

    token_type: int
    special_ids: tuple[int, ...]
    text: int | None


@dataclass(frozen=True)
class TokenizedPairs:
    """Pairs as segments of one flat array of token ids, which holds each distinct text once.

    Attributes:
        token_ids: int32 `[tokens of all distinct texts and of the template's special pieces]`.
        starts: Where each piece of each pair begins in `token_ids`, int64 `[num_pairs, pieces]`.
        sizes: Tokens of each piece after truncation, int64 `[num_pairs, pieces]`.
        token_types: Token type of each piece, int32 `[pieces]`.
    """

    token_ids: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    token_types: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each pair with its special tokens, int64 `[num_pairs]`."""
        lengths: np.ndarray = self.sizes.sum(axis=1)
        return lengths

    def assemble(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lays the chosen pairs end to end.

        Args:
            indices: Which pairs, in which order.

        Returns:
            Token ids and token types, both int32 `[total_tokens]`.
        """
        sizes = self.sizes[indices].ravel()  # [num_pairs * pieces]
        first = np.cumsum(sizes) - sizes
        source = np.arange(sizes.sum()) + np.repeat(self.starts[indices].ravel() - first, sizes)
        return self.token_ids[source], np.repeat(np.tile(self.token_types, len(indices)), sizes)


class PairTokenizer:
    """A Hugging Face tokenizer, used without touching its state.

    Fast tokenizers keep truncation and padding as mutable state, which is why threads can't share them; this works on
    a private copy that has neither.

    Args:
        tokenizer: The model's tokenizer. Tokens added to it later are noticed.
        remembers: Whether to keep the ids of every text, for texts that come again and again.
    """

    def __init__(self, tokenizer: Any, *, remembers: bool = False):
        self.tokenizer = tokenizer
        self._memory: dict[str, np.ndarray] | None = {} if remembers else None
        self._size = -1
        self._refresh()

    def _refresh(self) -> None:
        """Copies the tokenizer again where its vocabulary has grown."""
        size = len(self.tokenizer)
        if size != self._size:
            self._encoder = (FastTokenizer if self.tokenizer.is_fast else PythonTokenizer)(self.tokenizer)
            self._pieces = template(self._encoder)
            self._size = size
            if self._memory is not None:
                self._memory.clear()

    @property
    def num_special_tokens(self) -> int:
        """Special tokens of a pair."""
        return sum(len(piece.special_ids) for piece in self._pieces)

    def __call__(self, first: Sequence[str], second: Sequence[str], max_length: int) -> TokenizedPairs:
        """Tokenises pairs.

        Args:
            first: First text of each pair.
            second: Second text of each pair, as many.
            max_length: Tokens of a pair at most, special ones included. Longer pairs lose tokens from the longer text
                first.

        Raises:
            ValueError: `max_length` leaves no room beside the special tokens.
        """
        self._refresh()
        room = max_length - self.num_special_tokens
        if room < 1:
            raise ValueError(f"max_length: {max_length} leaves no room beside {self.num_special_tokens} special tokens")
        number: dict[str, int] = {}
        pair_texts = np.array(
            [[number.setdefault(text, len(number)) for text in texts] for texts in (first, second)], dtype=np.int64
        )  # [2, num_pairs]
        token_ids, text_sizes = self._tokenize(number)
        text_starts = np.cumsum(text_sizes) - text_sizes

        full = text_sizes[pair_texts]
        kept = truncate_longest_first(full, room, extra_to_first=self._encoder.extra_to_first)
        begin = text_starts[pair_texts]
        if self.tokenizer.truncation_side == "left":
            begin = begin + full - kept

        starts = np.empty((len(first), len(self._pieces)), dtype=np.int64)
        sizes = np.empty_like(starts)
        special_start = len(token_ids)
        for column, piece in enumerate(self._pieces):
            if piece.text is None:
                starts[:, column], sizes[:, column] = special_start, len(piece.special_ids)
                special_start += len(piece.special_ids)
            else:
                starts[:, column], sizes[:, column] = begin[piece.text], kept[piece.text]
        special_ids = np.array([token for piece in self._pieces for token in piece.special_ids], dtype=np.int32)
        return TokenizedPairs(
            token_ids=np.concatenate([token_ids, special_ids]),
            starts=starts,
            sizes=sizes,
            token_types=np.array([piece.token_type for piece in self._pieces], dtype=np.int32),
        )

    def remember(self, texts: Iterable[str]) -> None:
        """Tokenises those texts that are new. May run in another thread than the calls."""
        assert self._memory is not None
        new = [text for text in dict.fromkeys(texts) if text not in self._memory]
        ids, sizes = self._encode(new)
        self._memory.update(zip(new, np.split(ids, np.cumsum(sizes)[:-1]), strict=True) if new else ())

    def size_of(self, text: str) -> int:
        """Tokens of a text that is remembered."""
        assert self._memory is not None
        return len(self._memory[text])

    def _tokenize(self, texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns all ids end to end, int32, and the number of each text's ids, int64."""
        if self._memory is None:
            return self._encode(texts)
        known = list(texts)
        self.remember(known)
        ids = [self._memory[text] for text in known]
        return np.concatenate(ids or [np.empty(0, dtype=np.int32)]), np.array(
            [len(part) for part in ids], dtype=np.int64
        )

    def _encode(self, texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """The same, of texts that are not remembered."""
        ids: list[np.ndarray] = []
        sizes: list[int] = []
        waiting = [well_formed(text) for text in texts]
        for start in range(0, len(waiting), TEXTS_PER_CALL):
            encoded = self._encoder.encode(waiting[start : start + TEXTS_PER_CALL])
            sizes += map(len, encoded)
            ids.append(np.fromiter(chain.from_iterable(encoded), dtype=np.int32))
        return np.concatenate(ids or [np.empty(0, dtype=np.int32)]), np.array(sizes, dtype=np.int64)


def well_formed(text: str) -> str:
    """Replaces lone surrogates, which no tokenizer accepts, by U+FFFD; joins surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def truncate_longest_first(sizes: np.ndarray, room: int, *, extra_to_first: bool) -> np.ndarray:
    """Shortens the longer text of each pair, then both evenly.

    Args:
        sizes: Tokens of the first and second texts, `[2, num_pairs]`.
        room: Tokens that a pair may keep.
        extra_to_first: Whether the odd token, where both are cut, stays with the first text even if it is not longer.

    Returns:
        Tokens kept, `[2, num_pairs]`.
    """
    first, second = sizes
    half = room // 2
    odd_to_first = (first > second) | extra_to_first
    share = np.where(odd_to_first, [[room - half], [half]], [[half], [room - half]])  # [2, num_pairs]
    # A text shorter than its share leaves the rest of the room to the other.
    kept = np.minimum(sizes, np.maximum(share, room - sizes[::-1]))
    return np.where(first + second <= room, sizes, kept)


class FastTokenizer:
    """A private copy of a tokenizer of the tokenizers library, without truncation and padding."""

    extra_to_first = False

    def __init__(self, tokenizer: Any):
        self.copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self.copy.no_truncation()
        self.copy.no_padding()
        self.copy.encode_special_tokens = tokenizer.backend_tokenizer.encode_special_tokens
        self.has_token_types = "token_type_ids" in tokenizer.model_input_names

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        return [encoding.ids for encoding in self.copy.encode_batch_fast(texts, add_special_tokens=False)]

    def pair(self, first: str, second: str) -> tuple[list[int], list[int], list[int]]:
        """Ids, token types and special-token mask of a pair with its special tokens."""
        encoding = self.copy.encode(first, second)
        types = encoding.type_ids if self.has_token_types else [0] * len(encoding.ids)
        return encoding.ids, types, encoding.special_tokens_mask


class PythonTokenizer:
    """A tokenizer written in Python, which has no state to protect."""

    extra_to_first = True

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        return [self.tokenizer.encode(text, add_special_tokens=False) for text in texts]

    def pair(self, first: str, second: str) -> tuple[list[int], list[int], list[int]]:
        """Ids, token types and special-token mask of a pair with its special tokens."""
        encoding = self.tokenizer(first, second, return_special_tokens_mask=True)
        ids = encoding["input_ids"]
        return ids, encoding.get("token_type_ids", [0] * len(ids)), encoding["special_tokens_mask"]


def template(encoder: FastTokenizer | PythonTokenizer) -> tuple[Piece, ...]:
    """Learns from one example where a tokenizer puts the special tokens of a pair.

    Raises:
        ValueError: The tokenizer does more to a pair than surround its texts with special tokens.
    """
    texts = ("one", "two two")
    tokens = encoder.encode(list(texts))
    ids, types, special = encoder.pair(*texts)
    pieces: list[Piece] = []
    at = text = 0
    while at < len(ids):
        if special[at] or text == 2:
            size, piece = 1, Piece(types[at], (ids[at],), None)
            if pieces and pieces[-1].text is None and pieces[-1].token_type == types[at]:
                piece = Piece(types[at], (*pieces.pop().special_ids, ids[at]), None)
        else:
            size, piece = len(tokens[text]), Piece(types[at], (), text)
            if ids[at : at + size] != tokens[text] or len(set(types[at : at + size])) != 1:
                raise ValueError("the tokenizer's pair template is not texts surrounded by special tokens")
            text += 1
        pieces.append(piece)
        at += size
    if text != 2:
        raise ValueError("the tokenizer's pair template does not hold both texts")
    return tuple(pieces)
