# make demo             sets up and runs the demo: a tiny pre-training on generated videos, with pictures
# make test             sets up and runs the tests: those of numbers compiled as users compile, all others quickly
# make test-notebooks   sets up and runs the notebooks, with the built wheel
# make docs             sets up and builds the site, build/docs/index.html
PYTHON ?= python3
VENV ?= .venv
NOTEBOOKS_VENV ?= .venv-notebooks
EXTRAS ?= test
CONSTRAINTS ?= constraints.txt
NOTEBOOKS ?=
NOTEBOOKS_EXTRAS ?= notebooks,parity
WORKERS ?= auto
TESTS ?= tests
BIN = $(VENV)/bin
# Bytecode is for those modules that are imported, which then write it: without, each start would compile all anew.
unexport PYTHONDONTWRITEBYTECODE
QUIETLY = --quiet --disable-pip-version-check --no-compile
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder -rs
# XLA compiles quicker in one piece, and in half the time with its older emitters, of which JAX 0.12 knows nothing: a
# flag that XLA does not know ends the process.
QUICK = --xla_cpu_parallel_codegen_split_count=1
QUICKEST = $(QUICK) --xla_cpu_use_fusion_emitters=false
KNOWN = XLA_FLAGS="$(QUICKEST)" $(BIN)/python -c "import jax; jax.devices()" 2>/dev/null && echo "$(QUICKEST)" || echo "$(QUICK)"

.PHONY: demo test test-notebooks docs lint chaos clean

demo: $(VENV)/.installed
	$(BIN)/videomae-jax demo

# pytest's 5 says that there are none: of one kind there need be none, of both there must be some.
test: $(VENV)/.installed-$(EXTRAS)
	XLA_FLAGS="$(QUICK)" $(PYTEST) -m "optimized and not chaos" $(TESTS) || test $$? = 5
	XLA_FLAGS="$$($(KNOWN))" $(PYTEST) -m "not optimized and not chaos" $(TESTS) || \
	  { test $$? = 5 && $(PYTEST) --collect-only -m "optimized and not chaos" $(TESTS) >/dev/null; }

chaos: $(VENV)/.installed-$(EXTRAS)
	$(BIN)/python -m pytest -n $(WORKERS) -m chaos -rP $(TESTS)

test-notebooks: $(NOTEBOOKS_VENV)/.installed-wheel
	PATH=$(abspath $(NOTEBOOKS_VENV))/bin:$$PATH python notebooks/execute.py $(NOTEBOOKS)

docs: $(VENV)/.installed-docs
	$(BIN)/sphinx-build --fresh-env --fail-on-warning --keep-going --quiet -c docs . build/docs

lint: $(VENV)/.installed-$(EXTRAS)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(QUIETLY) -c $(CONSTRAINTS) -e .
	touch $@

$(VENV)/.installed-%: $(VENV)/.installed
	$(BIN)/python -m pip install $(QUIETLY) -c $(CONSTRAINTS) -e ".[$*]"
	touch $@

# From the wheel, as users have it.
$(NOTEBOOKS_VENV)/.installed-wheel: pyproject.toml $(CONSTRAINTS) $(shell find videomae_jax convert configs -name '*.py')
	$(PYTHON) -m venv $(NOTEBOOKS_VENV)
	rm -rf build/wheel
	$(NOTEBOOKS_VENV)/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	$(NOTEBOOKS_VENV)/bin/python -m pip install $(QUIETLY) --force-reinstall --no-deps build/wheel/*.whl
	$(NOTEBOOKS_VENV)/bin/python -m pip install $(QUIETLY) -c $(CONSTRAINTS) "videomae-jax[$(NOTEBOOKS_EXTRAS)] @ file://$$(echo $(abspath build/wheel)/*.whl)"
	touch $@

clean:
	rm -rf $(VENV) $(NOTEBOOKS_VENV) runs build dist .pytest_cache .mypy_cache .ruff_cache
