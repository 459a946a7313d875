# `make run` and `make test` need Python 3.10 or newer and make; each makes .venv and installs into it first.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check --quiet
# The browser that the tests drive: named by hand, found, or installed.
CHROMIUM_FOR_TESTS = $$($(PY) tests/browser/install_chromium.py)
OFFLINE := HF_HUB_OFFLINE=1 GRADIO_ANALYTICS_ENABLED=False

.DEFAULT_GOAL := help
.PHONY: help run test install install-dev format lint bench bench-page bench-gpu train-demo evaluate-demo clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: install ## open the page; flags go in ARGS="--port 8000"
	@exec $(PY) app.py $(ARGS)

test: install-dev ## everything that must hold: format, lint, types, tests (also in a browser)
	@chromium="$(CHROMIUM_FOR_TESTS)" && test -n "$$chromium" && set -x && \
	$(PY) -m ruff format --check . && $(PY) -m ruff check . && $(PY) -m mypy && \
	$(OFFLINE) CHROMIUM="$$chromium" $(PY) -m pytest $(ARGS)

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

$(VENV)/.installed: requirements.txt | $(VENV)/bin/pip
	@echo "Installing into $(VENV); the first time this takes some minutes."
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@$(PIP) -r requirements-dev.txt
	@touch $@

$(VENV)/bin/pip:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "Python 3.10 or newer is needed, and $(PYTHON) is not here. Install it, or name one: make PYTHON=/path/to/python3 run" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed; $(PYTHON) is older. Name a newer one: make PYTHON=/path/to/python3 run" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments. Debian, Ubuntu: apt-get install python3-venv, then the same again." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

format: install-dev ## lay out the code, and mend what ruff can mend
	@$(PY) -m ruff check --fix-only . && $(PY) -m ruff format .

lint: install-dev ## format, lint and types, without the tests
	@$(PY) -m ruff format --check . && $(PY) -m ruff check . && $(PY) -m mypy

train-demo: install ## train the demo model again
	@$(OFFLINE) $(PY) -m magistral_ui.models.demo.train $(ARGS)

evaluate-demo: install ## measure the demo model on data that it has not seen
	@$(OFFLINE) $(PY) -m magistral_ui.models.demo.evaluate $(ARGS)

bench: install-dev ## measure the engine against transformers' generate; writes docs/benchmarks.md (half an hour)
	@$(OFFLINE) $(PY) -W ignore -m tests.benchmarks.engine $(ARGS)

bench-gpu: install-dev ## the same on a CUDA GPU, with Magistral's shape
	@$(OFFLINE) $(PY) -W ignore -m tests.benchmarks.gpu $(ARGS)

clean: ## remove the virtual environment and all caches
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .gradio build dist *.egg-info
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
