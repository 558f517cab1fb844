# Every target sets itself up: a virtual environment in .venv, the versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: setup demo test lint format bench fuzz kills clean

setup: $(READY)

# torch goes first and by its exact version, so that a local or CPU-only build of it is kept.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

demo: $(READY)
	$(BIN)/spectral-fusion demo --out out/demo

# Two processes of one thread each: small tensors gain nothing from a second thread. A file stays in one process, since
# its tests share what is slow to make, and the files go out in order, the long ones of the page first.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

# About an hour of an idle processor: the counts of docs/results/fuzz.md. A run that is stopped goes on in the next.
FUZZ_SECONDS ?= 3600
fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz_lane.py --seconds $(FUZZ_SECONDS)

# Every verb, killed before each of its calls to the file system.
kills: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/kills.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

clean:
	rm -rf .venv out .pytest_cache .mypy_cache .ruff_cache
