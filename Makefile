# Everything a developer or a machine does here. `make` alone lists the targets.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# More processes than this only add the memory of one TensorFlow each.
PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-kafka test-postgres test-fast test-statistics check lint types imports docs bench-quick bench-verdict bench-stream bench-spread lock clean

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

demo: setup ## run the main job on embedded defaults (about four minutes)
	$(BIN)/shiftwatch demo --exit-when-done $(DEMO_ARGS)

test: setup ## all tests but those over hundreds of seeds and those with a broker, on all processors
	$(BIN)/python -m pytest -m "not statistical and not kafka" $(PARALLEL) $(PYTEST_ARGS)

test-kafka: setup ## the tests with a real broker (about eight minutes; Java 17 and Maven, or KAFKA_BOOTSTRAP_SERVERS)
	$(BIN)/python -m pytest -m kafka tests/kafka $(PYTEST_ARGS)

test-postgres: setup ## the tests with a real PostgreSQL alone (they are part of make test)
	$(BIN)/python -m pytest -m postgres tests/service $(PYTEST_ARGS)

test-statistics: setup ## promises over hundreds of seeds (about five minutes)
	$(BIN)/python -m pytest -m statistical $(PYTEST_ARGS)

test-fast: setup ## the tests that take seconds
	$(BIN)/python -m pytest -m "not slow and not statistical and not kafka" $(PARALLEL) $(PYTEST_ARGS)

check: lint types imports test test-kafka ## what has to be green before a merge

lint: setup ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## mypy --strict
	$(BIN)/mypy

imports: setup ## import-linter: the arrows between the packages
	$(BIN)/lint-imports

docs: setup ## write the generated pages of docs/reference
	$(BIN)/python -m service.api.docs_pages

bench-quick: setup ## the benchmark's tables from few seeds (about five minutes)
	$(BIN)/python -m benchmarks.verdict --quick --jobs 2

bench-verdict: setup ## the benchmark with all seeds (hours); goes on where it was cut
	$(BIN)/python -m benchmarks.verdict $(BENCH_ARGS)

bench-stream: setup ## rate, latency and memory on a real broker (about half an hour; nothing else may run)
	$(BIN)/python -m benchmarks.stream $(BENCH_ARGS)

bench-spread: setup ## a stream over several partitions beside the same one in one (hours; goes on where it was cut)
	$(BIN)/python -m benchmarks.spread $(BENCH_ARGS)

lock: ## resolve the newest versions into requirements.txt (then run make check)
	rm -rf $(VENV)-lock && $(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet ".[dev]" hatchling editables
	{ sed -n '/^#/p' requirements.txt; $(VENV)-lock/bin/python -m pip freeze --exclude pip --exclude shiftwatch; } > requirements.new
	mv requirements.new requirements.txt && rm -rf $(VENV)-lock

clean: ## remove the environment, caches and the demo's data
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist build demo-data
	find . -name __pycache__ -prune -exec rm -rf {} +
