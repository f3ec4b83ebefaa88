# Every target creates the virtual environment and installs what it needs if absent; all are safe to repeat.
PYTHON ?= python3
VENV   := .venv
STAMP  := $(VENV)/.installed
DEV    := $(VENV)/.installed-dev
BIN    := $(CURDIR)/$(VENV)/bin

export DAGSTER_HOME  := $(CURDIR)
export PYTHONUNBUFFERED := 1
export DAGSTER_DISABLE_TELEMETRY := 1

.PHONY: demo test test-night ui bench bench-oracle bench-ablations lint clean sync help

help:  ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

$(STAMP): pyproject.toml constraints.txt
	@echo "== installing into $(VENV) (once; about two minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $(STAMP)

$(DEV): $(STAMP)
	@echo "== installing what the tests and linters need (once; about a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(DEV)

sync: $(STAMP)  ## Install the project and its pinned dependencies

demo: $(STAMP)  ## The whole job on the simulated market, through Dagster; prints the results
	$(BIN)/python -m atft_pipeline.demo

test: $(DEV)  ## All tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

test-night: $(DEV)  ## One simulated night with late prices, as whole Dagster runs (four minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m night

ui: $(STAMP)  ## The Dagster UI on http://127.0.0.1:3000
	$(BIN)/python -m atft_pipeline.defs.maintenance sweep
	env --default-signal=INT,TERM $(BIN)/dagster dev -h 127.0.0.1 -p $${PORT:-3000} -w workspace.yaml

bench: $(DEV)  ## Benchmarks; JSON lines on standard output
	@for script in $(filter-out benchmarks/oracle.py benchmarks/ablations.py benchmarks/feature_peers.py,$(wildcard benchmarks/*.py)); do echo "== $$script" >&2; $(BIN)/python $$script || exit 1; done

bench-oracle: $(DEV)  ## What the model learns of each planted part (seven markets, three seeds)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/oracle.py

bench-ablations: $(DEV)  ## What every part of the model is worth: phase by phase, without one part, with 99 inputs
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/ablations.py

lint: $(DEV)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## Remove the virtual environment, caches and everything built under data/
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache data/simulated data/dagster
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
