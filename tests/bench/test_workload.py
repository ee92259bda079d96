from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_models import make_tokenizer

from fastce.bench.workload import draw_lengths, generate_pairs, make_workload, parse_distribution, ranking_pairs
from fastce.tokenization import PairTokenizer


def test_lognormal_lengths_have_the_mean_and_a_long_tail() -> None:
    lengths = draw_lengths("lognormal:65", 1000, 4, 512)
    assert lengths.mean() == pytest.approx(65, abs=0.5)
    assert np.median(lengths) == pytest.approx(65 * np.exp(-(0.5**2) / 2), abs=1)
    assert np.log(lengths).std() == pytest.approx(0.5, abs=0.02)
    assert not np.array_equal(lengths, np.sort(lengths))


def test_lengths_stay_within_what_the_model_takes() -> None:
    lengths = draw_lengths("lognormal:65", 1000, 30, 128)
    assert (lengths.min(), lengths.max()) == (30, 128)
    assert set(draw_lengths("fixed:128", 10, 4, 512)) == {128}
    assert set(draw_lengths("fixed:128", 10, 4, 100)) == {100}


@pytest.mark.parametrize("text", ["lognormal", "lognormal:", "lognormal:x", "uniform:3", "fixed:0", "fixed:nan", ""])
def test_other_distributions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected lognormal:MEAN_TOKENS or fixed:MEAN_TOKENS"):
        parse_distribution(text)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_made_pairs_have_the_lengths_asked_for(family: str) -> None:
    tokenizer = make_tokenizer(family)
    pairs = generate_pairs(tokenizer, "lognormal:20", 50, 64)
    assert pairs == generate_pairs(tokenizer, "lognormal:20", 50, 64)
    special = PairTokenizer(tokenizer).num_special_tokens
    first, second = zip(*pairs, strict=True)
    lengths = PairTokenizer(tokenizer)(first, second, 64).lengths
    assert np.array_equal(lengths, draw_lengths("lognormal:20", 50, special + 2, 64))
    assert all(text for pair in pairs for text in pair)


def test_pairs_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(["a guitar", "the stage " * number]) + "\n" for number in range(1, 6)))
    workload = make_workload(make_tokenizer("bert"), 12, source=str(file), distribution="fixed:9", num_pairs=4)
    assert workload.pairs[1] == ("a guitar", "the stage the stage ")
    assert workload.summary() == {
        "source": "pairs.jsonl",
        "num_pairs": 4,
        "tokens": 7 + 9 + 11 + 12,
        "mean": 9.8,
        "p50": 10.0,
        "p90": 11.7,
        "max": 12,
    }
    file.write_text("")
    with pytest.raises(ValueError, match="no pairs"):
        make_workload(make_tokenizer("bert"), 12, source=str(file), distribution="fixed:9", num_pairs=4)


def test_ranking_pairs_share_the_query() -> None:
    assert ranking_pairs([("q", "a"), ("r", "b")], 3) == [("q", "a"), ("q", "b"), ("q", "a")]
