# make demo   set up, then monitor a year of real flights      make test   set up, then run every test
# make lint   formatting, types, warnings as errors            make bench  timings next to peers and limits

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
CORE := $(shell find csrc -name '*.cpp' -o -name '*.hpp') setup.py pyproject.toml

.PHONY: demo test lint bench sanitize clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"

$(VENV)/installed: $(BIN)/python $(CORE)
	$(PIP) install --editable ".[demo]"
	touch $@

$(VENV)/tested: $(VENV)/installed
	$(PIP) install --group test
	touch $@

$(VENV)/linted: $(VENV)/installed
	$(PIP) install --group lint
	touch $@

$(VENV)/benched: $(VENV)/installed
	$(PIP) install --group bench
	touch $@

demo: $(VENV)/installed
	$(BIN)/tidegauge demo --out demo/report.html

test: $(VENV)/tested
	$(BIN)/python -m pytest

lint: $(VENV)/linted
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(find csrc -name '*.cpp' -o -name '*.hpp')
	$(BIN)/codespell

clean:
	rm -rf $(VENV) build demo src/*.egg-info src/tidegauge/_core*.so
