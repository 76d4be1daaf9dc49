# make demo   sets up and runs the demo: a tiny pre-training on generated videos, with pictures
# make test   sets up and runs the tests
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= test
WORKERS ?= auto
TESTS ?= tests
BIN = $(VENV)/bin

# make test-notebooks VENV=.venv-notebooks   runs the notebooks with the built wheel
.PHONY: demo test test-notebooks lint chaos clean

demo: $(VENV)/.installed
	$(BIN)/videomae-jax demo

test: $(VENV)/.installed-$(EXTRAS)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope -m "not chaos" -rs $(TESTS)

chaos: $(VENV)/.installed-$(EXTRAS)
	$(BIN)/python -m pytest -n $(WORKERS) -m chaos -rP $(TESTS)

test-notebooks: $(VENV)/.installed-wheel
	PATH=$(abspath $(BIN)):$$PATH $(BIN)/python notebooks/execute.py

lint: $(VENV)/.installed-$(EXTRAS)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-$(EXTRAS): $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@

# From the wheel, as users have it; in a VENV of its own.
$(VENV)/.installed-wheel: pyproject.toml constraints.txt $(shell find videomae_jax convert configs -name '*.py')
	$(PYTHON) -m venv $(VENV)
	rm -rf build/wheel
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps build/wheel/*.whl
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "videomae-jax[notebooks,parity] @ file://$$(echo $(abspath build/wheel)/*.whl)"
	touch $@

clean:
	rm -rf $(VENV) runs build dist .pytest_cache .mypy_cache .ruff_cache
