# `make demo` and `make test` start from a bare clone: they make .venv and install into it first.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PHOTOS ?=
OUT ?= demo-out

.PHONY: install demo test test-fast lint simd clean

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet --editable '.[dev]'
	touch $@

install: $(VENV)/installed

demo: install
	$(PY) jobs/demo.py --out $(OUT) $(if $(PHOTOS),--photos '$(PHOTOS)')

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: lint
	$(PY) -m pytest

test-fast: lint
	$(PY) -m pytest -m 'not slow'

# pillow-simd installs the same package `PIL`: it has to take Pillow's place. Needs a C compiler and the headers of
# libjpeg and zlib (Debian: libjpeg-dev zlib1g-dev).
simd: install
	$(PY) -m pip uninstall --quiet --yes pillow
	CC='cc -mavx2' $(PY) -m pip install --quiet --no-binary pillow-simd --force-reinstall --no-deps pillow-simd
	$(PY) -c 'import PIL; from PIL import Image, features; print("Pillow API", PIL.__version__)'

clean:
	rm -rf $(VENV) $(OUT) *.egg-info .pytest_cache .mypy_cache .ruff_cache
