"""Every training script on a few made pairs, with tiny models."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from test_ranking_data import write_folder, write_run
from tiny_models import PAIRS
from tolerance import LOGITS
from typer.testing import CliRunner

from fastce import CrossEncoder, InputExample

Tiny = Callable[..., str]

LABELS = {"stsb": ["0.0", "2.5", "5.0", "4.0"], "quora": ["0", "1"], "snli": ["contradiction", "entailment", "neutral"]}
PAIR_SCRIPTS = {
    "training_stsbenchmark": ("stsb", "Spearman", "CECorrelationEvaluator_sts", 64),
    "training_quora_duplicate_questions": ("quora", "Average precision", "CEBinaryClassificationEvaluator_Quora", 64),
    "training_nli": ("snli", "Accuracy", "CESoftmaxAccuracyEvaluator_AllNLI", 32),
}


def write_data(folder: Path) -> Path:
    for name, labels in LABELS.items():
        for split in ("train", "dev", "test"):
            with gzip.open(folder / f"{name}_{split}.tsv.gz", "wt", encoding="utf-8") as stream:
                stream.write("label\tfirst\tsecond\n")
                for number, (first, second) in enumerate(PAIRS[:40]):
                    stream.write(f"{labels[number % len(labels)]}\t{first}\t{second}\n")
    return folder


def run(main: Any, *arguments: str | Path) -> list[str]:
    """The lines that a script prints."""
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


@pytest.mark.parametrize("library", ["fastce", "sentence-transformers"])
@pytest.mark.parametrize("script", PAIR_SCRIPTS)
def test_pairs(script: str, library: str, tiny: Tiny, tmp_path: Path) -> None:
    pytest.importorskip(library.replace("-", "_"))
    name, metric, results, trained = PAIR_SCRIPTS[script]
    num_labels = 3 if name == "snli" else 1
    output = tmp_path / "output"
    lines = run(
        import_module(script).main,
        *("--data", write_data(tmp_path), "--model", tiny(num_labels=num_labels), "--output", output),
        *("--epochs", "1", "--max-train", "32", "--library", library),
    )
    assert lines[0].startswith(f"train: 32 of {name}_")
    precisions = ["", " in bf16", " in int8"] if library == "fastce" else [""]
    assert lines[-1 - len(precisions)].startswith(f"Trained on {trained} examples in ")
    for precision, line in zip(precisions, lines[-len(precisions) :], strict=True):
        assert re.fullmatch(rf"{metric} on the test set{precision}: -?\d+\.\d\d", line)
    assert (output / f"{results}-dev_results.csv").exists()
    assert (output / f"{results}-test_results.csv").exists()
    assert CrossEncoder(str(output)).num_labels == num_labels


def test_a_precision_that_the_model_cannot_run_in_is_left_out(tiny: Tiny, tmp_path: Path) -> None:
    data, output = write_data(tmp_path), tmp_path / "output"
    main = import_module("training_stsbenchmark").main
    lines = run(main, *("--data", data, "--model", tiny("ernie"), "--output", output, "--epochs", "1"))
    assert lines[-2].startswith("Spearman on the test set in bf16: ")
    assert lines[-1].startswith("Not tested in int8: no backend can run this model in int8 on cpu.")


def test_the_seed_decides(tiny: Tiny, tmp_path: Path) -> None:
    main = import_module("training_quora_duplicate_questions").main
    data = write_data(tmp_path)
    scores = []
    for seed in (1, 1, 2):
        output = tmp_path / str(len(scores))
        run(main, *("--data", data, "--model", tiny(), "--output", output, "--epochs", "1", "--seed", str(seed)))
        scores.append(CrossEncoder(str(output)).predict(PAIRS[:8]).tolist())
    assert scores[0] == scores[1] != scores[2]


@pytest.fixture
def ranking_folder(tmp_path: Path) -> Path:
    write_folder(tmp_path)
    write_run(tmp_path, ["d2", "d1", "d3", "d4"])
    return tmp_path


def ranking_script(name: str) -> ModuleType:
    pytest.importorskip("fastce.losses")
    return import_module(name)


def test_distillation(tiny: Tiny, ranking_folder: Path) -> None:
    output = ranking_folder / "output"
    lines = run(
        ranking_script("training_distillation").main,
        *("--data", ranking_folder, "--teacher", tiny("electra"), "--model", tiny(), "--output", output),
        *("--run", "first", "--negatives", "2"),
    )
    assert lines[-2].startswith("Trained on 8 examples in ")
    assert re.fullmatch(r"nDCG@10 on the test set: \d+\.\d\d, without reranking \d+\.\d\d", lines[-1])
    assert (output / "CrossEncoderRerankingEvaluator_dev_results_@10.csv").exists()


def test_reranker(tiny: Tiny, ranking_folder: Path) -> None:
    output = ranking_folder / "output"
    lines = run(
        ranking_script("training_reranker").main,
        *("--data", ranking_folder, "--model", tiny(), "--output", output, "--run", "first", "--list-size", "4"),
    )
    assert lines[-2].startswith("Trained on 2 examples in ")
    assert re.fullmatch(r"nDCG@10 on the test set: \d+\.\d\d, without reranking \d+\.\d\d", lines[-1])
    assert (output / "CrossEncoderRerankingEvaluator_dev_results_@10.csv").exists()


def test_margins_are_those_of_the_teacher_in_logits(tiny: Tiny) -> None:
    script = ranking_script("training_distillation")
    teacher = CrossEncoder(tiny())
    candidates = [script.Candidates("q", ["a", "b", "c", "d"], [0, 2, 0, 1])]
    triples = script.make_triples(candidates, relevant_grade=1, negatives=1)
    assert triples == [("q", "b", "a"), ("q", "d", "a")]
    a, b, d = (float(teacher.predict([("q", text)], activation_fn=lambda logits: logits)[0]) for text in "abd")
    assert script.teacher_margins(teacher, triples) == pytest.approx([b - a, d - a], abs=LOGITS)


def test_lists_hold_the_best_and_the_hardest() -> None:
    script = ranking_script("training_reranker")
    candidates = script.Candidates("q", ["a", "b", "c", "d", "e", "f"], [0, 1, 0, 3, 0, 2])
    example: InputExample = script.make_list(candidates, relevant_grade=1, size=4)
    assert (example.texts, example.label) == (["q", "d", "f", "a", "c"], [3, 2, 0, 0])
    example = script.make_list(candidates, relevant_grade=3, size=9)
    assert (example.texts, example.label) == (["q", "d", "a", "b", "c", "e", "f"], [3, 0, 1, 0, 0, 2])
