"""What a Hugging Face tokenizer makes of single texts, and where it puts them in a pair."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from types import NoneType
from typing import Any, NamedTuple

import tokenizers
from tokenizers import Tokenizer, normalizers, pre_tokenizers


class Piece(NamedTuple):
    """A part of a pair's template: special tokens, or the place of the first (0) or second (1) text."""

    token_type: int
    special_ids: tuple[int, ...]
    text: int | None


NORMALIZED = "Ａﬁ①㌔ｶﾞ½ÅÉß…\u00a0\u00ad\u200b\t\n\ufeff한글Ω東"
"""Characters that Unicode's normal forms, and those of SentencePiece, treat differently."""

MODEL_OPTIONS = (
    "unk_token",
    "continuing_subword_prefix",
    "max_input_chars_per_word",
    "end_of_word_suffix",
    "dropout",
    "fuse_unk",
    "byte_fallback",
    "ignore_merges",
    "alpha",
    "nbest_size",
)
"""What can be set about the models of the tokenizers library, whichever of it they have."""


def part_state(part: Any) -> object:
    """What differs between parts that work differently, in microseconds.

    SentencePiece's table of characters is compared by what it makes of a few, for it is longer than most texts. A part
    written in Python has no state that can be seen, and differs from itself.
    """
    if isinstance(part, normalizers.Precompiled):
        return part.normalize_str(NORMALIZED)
    if type(part) in (normalizers.Sequence, pre_tokenizers.Sequence):
        return tuple(part_state(own) for own in part)
    try:
        return None if part is None else part.__getstate__()
    except Exception as error:  # the library raises no narrower one
        if "cannot be serialized" not in str(error):
            raise
        return object()


def model_state(model: Any) -> object:
    """What differs between models of tokens: their kind, their options and a few of their tokens."""
    options = tuple(getattr(model, name, None) for name in MODEL_OPTIONS)
    return type(model), options, tuple(model.id_to_token(number) for number in (0, 1, 10, 100, 1000, 10_000))


def digest_of(*facts: object) -> str:
    """A digest of what facts show of themselves, in hexadecimal digits."""
    return hashlib.blake2b("\0".join(map(str, facts)).encode(errors="surrogatepass"), digest_size=16).hexdigest()


class FastTokenizer:
    """A tokenizer of the tokenizers library with the parts of another, but without truncation and padding."""

    extra_to_first = False

    def __init__(self, tokenizer: Any):
        """Raises ValueError where another model was put in that has no place for the added tokens."""
        backend = tokenizer.backend_tokenizer
        self.own = Tokenizer(backend.model)
        for name in ("normalizer", "pre_tokenizer", "post_processor"):
            part = getattr(backend, name)
            if part is not None:
                setattr(self.own, name, part)
        added = backend.get_added_tokens_decoder()
        self.own.add_tokens([added[number] for number in sorted(added)])
        if (numbered := self.own.get_added_tokens_decoder()) != added:
            raise ValueError(
                f"the tokenizer's added tokens have the ids {sorted(added)}, and its model would have them at "
                f"{sorted(numbered)}; add them again, or load the tokenizer with that model"
            )
        self.own.encode_special_tokens = tokenizer.split_special_tokens
        self.has_token_types = "token_type_ids" in tokenizer.model_input_names

    @staticmethod
    def state(tokenizer: Any) -> object:
        """What differs when the tokenizer has been changed."""
        backend = tokenizer.backend_tokenizer
        return (
            *map(part_state, (backend.normalizer, backend.pre_tokenizer, backend.post_processor)),
            model_state(backend.model),
            backend.get_vocab_size(),
            backend.get_added_tokens_decoder(),
            tokenizer.split_special_tokens,
            tuple(tokenizer.model_input_names),
        )

    def digest(self) -> str:
        """Differs where a tokenizer would give other ids."""
        return digest_of(tokenizers.__version__, self.own.to_str(), self.own.encode_special_tokens)

    def probes(self) -> Iterator[str]:
        """Texts that may have tokens: an alphabet need not be that of words."""
        added = self.own.get_added_tokens_decoder()
        for number in range(self.own.get_vocab_size()):
            if number not in added and (token := self.own.id_to_token(number)):
                yield token
        yield from self.own.get_vocab(with_added_tokens=False)  # where the numbers have gaps

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        return [encoding.ids for encoding in self.own.encode_batch_fast(texts, add_special_tokens=False)]

    def pair(self, first: str, second: str) -> tuple[list[int], list[int], list[int | None]]:
        """Ids, token types and texts (None for special tokens) of a pair with its special tokens."""
        encoding = self.own.encode(first, second)
        types = encoding.type_ids if self.has_token_types else [0] * len(encoding.ids)
        return encoding.ids, types, encoding.sequence_ids


