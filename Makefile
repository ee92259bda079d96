# make demo and make test are all a newcomer needs; each sets up .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OVERLAY := .venv-integrations
SOURCES := $(wildcard csrc/* csrc/*/*) CMakeLists.txt setup.py pyproject.toml constraints.txt fastce/version.py
CPP_FILES := $(wildcard csrc/*.cpp csrc/*.h csrc/*/*.cpp csrc/*/*.h tests/csrc/*.cpp)

export HF_HUB_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help audit build chaos demo test test-integrations test-package test-isa test-asan test-tsan test-emulated stress check fix bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

stress: $(STAMP)  ## run the long forms of tests: many threads, calls and processes, thousands of spoiled models
	$(BIN)/python -m pytest -m stress
	$(BIN)/python tests/checkpoints/hostile_files.py --count 5000

chaos: $(STAMP)  ## kill a job of 200,000 pairs again and again
	$(BIN)/python -m pytest -m chaos tests/chaos

# The other libraries, some 150 packages, have an environment of their own over .venv, which they leave as it is: a path file lets it see
# what is installed there. fastce is there already, so that its extra alone is installed.
$(OVERLAY)/.installed: $(STAMP) constraints-integrations.txt
	$(BIN)/python -m venv --clear $(OVERLAY)
	site=$$($(OVERLAY)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))") && \
	  $(BIN)/python -c "import sysconfig; print(f'import site; site.addsitedir({sysconfig.get_path(\"purelib\")!r})')" > $$site/over.pth
	$(OVERLAY)/bin/python -m pip install --quiet --progress-bar on -c constraints.txt -c constraints-integrations.txt "fastce[integrations]"
	@touch $@

# Each package is imported by the test that needs it; Spark wants a Java runtime, and its tests are skipped without.
test-integrations: $(OVERLAY)/.installed  ## run the tests with the libraries that docs/integrations.md is about, Ray, Spark and datasets
	$(OVERLAY)/bin/python -m pytest -m integrations tests/integrations

test-package: $(STAMP)  ## build the source distribution and a wheel, install and run each
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m package tests/package

test-isa: $(STAMP)  ## run the engine's tests once at each ISA level of this processor
	for level in $$($(BIN)/python -c "from fastce import _core; print(*_core.isa_levels())"); do \
	  FASTCE_ISA=$$level $(BIN)/python -m pytest tests/test_cross_encoder.py tests/backends || exit 1; done

kernel-figures: $(STAMP)  ## write down what the compiler makes of the Triton kernels: registers, spills, instructions
	$(BIN)/python tests/backends/triton/compile_kernels.py > build/compiled.json
	mv build/compiled.json tests/backends/triton/compiled.json

gpu-costs: $(STAMP)  ## print what scoring costs on an H100 by kernel, and the time that this predicts
	TRITON_INTERPRET=0 $(BIN)/python benchmarks/gpu_costs.py

test-gpu: $(STAMP)  ## run the tests of the Triton kernels on a GPU
	TRITON_INTERPRET=0 $(BIN)/python -m pytest tests/backends/triton tests/backends/test_contract.py -k triton

bench-gpu: $(STAMP)  ## measure scoring on a GPU against sentence-transformers; table, JSON and picture in build/gpu
	TRITON_INTERPRET=0 $(BIN)/python benchmarks/gpu.py build/gpu

# A copy of the package with an instrumented module. Leaks of an exiting interpreter are none of ours. A child inherits the locks of
# the sanitizer's allocator, held or not: the test that forks does so while all other threads rest.
test-asan: $(STAMP)  ## run the engine's tests with the address and undefined-behaviour sanitizers
	mkdir -p build/asan && cp -r fastce build/asan/ && rm -f build/asan/fastce/*.so
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake -S . -B build/asan/cmake -DFASTCE_SANITIZE=address,undefined \
	  -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_LIBRARY_OUTPUT_DIRECTORY=$(CURDIR)/build/asan/fastce \
	  -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build build/asan/cmake --parallel
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
	  PYTHONPATH=build/asan $(BIN)/pytest tests/kernels tests/backends  # not python -m: that would put this folder first

test-tsan:  ## run the thread pool with the thread sanitizer
	mkdir -p build
	$(CXX) -std=c++17 -O1 -g -fsanitize=thread -pthread -Icsrc tests/csrc/parallel_stress.cpp csrc/parallel.cpp -o build/parallel_stress
	build/parallel_stress

# A processor without AVX, and AArch64 (Debian: apt install qemu-user g++-aarch64-linux-gnu).
test-emulated: $(STAMP)  ## run the kernels on emulated processors
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake -S . -B build/emulated -DCMAKE_LIBRARY_OUTPUT_DIRECTORY=$(CURDIR)/build/emulated \
	  -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build build/emulated --parallel --target kernels_check
	qemu-x86_64 -cpu Nehalem build/emulated/kernels_check
	aarch64-linux-gnu-g++ -std=c++17 -O3 -ffp-contract=off -fno-strict-aliasing -static -Icsrc tests/csrc/kernels_check.cpp \
	  csrc/cpu_features.cpp csrc/dispatch.cpp csrc/packed_linear.cpp csrc/isa/scalar.cpp -o build/emulated/kernels_check_aarch64
	qemu-aarch64 build/emulated/kernels_check_aarch64

check: $(STAMP)  ## lint, format and type checks, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CPP_FILES)

# A program of its own, whose many packages are none of fastce's. It asks the package index, and is strict: where nobody answers for a
# package, that is no success.
audit:  ## look the pinned packages up among known vulnerabilities
	test -x build/audit/bin/pip-audit || { $(PYTHON) -m venv build/audit && build/audit/bin/pip install --quiet pip-audit; }
	build/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

fix: $(STAMP)  ## format everything and apply safe lint fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_FILES)

bench: $(STAMP)  ## run the benchmarks
	$(BIN)/python -m pytest benchmarks --benchmark-only

clean:  ## remove everything that was built or installed here
	rm -rf $(VENV) $(OVERLAY) build dist *.egg-info fastce/*.so .mypy_cache .pytest_cache .ruff_cache .hypothesis
