"""`_core.pyi` says what the C++ module has: names, and names of arguments in their order."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

import fastce

_core = pytest.importorskip("fastce._core", reason="the C++ module was not built")

STUB = ast.parse((Path(fastce.__file__).parent / "_core.pyi").read_text(encoding="utf-8"))


def stubbed(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """Public names of a stub, or of a class in it, to their definitions."""
    found: dict[str, ast.stmt] = {}
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            found[statement.name] = statement
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found[statement.target.id] = statement
    return {name: node for name, node in found.items() if not name.startswith("_") or name in ("__init__", "__call__")}


def present(thing: Any) -> set[str]:
    """Public names of the module, or of a class in it."""
    return {name for name in vars(thing) if not name.startswith("_") or name in ("__init__", "__call__")}


def arguments_in_stub(node: ast.stmt) -> list[str]:
    assert isinstance(node, ast.FunctionDef)
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return [name for name in names if name != "self"]


def arguments_in_module(function: Any) -> list[str]:
    """Names of arguments, from the signature that pybind11 writes into the documentation."""
    signature = function.__doc__.split("\n", 1)[0].partition("(")[2].rpartition(") -> ")[0]
    while "[" in signature:  # annotations may hold commas
        signature = re.sub(r"\[[^\[\]]*\]", "", signature)
    names = re.findall(r"(?:^|, )(\w+)(?=:|$|,)", signature)
    return [name for name in names if name != "self"]


CLASSES = [part for part in STUB.body if isinstance(part, ast.ClassDef)]
OWNERS = [("", STUB.body, _core), *((part.name, part.body, getattr(_core, part.name, None)) for part in CLASSES)]
DEFINITIONS = [
    (f"{kind}.{name}" if kind else name, node, thing)
    for kind, body, owner in (
        ("", STUB.body, _core),
        *(
            (part.name, part.body, getattr(_core, part.name, None))
            for part in STUB.body
            if isinstance(part, ast.ClassDef)
        ),
    )
    for name, node in stubbed(body).items()
    if isinstance(node, ast.FunctionDef) and not node.decorator_list
    for thing in [getattr(owner, name, None)]
]


def test_names_are_those_of_the_module() -> None:
    modules = stubbed(STUB.body)
    assert present(_core) == modules.keys()
    for name, node in modules.items():
        if isinstance(node, ast.ClassDef):
            assert present(getattr(_core, name)) == stubbed(node.body).keys(), name


@pytest.mark.parametrize(("name", "node", "thing"), DEFINITIONS, ids=[name for name, *_ in DEFINITIONS])
def test_arguments_are_those_of_the_module(name: str, node: ast.stmt, thing: Any) -> None:
    assert arguments_in_stub(node) == arguments_in_module(thing)
