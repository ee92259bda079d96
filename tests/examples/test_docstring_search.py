from __future__ import annotations

import math
from pathlib import Path

import docstring_search as demo
import pytest
import torch

TOY = '''"""A module's docstring is not read."""


def median(values):
    """Return the middle one of
    some values.

    Sorts a copy of the values and takes the one in the middle, or the mean
    of two, as :func:`statistics.median` does with ``values``.

    Parameters
    ----------
    values : list
        Not part of the document.
    """


class Stack:
    """A stack of plates, last in, first out.

    Returns are refused: what was taken from the stack can not be put back by the one who took it.
    """

    def pop(self):
        """Take the topmost plate away.

        The plate below becomes the topmost one; an empty stack raises an error instead, which names the stack.
        """

    def push(self):
        """Too short.

        This one has a summary of too few words, however many words the prose below it may happen to have.
        """

    def _shrink(self):
        """Remove the plate at the bottom.

        This one is private, however many words the prose below it may happen to have, and so it is not read.
        """


def same_body():
    """Take the lowest plate away.

    The plate below becomes the topmost one; an empty stack raises an error instead, which names the stack.
    """
'''


def docstring(number: int, file: str) -> demo.Docstring:
    return demo.Docstring(
        f"module.function{number}", Path(file), f"Summary number {number}.", f"Body {number} about it."
    )


def toy_package(root: Path) -> Path:
    package = root / "toy"
    for folder in ("", "_private", "tests"):
        (package / folder).mkdir()
        (package / folder / f"_plates{len(folder)}.py").write_text(TOY.replace("plate", f"plate{folder}"))
    (package / "broken.py").write_text("def (:")
    (package / "latin.py").write_bytes(b'"""caf\xe9"""')
    return package


def test_reads_usable_docstrings_once(tmp_path: Path) -> None:
    found = demo.read_docstrings([toy_package(tmp_path)])

    assert [entry.name for entry in found] == ["toy.median", "toy.Stack", "toy.Stack.pop"]
    assert found[0].summary == "Return the middle one of some values."
    assert found[0].body == (
        "Sorts a copy of the values and takes the one in the middle, or the mean of two, as statistics.median does "
        "with values."
    )
    assert found[1].body.startswith("Returns are refused")
    assert found[0].file == Path("toy/_plates0.py")


def test_a_document_is_the_beginning_of_the_prose() -> None:
    _, body = demo.split_docstring("A summary of it.\n\n" + "word " * 500)

    assert body.split() == ["word"] * demo.BODY_WORDS


@pytest.mark.parametrize("heading", ["Args:", "Parameters\n---------", "Note::", ".. note::", ">>> f()", "- item"])
def test_sections_end_the_prose(heading: str) -> None:
    assert demo.split_docstring(f"A summary.\n\nSome prose.\n\n{heading}\n    text\n\nMore.") == (
        "A summary.",
        "Some prose.",
    )


def test_no_file_is_both_trained_on_and_held_out() -> None:
    docstrings = [docstring(number, f"file{number % 10}.py") for number in range(50)]
    training, held_out = demo.split_by_file(docstrings)

    assert sorted(training + held_out) == sorted(docstrings)
    assert len(held_out) == 10
    assert not {entry.file for entry in training} & {entry.file for entry in held_out}


def test_training_groups_hold_one_right_document_and_none_that_is_held_out() -> None:
    docstrings = [docstring(number, f"file{number % 10}.py") for number in range(50)]
    training, held_out = demo.split_by_file(docstrings)
    examples = demo.training_examples(training)
    size = 1 + demo.NEGATIVES

    assert len(examples) == size * len(training)
    assert {text for example in examples for text in example.texts or ()}.isdisjoint(
        text for entry in held_out for text in (entry.summary, entry.body)
    )
    right = {entry.summary: entry.body for entry in training}
    for start in range(0, len(examples), size):
        group = examples[start : start + size]
        summaries, bodies = zip(*(example.texts or () for example in group), strict=True)
        assert [example.label for example in group] == [1] + [0] * demo.NEGATIVES
        assert len(set(summaries)) == 1
        assert len(set(bodies)) == size
        assert bodies[0] == right[summaries[0]]


def test_bm25_by_hand() -> None:
    index = demo.BM25(["a b b", "b c", "d d d d"], k1=2.0, b=0.5)
    idf_a, idf_b = math.log(1 + 2.5 / 1.5), math.log(1 + 1.5 / 2.5)  # in one and in two of three documents
    # The mean length is 3, so that k1 * (1 - b + b * length / mean) is 2 for the first and 5/3 for the second document.
    expected = [idf_a * 1 / (1 + 2) + idf_b * 2 / (2 + 2), idf_b * 1 / (1 + 5 / 3), 0]

    assert index.scores("B, a? unknown") == pytest.approx(expected)
    assert index.search("B, a? unknown", 2) == [0, 1]
    assert index.scores("unknown") == pytest.approx([0, 0, 0])


def test_reciprocal_rank() -> None:
    ranking = list(range(20))

    assert demo.reciprocal_rank(ranking, 0) == 1
    assert demo.reciprocal_rank(ranking, 9) == pytest.approx(0.1)
    assert demo.reciprocal_rank(ranking, 10) == 0
    assert demo.reciprocal_rank([], 0) == 0


def test_group_loss_is_the_cross_entropy_of_the_right_document() -> None:
    size = 1 + demo.NEGATIVES
    logits = torch.randn(2 * size)
    labels = torch.tensor([1.0] + [0.0] * (size - 1)).repeat(2)
    expected = -torch.log_softmax(logits.view(2, size), dim=1)[:, 0].mean()

    torch.testing.assert_close(demo.group_loss(logits, labels), expected)
