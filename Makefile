# Sets up everything in .venv and runs it; needs Python 3.11 and make, nothing else.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CONFIG ?= configs/enhanced.yaml

.PHONY: setup sweep test lint bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $(STAMP)

sweep: setup
	$(BIN)/python -m sentio_rllib.sweep $(CONFIG)

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Each program prints a table, writes experiments/benchmarks/results/, and fails where a floor is missed.
bench: setup
	$(BIN)/python -m pytest -q -m slow
	OMP_NUM_THREADS=1 $(BIN)/python experiments/benchmarks/startup.py --check
	OMP_NUM_THREADS=1 $(BIN)/python experiments/benchmarks/throughput.py --check
	OMP_NUM_THREADS=1 $(BIN)/python experiments/benchmarks/encoder.py --check
	OMP_NUM_THREADS=1 $(BIN)/python experiments/benchmarks/learning.py --check
	OMP_NUM_THREADS=1 $(BIN)/python experiments/benchmarks/ablation.py
	OMP_NUM_THREADS=1 $(BIN)/python experiments/benchmarks/variants.py
	OMP_NUM_THREADS=1 $(BIN)/python experiments/benchmarks/stopping.py --record
	OMP_NUM_THREADS=1 $(BIN)/python experiments/benchmarks/calibration.py --check
	OMP_NUM_THREADS=1 $(BIN)/python experiments/benchmarks/placebo.py --check
	OMP_NUM_THREADS=1 $(BIN)/python experiments/benchmarks/latency.py --check

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
