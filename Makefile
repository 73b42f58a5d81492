# make demo     from an empty machine to measured runs (needs git, make and Python >= 3.12)
# make test     format, lint, types and all tests
# make help     the other targets
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DATASET ?=
OUTPUT ?= .demo/$(if $(DATASET),$(notdir $(patsubst %/,%,$(DATASET))),python-docs)
# Many tests wait for the processes that they start, so two cores have time for three.
WORKERS ?= 3
BENCH_SETS ?=

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format bench clean

help:
	@echo "make demo                  run the demo on the documentation inside this Python"
	@echo "make demo DATASET=folder   the same on a collection in BEIR layout"
	@echo "make test                  format check, lint, types, all tests"
	@echo "make lint                  format check, lint and types only"
	@echo "make format                format the code and apply ruff's fixes"
	@echo "make bench BENCH_SETS='a b'  the quality table for the demo corpus and collections in BEIR layout"
	@echo "make install               only the environment, in $(VENV)"
	@echo "make clean                 remove the environment, the demo's output and caches"
	@echo "PYTHON=/path/to/python picks the interpreter, VENV=folder the environment."

install: $(STAMP)

$(STAMP): requirements.lock setup.py pyproject.toml _diffretriever_pyserini_startup.py scripts/install.sh
	@scripts/install.sh $(VENV)
	@touch $@

demo: $(STAMP)
	@$(BIN)/diffretriever demo --output "$(OUTPUT)" $(if $(DATASET),--dataset "$(DATASET)")

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)
	$(BIN)/python benchmarks/quality.py $(BENCH_SETS)

clean:
	rm -rf $(VENV) .demo build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
