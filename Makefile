# Each target sets up .venv by itself; nothing is needed beforehand but Python >= 3.11, pip and git.
PYTHON  ?= python3
BIN     := .venv/bin
PROJECTS := pyproject.toml constraints.txt testkit/pyproject.toml train/pyproject.toml $(wildcard plugins/*/pyproject.toml)
PLUGINS := $(patsubst %/pyproject.toml,-e %,$(wildcard plugins/*/pyproject.toml))
PIP     := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

PYTEST  := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile
SHAPED  := refiners_core,refiners_train$(shell printf ',%s' $(patsubst plugins/%/pyproject.toml,refiners_%,$(wildcard plugins/*/pyproject.toml)))

.PHONY: demo test lint docs bench browser effects matrix mutation floor clean

demo: .venv/.run
	$(BIN)/refiners demo --out demo.png

# The second run executes the shapes and types that signatures state (jaxtyping, beartype).
test: .venv/.dev
	$(PYTEST) tests --ignore tests/parity
	PYTHONPATH=tests $(PYTEST) tests/parity plugins train --jaxtyping-packages=$(SHAPED),shapes.checked

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Pages in docs/_build/html, and the catalog's in docs/_build/html/catalog; a warning is an error.
docs: .venv/.dev
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --fresh-env docs docs/_build/html
	$(BIN)/refiners catalog page docs/_build/html/catalog

# All figures are printed; it fails at the end where a bar is missed.
bench: .venv/.dev
	missed=0; for script in benchmarks/*.py; do $(BIN)/python $$script || missed=1; done; exit $$missed

# The catalog's page in headless Chromium, with axe-core. Install the browser before; on Debian:
# apt install chromium chromium-driver. Of the last package, only the file axe.min.js is used.
browser: .venv/.dev
	$(PIP) --group browser
	$(PIP) --no-deps 'axe-playwright-python>=0.1.8'
	$(BIN)/python -m pytest -m browser tests/registry/page

# The measured effects of every adapter, on held-out prompts; fails where a bar is missed.
effects: .venv/.run
	missed=0; for names in "" controlnet-canny+ip-adapter+lora-ink; do \
		OMP_NUM_THREADS=1 $(BIN)/refiners evaluate $$names --check || missed=1; done; exit $$missed

# All pairs of adapters on one model, in both orders, and random sets of them; writes a page of the guide.
# Then those of language models, on a tiny one of each family.
matrix: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.plugins.matrix
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.plugins.language_matrix

# How many of 300 small faults in five modules the tests notice; half an hour on one core.
mutation: .venv/.dev
	$(PIP) --group mutation
	$(BIN)/python tests/mutation.py

# The lowest torch that pyproject.toml claims, with the tests that need no other library's models.
# On Linux this downloads several gigabytes.
floor: .venv-floor/.done
	PYTHONPATH=.:registry OMP_NUM_THREADS=1 .venv-floor/bin/python -m pytest tests/core

.venv-floor/.done: pyproject.toml
	test -x .venv-floor/bin/python || $(PYTHON) -m venv .venv-floor
	.venv-floor/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	.venv-floor/bin/python -m pip install --quiet "torch==$$(sed -n 's/.*"torch>=\(.*\)".*/\1/p' pyproject.toml).*" \
		--group floor .
	touch $@

clean:
	rm -rf .venv .venv-floor

.venv/.run: $(PROJECTS)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --upgrade 'pip>=25.1'
	$(PIP) torch
	$(PIP) -e . -e train $(PLUGINS)
	touch $@

.venv/.dev: .venv/.run
	$(PIP) --group dev -e testkit -e "train[datasets,webdataset,tensorboard]"
	touch $@
