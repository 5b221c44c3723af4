# make demo    sets up .venv, compiles the digits model, links the C program, shows what it prints
# make test    sets up .venv with the test requirements, runs the whole test suite
# make lint    ruff and mypy
# make operators  runs the ONNX backend suite, lists what does not pass, rewrites docs/operators.md
# make cuda-check  on a machine with a GPU: builds, checks and times models on it, prints one table
# make cuda-assemble  with ptxas, no GPU: registers, shared memory and spills of every model's kernels
# make bench   prints the figures of the README from a fresh run (all fourteen models, minutes)
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN = $(VENV)/bin
PYTEST_FLAGS ?=
BENCH_FLAGS ?=
CUDA_CHECK_FLAGS ?=
CUDA_ASSEMBLE_FLAGS ?=

demo: $(VENV)/.aotc
	@$(MAKE) --no-print-directory -C examples/digits AOTC=$(abspath $(BIN))/aotc

test: $(VENV)/.aotc-test
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: $(VENV)/.aotc-test
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.aotc-test
	$(BIN)/python bench/table.py $(BENCH_FLAGS)

$(BIN)/python:
	@test -n '$(PYTHON)' || { echo 'aotc needs Python 3.11 or later: make PYTHON=...'; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.aotc: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.aotc-test: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(VENV)/.aotc

operators: $(VENV)/.aotc-test
	$(BIN)/python -m tools.conformance --write
	$(BIN)/python -m tools.operators

cuda-check: $(VENV)/.aotc-test
	$(BIN)/python -m tools.cuda_check $(CUDA_CHECK_FLAGS)

cuda-assemble: $(VENV)/.aotc-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cuda]'
	$(BIN)/python -m tools.cuda_assemble $(CUDA_ASSEMBLE_FLAGS)

clean:
	rm -rf $(VENV) build examples/*/build

.PHONY: demo test lint bench operators cuda-check cuda-assemble clean
