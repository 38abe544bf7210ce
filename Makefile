# Python 3.11 or newer and git are enough: every target first makes the virtual environment, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --quiet --disable-pip-version-check
STAMP := $(VENV)/.installed
CLEAN_INSTALL := build/wheel-check

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-crash test-sb3 test-zoo check bench docs behaviours mutation resume-table clean test-fuzz

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(STAMP) ## train a small agent and show what it learned
	$(BIN)/everlearn train examples/halfcheetah_demo.yaml --out runs/demo --overwrite

test: $(STAMP) ## run the fast tests
	$(PY) -m pytest -n 2 --dist worksteal

test-all: $(STAMP) ## run the slow tests too
	$(PY) -m pytest -n 2 --dist worksteal -m ""

test-crash: $(STAMP) ## kill processes that save, a thousand times, and damage files in every way
	$(PY) -m tools.crash

test-sb3: $(STAMP) ## run Stable-Baselines3's own tests on everlearn's classes
	$(PY) -m compatibility sb3

test-zoo: $(STAMP) ## train and enjoy everlearn's classes with rl_zoo3's commands
	$(PY) -m compatibility zoo

test-fuzz: $(STAMP) ## read a million damaged and hostile files (an hour); goes on where it was stopped
	$(PY) -m tools.fuzz

check: $(STAMP) ## format, lint, types, import contracts, and the wheel in a clean place
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	rm -rf build dist
	$(PY) -m build --wheel --no-isolation
	$(PIP) install --no-deps --target $(CLEAN_INSTALL) dist/*.whl
	cd build && PYTHONPATH="$(CURDIR)/$(CLEAN_INSTALL)" "$(CURDIR)/$(PY)" -c 'import everlearn; \
		assert "wheel-check" in everlearn.__file__, everlearn.__file__; \
		print("The wheel holds", *(getattr(everlearn, name) for name in everlearn.__all__))'

bench: $(STAMP) ## measure speed beside SB3, SBX, Ray Tune and torch (45 minutes)
	$(PY) -m benchmarks

docs: $(STAMP) ## build the site: docs/_build/html/index.html
	$(PIP) install -c constraints.txt -e '.[docs]'
	rm -rf docs/_build
	$(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "The site: docs/_build/html/index.html"

behaviours: $(STAMP) ## write docs/behaviours.md: every law and its tests
	$(PY) -m tools.behaviours

resume-table: $(STAMP) ## kill trainings, resume them, compare every bit: docs/resume-table.md (half an hour)
	$(PY) -m tools.resume_table

mutation: $(STAMP) ## put small faults into the formulae; each has to fail a test (half an hour)
	$(PY) -m tools.mutation

clean: ## remove what was built and cached; .venv and runs stay
	rm -rf build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing everlearn and its tools into $(VENV); the first time takes some minutes."
	$(PIP) install -c constraints.txt torch # first and alone, so that nothing pulls another build of it
	$(PIP) install -c constraints.txt -e '.[mujoco,ray,dev]'
	@touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "everlearn needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." \
			"Choose another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
