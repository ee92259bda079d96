"""Ids must equal those of the tokenizer's own call, for any two texts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import PAIRS, make_byte_bpe, make_wordpiece
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, BertJapaneseTokenizer, CanineTokenizer, PreTrainedTokenizerFast

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


class Upper:
    """A normalizer written in Python."""

    def normalize(self, text: Any) -> None:
        text.map(str.upper)


def set_part(name: str, part: Any) -> Callable[[Any], None]:
    return lambda tokenizer: setattr(tokenizer.backend_tokenizer, name, part)


def template_of(pair: str) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(single="[CLS] $A", pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)])


SPECIAL = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
CHANGES: dict[str, Callable[[Any], Any]] = {
    "normalizer": set_part("normalizer", normalizers.NFD()),
    "normalizer in place": lambda tokenizer: setattr(tokenizer.backend_tokenizer.normalizer, "lowercase", False),
    "normalizers in a sequence": set_part(
        "normalizer", normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace("man", "woman")])
    ),
    "normalizer in Python": set_part("normalizer", normalizers.Normalizer.custom(Upper())),
    "pre-tokenizer": set_part("pre_tokenizer", pre_tokenizers.WhitespaceSplit()),
    "post-processor": set_part("post_processor", template_of("[CLS] $A [SEP] $B [SEP]")),
    "texts in another order": set_part("post_processor", template_of("[CLS] $B [SEP] $A:1")),
    "model": set_part("model", models.WordPiece(SPECIAL | {"a": 9}, unk_token="[UNK]")),
    "model's options": lambda tokenizer: setattr(tokenizer.backend_tokenizer.model, "max_input_chars_per_word", 2),
    "added token": lambda tokenizer: tokenizer.add_tokens(["[NEW]"]),
    "added token's flags": lambda tokenizer: tokenizer.add_tokens([AddedToken("[SEP]", single_word=True)]),
    "special tokens split": lambda tokenizer: setattr(tokenizer, "split_special_tokens", True),
    "side of truncation": lambda tokenizer: setattr(tokenizer, "truncation_side", "left"),
    "names of inputs": lambda tokenizer: setattr(tokenizer, "model_input_names", ["input_ids"]),
}
TELLING = [("A man IS plÁying [NEW]", "a[SEP]b guitar, man"), ("the old stage " * 9, "naïve [SEP] [NEW] " * 9)]


@pytest.mark.parametrize("remembers", [False, True])
@pytest.mark.parametrize("name", CHANGES)
def test_what_is_changed_about_a_tokenizer_counts_from_the_next_call(name: str, remembers: bool) -> None:
    tokenizer = make_wordpiece()
    ours = PairTokenizer(tokenizer, remembers=remembers)
    before = ours(*zip(*TELLING, strict=True), 20)
    before_all = [part.tolist() for part in before.assemble(np.arange(len(TELLING)))]
    CHANGES[name](tokenizer)
    assert_same_ids(tokenizer, ours, TELLING, max_length=20)
    after = ours(*zip(*TELLING, strict=True), 20)
    assert [part.tolist() for part in after.assemble(np.arange(len(TELLING)))] != before_all


def test_a_model_without_a_place_for_the_added_tokens_is_refused() -> None:
    tokenizer = make_wordpiece()
    ours = PairTokenizer(tokenizer)
    tokenizer.backend_tokenizer.model = models.WordPiece({"[UNK]": 1, "a": 7}, unk_token="[UNK]")
    with pytest.raises(
        ValueError, match=r"added tokens have the ids \[0, 1, 2, 3, 4\], and its model would have them at"
    ):
        ours(["a"], ["a"], 20)


@pytest.mark.parametrize("remembers", [False, True])
def test_what_is_changed_about_a_python_tokenizer_counts_from_the_next_call(tmp_path: Path, remembers: bool) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "A", "b", "B"]))
    tokenizer = BertJapaneseTokenizer(str(tmp_path / "vocab.txt"), word_tokenizer_type="basic")
    ours = PairTokenizer(tokenizer, remembers=remembers)
    changes: list[Callable[[], Any]] = [
        lambda: None,
        lambda: setattr(tokenizer.word_tokenizer, "do_lower_case", True),
        lambda: setattr(tokenizer, "cls_token", "[MASK]"),
        lambda: tokenizer.add_tokens(["c"]),
    ]
    seen = []
    for change in changes:
        change()
        assert_same_ids(tokenizer, ours, [("A b", "B c a")], max_length=20)
        seen.append(ours(["A b"], ["B c a"], 20).assemble(np.arange(1))[0].tolist())
    assert len({tuple(ids) for ids in seen}) == len(changes)


def test_a_table_of_characters_is_compared(reference_tokenizers: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(reference_tokenizers / "xlm-roberta-base")
    ours = PairTokenizer(tokenizer)
    backend = tokenizer.backend_tokenizer
    table = backend.normalizer
    for changed in (normalizers.Sequence([table, normalizers.Lowercase()]), normalizers.NFC(), table):
        backend.normalizer = changed
        assert_same_ids(tokenizer, ours, [("ｶﾞ Ångström½", "ﬁne PRINT ①")], max_length=20)


def make_protein_bpe() -> PreTrainedTokenizerFast:
    """Amino acids and no word of any language; other letters have no token, not even an unknown one."""
    pieces = ["<cls>", "<pad>", "<eos>", *"MKVLAT", "MK", "VL"]
    tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, [("M", "K"), ("V", "L")]))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<cls> $A <eos>", pair="<cls> $A <eos> $B <eos>", special_tokens=[("<cls>", 0), ("<eos>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", cls_token="<cls>", eos_token="<eos>")


def make_word_level() -> PreTrainedTokenizerFast:
    """A tokenizer that raises for a word that it does not know."""
    tokenizer = Tokenizer(models.WordLevel({"<s>": 0, "gly": 1, "ala": 2}))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, cls_token="<s>")


def test_alphabets_without_words() -> None:
    proteins = make_protein_bpe()
    pairs = [("MKVL", "ATMK"), ("MKVLAAT" * 5, "one V"), ("one", "two"), ("", "M")]
    assert_same_ids(proteins, PairTokenizer(proteins), pairs, max_length=12)
    words = make_word_level()
    assert_same_ids(words, PairTokenizer(words), [("gly ala", "ala"), ("gly " * 9, "ala")], max_length=8)


def test_each_distinct_text_is_tokenized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = PairTokenizer(make_wordpiece())
    seen: list[str] = []
    encoder = ours._snapshot().encoder
    encode = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda texts: (seen.extend(texts), encode(texts))[1])
    ours(["query"] * 50, [f"document {number % 10}" for number in range(50)], 40)
    assert sorted(seen) == sorted({"query", *(f"document {number}" for number in range(10))})


def test_threads_share_one_tokenizer() -> None:
    ours = PairTokenizer(make_wordpiece())
    first, second = zip(*PAIRS, strict=True)
    expected = ours(first, second, 20).assemble(np.arange(len(PAIRS)))[0]
    with ThreadPoolExecutor(8) as threads:
        for tokenized in threads.map(lambda _: ours(first, second, 20), range(32)):
            assert (tokenized.assemble(np.arange(len(PAIRS)))[0] == expected).all()


@pytest.mark.stress
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
