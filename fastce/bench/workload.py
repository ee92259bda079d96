"""What is scored: pairs from a file, or random words with lengths that follow a distribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from math import exp, log
from statistics import NormalDist
from typing import Any

import numpy as np

from fastce.pair_files import read_pairs
from fastce.tokenization import PairTokenizer

Pair = tuple[str, str]

LOGNORMAL_SIGMA = 0.5
"""Spread of `lognormal`: the logarithms of passage lengths in rankings have about this standard deviation."""

QUERY_TOKENS = 8
"""Tokens of a generated pair's first text, like a query; a pair too short for that is cut in two halves."""

WORDS = 2000
"""Distinct words of generated texts at most."""


@dataclass(frozen=True)
class Workload:
    """Pairs and what is known about them.

    Attributes:
        pairs: The pairs.
        lengths: Tokens of each pair after truncation, special ones included, int64 `[num_pairs]`.
        source: Where the pairs came from, in words.
    """

    pairs: list[Pair]
    lengths: np.ndarray
    source: str

    def summary(self) -> dict[str, float | int | str]:
        """Source, number and lengths of the pairs, for reports."""
        return {
            "source": self.source,
            "num_pairs": len(self.pairs),
            "tokens": int(self.lengths.sum()),
            "mean": round(float(self.lengths.mean()), 1),
            "p50": round(float(np.percentile(self.lengths, 50)), 1),
            "p90": round(float(np.percentile(self.lengths, 90)), 1),
            "max": int(self.lengths.max()),
        }


def lognormal(mean: float, shares: np.ndarray) -> np.ndarray:
    """Quantiles of a log-normal distribution with this mean and `LOGNORMAL_SIGMA`."""
    median = log(mean) - LOGNORMAL_SIGMA**2 / 2
    normal = NormalDist()
    return np.array([exp(median + LOGNORMAL_SIGMA * normal.inv_cdf(share)) for share in shares])


def fixed(length: float, shares: np.ndarray) -> np.ndarray:
    """The same length everywhere."""
    return np.full(len(shares), length)


DISTRIBUTIONS: dict[str, Callable[[float, np.ndarray], np.ndarray]] = {"lognormal": lognormal, "fixed": fixed}
"""Names to quantile functions: `(mean, shares [n]) -> lengths [n]`."""


def parse_distribution(text: str) -> tuple[str, float]:
    """Reads a distribution such as `"lognormal:65"`.

    Returns:
        A name in `DISTRIBUTIONS` and the mean length in tokens.

    Raises:
        ValueError: The text is none.
    """
    name, _, number = text.partition(":")
    try:
        mean = float(number)
    except ValueError:
        mean = 0.0
    if name not in DISTRIBUTIONS or not mean >= 1:
        expected = " or ".join(f"{known}:MEAN_TOKENS" for known in DISTRIBUTIONS)
        raise ValueError(f"lengths: expected {expected}, such as lognormal:65, got {text!r}")
    return name, mean


def draw_lengths(distribution: str, count: int, shortest: int, longest: int) -> np.ndarray:
    """Lengths at evenly spaced quantiles of a distribution, shuffled: few pairs follow it as well as many.

    Args:
        distribution: As for `parse_distribution`.
        count: How many lengths.
        shortest: The least length, in tokens.
        longest: The greatest.

    Returns:
        int64 `[count]`.
    """
    name, mean = parse_distribution(distribution)
    shares = (np.arange(count) + 0.5) / count
    lengths = np.clip(np.rint(DISTRIBUTIONS[name](mean, shares)), shortest, longest).astype(np.int64)
    return np.random.default_rng(0).permutation(lengths)


def single_token_words(tokenizer: Any) -> list[str]:
    """Words of a tokenizer's vocabulary that are one token each, at the start of a text and within it.

    Raises:
        ValueError: The vocabulary has none.
    """
    order = np.random.default_rng(0).permutation(sorted(tokenizer.get_vocab().values()))
    special = set(tokenizer.all_special_ids)
    words: list[str] = []
    for start in range(0, len(order), WORDS):
        numbers = [int(number) for number in order[start : start + WORDS] if int(number) not in special]
        decoded = (tokenizer.decode([number]).strip() for number in numbers)
        candidates = sorted({text for text in decoded if text.isalpha() and text.isascii()})
        if candidates:
            twice = [f"{text} {text}" for text in candidates]
            encoded = tokenizer(twice, add_special_tokens=False)["input_ids"]
            words += [text for text, tokens in zip(candidates, encoded, strict=True) if len(tokens) == 2]
        if len(words) >= WORDS:
            break
    if not words:
        raise ValueError("the tokenizer's vocabulary has no words to make texts of; give pairs in a file")
    return words[:WORDS]


def generate_pairs(tokenizer: Any, distribution: str, count: int, max_length: int) -> list[Pair]:
    """Makes pairs of random words, the same ones each time.

    Args:
        tokenizer: The model's tokenizer.
        distribution: As for `parse_distribution`: tokens of a pair, special ones included.
        count: How many pairs.
        max_length: Tokens of a pair at most.

    Raises:
        ValueError: `distribution` is none, or the tokenizer has no words.
    """
    special = PairTokenizer(tokenizer).num_special_tokens
    lengths = draw_lengths(distribution, count, special + 2, max_length)
    words = single_token_words(tokenizer)
    random = np.random.default_rng(0)
    pairs = []
    for length in lengths - special:
        chosen = [words[number] for number in random.integers(len(words), size=length)]
        cut = min(QUERY_TOKENS, length // 2)
        pairs.append((" ".join(chosen[:cut]), " ".join(chosen[cut:])))
    return pairs


def make_workload(
    tokenizer: Any, max_length: int, *, source: str | None, distribution: str, num_pairs: int | None
) -> Workload:
    """Reads or makes pairs, and counts their tokens.

    Args:
        tokenizer: The model's tokenizer.
        max_length: Tokens of a pair at most.
        source: A file as `fastce score` takes; None makes pairs.
        distribution: Lengths of the pairs to make.
        num_pairs: How many: None takes the whole file or makes 512.

    Raises:
        ValueError: There are no pairs, or see `generate_pairs` and `fastce.pair_files.read_pairs`.
    """
    if source is None:
        pairs = generate_pairs(tokenizer, distribution, num_pairs or 512, max_length)
    else:
        pairs = list(islice(read_pairs(source), num_pairs))
    if not pairs:
        raise ValueError(f"{source}: no pairs")
    first, second = zip(*pairs, strict=True)
    lengths = PairTokenizer(tokenizer)(first, second, max_length).lengths
    return Workload(pairs, lengths, f"random words, {distribution}" if source is None else source.rpartition("/")[2])


def ranking_pairs(pairs: list[Pair], count: int) -> list[Pair]:
    """One query with `count` documents: the first pair's query and the texts that follow, from the start again."""
    query = pairs[0][0]
    return [(query, pairs[number % len(pairs)][1]) for number in range(count)]
