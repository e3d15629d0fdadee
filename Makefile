# make demo: the whole method, end to end.   make test: lint, types, layers, tests.
# make docs: the documentation as a site.   make gpu: tests and times on one CUDA device, in build/gpu.json.
# make test-minimum: the tests again, with the lower bound of every requirement.
PYTHON ?= python3
WORKERS ?= 2

.PHONY: demo base experiments test test-minimum gpu lint unit docs reference format clean

demo: .venv/.installed
	.venv/bin/kvg-data demo

# The questions of configs/sweeps, in pieces; finished ones are in docs/experiments and are not run again.
experiments: .venv/.installed
	.venv/bin/kvg-data experiments

# The lab's base model from nothing, on two cores (configs/lab/scenes.yaml, configs/lab/pretrain.yaml).
base: export OMP_NUM_THREADS = 1
base: .venv/.installed
	test -f runs/lab-base/scenes/manifest.json || .venv/bin/kvg-data compose --config configs/lab/scenes.yaml \
		--out runs/lab-base/scenes --num 60000 --workers 2
	.venv/bin/kvg fit -c configs/lab/pretrain.yaml
	.venv/bin/kvg-data base

test: lint unit

lint: .venv/.installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports
	.venv/bin/mypy
	.venv/bin/python .ci/conventions.py

# One thread per worker: tiny models on few cores lose more to barriers than they gain.
unit: export OMP_NUM_THREADS = 1
unit: .venv/.installed
	.venv/bin/pytest -n $(WORKERS)

# The oldest Python that pyproject.toml allows, unless PYTHON names another one.
OLDEST_PYTHON = $(if $(filter file,$(origin PYTHON)),$(shell python3.10 -c 'print("python3.10")' 2>/dev/null),$(PYTHON))

test-minimum: export OMP_NUM_THREADS = 1
test-minimum: .venv-minimum/.installed
	.venv-minimum/bin/pytest -n $(WORKERS)

# Offline, ten minutes on one card of 80 GB. GPU_ARGS="--device cpu --sizes tiny" tries the command without a card.
gpu: .venv/.installed
	.venv/bin/python tests/benchmarks/gpu.py $(GPU_ARGS)

# The site in build/site. Nothing is fetched from the network while it is built.
docs: export NO_MKDOCS_2_WARNING = 1
docs: reference
	.venv/bin/mkdocs build --strict --quiet

# Pages that are made from the code.
reference: .venv/.installed
	.venv/bin/python .ci/reference.py

format: .venv/.installed
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean:
	rm -rf .venv .venv-minimum build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

.venv/.installed: pyproject.toml .ci/venv
	@MAKECMDGOALS="$(MAKECMDGOALS)" .ci/venv $(PYTHON)

.venv-minimum/.installed: pyproject.toml .ci/venv .ci/minimum
	@test -n "$(OLDEST_PYTHON)" || \
		echo "python3.10, the oldest that this project allows, is not here: testing with $(PYTHON) (PYTHON=... names another)"
	@MAKECMDGOALS="$(MAKECMDGOALS)" .ci/venv "$(or $(OLDEST_PYTHON),$(PYTHON))" minimum
