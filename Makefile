# Ottla. `make help` says what there is; CONTRIBUTING.md says when to use it.
# Every target has its line of help behind `##`; a test keeps it so.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Where `make run` serves, and where it keeps its data.
LISTEN ?= 127.0.0.1:9092
DATA ?= data
# How many tests run at once: one more than two cores, for nearly half of their time is waiting (for a session to
# lapse, a process to start). And what more pytest should be told: make test ARGS='-k groups'.
JOBS ?= 3
ARGS ?=
# The seeds of `make simulate`.
SEEDS ?= 1..

# The folders of examples/ that can be run.
EXAMPLES := messaging activity metrics logs market
# How an example is run: its own environment, the broker of `make run`.
EXAMPLE = @$(BUILD_EXAMPLES)/$(1)/bin/python -m examples.$(1) --bootstrap $(LISTEN) $(ARGS)
BUILD_EXAMPLES := build/examples

# What `make compiled` makes, and of what.
COMPILED := build/compiled/sources.json
COMPILED_SOURCES := $(shell sed -n '/^compiled = /,/^]/s|^    "\(ottla\..*\)",$$|\1|p' pyproject.toml | tr . / | sed 's|.*|src/&.py|')
COMPILED_SOURCES += scripts/generating.py $(addprefix src/ottla/wire/,apis.py codec.py fields.py)

PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help run test compiled wheel check lint types imports docs docs-check links site format pythons soak simulate mutate differences compare growth examples example-messaging example-activity example-metrics example-logs example-market clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-17s %s\n", $$1, $$2}'

run: $(VENV)/.installed ## Install into .venv and start a broker on 127.0.0.1:9092 with its data under ./data.
	@exec $(BIN)/ottla serve --data $(DATA) --listen $(LISTEN)

# Where bytecode is not kept, each of the thousands of processes that tests start compiles all of Ottla anew.
test soak pythons: export PYTHONDONTWRITEBYTECODE :=

test: check $(COMPILED) build/.interop $(EXAMPLES:%=$(BUILD_EXAMPLES)/%/.installed) ## Install what the tests need, run the checks and then every test.
	@$(BIN)/python -m compileall -q -j $(JOBS) src tests/sim
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

compiled: $(COMPILED) ## Compile the hot path into build/compiled, from where this clone's `ottla` takes it.

