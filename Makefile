# Two commands do everything on a machine with python3, its venv module and make:
#   make run    the gate on https://127.0.0.1:8443 with real MCP servers
#   make test   everything that is checked before a change lands
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := var/demo
LAB := var/servers
TRIAL_FLAGS ?=

# Tests start some thousand programs: without this each would compile all the gate again, where the
# environment forbids to keep what was compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help env parts run test unit functional workers lint types layers docs news coverage bench clean

help:
	@echo "make run         start the gate with demo servers, print what to paste into clients"
	@echo "make test        lint, types, layers, docs, unit and functional tests, coverage"
	@echo "make unit        only the fast tests"
	@echo "make functional  only the tests with real sockets, processes and servers"
	@echo "make workers     the tests of sessions, limits, pooling and bridging with two workers"
	@echo "make docs        build the documentation into docs/_build/html"
	@echo "make test SHARDS=1   the same, one test after the other"
	@echo "make bench       measure the gate beside others (python -m bench --help)"
	@echo "make clean       remove what the others made"

# --- Environments --------------------------------------------------------------------------------

$(VENV)/made: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=24'
	$(BIN)/pip install --quiet --editable '.[dev]' --config-settings editable_mode=compat
	touch $@

env: $(VENV)/made

# MCP servers and clients live apart from the gate: their requirements are their own. What is
# there is left alone; without a package index or npm the tests that need them skip, and say so.
parts:
	$(PYTHON) tests/functional/real_parts.py $(LAB)

$(DEMO)/servers/made: etc/demo-servers.txt
	$(PYTHON) -m venv $(DEMO)/servers
	$(DEMO)/servers/bin/pip install --quiet --upgrade 'pip>=24'
	$(DEMO)/servers/bin/pip install --quiet --requirement $<
	touch $@

# --- Run -----------------------------------------------------------------------------------------

run: $(VENV)/made $(DEMO)/servers/made
	$(BIN)/mcpgate demo --config etc/demo.ini --key-file $(DEMO)/demo.key

# --- Test ----------------------------------------------------------------------------------------

test: lint types layers docs coverage

lint: $(VENV)/made
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/made
	$(BIN)/mypy

layers: $(VENV)/made
	$(BIN)/lint-imports

docs: $(VENV)/made
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

unit: $(VENV)/made
	$(BIN)/python tests/run_unit.py

functional: $(VENV)/made parts
	MCPGATE_REAL_PARTS=$(abspath $(LAB)) $(BIN)/trial $(TRIAL_FLAGS) tests.functional

# Any test of a gate can be run with worker processes in front of it.
WORKERS ?= 2
BEHIND_WORKERS := limits sessions_survive isolation bridged modern_on_legacy crossing resumption \
	relayed starts lifecycle reload attacks memory server_hosts workers

workers: $(VENV)/made parts
	MCPGATE_WORKERS=$(WORKERS) MCPGATE_REAL_PARTS=$(abspath $(LAB)) \
	$(BIN)/trial $(TRIAL_FLAGS) $(BEHIND_WORKERS:%=tests.functional.test_%)

# Most tests wait for other processes most of the time: so many of them run at the same time.
SHARDS ?= $(shell [ $$(nproc 2>/dev/null || echo 1) -gt 1 ] && echo 3 || echo 1)

coverage: $(VENV)/made parts
	$(BIN)/coverage erase
	MCPGATE_REAL_PARTS=$(abspath $(LAB)) $(BIN)/python tests/run_shards.py $(SHARDS) $(TRIAL_FLAGS)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --fail-under=95

bench: $(VENV)/made
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) var docs/_build _trial_temp* .coverage* build *.egg-info
