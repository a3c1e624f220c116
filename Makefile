# `make demo` and `make test` set everything up by themselves: they need make and python3 (3.11 or newer), nothing else.
VENV ?= .venv
VENV_BENCH ?= .venv-bench
PYTHON ?= python3
RUN := $(VENV)/bin/python
READY := $(VENV)/.installed
READY_BENCH := $(VENV_BENCH)/.installed
UV_COMPILE := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade --quiet

# $(call environment,FOLDER)
define environment
@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"python 3.11 or newer is needed, $(PYTHON) is {v[0]}.{v[1]}; try make PYTHON=python3.12" or 0)'
@$(PYTHON) -m venv $(1) || { echo "error: $(PYTHON) cannot create environments; on Debian: apt install python3-venv" >&2; exit 1; }
endef

.PHONY: help install demo test test-slow lint lock bench-install lock-bench clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

install: $(READY)  ## create the environment from requirements.lock

$(READY): requirements.lock
	$(call environment,$(VENV))
	$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

bench-install: $(READY_BENCH)  ## create a second environment, in which the attacks of other libraries run (benchmarks/peers.py)

$(READY_BENCH): requirements-bench.lock benchmarks/requirements-bench-nodeps.lock
	$(call environment,$(VENV_BENCH))
	$(VENV_BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	$(VENV_BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r benchmarks/requirements-bench-nodeps.lock
	@touch $@

demo: $(READY)  ## train RobustNet Adv. and a plain network on real digits, attack both, print the results
	$(RUN) -m cli.demo

test: $(READY)  ## linters, types, tests
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy .
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto

test-slow: $(READY)  ## the tests that take minutes or want real data
	OMP_WAIT_POLICY=PASSIVE $(RUN) -m pytest -m slow

lint: $(READY)  ## format and mend what ruff can
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

lock:  ## resolve pyproject.toml anew (needs uv)
	$(UV_COMPILE) pyproject.toml --extra dev --output-file requirements.lock

lock-bench:  ## resolve the peers anew under the versions of requirements.lock (needs uv)
	$(UV_COMPILE) pyproject.toml benchmarks/requirements-bench.in --extra dev --constraint requirements.lock --output-file requirements-bench.lock
	$(UV_COMPILE) benchmarks/requirements-bench-nodeps.in --no-deps --output-file benchmarks/requirements-bench-nodeps.lock

clean:  ## remove the environments and caches
	rm -rf $(VENV) $(VENV_BENCH) .pytest_cache .mypy_cache .ruff_cache
