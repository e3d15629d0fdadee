# make demo: the whole method, end to end.   make test: lint, types, layers, tests.
PYTHON ?= python3
WORKERS ?= 2

# The lab's base model from nothing, on two cores (configs/lab/pretrain.yaml).
.PHONY: demo base test lint unit format clean

demo: .venv/.installed
	.venv/bin/kvg-data demo

base: export OMP_NUM_THREADS = 1
base: .venv/.installed
	.venv/bin/kvg fit -c configs/lab/pretrain.yaml
	.venv/bin/kvg-data base

test: lint unit

lint: .venv/.installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports
	.venv/bin/mypy

# One thread per worker: tiny models on few cores lose more to barriers than they gain.
unit: export OMP_NUM_THREADS = 1
unit: .venv/.installed
	.venv/bin/pytest -n $(WORKERS)

format: .venv/.installed
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

.venv/.installed: pyproject.toml .ci/venv
	@MAKECMDGOALS="$(MAKECMDGOALS)" .ci/venv $(PYTHON)
