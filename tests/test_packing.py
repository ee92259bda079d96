from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import PAIRS, make_byte_bpe
from transformers.models.roberta.modeling_roberta import RobertaEmbeddings

from fastce.packing import order_by_length, ordered_batches, pack, position_ids
from fastce.spec import AbsolutePositions
from fastce.tokenization import PairTokenizer

LENGTHS = st.lists(st.integers(1, 600), max_size=80).map(lambda lengths: np.array(lengths, dtype=np.int64))


@given(lengths=LENGTHS, max_pairs=st.integers(1, 40), budget=st.integers(1, 2000))
def test_batches_cover_each_pair_once_within_the_limits(lengths: np.ndarray, max_pairs: int, budget: int) -> None:
    batches = list(ordered_batches(order_by_length(lengths), lengths, max_pairs, budget))
    assert sorted(np.concatenate([*batches, np.empty(0, dtype=int)]).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= max_pairs
        assert len(batch) == 1 or lengths[batch].sum() <= budget
    in_order = [length for batch in batches for length in lengths[batch].tolist()]
    assert in_order == sorted(in_order, reverse=True)


def test_without_a_number_of_pairs_tokens_alone_decide() -> None:
    batches = list(ordered_batches(order_by_length(np.full(1000, 3)), np.full(1000, 3), None, 300))
    assert [len(batch) for batch in batches] == [100] * 10


@given(lengths=LENGTHS, max_pairs=st.integers(1, 40), budget=st.integers(1, 2000))
def test_no_batch_could_have_taken_the_next_pair(lengths: np.ndarray, max_pairs: int, budget: int) -> None:
    batches = list(ordered_batches(order_by_length(lengths), lengths, max_pairs, budget))
    for batch, following in pairwise(batches):
        assert len(batch) == max_pairs or lengths[batch].sum() + lengths[following[0]] > budget


@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=9), min_size=1, max_size=6))
def test_padding_aware_positions_equal_transformers(sequences: list[list[int]]) -> None:
    padding_id = 1
    cu_seqlens = np.cumsum([0, *map(len, sequences)]).astype(np.int32)
    ours = position_ids(
        np.array([token for sequence in sequences for token in sequence], dtype=np.int32),
        cu_seqlens,
        AbsolutePositions(100, offset=padding_id + 1, padding_id=padding_id),
    )
    expected = [
        RobertaEmbeddings.create_position_ids_from_input_ids(torch.tensor([sequence]), padding_id)[0].tolist()
        for sequence in sequences
    ]
    assert ours.dtype == np.int32
    assert ours.tolist() == [position for sequence in expected for position in sequence]


def test_plain_positions_count_from_zero() -> None:
    ids = np.zeros(6, dtype=np.int32)
    assert position_ids(ids, np.array([0, 2, 6], dtype=np.int32), None).tolist() == [0, 1, 0, 1, 2, 3]


@pytest.mark.parametrize("chosen", [[0], [3, 1, 2], list(range(len(PAIRS)))])
def test_a_packed_batch_lies_end_to_end(chosen: list[int]) -> None:
    tokenizer = PairTokenizer(make_byte_bpe())
    pairs = tokenizer([pair[0] for pair in PAIRS], [pair[1] for pair in PAIRS], 30)
    batch = pack(pairs, chosen, AbsolutePositions(100, offset=2, padding_id=1))
    spans = batch.spans
    assert list(spans.lengths) == pairs.lengths[chosen].tolist()
    assert spans.longest == max(spans.lengths)
    assert spans.cu_seqlens[-1] == len(batch.input_ids) == len(batch.token_type_ids) == len(batch.position_ids)
    tensors = (batch.input_ids, batch.token_type_ids, batch.position_ids, spans.cu_seqlens)
    assert all(tensor.dtype == torch.int32 for tensor in tensors)
    for index, number in enumerate(chosen):
        start, end = spans.cu_seqlens[index : index + 2].tolist()
        assert batch.input_ids[start:end].tolist() == pairs.assemble(np.array([number]))[0].tolist()
