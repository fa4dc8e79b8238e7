# Every target sets up .venv by itself on first use. Another interpreter: make test PYTHON=python3.12
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: bench chaos check compose-test demo demo-alignment docs fmt help install results test test-distributed

demo: $(READY) ## train on the JPEG reward, two processes on this machine, into runs/demo/
	@bash scripts/demo.sh compressibility

demo-alignment: $(READY) ## train on what a LLaVA says of the pictures, into runs/demo-alignment/
	@bash scripts/demo.sh alignment

test: check ## run check, then the tests in random order with branch coverage
	$(BIN)/pytest --cov --cov-report=term -m "not (distributed and slow)"

test-distributed: $(READY) ## run the tests that start several processes of one training run
	$(BIN)/pytest -m distributed

check: $(READY) ## formatting, lint, types and import rules, changing nothing
	$(BIN)/ruff format --check . && $(BIN)/ruff check .
	$(BIN)/mypy && $(BIN)/lint-imports

fmt: $(READY) ## format the code and fix what ruff can fix
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: $(READY) ## run the benchmarks and print their ratios
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev,bench]'
	@for file in benchmarks/*.py; do \
		name=benchmarks.$$(basename $$file .py) && echo "== $$name" && $(BIN)/python -m $$name || exit 1; done

chaos: $(READY) ## kill workers and Redis for a minute or two, and check every score
	@$(BIN)/python -m tests.chaos

compose-test: $(READY) ## start the Docker stack, train in it, kill its containers, and compare (needs Docker)
	@$(BIN)/python -m tests.compose

docs: $(READY) ## write the generated parts of the docs anew (settings, options, metrics)
	$(BIN)/python scripts/generate_docs.py

results: $(READY) ## run the studies of experiments/ (many hours; goes on where it was) into docs/results
	@bash scripts/results.sh

install: $(READY) ## create .venv with everything, at the pinned versions

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	@touch $@