class PythonTokenizer:
    """A tokenizer written in Python, which has no state to protect."""

    extra_to_first = True

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    @staticmethod
    def state(tokenizer: Any) -> object:
        """What differs when the tokenizer has been changed: its options, and those of what it is made of."""
        made_of = [tokenizer, *(part for part in vars(tokenizer).values() if hasattr(part, "__dict__"))]
        options = [
            (name, value)
            for part in made_of
            for name, value in vars(part).items()
            if isinstance(value, (str, int, float, NoneType))
        ]
        return options, len(tokenizer), repr(tokenizer.added_tokens_decoder), template(PythonTokenizer(tokenizer))

    def digest(self) -> str:
        """Differs where a tokenizer would give other ids; see `FastTokenizer.digest`."""
        return digest_of(self.state(self.tokenizer), sorted(self.tokenizer.get_vocab().items()))

    def probes(self) -> Iterator[str]:
        """Texts that may have tokens."""
        return iter(("one", "two two"))

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        return [self.tokenizer.encode(text, add_special_tokens=False) for text in texts]

    def pair(self, first: str, second: str) -> tuple[list[int], list[int], list[int | None]]:
        """Ids, token types and texts (None for special tokens) of a pair with its special tokens."""
        encoding = self.tokenizer(first, second, return_special_tokens_mask=True)
        ids, special = encoding["input_ids"], encoding["special_tokens_mask"]
        split = special.index(0) + len(self.encode([first])[0])  # the first text ends here
        texts = [None if special[at] else int(at >= split) for at in range(len(ids))]
        return ids, encoding.get("token_type_ids", [0] * len(ids)), texts


def template(encoder: FastTokenizer | PythonTokenizer) -> tuple[Piece, ...]:
    """Learns from one example where a tokenizer puts the special tokens of a pair.

    Raises:
        ValueError: The tokenizer has no tokens, or does more to a pair than surround its texts with special tokens.
    """
    probed = ((text, ids) for text in encoder.probes() if (ids := encoder.encode([text])[0]))
    first = next(probed, ("", []))
    second = next((other for other in probed if other[1] != first[1]), first)
    if not first[1]:
        raise ValueError("the tokenizer has no tokens but special ones")
    tokens = (first[1], second[1])
    ids, types, texts = encoder.pair(first[0], second[0])
    pieces: list[Piece] = []
    at = 0
    while at < len(ids):
        text = texts[at]
        if text is None:
            size, piece = 1, Piece(types[at], (ids[at],), None)
            if pieces and pieces[-1].text is None and pieces[-1].token_type == types[at]:
                piece = Piece(types[at], (*pieces.pop().special_ids, ids[at]), None)
        else:
            size, piece = len(tokens[text]), Piece(types[at], (), text)
            if ids[at : at + size] != tokens[text] or len(set(types[at : at + size])) != 1:
                raise ValueError("the tokenizer's pair template is not texts surrounded by special tokens")
        pieces.append(piece)
        at += size
    if sorted(piece.text for piece in pieces if piece.text is not None) != [0, 1]:
        raise ValueError("the tokenizer's pair template does not hold both texts once")
    return tuple(pieces)
