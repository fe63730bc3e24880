# Every target does its own set-up: `make test` and `make demo` work on a bare Debian 12 as root.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
HOLD   ?=
SCENARIO ?=
RUNS   ?= 10
SECONDS ?= 60
TARGET ?=
CASES  ?=
JSON   ?=
SHORT  ?=
HOURS  ?= 500
MINUTES ?= 60
SEED   ?=
PROFILE ?=
BRIEF  ?=

.DEFAULT_GOAL := help
.PHONY: help setup packages test unit live lab check format demo acceptance bench fuzz flood \
        exhaustive matrix scenarios doublekill lifecheck simulate mutants soak detector wheel clean

help:            ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 14

packages:        ## Debian packages that the demo and the lab tests need (root)
	@bash scripts/install-packages

$(STAMP): pyproject.toml requirements.lock
	@bash scripts/make-venv $(PYTHON) $(VENV)
	@touch $(STAMP)

setup: $(STAMP)  ## the virtual environment, from the locked versions

test: packages setup  ## everything: style, types, unit, live and lab tests
	@$(MAKE) --no-print-directory check
	$(BIN)/pytest -n 2 --dist loadgroup -m "not live and not lab"
	@$(MAKE) --no-print-directory exhaustive
	$(BIN)/python -m tests.simulation --hours 500
	$(BIN)/python -m tests.simulation --mutants
	$(BIN)/pytest -m live
	$(BIN)/pytest -m lab

unit: setup      ## unit, property and scenario tests only; needs neither root nor packages
	$(BIN)/pytest -n 2 -m "not live and not lab"

exhaustive: setup  ## every state of small clusters to a depth; DEPTH=n or DEEPER=n looks further
	$(BIN)/python -m tests.exhaustive $(if $(DEPTH),--depth $(DEPTH),) $(if $(DEEPER),--deeper $(DEEPER),)

live: setup      ## tests with real processes on loopback
	$(BIN)/pytest -m live

lab: packages setup  ## tests in network namespaces with real pgpool-II and PostgreSQL (root)
	$(BIN)/pytest -m lab

simulate: setup  ## simulated clusters for HOURS cluster-hours; SEED=n repeats one run and tells its story
	$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED) --profile "$(PROFILE)" $(if $(BRIEF),--brief,) --shrink,--hours $(HOURS))

mutants: setup   ## break the rules one by one; each must be caught by a checker of the simulator
	$(BIN)/python -m tests.simulation --mutants

soak: setup      ## simulated clusters with growing seeds for MINUTES
	$(BIN)/python -m tests.simulation --minutes $(MINUTES)

detector: setup  ## detection time against false alarms: a model with loss, then real processes on busy cores
	$(BIN)/python -m tests.detector
	$(BIN)/python -m tests.detector --cpu

check: setup     ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup    ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

demo: packages setup  ## three hosts, a dead leader, a switchover; SCENARIO=failover: a dead primary; HOLD=1 leaves it running
	$(BIN)/pgvigil demo $(if $(SCENARIO),--scenario $(SCENARIO),) $(if $(HOLD),--hold,)

acceptance: packages setup  ## every fault of the acceptance table RUNS times, worst case reported
	$(BIN)/python -m pgvigil.watchdog.demo.acceptance --runs $(RUNS)

matrix: packages setup  ## fault x role x timing, about 190 cases; CASES="kill-* full-disk" picks some, JSON=file saves
	$(BIN)/python -m pgvigil.watchdog.demo.matrix --cases "$(CASES)" $(if $(JSON),--json "$(JSON)",)

scenarios: packages setup  ## failovers of PostgreSQL, RUNS times each: promotions, seconds, who agrees; CASES="partition", JSON=file
	$(BIN)/python -m pgvigil.watchdog.demo.failover --runs $(RUNS) --cases "$(CASES)" $(if $(JSON),--json "$(JSON)",)

doublekill: packages setup  ## primary and leader killed together, RUNS times (RUNS=100), double promotions counted
	$(BIN)/python -m pgvigil.watchdog.demo.failover --doublekill $(RUNS) $(if $(SEED),--seed $(SEED),) $(if $(JSON),--json "$(JSON)",)

lifecheck: packages setup  ## fault, verdict and what follows, with real pgpool-II; CASES="pgpool-* link-down", SHORT=1, JSON=file
	$(BIN)/python -m pgvigil.watchdog.demo.lifecheck --cases "$(CASES)" $(if $(SHORT),--short,) $(if $(JSON),--json "$(JSON)",)

bench: packages setup  ## processes, memory and CPU of every node in steady state
	$(BIN)/python -m pgvigil.watchdog.demo.bench

flood: packages setup  ## 20,000 packets of garbage a second against the leader, 30 s for each port
	$(BIN)/python -m pgvigil.watchdog.demo.hostile

fuzz: setup      ## coverage-guided fuzzing of every decoder for SECONDS=60 each; TARGET=config for one
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-fuzz.lock
	$(BIN)/python -m tests.fuzz.session --seconds $(SECONDS) $(TARGET)

wheel: setup     ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

clean:           ## remove what was built
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
