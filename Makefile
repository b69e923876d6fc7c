# Everything that a new machine needs besides Python 3.11 or 3.12, git and make is set up by these targets.

PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	"$$name" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null && echo "$$name" && break; done)
BIN := .venv/bin
ARGS ?=
GATEWAY_CONF ?= conf/gateway.toml
export GATEWAY_CONF

.PHONY: help run test emulate bench lint format docs clean

help:
	@echo "make run      the gateway in the foreground, with $(GATEWAY_CONF)"
	@echo "make emulate  a virtual tracker that sends to it (ARGS='--help' tells more)"
	@echo "make test     all tests"
	@echo "make bench    the benchmarks (ARGS='decode' for one part)"
	@echo "make lint     ruff and mypy;  make format  puts the code into form;  make docs  writes the generated pages"

run: .venv/installed
	@exec $(BIN)/twistd --nodaemon --pidfile= --python twistd.tac

emulate: .venv/installed
	@exec $(BIN)/python -m gateway.emulator $(ARGS)

test: .venv/installed-for-development
	@sh tests/install_servers.sh
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered $(ARGS)

bench: .venv/installed-for-development
	@sh tests/install_servers.sh
	$(BIN)/python -m bench $(ARGS)

lint: .venv/installed-for-development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-for-development
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed-for-development
	$(BIN)/python -m gateway.parameters >docs/parameters.md
	$(BIN)/python docs/settings_table.py
	$(BIN)/python docs/metrics_table.py
	$(BIN)/python docs/expressions_table.py
	$(BIN)/python docs/emulator_tables.py
	$(BIN)/python docs/teltonika_tables.py
	$(BIN)/python docs/commands_tables.py
	$(BIN)/python docs/plugins_table.py
	$(BIN)/python -m docs.streams_table

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

.venv/bin/python:
	@test -n "$(PYTHON)" || \
		{ echo "Python 3.11 or later is needed and is not on PATH (or: make PYTHON=/path/to/python3.11 ...)" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || \
		{ rm -rf .venv; echo "$(PYTHON) has no venv module: on Debian, apt-get install python3-venv" >&2; exit 1; }

.venv/installed: setup.cfg setup.py pyproject.toml | .venv/bin/python
	@echo "installing the gateway into .venv ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed-for-development: setup.cfg setup.py pyproject.toml | .venv/bin/python
	@echo "installing the gateway and its development tools into .venv ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	@touch .venv/installed $@
