from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import docstring_search as demo
import docstrings
import pytest
import torch
from bm25 import BM25
from docstrings import Docstring

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


def echo():
    """Say what it does twice.

    Here the prose says what it does: to say what it does twice, which a question must not be answered by, is refused.
    """


def same_body():
    """Take the lowest plate away.

    The plate below becomes the topmost one; an empty stack raises an error instead, which names the stack.
    """
'''


def docstring(number: int, file: str) -> Docstring:
    return Docstring(f"module.function{number}", file, f"Summary number {number}.", f"Body {number} about it.")


def many() -> list[Docstring]:
    return [docstring(number, f"file{number % 10}.py") for number in range(50)]


def toy_package(root: Path) -> Path:
    package = root / "toy"
    for folder in ("", "_private", "tests"):
        (package / folder).mkdir()
        (package / folder / f"_plates{len(folder)}.py").write_text(TOY.replace("plate", f"plate{folder}"))
    (package / "broken.py").write_text("def (:")
    (package / "latin.py").write_bytes(b'"""caf\xe9"""')
    return package


def test_reads_usable_docstrings_once(tmp_path: Path) -> None:
    found = docstrings.read_docstrings([toy_package(tmp_path)])

    assert [entry.name for entry in found] == ["toy.median", "toy.Stack", "toy.Stack.pop"]
    assert found[0].summary == "Return the middle one of some values."
    assert found[0].body == (
        "Sorts a copy of the values and takes the one in the middle, or the mean of two, as statistics.median does "
        "with values."
    )
    assert found[1].body.startswith("Returns are refused")
    assert found[0].file == "toy/_plates0.py"
    assert found[2].document == f"toy Stack pop. {found[2].body}"
    assert found[2].whole == f"toy Stack pop. {found[2].summary} {found[2].body}"


def test_a_document_is_the_beginning_of_the_prose() -> None:
    _, body = docstrings.split_docstring("A summary of it.\n\n" + "word " * 500)

    assert body.split() == ["word"] * docstrings.BODY_WORDS


@pytest.mark.parametrize("heading", ["Args:", "Parameters\n---------", "Note::", ".. note::", ">>> f()", "- item"])
def test_sections_end_the_prose(heading: str) -> None:
    assert docstrings.split_docstring(f"A summary.\n\nSome prose.\n\n{heading}\n    text\n\nMore.") == (
        "A summary.",
        "Some prose.",
    )


def test_names_are_words() -> None:
    assert docstrings.in_words("sklearn.svm.LinearSVC.fit_it") == "sklearn svm Linear SVC fit it"


def test_no_file_is_both_trained_on_and_held_out() -> None:
    training, held_out = demo.split_by_file(many(), 0)

    assert sorted(training + held_out) == sorted(many())
    assert len(held_out) == 10
    assert not {entry.file for entry in training} & {entry.file for entry in held_out}
    assert demo.split_by_file(many(), 0) == (training, held_out)
    assert demo.split_by_file(many(), 1) != (training, held_out)


def test_training_groups_hold_one_right_document_and_none_that_is_held_out() -> None:
    training, held_out = demo.split_by_file(many(), 0)
    examples = demo.training_examples(training, 0)

    assert len(examples) == demo.GROUP * len(training)
    assert {text for example in examples for text in example.texts or ()}.isdisjoint(
        text for entry in held_out for text in (entry.summary, entry.document)
    )
    right = {entry.summary: entry.document for entry in training}
    for start in range(0, len(examples), demo.GROUP):
        group = examples[start : start + demo.GROUP]
        summaries, documents = zip(*(example.texts or () for example in group), strict=True)
        assert [example.label for example in group] == [1] + [0] * demo.NEGATIVES
        assert len(set(summaries)) == 1
        assert len(set(documents)) == demo.GROUP
        assert documents[0] == right[summaries[0]]


def test_bm25_by_hand() -> None:
    index = BM25(["a b b", "b c", "d d d d"], k1=2.0, b=0.5)
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
    logits = torch.randn(2 * demo.GROUP)
    labels = torch.tensor([1.0] + [0.0] * demo.NEGATIVES).repeat(2)
    expected = -torch.log_softmax(logits.view(2, demo.GROUP), dim=1)[:, 0].mean()

    torch.testing.assert_close(demo.group_loss(logits, labels), expected)


def test_a_question_is_answered_by_the_model_that_is_kept(
    tiny: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "minilm_directory", lambda: tiny("bert"))
    monkeypatch.setattr(demo, "read_docstrings", lambda _: many())
    monkeypatch.setattr(demo, "TRAINING_QUERIES", 6)
    monkeypatch.setattr(demo, "HELD_OUT_QUERIES", 8)
    monkeypatch.setattr(demo, "TIMED_PAIRS", 4)
    monkeypatch.setattr(demo, "MAX_LENGTH", 64)
    output = tmp_path / "demo"
    demo.main(None, output, retrain=False, seed=0)
    shown = capsys.readouterr().out
    for told in ("40 to train on, 10 in other files held out", "Trained on 18 pairs", f"is kept in {output}", "MRR@10"):
        assert told in shown
    for name in ("BM25 alone", "fastce, int8", "sentence-transformers, fp32", demo.QUESTIONS[-1], "module.function"):
        assert name in shown
    weights = (output / "model.safetensors").stat().st_mtime_ns

    monkeypatch.setattr(demo, "read_docstrings", None)
    demo.main("Which one is summary number 7?", output, retrain=False, seed=0)
    answer = capsys.readouterr().out
    assert "Using the model that an earlier run has left" in answer
    assert len(re.findall(r"  \d\.\d{3}  module\.function\d+\n", answer)) == demo.ANSWERS
    assert "MRR@10" not in answer
    assert (output / "model.safetensors").stat().st_mtime_ns == weights

    kept = json.loads((output / "trained_on.json").read_text())
    (output / "trained_on.json").write_text(json.dumps(kept | {"versions": {}}))
    with pytest.raises(TypeError):  # other versions of the packages: they would be read again
        demo.main("Which one?", output, retrain=False, seed=0)
