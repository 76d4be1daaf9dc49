# make demo   sets up and runs the demo: a tiny pre-training on generated videos, with pictures
# make test   sets up and runs the tests
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= test
WORKERS ?= auto
TESTS ?= tests
BIN = $(VENV)/bin

.PHONY: demo test lint chaos clean

demo: $(VENV)/.installed
	$(BIN)/videomae-jax demo

test: $(VENV)/.installed-$(EXTRAS)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope -m "not chaos" -rs $(TESTS)

chaos: $(VENV)/.installed-$(EXTRAS)
	$(BIN)/python -m pytest -n $(WORKERS) -m chaos $(TESTS)

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

clean:
	rm -rf $(VENV) runs build dist .pytest_cache .mypy_cache .ruff_cache
