# Two commands: `make repro` (set up, reproduce, register, summarise) and `make test` (what CI runs).
#   make repro PROFILE=smoke   the same path in minutes, in a temporary clone: nothing here is touched
#   make verify                compare a reproduction with the committed metrics
VENV ?= .venv
SETUP ?= ./bootstrap
PROFILE ?=
INTO ?=

export VENV
export PATH := $(abspath $(VENV))/bin:$(PATH)
export DO_NOT_TRACK = true
export DVC_NO_ANALYTICS = 1
export ITERATIVE_DO_NOT_TRACK = 1
export MLFLOW_DISABLE_TELEMETRY = true
export PREFECT_SERVER_ANALYTICS_ENABLED = false

.PHONY: setup repro test lint verify

setup:
	@$(SETUP)

ifeq ($(PROFILE),)
repro: setup
	dvc repro
	python -m pano3d register
	@python -m pano3d summary
else
# A clone of the last commit, so that dvc.lock and results/ keep describing the default run. INTO=folder keeps it.
repro: setup
	@set -eu; into='$(INTO)'; \
	[ -z "$$(git status --porcelain --untracked-files=no)" ] || echo "note: uncommitted changes are not in the clone" >&2; \
	if [ -z "$$into" ]; then into=$$(mktemp -d); trap 'rm -rf "$$into"' EXIT; fi; \
	git clone --quiet . "$$into/pano3d"; cd "$$into/pano3d"; \
	sed 's/^profile: .*/profile: $(PROFILE)/' params/run.yaml > run.yaml.new; mv run.yaml.new params/run.yaml; \
	unset DVC_ROOT MLFLOW_TRACKING_URI; \
	dvc repro; python -m pano3d register; python -m pano3d summary
endif

lint: setup
	ruff check .
	ruff format --check .
	mypy

# The pipeline's own test runs `make repro PROFILE=smoke` from a clean clone.
test: lint
	python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

verify: setup
	@python -m pano3d verify
