# Two commands do everything: `make cluster` and `make test`. Both make .venv from the lock file first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
NODES ?= 3
DATA_DIR ?= .quorumca
COMPILE = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --upgrade \
	--no-emit-index-url --custom-compile-command "make lock" --quiet
# pysyncobj is published as source only; everything else must come as a wheel.
INSTALL := $(PIP) install --require-hashes --no-build-isolation --only-binary :all: --no-binary pysyncobj
CODE := cluster fsm providers tests benchmarks

.DEFAULT_GOAL := help
.PHONY: help cluster test quick check format bench lock clean

help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

cluster: $(VENV)/.runtime ## run a local cluster of $(NODES) nodes until Ctrl-C; data under .quorumca/
	@exec $(BIN)/quorumca dev --nodes $(NODES) --data-dir "$(DATA_DIR)"

test: $(VENV)/.dev ## run every test that a release must pass
	$(PY) -m pytest

quick: $(VENV)/.dev ## the tests that take under a minute together
	$(PY) -m pytest -m "not slow"

check: $(VENV)/.dev ## lint, format, types, layers
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(PY) -m mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## rewrite the code in house format
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

bench: $(VENV)/.dev ## measure; results and plot under benchmarks/results/
	$(PY) -m benchmarks.run

lock: $(VENV)/.dev ## resolve the lock files again
	$(PIP) install uv
	$(COMPILE) --group build -o requirements-build.lock
	$(COMPILE) pyproject.toml -o requirements.lock
	$(COMPILE) pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock

clean: ## remove the environment, caches and local cluster data
	rm -rf $(VENV) "$(DATA_DIR)" .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements-build.lock requirements.lock pyproject.toml | $(PY)
	$(PIP) install --require-hashes --only-binary :all: -r requirements-build.lock
	$(INSTALL) -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --no-index --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	$(INSTALL) -r requirements-dev.lock
	@touch $@
