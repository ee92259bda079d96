"""(1) Pairs of texts as messages of a chat template: what language models read in place of two texts.

The result equals what sentence-transformers feeds such a model, padding aside: the whole text of a pair is tokenised as
one, since words merge across the borders of a template's parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fastce.text_tokenizers import digest_of
from fastce.tokenization import PairTokenizer, TokenizedPairs

FILLINGS = (("0", "0"), ("1 2 3 4", "1 2 3 4"), ("1 2 3 4", "0"), ("0", "1 2 3 4"))
"""Pairs that show what of a rendered text is the template's."""


class TemplateTokenizer(PairTokenizer):
    """A Hugging Face tokenizer with a chat template, used without touching its state.

    Args:
        tokenizer: The model's tokenizer.
        message_format: How texts stand in messages, `"flat"` or `"structured"`.
        remembers: Whether to keep the ids of every rendered pair.
    """

    joins_texts = False

    def __init__(self, tokenizer: Any, message_format: str, *, remembers: bool = False):
        super().__init__(tokenizer, remembers=remembers)
        self.message_format = message_format

    def __reduce__(self) -> tuple[Any, ...]:
        return pair_tokenizer, (self.tokenizer, self.message_format, self.remembers)

    def __call__(
        self, first: Sequence[str], second: Sequence[str], max_length: int, prompt: str | None = None
    ) -> TokenizedPairs:
        """Renders and tokenises pairs.

        Args:
            first: The query of each pair.
            second: The document of each pair, as many.
            max_length: Tokens of a pair at most. Longer ones lose the last ones before the template's end.
            prompt: The system message; None: none, which leaves the template its own.

        Raises:
            ValueError: The template does not show both texts, or `max_length` leaves no room beside its end.
        """
        snapshot = self._snapshot()
        end = self._end(prompt)  # token ids
        room = max_length - len(end)
        if room < 1:
            raise ValueError(f"max_length: {max_length} leaves no room beside {len(end)} tokens of the template's end")
        rendered = self._tokenize(snapshot, self._rendered(zip(first, second, strict=True), prompt))
        ids, sizes = rendered.token_ids, rendered.sizes
        starts = np.cumsum(sizes) - sizes
        is_long = sizes > max_length
        return TokenizedPairs(
            token_ids=np.concatenate([ids, np.array(end, dtype=np.int32)]),
            starts=np.stack([starts, np.full_like(starts, len(ids))], axis=1),
            sizes=np.stack([np.where(is_long, room, sizes), np.where(is_long, len(end), 0)], axis=1),
            token_types=np.zeros(2, dtype=np.int32),
        )

    def remember(self, texts: Iterable[str]) -> None:
        """Does nothing: texts are tokenised inside of their pairs only."""

    def pair_digest(self) -> str:
        """See `PairTokenizer`."""
        return digest_of(super().pair_digest(), self.message_format, self.tokenizer.chat_template)

    def _rendered(self, pairs: Iterable[tuple[str, str]], prompt: str | None) -> list[str]:
        conversations = [messages(pair, prompt, self.message_format) for pair in pairs]
        texts: list[str] = self.tokenizer.apply_chat_template(conversations, tokenize=False) if conversations else []
        return texts

    def _end(self, prompt: str | None) -> tuple[int, ...]:
        """Tokens that the template has behind the texts."""
        return template_end(tuple(self._rendered(FILLINGS, prompt)), self._snapshot().encoder)


def messages(pair: tuple[str, str], prompt: str | None, message_format: str) -> list[dict[str, Any]]:
    """A pair as a conversation of a query and a document, behind a system message where there is a prompt."""
    roles = {"system": prompt, "query": pair[0], "document": pair[1]}
    is_flat = message_format == "flat"
    return [
        {"role": role, "content": text if is_flat else [{"type": "text", "text": text}]}
        for role, text in roles.items()
        if text is not None
    ]


@lru_cache(maxsize=64)
def template_end(rendered: tuple[str, ...], encoder: Any) -> tuple[int, ...]:
    """The tokens that a template has behind the texts, none where nobody can tell.

    Args:
        rendered: The template with each of `FILLINGS`.
        encoder: Encodes single texts.

    Raises:
        ValueError: The template does not show both texts.
    """
    plain, both, query, document = rendered
    if plain in (query, document) or both in (query, document):
        raise ValueError("the tokenizer's chat template does not show the messages of both roles, query and document")
    one, other = encoder.encode([plain, both])
    count = 0
    while count < min(len(one), len(other)) and one[-1 - count] == other[-1 - count]:
        count += 1
    return tuple(one[len(one) - count :]) if count < min(len(one), len(other)) else ()


def pair_tokenizer(
    tokenizer: Any, message_format: str | None, remembers: bool = False, trailing_id: int | None = None
) -> PairTokenizer:
    """What tokenises a model's pairs: through its chat template where it has one.

    Args:
        tokenizer: The model's tokenizer.
        message_format: How texts stand in messages; None: texts stand for themselves.
        remembers: See `PairTokenizer`, as for the next.
        trailing_id: Of no effect behind a template's end.
    """
    if message_format is None:
        return PairTokenizer(tokenizer, remembers=remembers, trailing_id=trailing_id)
    return TemplateTokenizer(tokenizer, message_format, remembers=remembers)
