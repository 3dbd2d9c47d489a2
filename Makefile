# `make demo` and `make test` start from a bare clone: they make .venv and install into it first.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PHOTOS ?=
# Three processes, file by file in the order of the folders: more than half of the time goes by in waiting for others.
PYTEST := $(PY) -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder
OUT ?= demo-out

.PHONY: install demo test test-all test-fast lint simd clean

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
	$(PYTEST) -m 'not endurance'

test-all: lint
	$(PYTEST)

test-fast: lint
	$(PYTEST) -m 'not slow'

# pillow-simd installs the same package `PIL`: it has to take Pillow's place. It is built before Pillow goes, and needs
# a C compiler and headers (Debian: gcc libjpeg-dev zlib1g-dev liblcms2-dev libwebp-dev).
simd: install
	CC='cc -mavx2' $(PY) -m pip wheel --quiet --no-cache-dir --no-binary pillow-simd --no-deps --wheel-dir build/simd pillow-simd
	$(PY) -m pip uninstall --quiet --yes pillow
	$(PY) -m pip install --quiet --force-reinstall --no-deps build/simd/pillow_simd-*.whl
	$(PY) -c 'from PIL import ImageCms, features; assert features.check("webp"), "no WebP: install libwebp-dev"'

clean:
	rm -rf $(VENV) $(OUT) *.egg-info .pytest_cache .mypy_cache .ruff_cache
