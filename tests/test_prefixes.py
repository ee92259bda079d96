"""Prefixes that pairs share: which are found, that nothing is lost, and that scores stay bit for bit what they were."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORKS, Parameters, random_batch, request
from tiny_models import SENTENCES

from fastce import CrossEncoder
from fastce.backends.base import load_backend
from fastce.packing import PackedBatch, Spans
from fastce.pipeline import Window
from fastce.prefixes import FEWEST_TOKENS, SharedPrefix, best_prefixes, share_prefixes
from fastce.spec import Precision

_core = pytest.importorskip("fastce._core", reason="the C++ module was not built")

LOOK_BACK = ["causal, last token", "causal window, last token", "as Qwen"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")


def batch_of(sequences: list[list[int]]) -> PackedBatch:
    """Token ids as a batch."""
    spans = Spans.of([len(sequence) for sequence in sequences])
    ids = torch.tensor([token for sequence in sequences for token in sequence], dtype=torch.int32)
    places = torch.tensor([place for sequence in sequences for place in range(len(sequence))], dtype=torch.int32)
    return PackedBatch(ids, torch.zeros_like(ids), places, spans)


def restored(batch: PackedBatch) -> list[list[int]]:
    """The token ids of each pair, its prefix included."""
    sequences = [part.tolist() for part in batch.input_ids.split(list(batch.spans.lengths))]
    if batch.prefixes is None:
        return sequences
    pairs = sequences[len(sequences) - len(batch.prefixes) :]
    return [
        ([] if prefix < 0 else sequences[prefix]) + own
        for own, prefix in zip(pairs, batch.prefixes.tolist(), strict=True)
    ]


def saved_by_trying_all(shared: list[int]) -> int:
    """The most that can be saved, by trying every way to cut the sequences into runs."""
    best = [0]
    for end in range(1, len(shared) + 2):
        savings = [best[end - 1]]
        for first in range(end - 1):
            tokens = min(shared[first : end - 1])
            if tokens >= FEWEST_TOKENS:
                savings.append(best[first] + tokens * (end - first - 1))
        best.append(max(savings))
    return best[-1]


@given(st.lists(st.integers(0, 40), max_size=12))
@settings(max_examples=400, derandomize=True, deadline=None)
def test_the_best_prefixes_are_found(shared: list[int]) -> None:
    found = best_prefixes(shared)
    assert all(prefix.tokens == min(shared[prefix.first : prefix.end - 1]) for prefix in found)
    assert all(one.end <= other.first for one, other in pairwise(found))
    assert sum(prefix.saved for prefix in found) == saved_by_trying_all(shared)


def test_a_query_beats_the_template_that_all_share() -> None:
    template, queries = [60] * 99, [90, 90, 60, 85, 85]
    assert best_prefixes(queries) == [SharedPrefix(0, 3, 90), SharedPrefix(3, 6, 85)]
    assert best_prefixes(template) == [SharedPrefix(0, 100, 60)]


@given(st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=30), min_size=1, max_size=20), st.integers(0, 60))
@settings(max_examples=200, derandomize=True, deadline=None)
def test_no_token_is_lost(tails: list[list[int]], most: int) -> None:
    sequences = sorted([3] * 10 + tail for tail in tails)
    shared = share_prefixes(batch_of(sequences), most)
    assert restored(shared) == sequences
    assert shared.prefixes is None or sum(shared.spans.lengths[: -len(sequences)]) <= most
    places = [part.tolist() for part in shared.position_ids.split(list(shared.spans.lengths))][-len(sequences) :]
    assert [part[-1] for part in places] == [len(sequence) - 1 for sequence in sequences]


def test_equal_pairs_keep_a_token_each() -> None:
    shared = share_prefixes(batch_of([[5] * 20] * 3), 1000)
    assert shared.spans.lengths == (19, 1, 1, 1)


@pytest.mark.parametrize("isa", _core.isa_levels())
@pytest.mark.parametrize("name", LOOK_BACK)
def test_scores_are_those_of_pairs_alone(name: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCE_ISA", isa)
    encoder, _ = NETWORKS[name]
    lengths = [40, 33, 90, 64, 49, 20, 97, 17, 100]
    batch = random_batch(encoder, lengths)
    for first, end, tokens in ((0, 5, 32), (5, 8, 16), (3, 5, 47)):
        rows = batch.spans.cu_seqlens[first:end].long().unsqueeze(1) + torch.arange(tokens)
        batch.input_ids[rows] = batch.input_ids[rows[0]].clone()
        batch.token_type_ids[rows] = batch.token_type_ids[rows[0]].clone()
    shared = share_prefixes(batch, 1000)
    assert shared.prefixes is not None
    assert shared.prefixes.tolist() in ([0, 0, 0, 0, 0, 1, 1, 1, -1], [1, 1, 1, 0, 0, 2, 2, 2, -1])
    for precision in PRECISIONS:
        engine = load_backend("cpp").build(request(NETWORKS[name], Parameters(*NETWORKS[name]), precision))
        expected = engine.logits(batch, 1)
        for num_threads in (1, 2, 7):
            assert torch.equal(engine.logits(shared, num_threads), expected), precision
        few = share_prefixes(batch, 20)
        assert few.prefixes is not None
        assert torch.equal(engine.logits(few, 2), expected)


@pytest.mark.parametrize(
    "name", ["as BERT", "causal", "bias by distance, causal", "disentangled, causal window", "mean"]
)
def test_where_tokens_look_ahead_there_are_no_prefixes(name: str) -> None:
    engine = load_backend("cpp").build(request(NETWORKS[name], Parameters(*NETWORKS[name])))
    assert engine.shared_bytes == 0
    with pytest.raises(ValueError, match=r"^prefixes: tokens of this network depend on those behind them$"):
        engine.logits(share_prefixes(batch_of([[5] * 20] * 3), 1000))


def test_prefixes_that_are_not_there_are_refused() -> None:
    engine = load_backend("cpp").build(request(NETWORKS["as Qwen"], Parameters(*NETWORKS["as Qwen"])))
    batch = share_prefixes(batch_of([[5] * 20] * 3), 1000)
    assert batch.prefixes is not None
    batch.prefixes[1] = 1
    with pytest.raises(ValueError, match=r"^prefixes: 1 is none of the 1$"):
        engine.logits(batch)


def test_a_token_takes_its_keys_and_values() -> None:
    network = NETWORKS["as Qwen"]  # 3 layers, 2 heads of keys, 14 wide
    for precision, size in (("fp32", 4), ("int8", 2 if _core.choose_level() == "avx512_bf16" else 4)):
        engine = load_backend("cpp").build(request(network, Parameters(*network), precision))  # type: ignore[arg-type]
        assert engine.shared_bytes == 3 * 2 * 2 * 14 * size


@pytest.mark.parametrize("precision", PRECISIONS)
def test_predict_shares_prefixes_in_any_order(tiny: Callable[..., str], precision: Precision) -> None:
    model = CrossEncoder(tiny("qwen3"), precision=precision)
    pairs = [(query, text) for query in SENTENCES if len(query) > 20 for text in SENTENCES]
    alone = np.array([model.predict(pair) for pair in pairs])
    order = np.random.default_rng(0).permutation(len(pairs))
    encoder: Any = model.pipeline.built_encoder().encoder
    original, computed = encoder.logits, []

    def counting(batch: PackedBatch, num_threads: int | None = None) -> torch.Tensor:
        computed.append(sum(batch.spans.lengths))
        return original(batch, num_threads)

    encoder.logits = counting
    found = model.predict([pairs[index] for index in order])
    assert (found == alone[order]).all()
    window = Window([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    assert sum(computed) < 0.8 * model.pipeline.tokenize(window, model.max_length).lengths.sum()
