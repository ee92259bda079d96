"""The docstrings of installed packages, split into what a question would say and what a document says."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

BODY_WORDS = 32  # of the prose; more would make training slower


class Docstring(NamedTuple):
    """A documented function or class.

    Attributes:
        name: Its qualified name, without the private modules in it.
        file: The source file.
        summary: The first paragraph, one sentence.
        body: The beginning of the prose below.
    """

    name: str
    file: str
    summary: str
    body: str

    @property
    def document(self) -> str:
        """What is ranked for a summary, which is not in it: the name in words and the prose."""
        return f"{in_words(self.name)}. {self.body}"

    @property
    def whole(self) -> str:
        """What is ranked for a question of somebody's: the summary too."""
        return f"{in_words(self.name)}. {self.summary} {self.body}"


SECTION = re.compile(
    r"((Other )?Parameters|Args|Arguments|Keyword (args|arguments)|Attributes|Methods|Inputs?|Outputs?|Shape|Returns?|"
    r"Yields?|Raises|Warns|Notes?|See Also|References|Examples?):{0,2}\s*(\n|$)|\.\. |>>>|[-*] |:(param|returns?)\b"
)
"""The beginning of a paragraph that is no prose any more: a heading, a directive, a session, a list."""

MARKUP = re.compile(r":(?:\w+:)*(?=`)|[`*$\\~]")
"""What reStructuredText puts around words: roles, quotes, emphasis, mathematics."""


def package_directories(packages: Iterable[str]) -> list[Path]:
    """Where packages are installed; those that are not are left out. Nothing is imported."""
    specs = (importlib.util.find_spec(package) for package in packages)
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
        is_question = 4 <= len(summary.split()) <= 20 and summary.endswith(".")
        if is_question and len(body.split()) >= 12 and summary[:-1].lower() not in body.lower():
            yield Docstring(name, str(path), summary, body)


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


def in_words(name: str) -> str:
    """The words of a qualified name: `sklearn.svm.LinearSVC.fit` is `sklearn svm Linear SVC fit`."""
    return re.sub(r"[._]+|(?<=[a-z])(?=[A-Z])", " ", name)
