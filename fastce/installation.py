"""Where this package lies, and what to do where that is a folder of sources without the C++ module."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def has_module(package: Path) -> bool:
    """Whether the C++ module lies in this folder of the package."""
    return any((package / f"_core{suffix}").exists() for suffix in EXTENSION_SUFFIXES)


def is_source_folder() -> bool:
    """Whether this package is imported from a clone or an unpacked source distribution."""
    return (PACKAGE.parent / "csrc").is_dir()


def installed_instead(path: Iterable[str]) -> list[str]:
    """The `__path__` to import from: the installed package's, where the current folder's sources stand before it.

    Python started inside a clone finds the clone first. That one has no C++ module unless it was built there, so the
    installed package takes its place as a whole, never in parts.

    Args:
        path: The package's own `__path__`.
    """
    own = list(path)
    if has_module(PACKAGE) or not is_source_folder():
        return own
    elsewhere = [entry for entry in sys.path if Path(entry).resolve() != PACKAGE.parent]
    spec = PathFinder.find_spec("fastce", elsewhere)
    found = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not any(has_module(Path(folder)) for folder in found):
        return own
    warnings.warn(
        f"the fastce in {PACKAGE.parent} has no C++ module, so the one installed in {Path(found[0]).parent} is used; "
        f"to use these sources, build them: pip install -e {PACKAGE.parent}",
        stacklevel=4,
    )
    return found


def why_without_module() -> str:
    """Why there is no C++ module, and what to do."""
    if is_source_folder():
        return (
            f"fastce runs from its sources in {PACKAGE.parent}, without its C++ module, and scores with PyTorch; "
            f"build it there: pip install -e {PACKAGE.parent}"
        )
    return (
        "fastce was installed without its C++ module and scores with PyTorch; install it again with a C++17 compiler, "
        "and with FASTCE_REQUIRE_CPP=1 to see why it can't be built"
    )
