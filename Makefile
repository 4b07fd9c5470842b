# `make demo` and `make test` are all the set-up there is: each makes .venv when it is missing or stale.
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal

.PHONY: help demo test test-all check benchmark clean

help:
	@echo "make demo       super-resolve a small real scene, and leave a picture in demo-output/"
	@echo "make test       run the tests, but for the slow ones, on all cores"
	@echo "make test-all   run all tests"
	@echo "make check      lint, types and import contracts"
	@echo "make benchmark  the figures of the README, printed as JSON"
	@echo "make clean      remove .venv and what the demo wrote"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "geomoe needs Python 3.11 or later; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/python examples/super_resolution.py

test: $(STAMP)
	$(PYTEST) -m 'not slow'

test-all: $(STAMP)
	$(PYTEST)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

benchmark: $(STAMP)
	$(BIN)/python benchmarks/tile.py --model mfg_hmoe --scale 4 --json
	$(BIN)/python benchmarks/scene_memory.py --json

clean:
	rm -rf $(VENV) demo-output
