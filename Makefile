# `make run` is the product, `make test` the proof. Both set themselves up on a fresh clone:
# Python 3.11, pip and make are enough.
PYTHON ?= python3.11
CONFIG ?= configs/movielens-100k.toml
BIN := .venv/bin
PACKAGES := shortlist models simulation feature_repo services monitoring flows cli
UV := $(BIN)/uv

export DO_NOT_TRACK = 1
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export BENTOML_DO_NOT_TRACK = True
export GX_ANALYTICS_ENABLED = false
# uv does not read pip's own settings; hand on where pip finds wheels on this machine, if anywhere.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)

.PHONY: run demo test lint format docs endurance lock setup clean

run: .venv/.ready
	$(BIN)/shortlist run $(CONFIG)

demo: run
	$(BIN)/shortlist serve

test: .venv/.ready
	$(BIN)/python -m pytest

lint: .venv/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check --no-cache .
	$(BIN)/basedpyright --level error
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml $(PACKAGES)

format: .venv/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The site is build/docs/index.html. Links to missing pages and headings are errors.
docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

endurance: .venv/.ready
	SHORTLIST_ENDURANCE=1 $(BIN)/python -m pytest tests/services/test_event_log.py \
	    tests/shortlist/test_lake_kill.py tests/flows/test_data_kill.py \
	    tests/flows/test_repeats_run.py tests/flows/test_degenerate_runs.py \
	    tests/flows/test_tune.py tests/flows/test_off_policy_run.py tests/benchmarks/test_rollout.py \
	    tests/benchmarks/test_refit_days.py tests/services/test_faults.py tests/live \
	    tests/feature_repo tests/shortlist/test_event_groups.py tests/shortlist/test_feature_states.py \
	    tests/shortlist/test_searches.py tests/shortlist/test_catalogue_history.py \
	    tests/shortlist/test_feature_known_at.py

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

.venv/.docs: .venv/.ready docs/requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python -r docs/requirements.lock
	touch $@

# Plain requirements, no registry recorded; the local build suffix of torch is cut so that it installs anywhere.
lock:
	$(UV) pip compile pyproject.toml --extra dev --python-version 3.11 --quiet --no-header \
	    --no-annotate --no-emit-index-url --no-emit-find-links -o requirements.lock
	sed -i 's/^\(torch==[0-9.]*\)+cpu/\1/' requirements.lock
	$(UV) pip compile services/requirements.in --constraint requirements.lock --python-version 3.11 \
	    --quiet --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	    -o services/requirements.lock
	sed -i 's/^\(torch==[0-9.]*\)+cpu/\1/' services/requirements.lock
	$(UV) pip compile --group docs --constraint requirements.lock --python-version 3.11 \
	    --quiet --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	    -o docs/requirements.lock

clean:
	rm -rf .venv var build
