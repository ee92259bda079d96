from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from datasets import Dataset, DatasetDict

from fastce.checks import check_positive, check_precision
from fastce.inputs import check_texts, split_pairs
from fastce.spec import PRECISIONS

FRAME = pd.DataFrame({"first": ["a", "c"], "second": ["b", "d"]}, index=[7, 7])


class Frame:
    """Iterates columns, as the tables of polars do."""

    columns = ("first", "second")

    def __iter__(self) -> Iterator[tuple[str, str]]:
        yield from (("a", "c"), ("b", "d"))


TABLES = [
    FRAME,
    FRAME.T,
    FRAME[["first"]],
    pa.table(FRAME),
    pa.record_batch(FRAME),
    Dataset.from_pandas(FRAME),
    Frame(),
]
UNORDERED = [{"a", "b"}, frozenset("ab"), {("a", "b"), ("c", "d")}, WeakSet()]
MAPPINGS = [{"a": "b"}, Counter("ab"), OrderedDict(a="b"), DatasetDict()]
TWO = (["a", "c"], ["b", "d"], False)


@pytest.mark.parametrize(
    "inputs",
    [
        [("a", "b"), ("c", "d")],
        [["a", "b"], ["c", "d"]],
        (("a", "b"), ("c", "d")),
        np.array([["a", "b"], ["c", "d"]]),
        np.array([["a", "b"], ["c", "d"]], dtype=object),
        zip("ac", "bd", strict=True),
        [np.array(["a", "b"]), np.array(["c", "d"])],
        Dataset.from_dict({"pair": [["a", "b"], ["c", "d"]]})["pair"],
        FRAME.values,
        FRAME.values.tolist(),
        FRAME.itertuples(index=False),
        FRAME.to_records(index=False),
        pd.Series([["a", "b"], ["c", "d"]], index=[7, 7]),
        pd.MultiIndex.from_frame(FRAME),
        pa.array([["a", "b"], ["c", "d"]]),
        {"a": "b", "c": "d"}.items(),
        (pair for pair in [("a", "b"), ("c", "d")]),
    ],
)
def test_lists_of_pairs(inputs: Any) -> None:
    assert split_pairs(inputs) == TWO


@pytest.mark.parametrize("inputs", [("a", "b"), ["a", "b"], np.array(["a", "b"])])
def test_a_single_pair(inputs: Any) -> None:
    assert split_pairs(inputs) == (["a"], ["b"], True)


