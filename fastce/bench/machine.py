"""What the figures were measured on: the processor and the versions, nothing that names a host."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "fastce",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "sentence-transformers",
    "onnxruntime",
    "openvino",
    "nncf",
    "ctranslate2",
    "optimum-intel",
)

FLAGS = ("fma", "avx", "amx", "f16c", "sse4_2", "asimd", "sve", "i8mm", "bf16")
"""Beginnings of the names of instruction-set extensions that matter for arithmetic."""


def describe_machine(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores, instruction sets, memory and operating system, and what runs where that is a GPU."""
    facts: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    return {
        "cpu": facts.get("model name", platform.machine()),
        "family": facts.get("cpu family"),
        "model": facts.get("model"),
        "cores": os.cpu_count(),
        "flags": sorted(flag for flag in flags if flag.startswith(FLAGS)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        **({} if device == "cpu" else {"gpu": torch.cuda.get_device_name(device)}),
    }


def describe_versions() -> dict[str, str]:
    """Python and the packages that are installed, to their versions."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
