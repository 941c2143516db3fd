# Everything a clone needs: `make run` shows Connect at work, `make test` proves it. Both set up .venv first.
# Needs: Python 3.11+, make, and network access to package registries on the first run.

PYTHON ?= python3
EVENTS ?= 2000
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up

.DEFAULT_GOAL := help
.PHONY: help setup services run test check format lock bench chaos clean

help: ## print this list
	@echo "usage: make TARGET"
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-10s %s\n", $$1, $$2 }'
	@echo "settable: PYTHON=python3.12 (set-up)  EVENTS=2000 (run)  ARGS='-k once' (test)"

setup: $(STAMP) ## make .venv with everything, quick when nothing changed

# uv is used where it is installed; elsewhere it is put into .venv first. The lock's hashes are checked either way.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Connect needs Python 3.11 or newer and '$(PYTHON)' is not one: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@set -eu; \
	if uv --version >/dev/null 2>&1; then \
		uv=uv; \
		[ -x $(BIN)/python ] || uv venv --quiet --allow-existing --no-python-downloads --python "$$(command -v $(PYTHON))" $(VENV); \
	else \
		uv=$(BIN)/uv; \
		if [ ! -x $(BIN)/pip ] && [ ! -x $$uv ] && ! $(PYTHON) -m venv --clear $(VENV); then \
			rm -rf $(VENV); \
			echo "'$(PYTHON) -m venv' does not work: install uv, or Python's venv module (python3-venv on Debian), and run make again" >&2; exit 1; \
		fi; \
		[ -x $$uv ] || $(BIN)/pip install --quiet --disable-pip-version-check uv; \
	fi; \
	$$uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock; \
	$$uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

run: setup ## the main job on real input: a demo that serves until Ctrl-C (EVENTS=2000)
	$(BIN)/connect demo --events $(EVENTS)

services: setup ## install the brokers that tests need and that are not running (as root on Debian), or say what to install
	@$(BIN)/python -m tests.brokers.packages

# A bare `pytest` is the quick part: each -m here takes the place of the default one in pyproject.toml.
test: services ## all tests but the long fault runs (ARGS='-k once' narrows them)
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

check: setup ## format, lint, types, import rules, house style: what CI runs before the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest -q -n 0 --noconftest tests/test_style.py tests/test_docstrings.py

format: setup ## format the code and apply the linter's safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# --universal and --python-version keep the lock the same whichever machine makes it; no registry address is written.
lock: ## pin every dependency anew, with hashes, in requirements.lock (needs uv; LOCK_ARGS=--upgrade)
	uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --quiet $(LOCK_ARGS) -o requirements.lock

bench: services ## the benchmarks; minutes
	$(BIN)/python -m bench $(ARGS)

chaos: services ## the fault runs with the long ones included; minutes
	$(BIN)/python -m pytest -m "chaos or slow" -n 0 --timeout 1800 $(ARGS)

clean: ## remove .venv, caches and built files (never .connect, which holds data)
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
