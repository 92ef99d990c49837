# Everything a person or CI does with this repository. Needs Python >= 3.11, make and a package index that pip knows.

VENV := .venv
BIN := $(VENV)/bin
NAME ?= noop
SEEDS ?= 200
FROM ?= 0
ROUNDS ?= 1
SEED ?= 1
ONLY ?=
PYTHON ?= $(shell for candidate in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$candidate && break; done)

DISTRIBUTIONS := gen shared services/scheduler services/state-manager services/worker-manager services/worker
EDITABLES := $(addprefix -e ./,$(DISTRIBUTIONS)) -e './clients/python[embedded]'
TESTING := clients/testing
PROJECTS := $(addsuffix /pyproject.toml,$(DISTRIBUTIONS) clients/python)
CHECKED := $(wildcard services/*/src shared/src clients/python/src clients/testing/src tests examples scripts)
# --no-build-isolation: the build backend is installed once, not once per distribution.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test check gen lint in-step format bench simulate chaos mutants constraints clean anew

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

# Stamps say what the environment holds, so that a second `make run` or `make test` never calls pip. They say nothing of
# an environment that was moved or copied (its packages are read where it was), whose Python is gone, or that was never
# finished: it is made anew.
HERE := $(CURDIR)/$(VENV)
USABLE = $(shell grep -qsF -e '="$(HERE)' -e '=$(HERE)' $(BIN)/activate && $(BIN)/python -c 'import pip' 2>/dev/null && echo yes)

$(VENV)/pyvenv.cfg: $(if $(filter yes,$(USABLE)),,anew)
	@test -n "$(PYTHON)" || { echo "Node Flow needs Python 3.11 or newer, and found none on PATH." \
		"Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make a virtual environment." \
		"On Debian or Ubuntu: apt install python3-venv (or python3.X-venv for the version in use)." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)

$(VENV)/runtime.stamp: $(VENV)/pyvenv.cfg $(PROJECTS) constraints.txt
	$(INSTALL) hatchling editables
	$(INSTALL) --no-build-isolation $(EDITABLES)
	@touch $@

$(VENV)/dev.stamp: $(VENV)/runtime.stamp $(TESTING)/pyproject.toml requirements-dev.txt
	$(INSTALL) -r requirements-dev.txt
	$(INSTALL) --no-build-isolation -e ./$(TESTING)
	@touch $@

run: $(VENV)/runtime.stamp  ## analyse Python's own standard library, and print the report
	@$(BIN)/python examples/stdlib_report/main.py

test: $(VENV)/dev.stamp  ## run all tests
	@$(BIN)/python -m pytest tests -rs

check: lint in-step test  ## all that CI asks for: lint, generated files in step with their sources, tests

gen: $(VENV)/dev.stamp  ## generate gen/ from protos/
	@$(BIN)/python scripts/gen.py

lint: $(VENV)/dev.stamp  ## style, types, layers, protos
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(CHECKED)
	$(BIN)/lint-imports --no-logo --cache-dir build/import-linter
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code

in-step: $(VENV)/dev.stamp
	$(BIN)/python scripts/gen.py --check
	$(BIN)/python scripts/write_schema.py --check
	$(BIN)/python scripts/draw_lifecycle.py --check

format: $(VENV)/dev.stamp  ## format Python and protos in place
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/buf format --write

bench: $(VENV)/dev.stamp  ## measure: make bench NAME=noop, latency or process
	@$(BIN)/python -m tests.bench $(NAME)

simulate: $(VENV)/dev.stamp  ## live random lives of a suite on virtual time: make simulate SEEDS=200 FROM=0 JOBS=2
	@$(BIN)/python -m tests.simulation.seeds --seeds $(SEEDS) --from $(FROM) $(if $(JOBS),--jobs $(JOBS))

chaos: $(VENV)/dev.stamp  ## kill and stop processes of real suites: make chaos ROUNDS=20 [SEED=1] [ONLY=scheduler:kill]
	@$(BIN)/python -m tests.chaos --rounds $(ROUNDS) --seed $(SEED) --only '$(ONLY)'

mutants: $(VENV)/dev.stamp  ## plant bugs one at a time, and show which seed and which test catches each
	@$(BIN)/python -m tests.mutants

constraints:  ## write constraints.txt from a clean resolve of all lower bounds
	@$(PYTHON) scripts/constraints.py $(DISTRIBUTIONS) $(TESTING) 'clients/python[embedded]'

clean:  ## remove what make made: environment, caches, builds
	rm -rf $(VENV) build dist .nodeflow .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
