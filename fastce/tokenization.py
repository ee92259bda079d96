"""(1) Texts to token ids: each distinct text is tokenised once, pairs are assembled from ids.

The result equals `tokenizer(first, second, truncation=True, max_length=max_length)` of transformers for every pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from fastce.text_tokenizers import FastTokenizer, Piece, PythonTokenizer, digest_of, template

TEXTS_PER_CALL = 4096
"""Texts handed to the tokenizer at once: enough for its threads, little enough for memory."""


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

    def chosen(self, indices: np.ndarray) -> TokenizedPairs:
        """Some of the pairs, in the order given."""
        return replace(self, starts=self.starts[indices], sizes=self.sizes[indices])

    @classmethod
    def joined(cls, parts: Sequence[TokenizedPairs]) -> TokenizedPairs:
        """Pairs of several calls of one tokenizer as one, in the order given; there is at least one part."""
        offsets = np.cumsum([0, *(len(part.token_ids) for part in parts[:-1])])
        return cls(
            token_ids=np.concatenate([part.token_ids for part in parts]),
            starts=np.concatenate([part.starts + offset for part, offset in zip(parts, offsets, strict=True)]),
            sizes=np.concatenate([part.sizes for part in parts]),
            token_types=parts[0].token_types,
        )

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

    def without_trailing(self, token: int) -> TokenizedPairs:
        """The pairs without the tokens of this id that they end with; one token is left of each."""
        sizes = self.sizes.copy()
        pairs = np.arange(len(sizes))
        while True:
            last = sizes.shape[1] - 1 - (sizes[:, ::-1] > 0).argmax(axis=1)  # the last piece with tokens
            ends = self.starts[pairs, last] + sizes[pairs, last] - 1
            drops = (self.token_ids[ends] == token) & (sizes.sum(axis=1) > 1)
            if not drops.any():
                return replace(self, sizes=sizes)
            sizes[pairs[drops], last[drops]] -= 1


@dataclass(frozen=True)
class EncodedTexts:
    """Texts as token ids, end to end, without special tokens.

    Attributes:
        token_ids: int32 `[tokens of all texts]`.
        sizes: Tokens of each text, int64 `[num_texts]`.
    """

    token_ids: np.ndarray
    sizes: np.ndarray


@dataclass(frozen=True)
class Snapshot:
    """What was made of a tokenizer while it was in one state.

    Attributes:
        tokenizer: The tokenizer.
        state: That state.
        encoder: Encodes single texts.
        pieces: The template of pairs.
        memory: Ids of the texts that are remembered.
    """

    tokenizer: Any
    state: object
    encoder: FastTokenizer | PythonTokenizer
    pieces: tuple[Piece, ...]
    memory: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def num_special_tokens(self) -> int:
        """Special tokens of a pair."""
        return sum(len(piece.special_ids) for piece in self.pieces)


class PairTokenizer:
    """A Hugging Face tokenizer, used without touching its state.

    Fast tokenizers keep truncation and padding as mutable state, which is why threads can't share them; this works on
    a private one of the same parts that has neither.

    Args:
        tokenizer: The model's tokenizer.
        remembers: Whether to keep the ids of every text, for texts that come again and again.
        trailing_id: A token that counts as padding at a pair's end, or None.

    Attributes:
        tokenizer: The tokenizer. What is changed about it, and another in its place, counts from the next call on.
        joins_texts: Whether a pair's tokens are those of its texts by themselves, so that `pairs_of` can make it.
    """

    joins_texts = True

    def __init__(self, tokenizer: Any, *, remembers: bool = False, trailing_id: int | None = None):
        self.tokenizer = tokenizer
        self.remembers = remembers
        self.trailing_id = trailing_id
        self._latest: Snapshot | None = None
        self._snapshot()

    def _snapshot(self) -> Snapshot:
        """The tokenizer as it is now. Threads may find different ones, each whole."""
        tokenizer = self.tokenizer
        kind = FastTokenizer if tokenizer.is_fast else PythonTokenizer
        state = kind.state(tokenizer)
        latest = self._latest
        if latest is None or latest.tokenizer is not tokenizer or latest.state != state:
            encoder = kind(tokenizer)
            self._latest = latest = Snapshot(tokenizer, state, encoder, template(encoder))
        return latest

    @property
    def num_special_tokens(self) -> int:
        """Special tokens of a pair."""
        return self._snapshot().num_special_tokens

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(PairTokenizer, remembers=self.remembers, trailing_id=self.trailing_id), (self.tokenizer,)

    def __call__(
        self, first: Sequence[str], second: Sequence[str], max_length: int, prompt: str | None = None
    ) -> TokenizedPairs:
        """Tokenises pairs.

        Args:
            first: First text of each pair.
            second: Second text of each pair, as many.
            max_length: Tokens of a pair at most, special ones included. Longer pairs lose tokens from the longer text
                first.
            prompt: What to put before each first text.

        Raises:
            ValueError: `max_length` leaves no room beside the special tokens.
        """
        if prompt:
            first = [prompt + text for text in first]
        snapshot = self._snapshot()
        number: dict[str, int] = {}
        pair_texts = np.array(
            [[number.setdefault(text, len(number)) for text in texts] for texts in (first, second)], dtype=np.int64
        )  # [2, num_pairs]
        return self._pairs(snapshot, self._tokenize(snapshot, number), pair_texts, max_length)

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """Tokenises texts by themselves, for `pairs_of`."""
        return encode(self._snapshot().encoder, texts)

    def pairs_of(self, texts: EncodedTexts, pair_texts: np.ndarray, max_length: int) -> TokenizedPairs:
        """Makes pairs of texts that were tokenised before, equal to what a call with the texts would give.

        Args:
            texts: The texts, the first ones behind their prompt.
            pair_texts: The numbers of each pair's first and second text, int64 `[2, num_pairs]`.
            max_length: Tokens of a pair at most.

        Raises:
            ValueError: `max_length` leaves no room beside the special tokens.
        """
        return self._pairs(self._snapshot(), texts, pair_texts, max_length)

    def _pairs(
        self, snapshot: Snapshot, texts: EncodedTexts, pair_texts: np.ndarray, max_length: int
    ) -> TokenizedPairs:
        room = max_length - snapshot.num_special_tokens
        if room < 1:
            raise ValueError(
                f"max_length: {max_length} leaves no room beside {snapshot.num_special_tokens} special tokens"
            )
        token_ids, text_sizes = texts.token_ids, texts.sizes
        text_starts = np.cumsum(text_sizes) - text_sizes

        full = text_sizes[pair_texts]
        kept = truncate_longest_first(full, room, extra_to_first=snapshot.encoder.extra_to_first)
        begin = text_starts[pair_texts]
        if snapshot.tokenizer.truncation_side == "left":
            begin = begin + full - kept

        starts = np.empty((pair_texts.shape[1], len(snapshot.pieces)), dtype=np.int64)
        sizes = np.empty_like(starts)
        special_start = len(token_ids)
        for column, piece in enumerate(snapshot.pieces):
            if piece.text is None:
                starts[:, column], sizes[:, column] = special_start, len(piece.special_ids)
                special_start += len(piece.special_ids)
            else:
                starts[:, column], sizes[:, column] = begin[piece.text], kept[piece.text]
        special_ids = [token for piece in snapshot.pieces for token in piece.special_ids]
        empty = sizes.sum(axis=1) == 0
        if empty.any():  # only where there are no special tokens: something has to be scored
            starts[empty, 0], sizes[empty, 0] = special_start, 1
            special_ids.append(stand_in(snapshot.tokenizer))
        pairs = TokenizedPairs(
            token_ids=np.concatenate([token_ids, np.array(special_ids, dtype=np.int32)]),
            starts=starts,
            sizes=sizes,
            token_types=np.array([piece.token_type for piece in snapshot.pieces], dtype=np.int32),
        )
        return pairs if self.trailing_id is None else pairs.without_trailing(self.trailing_id)

    def digest(self) -> str:
        """Differs where the tokenizer would give other ids for single texts."""
        return self._snapshot().encoder.digest()

    def pair_digest(self) -> str:
        """Differs where the tokenizer would give other ids for pairs."""
        return digest_of(self.digest(), self.tokenizer.truncation_side, self.trailing_id)

    def remember(self, texts: Iterable[str]) -> None:
        """Tokenises those texts that are new. May run in another thread than the calls."""
        assert self.remembers
        self._remember(self._snapshot(), texts)

    def size_of(self, text: str) -> int:
        """Tokens of a text."""
        return int(self._tokenize(self._snapshot(), [text]).sizes[0])

    def _remember(self, snapshot: Snapshot, texts: Iterable[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in snapshot.memory]
        found = encode(snapshot.encoder, new)
        parts = np.split(found.token_ids, np.cumsum(found.sizes)[:-1])
        snapshot.memory.update(zip(new, parts, strict=True) if new else ())

    def _tokenize(self, snapshot: Snapshot, texts: Iterable[str]) -> EncodedTexts:
        """As `encode`, from memory where there is one."""
        if not self.remembers:
            return encode(snapshot.encoder, texts)
        known = list(texts)
        self._remember(snapshot, known)
        ids = [snapshot.memory[text] for text in known]
        sizes = np.array([len(part) for part in ids], dtype=np.int64)
        return EncodedTexts(np.concatenate(ids or [np.empty(0, dtype=np.int32)]), sizes)


def stand_in(tokenizer: Any) -> int:
    """The token of a pair without any: padding, which is what it would be in a padded batch."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def encode(encoder: FastTokenizer | PythonTokenizer, texts: Iterable[str]) -> EncodedTexts:
    """Tokenises texts, some thousand at a time."""
    ids: list[np.ndarray] = []
    sizes: list[int] = []
    waiting = [well_formed(text) for text in texts]
    for start in range(0, len(waiting), TEXTS_PER_CALL):
        encoded = encoder.encode(waiting[start : start + TEXTS_PER_CALL])
        sizes += map(len, encoded)
        ids.append(np.fromiter(chain.from_iterable(encoded), dtype=np.int32))
    return EncodedTexts(np.concatenate(ids or [np.empty(0, dtype=np.int32)]), np.array(sizes, dtype=np.int64))


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
