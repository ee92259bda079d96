# make demo and make test are all a newcomer needs; each sets up .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := $(wildcard csrc/* csrc/*/*) CMakeLists.txt setup.py pyproject.toml constraints.txt fastce/version.py
CPP_FILES := $(wildcard csrc/*.cpp csrc/*.h csrc/*/*.cpp csrc/*/*.h)

export HF_HUB_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help build demo test check fix bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP): $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --progress-bar on -c constraints.txt setuptools wheel pybind11 cmake ninja
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --progress-bar on -c constraints.txt --no-build-isolation -e ".[dev]"
	@touch $@

build: $(STAMP)  ## create .venv, install what is needed, build the C++ module

demo: $(STAMP)  ## train a cross-encoder on docstrings and rank with it
	$(BIN)/python examples/docstring_search.py

test: $(STAMP)  ## run the test suite
	$(BIN)/python -m pytest

check: $(STAMP)  ## lint, format and type checks, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CPP_FILES)

fix: $(STAMP)  ## format everything and apply safe lint fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_FILES)

bench: $(STAMP)  ## run the benchmarks
	$(BIN)/python -m pytest benchmarks --benchmark-only

clean:  ## remove everything that was built or installed here
	rm -rf $(VENV) build dist *.egg-info fastce/*.so .mypy_cache .pytest_cache .ruff_cache .hypothesis
