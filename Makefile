# `make help` lists the targets. Everything is installed into .venv; nothing outside this folder is changed.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?=
# Where the environment forbids bytecode, each of the suite's several hundred programs would compile Cody anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install dashboard demo test test-faults bench check format lifecycle schemas openapi screenshots clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Cody needs Python 3.11 or newer: PYTHON=python3.x make ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "venv is missing: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing into $(VENV) ..."
	@$(BIN)/pip install -qq --disable-pip-version-check -e '.[codex,dev]' -c constraints.txt
	@touch $@

install: $(STAMP) dashboard ## make .venv with the pinned dependencies, and build the dashboard

dashboard: $(STAMP) ## build the dashboard into server/static (once, as long as its sources are the same)
	@$(BIN)/python server/dashboard/build.py

demo: $(STAMP) ## run the main job for real: three turns of codex on a scratch repository (MODEL=... with a key)
	@$(BIN)/python -m harness.demo $(if $(MODEL),--model $(MODEL))

test: $(STAMP) dashboard ## the whole suite: real Valkey, real processes, real codex (PYTEST_ARGS=...)
	@$(BIN)/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-faults: $(STAMP) ## inject every fault several times and write the table of docs/reliability.md
	@$(BIN)/python -m tests.faults.report

bench: $(STAMP) ## measure the speed, as ratios to what the machine can do, and write the table of docs/performance.md
	@$(BIN)/python -m tests.bench

check: $(STAMP) ## ruff, mypy --strict, import arrows
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/unit/test_arrows.py
	@$(BIN)/python -m tests.security.secret_scan
	@$(BIN)/python -m tests.security.dependency_audit

format: $(STAMP) ## format the code
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

lifecycle: $(STAMP) ## draw docs/lifecycle.md from the state machine's table
	@$(BIN)/python -m cody.contracts.lifecycle > docs/lifecycle.md

schemas: $(STAMP) ## write docs/schemas from the contracts
	@for name in response stream_event; do $(BIN)/python -m cody.contracts.schema $$name.json > docs/schemas/$$name.json; done

openapi: $(STAMP) ## write docs/openapi.json from the routes and the contracts
	@$(BIN)/python -m server.openapi_file

screenshots: $(STAMP) dashboard ## write docs/images from the running dashboard
	@$(BIN)/python -m tests.browser.screenshots

clean: ## remove .venv, caches and build output
	@rm -rf $(VENV) server/static server/dashboard/node_modules build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