wheel: $(COMPILED) ## Build a compiled wheel for this Python and machine into dist.
	@OTTLA_COMPILE=1 $(PIP) wheel --no-deps --wheel-dir dist .
	@ls dist/*.whl

check: lint types imports docs-check links ## Run the fast checks alone: ruff, mypy, import-linter, generated docs, links.

lint: $(VENV)/.installed-test ## Check style and formatting with ruff.
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: $(VENV)/.installed-test ## Check types with mypy (strict).
	@$(BIN)/mypy

imports: $(VENV)/.installed-test ## Check that each layer imports only downward.
	@$(BIN)/lint-imports --config pyproject.toml

docs: $(VENV)/.installed-test ## Write the generated pages of docs/ anew.
	@$(BIN)/python scripts/docs.py

docs-check: $(VENV)/.installed-test ## Check that the generated pages of docs/ are current.
	@$(BIN)/python scripts/docs.py --check

links: $(VENV)/.installed-test ## Check that links between the Markdown files lead to files and headings.
	@$(BIN)/python scripts/links.py

site: build/site-venv/.installed ## Build the site of all pages into build/site/html, with MkDocs in an environment of its own.
	@NO_MKDOCS_2_WARNING=1 build/site-venv/bin/python scripts/site_pages.py

format: $(VENV)/.installed-test ## Format the code and mend what ruff can mend.
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

pythons: ## Run the tests of the embedded broker with each Python that is found, from 3.11 on: ARGS='3.12 3.13' chooses.
	@JOBS=$(JOBS) scripts/pythons.sh $(ARGS)

soak: $(VENV)/.installed-test ## Search longer: property tests with more examples, more crashes, more seeds.
	@OTTLA_SOAK=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal --timeout 3600 tests/unit tests/crash tests/sim \
		tests/scenarios/test_hostile_campaign.py $(ARGS)

simulate: $(VENV)/.installed-test ## Simulate a cluster under faults, seed after seed, until Ctrl-C. SEEDS=1..200 chooses.
	@$(BIN)/ottla simulate --seeds $(SEEDS) $(ARGS)

mutate: $(VENV)/.installed-test ## Break the code in one place at a time, list what no test notices. ARGS='--seed 2 --count 50 FILE'.
	@$(BIN)/python scripts/mutate.py $(ARGS)

differences: $(VENV)/.installed-test ## Ask two brokers the same, list where answers differ. KAFKA=HOST:PORT OTTLA=HOST:PORT ARGS='--fuzz 1000'.
	@cd tests && PYTHONPATH=. $(abspath $(BIN))/python -m protocol $(KAFKA) $(OTTLA) $(ARGS)

compare: $(VENV)/.installed-test $(COMPILED) ## Run the same load against Ottla and its peers, in turn, and write docs/BENCHMARKS.md.
	@$(BIN)/python bench/compare $(ARGS)

growth: $(VENV)/.installed-test $(COMPILED) ## Measure how a broker grows (partitions, groups, connections, …) and write docs/GROWTH.md with its plots.
	@$(BIN)/python bench/growth $(ARGS)

examples: $(VENV)/.installed $(EXAMPLES:%=$(BUILD_EXAMPLES)/%/.installed) ## Run each example for half a minute on a broker of its own.
	@$(BIN)/python -m examples $(ARGS)

example-messaging: $(BUILD_EXAMPLES)/messaging/.installed ## With `make run` going: orders, billing, parcels and mail, by way of topics.
	$(call EXAMPLE,messaging)

example-activity: $(BUILD_EXAMPLES)/activity/.installed ## With `make run` going: a web shop, and what its visitors do, live.
	$(call EXAMPLE,activity)

example-metrics: $(BUILD_EXAMPLES)/metrics/.installed ## With `make run` going: host metrics on a live plot, anomalies, one alert each.
	$(call EXAMPLE,metrics)

example-logs: $(BUILD_EXAMPLES)/logs/.installed ## With `make run` going: logs of several programs, gathered, searched and kept.
	$(call EXAMPLE,logs)

example-market: $(BUILD_EXAMPLES)/market/.installed ## With `make run` going: a trading day as streams: bars, a join, alarms, signals.
	$(call EXAMPLE,market)

clean: ## Remove what was installed and built; data/ stays.
	rm -rf $(VENV) build dist tests/interop/node/node_modules examples/*/node_modules
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests bench scripts examples -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps: each says that a step is done, and what would make it stale.
$(VENV)/.created:
	@PYTHON='$(PYTHON)' scripts/make-venv.sh $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml
	@echo 'ottla: installing into $(VENV)'
	@$(PIP) install --editable '.[all]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.created pyproject.toml
	@echo 'ottla: installing the test requirements into $(VENV)'
	@$(PIP) install --editable '.[test]'
	@touch $(VENV)/.installed $@

$(COMPILED): $(VENV)/.installed-test scripts/compiling.py pyproject.toml $(COMPILED_SOURCES)
	@PYTHON='$(BIN)/python' scripts/debian-packages.sh compiler
	@echo 'ottla: compiling the hot path into $(@D): 75 s of a processor, which all there are share'
	@$(BIN)/python scripts/compiling.py $(@D)

build/site-venv/.installed: scripts/site-requirements.txt
	@PYTHON='$(PYTHON)' scripts/make-venv.sh build/site-venv
	@echo 'ottla: installing MkDocs into build/site-venv'
	@build/site-venv/bin/python -m pip --disable-pip-version-check --quiet install --requirement $<
	@touch $@

build/.interop: $(VENV)/.installed-test $(wildcard scripts/*.sh scripts/java_jars.py tests/interop/node/package.json)
	@PYTHON='$(BIN)/python' scripts/interop-deps.sh
	@touch $@

$(BUILD_EXAMPLES)/%/.installed: examples/%/requirements.txt scripts/examples-deps.sh $(wildcard examples/*/package.json) | $(VENV)/.created
	@PYTHON='$(BIN)/python' scripts/examples-deps.sh $*
	@touch $@
