# make demo and make test need Python 3.11, make and a package index; both may be interrupted and repeated.
#
# PYTHON=/path/to/python3.11    the interpreter that .venv is made from
# PIP_ARGS="..."                more arguments for pip install, such as --extra-index-url for a CPU build of torch
# JOBS=2                        cells that `make demo` runs at a time (default: all processor cores)

SHELL := bash
PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: help demo test lab clean paper-smoke
.DEFAULT_GOAL := help

help:
	@echo "make demo    run the first replicate of every paper's reference grid, print what came out and the claims with their verdicts, write an HTML report"
	@echo "make test    linter, unit tests, and the notebooks against their stored outputs"
	@echo "make paper-smoke  every grid of the papers' own size, with miniatures of its models and data, on a CPU (over an hour)"
	@echo "make lab     JupyterLab on the notebooks"
	@echo "make clean   remove .venv and caches; results/ and the store of trained models stay"

demo: $(READY)
	$(BIN)/mtkd run params/*/demo.yaml --first 1 $(if $(JOBS),--jobs $(JOBS))

# nbval passes silently over cells that were never run or have no marker, so the plugin counts what it compared. Records
# of these runs go to build/, so that they do not pass for results. Two notebooks at a time, a thread each.
test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n auto --maxprocesses 4
	printf '%s\n' notebooks/*.ipynb | MTKD_RESULTS=$(CURDIR)/build/nbval MTKD_PROGRESS=0 MTKD_HELPERS=0 OMP_NUM_THREADS=1 \
		xargs -P 2 -n 1 $(BIN)/python -m pytest -p tests.nbval_count --nbval-lax --nbval-current-env

paper-smoke: $(READY)
	$(BIN)/mtkd smoke $$(grep -l "^tier: paper" params/*/*.yaml) $(if $(JOBS),--jobs $(JOBS))

lab: $(READY)
	$(BIN)/jupyter lab notebooks

# The stamp is touched last: an interrupted installation is continued by the next make. --no-compile:
# most of what is installed is never imported, and Python compiles the rest when it is.
$(READY): requirements.lock pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
			found="$$($(or $(PYTHON),python3) -V 2>/dev/null || echo no Python)"; \
			echo "mtkd needs Python 3.11 or newer and found $$found; say make PYTHON=/path/to/python3.11." >&2; \
			exit 2; fi; \
		echo "Making $(VENV) with $(PYTHON)"; "$(PYTHON)" -m venv $(VENV); }
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile $(PIP_ARGS) -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) --no-deps --no-build-isolation -e .
	@touch $(READY)

clean:
	rm -rf $(VENV) build .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path "./results/*" -prune -exec rm -rf {} +
