"""Ids must equal those of the tokenizer's own call, for any two texts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import PAIRS, make_byte_bpe, make_wordpiece
from transformers import AutoTokenizer, CanineTokenizer

from fastce.tokenization import PairTokenizer, truncate_longest_first, well_formed

REFERENCE = ["bert-base-uncased", "roberta-base", "xlm-roberta-base", "deberta-v3", "modernbert-base"]
MADE = {"wordpiece": make_wordpiece, "byte-bpe": make_byte_bpe, "python": CanineTokenizer}

WORDS = st.sampled_from(
    ["the", "Cat", "naïve", "😀", "\0", "[SEP]", "</s>", "<pad>", "[PAD]", "\n", " ", "東京", "x" * 40, "\ud800"]
)
TEXTS = st.one_of(
    st.text(max_size=60), st.lists(WORDS, max_size=60).map(" ".join), st.lists(WORDS, max_size=60).map("".join)
)


@cache
def load(folder: Path, name: str) -> tuple[Any, PairTokenizer]:
    tokenizer = MADE[name]() if name in MADE else AutoTokenizer.from_pretrained(folder / name)
    return tokenizer, PairTokenizer(tokenizer)


def one_pair(tokenizer: Any, first: str, second: str, max_length: int) -> dict[str, list[int]]:
    """The tokenizer's own call, with lists of one: without them, transformers takes an empty second text for none."""
    encoded = tokenizer([first], [second], truncation=True, max_length=max_length)
    return {name: values[0] for name, values in encoded.items()}


def assert_same_ids(tokenizer: Any, ours: PairTokenizer, pairs: list[tuple[str, str]], max_length: int) -> None:
    first, second = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    tokenized = ours(first, second, max_length)
    expected = [
        one_pair(tokenizer, well_formed(a), well_formed(b), max_length) for a, b in zip(first, second, strict=True)
    ]
    ids, types = tokenized.assemble(np.arange(len(pairs)))
    assert ids.dtype == types.dtype == np.int32
    assert tokenized.lengths.tolist() == [len(one["input_ids"]) for one in expected]
    assert ids.tolist() == [token for one in expected for token in one["input_ids"]]
    no_types = [[0] * len(one["input_ids"]) for one in expected]
    expected_types = [one.get("token_type_ids", zeros) for one, zeros in zip(expected, no_types, strict=True)]
    assert types.tolist() == [kind for one in expected_types for kind in one]


@pytest.mark.parametrize("name", REFERENCE)
@settings(max_examples=150, deadline=None)
@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4), max_length=st.integers(5, 40))
def test_ids_equal_the_reference_tokenizers(
    reference_tokenizers: Path, name: str, pairs: list[tuple[str, str]], max_length: int
) -> None:
    tokenizer, ours = load(reference_tokenizers, name)
    assert_same_ids(tokenizer, ours, pairs, max_length)


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=100, deadline=None)
@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4), max_length=st.integers(5, 40))
def test_ids_equal_made_tokenizers(name: str, pairs: list[tuple[str, str]], max_length: int) -> None:
    tokenizer, ours = load(Path(), name)
    assert_same_ids(tokenizer, ours, pairs, max_length)


def test_truncation_from_the_left() -> None:
    tokenizer = make_wordpiece()
    tokenizer.truncation_side = "left"
    assert_same_ids(tokenizer, PairTokenizer(tokenizer), PAIRS, max_length=11)


@given(first=st.integers(0, 12), second=st.integers(0, 12), room=st.integers(1, 14))
def test_truncation_keeps_all_that_fits_and_cuts_the_longer(first: int, second: int, room: int) -> None:
    kept = truncate_longest_first(np.array([[first], [second]]), room, extra_to_first=False).ravel()
    assert kept.sum() == min(first + second, room)
    assert abs(int(kept[0]) - int(kept[1])) <= 1 or kept.tolist() == [first, second] or min(kept) == min(first, second)


def test_stored_truncation_and_padding_do_not_apply(minilm: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    assert tokenizer.backend_tokenizer.truncation is not None, (
        "the file must carry truncation for this to mean anything"
    )
    tokenized = PairTokenizer(tokenizer)(["word " * 300], ["short"], 512)
    assert tokenized.lengths.tolist() == [304]


def test_the_tokenizers_state_is_neither_read_nor_written() -> None:
    tokenizer = make_wordpiece()
    ours = PairTokenizer(tokenizer)
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    assert ours(["a man is playing"], ["a guitar"], 30).lengths[0] > 5
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 3
    assert tokenizer.backend_tokenizer.padding["length"] == 50


def test_added_tokens_are_noticed() -> None:
    tokenizer = make_wordpiece()
    ours = PairTokenizer(tokenizer)
    tokenizer.add_tokens(["[NEW]"])
    assert_same_ids(tokenizer, ours, [("one [NEW] two", "[NEW]")], max_length=20)


def test_each_distinct_text_is_tokenized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = PairTokenizer(make_wordpiece())
    seen: list[str] = []
    encode = ours._encoder.encode
    monkeypatch.setattr(ours._encoder, "encode", lambda texts: (seen.extend(texts), encode(texts))[1])
    ours(["query"] * 50, [f"document {number % 10}" for number in range(50)], 40)
    assert sorted(seen) == sorted({"query", *(f"document {number}" for number in range(10))})


def test_threads_share_one_tokenizer() -> None:
    ours = PairTokenizer(make_wordpiece())
    first, second = zip(*PAIRS, strict=True)
    expected = ours(first, second, 20).assemble(np.arange(len(PAIRS)))[0]
    with ThreadPoolExecutor(8) as threads:
        for tokenized in threads.map(lambda _: ours(first, second, 20), range(32)):
            assert (tokenized.assemble(np.arange(len(PAIRS)))[0] == expected).all()


def test_a_ten_megabyte_text() -> None:
    tokenizer = make_wordpiece()
    assert_same_ids(
        tokenizer, PairTokenizer(tokenizer), [("a guitar! " * 1000 + "x" * 10_000_000, "yes")], max_length=64
    )


def test_no_pairs() -> None:
    tokenized = PairTokenizer(make_wordpiece())([], [], 20)
    assert len(tokenized) == 0
    assert tokenized.assemble(np.arange(0))[0].tolist() == []


def test_max_length_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="max_length: 3 leaves no room beside 3 special tokens"):
        PairTokenizer(make_wordpiece())(["a"], ["b"], 3)


def test_lone_surrogates_become_replacement_characters() -> None:
    assert well_formed("a\ud800b") == "a\ufffdb"
    assert well_formed("\ud83d\ude00") == "😀"
    assert well_formed("plain") == "plain"
