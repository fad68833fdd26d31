# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
EVAL := .venv-eval
# The tests of a file share what is costly to make.
PARALLEL := -n 2 --dist loadfile
CODE := src tests benchmarks examples moving_shapes .ci docs README.md CONTRIBUTING.md

.PHONY: demo test test-slow test-nightly lint format docs build eval-env tiny measure clean

demo: $(VENV)/.installed
	$(BIN)/vidlada demo

# What a contributor runs: at most five minutes on two idle cores.
test: $(VENV)/.installed
	$(PYTEST) $(PARALLEL) -m "not slow and not gpu and not nightly"

test-slow: $(VENV)/.installed
	$(PYTEST) $(PARALLEL) -m "slow and not gpu and not nightly"

# Takes hours. Commit the log that it leaves.
test-nightly: $(VENV)/.installed
	set -o pipefail; { date -u +%F; git rev-parse --short HEAD; $(PYTEST) -m nightly -v --no-header; } 2>&1 \
		| tee tests/nightly.log

lint: $(VENV)/.installed
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

# Warnings are errors: a broken link, a name that the code no longer has.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

build: $(VENV)/.installed
	rm -rf build dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python .ci/check_wheel.py dist/*.whl

# An environment of its own for lmms-eval, whose requirements contradict ours: `.venv-eval/bin/vidlada eval`.
eval-env: $(EVAL)/.installed

# Trains the embedded checkpoint again from nothing: four to five hours on two cores (on a GPU, without --processes,
# minutes). An interrupted run goes on.
tiny: $(VENV)/.installed
	$(BIN)/vidlada train moving_shapes/train/recipe.yaml --processes 2
	$(BIN)/python -m moving_shapes.train.ship runs/vidlada-tiny
	$(BIN)/vidlada train moving_shapes/train/captions.yaml --processes 2
	$(BIN)/python -m moving_shapes.train.ship runs/vidlada-tiny-captions --continues --mean-with 2-captions_again

# Measures all that depends on the embedded checkpoint's weights, and writes the documents' tables: two to three hours on
# two cores. What was measured with these weights stays.
measure: $(VENV)/.installed $(EVAL)/.installed
	$(BIN)/python benchmarks/measure_checkpoint.py

clean:
	rm -rf $(VENV) $(EVAL) build dist site demo-output

# The registry's plain torch and torchvision belong together: both are the CUDA builds, and run on a CPU.
$(VENV)/.installed: setup.cfg pyproject.toml moving_shapes/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test,demo]" --editable ./moving_shapes
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

# lmms-eval asks for PyAV below 16 and, unsaid, for filelock below 4. Videos are read by this package, with its own PyAV
# (before 17 a closed file may hang), which is therefore installed last; pip's word about the conflict is expected.
$(EVAL)/.installed: setup.cfg moving_shapes/pyproject.toml
	$(PYTHON) -m venv $(EVAL)
	$(EVAL)/bin/python -m pip install --quiet --upgrade pip
	$(EVAL)/bin/python -m pip install --quiet "lmms-eval==0.7.3" "filelock<4"
	$(EVAL)/bin/python -m pip install --quiet --editable ".[eval]" --editable ./moving_shapes
	touch $@
