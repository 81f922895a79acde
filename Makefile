# Everything a developer or a machine does here. `make` alone lists the targets.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# alibi-detect does not live with the newest versions. Its environment is made anew when its pins
# change and not when a clone is newer, so that it may be kept from one clone to the next.
ALIBI       := .venv-alibi
ALIBI_STAMP := $(ALIBI)/.installed-$(firstword $(shell cksum requirements-alibi.txt))
# More processes than this only add the memory of one TensorFlow each.
PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup setup-alibi demo test test-kafka test-postgres test-alibi test-fast test-statistics check lint types imports docs picture bench-quick bench-verdict bench-alibi bench-banks bench-stream bench-spread lock lock-alibi clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## create .venv and install the pinned requirements (only installs)

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"Shiftwatch needs Python 3.11 or newer, found {v[0]}.{v[1]}; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@# Without byte code every start of TensorFlow compiles it again (21 s instead of 4 s).
	-@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1
	@touch $@

setup-alibi: $(ALIBI_STAMP) ## create .venv-alibi with alibi-detect, pinned too (Python 3.11 or 3.12; 3 GB)

$(ALIBI_STAMP):
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(not (3, 11) <= v < (3, 13) and f"alibi-detect needs Python 3.11 or 3.12, found {v[0]}.{v[1]}; set PYTHON=/path/to/python3.11")'
	rm -rf $(ALIBI) && $(PYTHON) -m venv $(ALIBI)
	$(ALIBI)/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements-alibi.txt
	$(ALIBI)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	-@env -u PYTHONDONTWRITEBYTECODE $(ALIBI)/bin/python -m compileall -q -j 0 $(ALIBI)/lib >/dev/null 2>&1
	@touch $@

demo: setup ## run the main job on embedded defaults (about three minutes)
	$(BIN)/shiftwatch demo --exit-when-done $(DEMO_ARGS)

test: setup ## all tests but those over hundreds of seeds and those with a broker, on all processors
	$(BIN)/python -m pytest -m "not statistical and not kafka" $(PARALLEL) $(PYTEST_ARGS)

test-kafka: setup ## the tests with a real broker (about eight minutes; Java 17 and Maven, or KAFKA_BOOTSTRAP_SERVERS)
	$(BIN)/python -m pytest -m kafka tests/kafka $(PYTEST_ARGS)

test-postgres: setup ## the tests with a real PostgreSQL alone (they are part of make test)
	$(BIN)/python -m pytest -m postgres tests/service $(PYTEST_ARGS)

test-alibi: setup-alibi ## the tests with alibi-detect, in its own environment (about three minutes)
	SHIFTWATCH_TEST_ALIBI=true $(ALIBI)/bin/python -m pytest -m alibi tests --numprocesses 2 $(PYTEST_ARGS)

test-statistics: setup ## promises over hundreds of seeds (about five minutes)
	$(BIN)/python -m pytest -m statistical $(PYTEST_ARGS)

test-fast: setup ## the tests that take seconds
	$(BIN)/python -m pytest -m "not slow and not statistical and not kafka" $(PARALLEL) $(PYTEST_ARGS)

check: lint types imports test test-kafka test-alibi ## what has to be green before a merge

lint: setup ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## mypy --strict
	$(BIN)/mypy

imports: setup ## import-linter: the arrows between the packages
	$(BIN)/lint-imports

docs: setup ## write the generated pages of docs/reference
	$(BIN)/python -m service.api.docs_pages

picture: setup ## draw the rooms of the code into docs/assets (CONTRIBUTING.md shows them)
	$(BIN)/python docs/rooms_picture.py

bench-quick: setup ## the benchmark's tables from few seeds (about five minutes)
	$(BIN)/python -m benchmarks.verdict --quick --jobs 2

bench-verdict: setup ## the benchmark with all seeds (hours); goes on where it was cut
	$(BIN)/python -m benchmarks.verdict $(BENCH_ARGS)

bench-alibi: setup setup-alibi ## alibi-detect's rows of the benchmark (hours); goes on where it was cut
	$(BIN)/python -m benchmarks.verdict --only alibi $(BENCH_ARGS)

bench-banks: setup setup-alibi ## stage 1 beside river and alibi-detect (about fifteen minutes; nothing else may run)
	$(BIN)/python -m benchmarks.banks $(BENCH_ARGS)

bench-stream: setup ## rate, latency and memory on a real broker (about half an hour; nothing else may run)
	$(BIN)/python -m benchmarks.stream $(BENCH_ARGS)

bench-spread: setup ## a stream over several partitions beside the same one in one (hours; goes on where it was cut)
	$(BIN)/python -m benchmarks.spread $(BENCH_ARGS)

lock: ## resolve the newest versions into requirements.txt (then run make check)
	rm -rf $(VENV)-lock && $(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet ".[dev]" hatchling editables
	{ sed -n '/^#/p' requirements.txt; $(VENV)-lock/bin/python -m pip freeze --exclude pip --exclude shiftwatch; } > requirements.new
	mv requirements.new requirements.txt && rm -rf $(VENV)-lock

lock-alibi: ## the same with alibi-detect, into requirements-alibi.txt (then run make test-alibi)
	rm -rf $(ALIBI)-lock && $(PYTHON) -m venv $(ALIBI)-lock
	@# Its context-aware test, which the benchmark asks, needs what scikit-learn 1.8 dropped.
	$(ALIBI)-lock/bin/python -m pip install --quiet ".[alibi,test]" "scikit-learn<1.8" hatchling editables
	{ sed -n '/^#/p' requirements-alibi.txt; $(ALIBI)-lock/bin/python -m pip freeze --exclude pip --exclude shiftwatch; } > requirements.new
	mv requirements.new requirements-alibi.txt && rm -rf $(ALIBI)-lock

clean: ## remove the environments, caches and the demo's data
	rm -rf $(VENV) $(ALIBI) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist build demo-data
	find . -name __pycache__ -prune -exec rm -rf {} +
