# Everything lives in the clone: the environment in .venv, caches in .cache.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_CACHE_DIR := $(CURDIR)/.cache/pip
export HF_HOME := $(CURDIR)/.cache/huggingface
export XDG_CACHE_HOME := $(CURDIR)/.cache
export HF_HUB_DISABLE_TELEMETRY := 1
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-all check benchmarks embedded mockingjay conformers treated attention-refinement layerwise-finetuning abnormal-blocks federated clean help

help:                ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 24

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "otoscope needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12")'
	@echo 'Setting up .venv (about 2 GB, a few minutes)'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)       ## diagnose, treat and verify the embedded model; writes report.html
	$(BIN)/otoscope demo -o report.html

test: $(STAMP)       ## the fast tests, on two cores
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: $(STAMP)   ## all tests, the slow ones too
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'slow or not slow'

check: $(STAMP)      ## ruff, types, direction of imports, documentation of public names
	$(BIN)/ruff check src tests recipes benchmarks
	$(BIN)/ruff format --check src tests recipes benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/test_package.py

benchmarks: $(STAMP) ## time and memory of the pass, as ratios within one run
	$(BIN)/python -m benchmarks

embedded: $(STAMP)   ## make the embedded models and speech anew (espeak-ng, flite; three hours on two cores)
	$(BIN)/python -m recipes.embedded

mockingjay: $(STAMP) ## pre-train small Mockingjays, and write docs/mockingjay.md
	$(BIN)/python -m recipes.mockingjay

conformers: $(STAMP) ## train small Conformers with three norms, and write docs/conformers.md
	$(BIN)/python -m recipes.conformers

treated: $(STAMP)    ## diagnose, treat and fine-tune the embedded WavLM, and write docs/treated.md
	$(BIN)/python -m recipes.treated

attention-refinement: $(STAMP) ## prune heads and limit spans of the embedded WavLM, and write docs/attention_refinement.md
	$(BIN)/python -m recipes.attention_refinement

layerwise-finetuning: $(STAMP) ## re-initialise top layers before fine-tuning, and write docs/layerwise_finetuning.md
	$(BIN)/python -m recipes.layerwise_finetuning

abnormal-blocks: $(STAMP) ## pre-train a wav2vec 2.0 without its abnormal blocks, and write docs/abnormal_blocks.md
	$(BIN)/python -m recipes.abnormal_blocks

federated: $(STAMP) ## federated dropout aimed at ambient layers against its controls, and write docs/federated.md
	$(BIN)/python -m recipes.federated

clean:               ## remove the environment and the caches
	rm -rf $(VENV) .cache report.html