@pytest.mark.parametrize("inputs", [[], (), np.array([]), iter(())])
def test_no_pairs(inputs: Any) -> None:
    assert split_pairs(inputs) == ([], [], False)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ([("a", "b")] * 17 + [("a", None)], TypeError, r"inputs\[17\]\[1\]: expected str, got None"),
        ([("a", "b"), ("a", 3)], TypeError, r"inputs\[1\]\[1\]: expected str, got int 3"),
        ([(b"a", "b")], TypeError, r"inputs\[0\]\[0\]: expected str, got bytes b'a'"),
        ([("a", "b"), ("a",)], ValueError, r"inputs\[1\]: expected 2 texts, got 1"),
        ([("a", "b"), ("a", "b", "c")], ValueError, r"inputs\[1\]: expected 2 texts, got 3"),
        ([("a", "b"), "ab"], TypeError, r"inputs\[1\]: expected a pair of texts, got str 'ab'"),
        ([None, ("a", "b"), ("a", "b")], TypeError, r"inputs\[0\]: expected a pair of texts, got None"),
        (pd.Series(["a", "b"]), TypeError, r"inputs\[0\]: expected a pair of texts, got str 'a'"),
        ({"a": 1, "b": 2}.keys(), TypeError, r"inputs\[0\]: expected a pair of texts, got str 'a'"),
        ([{"a": "b"}, {"a": "b"}, {"a": "b"}], TypeError, r"inputs\[0\]: expected a pair of texts, got dict"),
        ([{"a", "b"}, {"a", "b"}], TypeError, r"inputs\[0\]: expected a pair of texts, got set"),
        ([FRAME.iloc[0], FRAME.iloc[1]], TypeError, r"inputs\[0\]: expected a pair of texts, got Series"),
        (np.array("ab"), TypeError, r"inputs: expected a pair .* got str 'ab'"),
        ([("a", "b"), None], TypeError, r"inputs\[1\]: expected a pair of texts, got None"),
        (("a", "b", "c"), ValueError, r"inputs: expected 2 texts, got 3"),
        ((None, "b"), TypeError, r"inputs\[0\]: expected str, got None"),
        ("ab", TypeError, r"inputs: expected a pair of texts or a list of pairs, got str 'ab'"),
        (b"ab", TypeError, r"inputs: expected a pair .* got bytes"),
        (None, TypeError, r"inputs: expected a pair .* got None"),
        (7, TypeError, r"inputs: expected a pair .* got int 7"),
    ],
)
def test_bad_pairs_are_named(inputs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        split_pairs(inputs)


@pytest.mark.parametrize(
    ("containers", "remedy"),
    [
        (
            TABLES,
            r"pass its rows, such as df\[\['first', 'second'\]\]\.values\.tolist\(\) or .*, or for texts one column",
        ),
        (UNORDERED, "its order means nothing; pass a list"),
        (MAPPINGS, r"iterating gives its keys; pass list\(x\.values\(\)\), or list\(x\.items\(\)\) for pairs"),
    ],
)
def test_what_does_not_give_its_elements_in_order_is_refused(containers: list[Any], remedy: str) -> None:
    for container in containers:
        kind = type(container).__name__
        with pytest.raises(
            TypeError, match=rf"inputs: expected a pair of texts or a list of pairs, got {kind}: .*{remedy}"
        ):
            split_pairs(container)
        with pytest.raises(TypeError, match=f"documents: expected a list of texts, got {kind}: .*{remedy}"):
            check_texts(container, "documents")


@pytest.mark.parametrize(
    "texts",
    [
        ("a", "b"),
        np.array(["a", "b"]),
        pd.Series(["a", "b"], index=[9, 3]),
        pd.Index(["a", "b"]),
        pd.Series(["a", "b"], dtype="category"),
        pa.chunked_array([["a"], ["b"]]),
        Dataset.from_dict({"text": ["a", "b"]})["text"],
        {"a": 1, "b": 2}.keys(),
        {1: "a", 2: "b"}.values(),
        (text for text in "ab"),
        deque(["a", "b"]),
    ],
)
def test_lists_of_texts(texts: Any) -> None:
    assert check_texts(texts, "documents") == ["a", "b"]


@pytest.mark.parametrize("texts", ["ab", None, 3, np.array("ab")])
def test_documents_must_be_a_list(texts: Any) -> None:
    with pytest.raises(TypeError, match="documents: expected a list of texts"):
        check_texts(texts, "documents")


def test_documents_must_be_texts() -> None:
    with pytest.raises(TypeError, match=r"documents\[1\]: expected str, got float nan"):
        check_texts(["a", float("nan")], "documents")


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_positive_numbers(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"batch_size: expected a positive whole number, got .*{value}"):
        check_positive(value, "batch_size")
    assert check_positive(np.int64(3), "batch_size") == 3


@pytest.mark.parametrize(
    ("value", "precision"),
    [
        *[(name, name) for name in PRECISIONS],
        ("bfloat16", "bf16"),
        (torch.bfloat16, "bf16"),
        ("torch.float16", "fp16"),
        ("BF16", "bf16"),
        ("half", "fp16"),
        (torch.float32, "fp32"),
        (torch.int8, "int8"),
    ],
)
def test_precisions(value: Any, precision: str) -> None:
    assert check_precision(value) == precision


@pytest.mark.parametrize("value", ["fp64", torch.float64, None, 8])
def test_no_precisions(value: Any) -> None:
    with pytest.raises(ValueError, match=f"precision: expected one of fp32, bf16, fp16, int8, fp8, got {value!r}"):
        check_precision(value)
