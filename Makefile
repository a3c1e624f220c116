# `make demo` and `make test` set everything up by themselves: they need make and python3 (3.11 or newer), nothing else.
VENV ?= .venv
PYTHON ?= python3
RUN := $(VENV)/bin/python
READY := $(VENV)/.installed

.PHONY: help install demo test test-slow lint lock clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

install: $(READY)  ## create the environment from requirements.lock

$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"python 3.11 or newer is needed, $(PYTHON) is {v[0]}.{v[1]}; try make PYTHON=python3.12" or 0)'
	@$(PYTHON) -m venv $(VENV) || { echo "error: $(PYTHON) cannot create environments; on Debian: apt install python3-venv" >&2; exit 1; }
	$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

demo: $(READY)  ## train RobustNet Adv. and a plain network on real digits, attack both, print the results
	$(RUN) -m cli.demo

test: $(READY)  ## linters, types, tests
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy .
	OMP_WAIT_POLICY=PASSIVE $(RUN) -m pytest

test-slow: $(READY)  ## the tests that take minutes or want real data
	OMP_WAIT_POLICY=PASSIVE $(RUN) -m pytest -m slow

lint: $(READY)  ## format and mend what ruff can
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

lock:  ## resolve pyproject.toml anew (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade --output-file requirements.lock

clean:  ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
