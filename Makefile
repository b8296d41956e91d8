# Every target sets up what it needs: Python 3.11+ and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Three at once keep two cores busy; those that start, kill and fill up real services have the machine to themselves.
# schemathesis gives all its tests of a file one id, and of those pytest-xdist runs one.
REAL := tests/integration tests/faults tests/engine/http/test_http_schema.py
TOGETHER := $(BIN)/pytest -n 3 --dist loadfile $(REAL:%=--ignore=%)
ALONE := $(BIN)/pytest $(REAL)
SOURCES := engine streaming training monitoring tests benchmarks deploy

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint format proto lock audit docs bench pictures kafka kafka-3 kafka-stop cluster clean

help: ## Show the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Two stamps: what runs Leeway, and what its developers need beside. A changed lock installs again.
$(VENV)/.run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Leeway needs Python 3.11 or later; choose one with: make PYTHON=python3.11 ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	@touch $@

setup: $(VENV)/.dev ## Make the virtual environment with everything for development

demo: $(VENV)/.run ## Run the whole loop on real data, with a report at the end (about two minutes)
	$(BIN)/leeway demo --dir leeway-demo --json leeway-demo/figures.json

test: $(VENV)/.dev lint ## Lint, types and the tests that take minutes
	$(TOGETHER)
	$(ALONE)

test-all: $(VENV)/.dev lint ## All tests, slow ones too
	$(TOGETHER) -m ''
	$(ALONE) -m ''

lint: $(VENV)/.dev ## ruff and mypy
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

format: $(VENV)/.dev ## Format the code
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

proto: $(VENV)/.dev ## Generate the code of the messages
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m engine.api.generate

lock: $(VENV)/.dev ## Resolve the dependencies again into constraints.txt
	$(PIP) install --quiet pip-tools
	$(BIN)/pip-compile --quiet --extra dev --extra docs --strip-extras --no-emit-index-url --no-emit-trusted-host \
	  --no-emit-find-links --no-annotate --no-header --output-file constraints.txt pyproject.toml

docs: $(VENV)/.dev ## Build the site of the documentation into build/site; open build/site/index.html
	$(BIN)/python -m deploy.pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

audit: $(VENV)/.dev ## Known vulnerabilities of the pinned dependencies
	-$(PIP) install --quiet pip-audit
	$(BIN)/python -m tests.dependency_audit

bench: $(VENV)/.dev ## Run the benchmarks, a JSON file each below benchmarks/results
	@mkdir -p benchmarks/results
	@for name in $$(ls benchmarks/*.py | xargs -n1 basename | sed 's/\.py$$//' | grep -v '^_'); do \
	  $(BIN)/python -m benchmarks.$$name --json benchmarks/results/$$name.json || exit 1; done

pictures: $(VENV)/.dev ## Draw the console and MLflow anew for the docs, in a browser (needs Chromium; some minutes)
	$(BIN)/python -m tests.integration.pictures --dir docs/images

kafka: $(VENV)/.run ## Start Apache Kafka on loopback (needs JDK 17 and Maven)
	deploy/kafka/kafka.sh start

kafka-3: $(VENV)/.run ## Start three nodes of Apache Kafka on loopback
	deploy/kafka/kafka.sh start --nodes 3

kafka-stop: ## Stop it
	deploy/kafka/kafka.sh stop

cluster: $(VENV)/.run ## Run the whole topology on loopback: Kafka, MLflow, Prometheus, every role (some minutes)
	$(BIN)/python -m deploy.cluster --dir leeway-cluster --json leeway-cluster/figures.json

clean: ## Remove the virtual environment and what was built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis leeway-demo leeway-cluster
