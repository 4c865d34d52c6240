# make setup | demo | test | lint | format    Everything installs itself into .venv first.
VENV ?= .venv
BIN := $(VENV)/bin
# A failure is told in full when it happens: of a run that is cut off, too, it is known what failed.
PYTEST = $(BIN)/python -m pytest --instafail --durations=10
# By files, whose tests share engines, trained models and servers; in the order of tests/conftest.py: the longest first.
BY_FILES = -n 2 --dist loadscope --no-loadscope-reorder
# Importing vLLM takes five times as long without cached byte code.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup setup-llmcompressor setup-autoround demo test test-fast test-slow test-all soak lint audit format docs release-check clean
help:  ## these lines
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: $(VENV)/.installed  ## make .venv with all that is needed

$(VENV)/.installed: pyproject.toml scripts/install.sh scripts/overrides.txt
	sh scripts/install.sh $(VENV)
	touch $@

setup-llmcompressor: setup  ## make .venv-llmcompressor, for entries with quantize.backend = "llm-compressor"
	sh scripts/install_backend.sh llmcompressor .venv-llmcompressor $(BIN)/uv $(BIN)/python

setup-autoround: setup  ## make .venv-autoround, for entries with quantize.backend = "auto-round"
	sh scripts/install_backend.sh autoround .venv-autoround $(BIN)/uv $(BIN)/python

demo: setup  ## the main job on generated battles: train, merge, quantize, score, blend, predict
	PATH="$(CURDIR)/$(BIN):$$PATH" sh scripts/demo.sh

test-fast: setup  ## the tests without engines, browsers and servers; some 20 minutes on two cores
	$(PYTEST) -n 2 --dist worksteal -m "not weights and not gpu and not slow and not chain and not services"

test: test-fast  ## those and the real chain on a tiny model, a browser and a server
	$(PYTEST) $(BY_FILES) -m "(chain or services) and not weights and not gpu and not slow"

test-slow: setup  ## what takes longest: the guides as they stand, searches, processes that are killed over and over
	$(PYTEST) $(BY_FILES) -m "slow and not weights and not gpu"

test-all: test test-slow  ## every test that needs neither a GPU nor a download

soak: setup  ## hours of kills, faults and crowds, in parts: make soak PART=kills (chain, predictions, crowd); resumes
	$(BIN)/python -m tests.soak $(addprefix --part ,$(PART))

lint: setup  ## style, types, layers: the same hooks that run before a commit
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pre-commit run --all-files --show-diff-on-failure

docs: setup  ## the site of the documents into site/; a warning, as of a link that leads nowhere, stops it
	$(BIN)/python -m scripts.docs_site site

release-check: docs  ## do version, changelog and tag agree; wheel and archives into dist/, the demo's first half on them
	$(BIN)/python scripts/release.py --try
	tar -czf dist/site.tar.gz site

audit: setup  ## known vulnerabilities of what is installed; needs a network
	$(BIN)/python scripts/audit.py

format: setup  ## rewrite in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment; mlruns/ stays
	rm -rf $(VENV)
