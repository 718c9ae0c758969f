# Two commands do everything: `make cluster` and `make test`. Both make .venv from the lock file first.
PYTHON ?= python3
VENV := .venv
# Tools are run as modules: their scripts name the environment by its absolute path, which breaks when it is moved.
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
NODES ?= 3
# The tests wait more than they work: two for each core.
WORKERS ?= 4
SEEDS ?= 1000
ROUNDS ?= 50
REVOCATIONS ?= 200
ROTATIONS ?= 100
KILLS ?= 30
SECONDS ?= 600
CASES ?= 1000000
FIRST ?= 0
SEED ?=
PORT_OFFSET ?=
DATA_DIR ?= .quorumca
COMPILE = $(PY) -m uv pip compile --universal --python-version 3.11 --generate-hashes --upgrade \
	--no-emit-index-url --custom-compile-command "make lock" --quiet
# pysyncobj is published as source only; everything else must come as a wheel.
INSTALL := $(PIP) install --require-hashes --no-build-isolation --only-binary :all: --no-binary pysyncobj
CODE := cluster fsm providers tests benchmarks
EVIDENCE := docs/evidence
RESULTS := $(patsubst %,$(EVIDENCE)/%.json,crash-points simulation seeded-bugs fuzz cases chaos revocation continuity continuity-vault kills soak catchup flood)
ANEW := $(if $(FRESH),anew)
SEEDED := $(if $(SEED),--seed $(SEED))

# The tests start hundreds of processes: none compiles all modules anew, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help cluster test quick sim chaos revocation continuity continuity-vault fuzz cases seed-bugs crash-points kills soak \
	catchup flood evidence anew check format bench lock clean

help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile

cluster: $(VENV)/.runtime ## run a local cluster of $(NODES) nodes until Ctrl-C; data under .quorumca/
	@exec $(PY) -m cluster dev --nodes $(NODES) $(if $(PORT_OFFSET),--port-offset $(PORT_OFFSET)) --data-dir "$(DATA_DIR)"

test: $(VENV)/.dev ## run every test that a release must pass
	$(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not alone"
	$(PY) -m pytest -m alone

quick: $(VENV)/.dev ## the tests that take under a minute together
	$(PY) -m pytest -n $(WORKERS) -m "not slow"

sim: $(VENV)/.dev ## run $(SEEDS) simulated clusters, from seed $(FIRST) on; results in docs/evidence/simulation.json
	$(PY) -m tests.sim --seeds $(SEEDS) --first $(FIRST) --jobs 2 --evidence docs/evidence/simulation.json

chaos: $(VENV)/.dev ## hurt a real cluster in $(ROUNDS) rounds; results in docs/evidence/chaos.json
	$(PY) -m tests.chaos --rounds $(ROUNDS) $(SEEDED) --evidence docs/evidence/chaos.json

revocation: $(VENV)/.dev ## take rights away in $(REVOCATIONS) rounds and kill the leader; results in docs/evidence/revocation.*
	$(PY) -m tests.revocation --rounds $(REVOCATIONS) $(SEEDED) --evidence docs/evidence/revocation.json

continuity: $(VENV)/.dev ## rotate the root $(ROTATIONS) times under a mesh; results in docs/evidence/continuity.*
	$(PY) -m tests.continuity --rotations $(ROTATIONS) --kills $(KILLS) $(SEEDED) \
		--evidence docs/evidence/continuity.json

continuity-vault: $(VENV)/.dev ## the same between the built-in provider and Vault; docs/evidence/continuity-vault.*
	$(PY) -m tests.continuity --vault --rotations 36 --kills 10 --staged 5 $(SEEDED) \
		--evidence docs/evidence/continuity-vault.json

fuzz: $(VENV)/.dev ## change inputs of every decoder, in $(SECONDS) seconds for all; results in docs/evidence/fuzz.json
	$(PY) -m tests.fuzz --seconds $(SECONDS) $(SEEDED)

cases: $(VENV)/.dev ## $(CASES) inputs for PUT snapshot, RPC operations and decoders; results in docs/evidence/cases.json
	$(PY) -m tests.fuzz --cases $(CASES) $(SEEDED)

seed-bugs: $(VENV)/.dev ## take one protection away at a time, and see that a test notices
	$(PY) -m tests.seeded_bugs --jobs 2

check: $(VENV)/.dev ## lint, format, types, layers, known vulnerabilities
	$(PY) -m ruff check $(CODE)
	$(PY) -m ruff format --check $(CODE)
	$(PY) -m mypy
	$(PY) -c "from importlinter.cli import lint_imports_command; lint_imports_command()"
	$(PY) -m bandit --quiet --configfile pyproject.toml --recursive cluster fsm providers
	$(PY) -m tests.audit

format: $(VENV)/.dev ## rewrite the code in house format
	$(PY) -m ruff check --fix $(CODE)
	$(PY) -m ruff format $(CODE)

bench: $(VENV)/.dev ## measure; results and plot under benchmarks/results/
	$(PY) -m benchmarks.run

kills: $(VENV)/.dev ## kill the leader 200 times with a small and a large ledger; results in docs/evidence/kills.*
	$(PY) -m benchmarks.kills

soak: $(VENV)/.dev ## an hour of signing, a leader killed every five minutes; results in docs/evidence/soak.*
	$(PY) -m benchmarks.soak

catchup: $(VENV)/.dev ## bring servers up to a large ledger under load; results in docs/evidence/catchup.*
	$(PY) -m benchmarks.catchup

flood: $(VENV)/.dev ## honest clients beside 2,000 connections and a flood of wrong tokens; results in docs/evidence/flood.json
	$(PY) -m benchmarks.flood

evidence: $(VENV)/.dev $(RESULTS) ## run the campaigns without results (all, hours of them, with FRESH=1); write the index
	$(PY) -m benchmarks.evidence

anew: ;

# A result that is there is kept: hours of campaigns go on where they were interrupted.
$(EVIDENCE)/crash-points.json: $(ANEW)
	$(MAKE) crash-points
$(EVIDENCE)/simulation.json: $(ANEW)
	$(MAKE) sim SEEDS=20000
$(EVIDENCE)/seeded-bugs.json: $(ANEW)
	$(MAKE) seed-bugs
$(EVIDENCE)/fuzz.json: $(ANEW)
	$(MAKE) fuzz SECONDS=2400
$(EVIDENCE)/chaos.json: $(ANEW)
	$(MAKE) chaos ROUNDS=50
$(EVIDENCE)/%.json: $(ANEW)
	$(MAKE) $*

crash-points: $(VENV)/.dev ## cut the power everywhere, damage every byte; results in docs/evidence/crash-points.json
	QUORUMCA_EVIDENCE=$(EVIDENCE)/crash-points.json $(PY) -m pytest -q tests/crash

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
