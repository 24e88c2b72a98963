# `make help` lists the targets. Everything is installed into .venv; nothing outside this folder is changed.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?=

.PHONY: help install demo test check format lifecycle clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Cody needs Python 3.11 or newer: PYTHON=python3.x make ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "venv is missing: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing into $(VENV) ..."
	@$(BIN)/pip install -qq --disable-pip-version-check -e '.[codex,dev]' -c constraints.txt
	@touch $@

install: $(STAMP) ## make .venv with the pinned dependencies

demo: $(STAMP) ## run the main job for real: three turns of codex on a scratch repository (MODEL=... with a key)
	@$(BIN)/python -m harness.demo $(if $(MODEL),--model $(MODEL))

test: $(STAMP) ## the whole suite: real Valkey, real processes, real codex (PYTEST_ARGS=...)
	@$(BIN)/python -m pytest -q $(PYTEST_ARGS)

check: $(STAMP) ## ruff, mypy --strict, import arrows
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/unit/test_arrows.py

format: $(STAMP) ## format the code
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

lifecycle: $(STAMP) ## draw docs/lifecycle.md from the state machine's table
	@$(BIN)/python -m cody.contracts.lifecycle > docs/lifecycle.md

clean: ## remove .venv, caches and build output
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
