PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
TORCH := torch==2.13.0
QUANTISERS := torchao==0.18.0 bitsandbytes==0.50.2
THREADS_PER_WORKER := OMP_NUM_THREADS=1
# Rows of `make results` at a time: 16 on a large GPU.
JOBS ?= 1

.PHONY: install demo test test-quantised browser docs studio lint format pretrain pretrain-inpainting finetune results wheel clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "diffcr needs Python 3.11 or later: run make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,studio,docs]'
	touch $(INSTALLED)

demo: install
	test ! -e runs/demo/report.html || rm -rf runs/demo
	$(BIN)/diffcr demo --output runs/demo

test: install
	$(THREADS_PER_WORKER) $(BIN)/python -m pytest -n 2 -q

# Aside, without dependencies: diffusers imports both wherever they are, which takes seconds.
test-quantised: install
	$(BIN)/python -m pip install --quiet --upgrade --no-deps --target $(VENV)/quantised $(QUANTISERS)
	PYTHONPATH=$(VENV)/quantised $(THREADS_PER_WORKER) $(BIN)/python -m pytest -q tests/contract/test_quantised.py

# Visits the page with Chromium; without one the tests are skipped and say so.
browser: install
	$(THREADS_PER_WORKER) $(BIN)/python -m pytest -q -rs -m browser tests/studio

docs: install
	$(BIN)/mkdocs build --strict --quiet

studio: install
	$(BIN)/diffcr studio

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

pretrain: install
	$(BIN)/python -m diffcr.pretraining.build --output runs/pretrain
	$(BIN)/python -m diffcr.pretraining.install --build runs/pretrain

pretrain-inpainting: install
	$(BIN)/python -m diffcr.pretraining.inpainting --output runs/pretrain-inpainting
	$(BIN)/python -m diffcr.pretraining.install --inpainting runs/pretrain-inpainting/pipeline

finetune: install
	$(BIN)/diffcr train recipes/scenes-diffcr-l.yaml --output runs/scenes-diffcr-l
	$(BIN)/python -m diffcr.pretraining.install --checkpoint runs/scenes-diffcr-l/final

results: install
	$(BIN)/python benchmarks/experiments.py --jobs $(JOBS)
	$(BIN)/python benchmarks/speed.py methods
	$(BIN)/python benchmarks/inpainting.py quality
	$(BIN)/python benchmarks/inpainting_speed.py area
	$(BIN)/python benchmarks/readme.py --figures

wheel: install
	rm -rf dist
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
