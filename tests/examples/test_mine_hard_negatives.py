"""The example that mines negatives, on a few documents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import mine_hard_negatives
import pytest

from fastce import CrossEncoder

Tiny = Callable[..., str]
DOCUMENTS = {
    "bread": "Bread needs flour, water, salt and a little patience.",
    "oven": "How long does it take to bake bread in an oven?",
    "guitar": "A man is playing a guitar on the old stage.",
    "play": "Where can I learn to play an instrument, a guitar perhaps?",
    "ships": "Ships crossed the narrow strait at dawn, one after another!",
}


def test_negatives_are_candidates_below_the_relevant_ones(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTCE_CACHE", str(tmp_path / "cache"))
    rows = [{"_id": name, "title": "", "text": text} for name, text in DOCUMENTS.items()]
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "queries.tsv").write_text("1\tHow is bread baked?\n2\tlearn the guitar\n")
    (tmp_path / "qrels.tsv").write_text("1\toven\t1\n2\tplay\t2\n2\tships\t0\n")
    out = tmp_path / "negatives.jsonl"
    model = CrossEncoder(tiny("bert"))
    queries = {"1": "How is bread baked?", "2": "learn the guitar"}
    for _ in range(2):  # another run finds what is there
        mine_hard_negatives.main(tmp_path, tiny("bert"), out, candidates=4, negatives=2, share=1.0, precision="fp32")
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert [line["positive_ids"] for line in lines] == [["oven"], ["play"]]
        for line in lines:
            pairs = [
                (queries[line["query_id"]], DOCUMENTS[name]) for name in (*line["positive_ids"], *line["negative_ids"])
            ]
            positive, *negative = model.predict(pairs).tolist()
            assert negative == sorted(negative, reverse=True)
            assert all(score < positive for score in negative)
            assert len(negative) <= 2
    assert sum(len(line["negative_ids"]) for line in lines) > 0
