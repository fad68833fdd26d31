# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test tiny lint clean

demo: $(VENV)/.installed
	$(BIN)/vidlada demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest

# Trains the embedded checkpoint again from nothing: two and a half to four hours on two cores (on a GPU, without
# --processes, minutes). An interrupted run goes on.
tiny: $(VENV)/.installed
	$(BIN)/vidlada train recipes/vidlada_tiny.yaml --processes 2
	$(BIN)/python benchmarks/ship_tiny.py runs/vidlada-tiny

lint: $(VENV)/.installed
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/mypy

# The registry's plain torch and torchvision belong together: both are the CUDA builds, and run on a CPU.
$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test,demo]"
	touch $@

clean:
	rm -rf $(VENV) demo-output
