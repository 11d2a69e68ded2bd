# Two commands do everything, set-up included:  make bench   make test     (make matrix: all cells)
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: bench test matrix lint system clean

bench: $(READY)
	$(BIN)/pytest tests/benchmarks/test_regression.py -k "qwen2 and not lm" -m "not maker"

# Recipes that make a checkpoint are judged on one data set here, those that train for minutes on none,
# and models but the first at 32 bit, and on some samples at 8 and 4 bit; all of it by `make matrix`.
test: $(READY) lint
	$(BIN)/pytest -n 2 -m "not trained and (not maker or vqav2)" -k "not (benchmarks and not qwen2 and not 32bit)" \
		--durations=20
	$(BIN)/pytest -n 2 tests/benchmarks/test_regression.py --limit 100 \
		-k "not qwen2 and not lm and (8bit or 4bit)"

matrix: $(READY)
	$(BIN)/pytest -n 2 tests/benchmarks

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Stamped only when every step has succeeded, so that an interrupted set-up is done again.
$(READY): pyproject.toml constraints.txt Makefile
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found: install Python 3.11, or name yours: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "make: cannot create $(VENV): is the venv module installed (Debian: python3-venv)?"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]' || { echo "make: installation failed: is a package index reachable, and are 6 GB free?"; exit 1; }
	@touch $@

# What tests compare with, and are skipped without: Java for the COCO evaluation's own tokenizer
# (CIDEr), ffmpeg for the frames of videos.
system:
	@{ command -v java && command -v ffmpeg; } >/dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends default-jre-headless ffmpeg; }

clean:
	rm -rf $(VENV)
