# Needs make and Python 3.10 or newer. Everything else is installed into .venv, once, by the
# target that wants it; `make clean` takes it all away again. `make PYTHON=…` picks another Python.

ifndef PYTHON
PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then echo $$p; break; fi; done)
endif
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# what an installation depends on: when one of these changes, the next target installs again
METADATA := setup.cfg setup.py pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help demo test lint types tests format bench audit dist clean

help:
	@echo "make demo     run a backtest on the local simulator and show what it did"
	@echo "make test     lint, types and every test"
	@echo "make lint     ruff (rules and format) and the oldest Python"
	@echo "make types    mypy, strict"
	@echo "make tests    pytest alone; ARGS='tests/test_urls.py -k host' narrows it"
	@echo "make format   let ruff format and fix"
	@echo "make bench    measure; CONTRIBUTING.md names the peers that it can measure against"
	@echo "make audit    look the run-time dependencies up in the vulnerability database"
	@echo "make dist     build the wheel and the source archive, reproducibly"
	@echo "make clean    remove everything that these targets made"

demo: $(VENV)/.local
	@$(BIN)/backtest-sync demo

test: lint types tests

lint: $(VENV)/.dev
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "make lint: not formatted; 'make format' does it" >&2; exit 1; }
	@$(BIN)/vermin --quiet --no-tips --violations --target=3.10- --eval-annotations backtest_sync tests examples benchmarks

types: $(VENV)/.dev
	@$(BIN)/mypy

tests: $(VENV)/.dev
	@$(BIN)/python -m pytest -q $(ARGS)

format: $(VENV)/.dev
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

bench: $(VENV)/.dev
	@$(BIN)/python -m benchmarks $(ARGS)

audit: $(VENV)/.dev
	@$(BIN)/pip-audit --progress-spinner=off --skip-editable

# the commit's time instead of the clock's: the same tree gives the same bytes
dist: $(VENV)/.dev
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --no-isolation --outdir dist . >/dev/null
	@ls -1 dist

clean:
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then echo "make: no Python 3.10 or newer found; install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { echo "make: $(PYTHON) is not Python 3.10 or newer" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; $$($(PYTHON) --version))"
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 \
		|| $(PYTHON) -m virtualenv --quiet --clear $(VENV) 2>/dev/null \
		|| { rm -rf $(VENV); echo "make: $(PYTHON) can't make a virtual environment; install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }

$(VENV)/.local: $(METADATA) | $(BIN)/python
	@$(PIP) install --editable '.[fast,local]'
	@touch $@

$(VENV)/.dev: $(METADATA) | $(BIN)/python
	@$(PIP) install --editable '.[all,dev]'
	@touch $@ $(VENV)/.local
