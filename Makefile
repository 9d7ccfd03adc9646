# Daily commands. `make test` and `make quickstart` set everything up by themselves, and skip what is already done.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
JOBS ?= 3

.PHONY: help install test test-thorough test-gpu test-faults test-fuzz test-endurance test-matrix coverage mutants lint format quickstart docs bench parameters runtime clean

help:
	@echo "make quickstart            all stages in miniature on scenes that it draws; DATA=FOLDER: on photos with captions"
	@echo "make test                  lint, types and all tests"
	@echo "make test-thorough         more structures, mistakes, rows and examples of a kind, minutes of them: before a release"
	@echo "make test-gpu              the tests of a GPU alone, on a machine that has one"
	@echo "make coverage              all tests, and which lines of the package they ran"
	@echo "make mutants               small random changes of the code, and how many the tests notice (half an hour)"
	@echo "make test-faults           full disks, kill -9 and the like, on every program (forty minutes)"
	@echo "make test-fuzz             100 000 damaged inputs for the readers of strangers' files (a quarter of an hour)"
	@echo "make test-endurance        20 000 updates: memory, open files and speed stay level (an hour)"
	@echo "make test-matrix           other versions of Python, fairseq, torch and numpy, as far as this machine has them"
	@echo "make lint | format         ruff and mypy | let ruff rewrite"
	@echo "make docs                  the documentation as a site, build/site/index.html"
	@echo "make bench                 speed and memory against fairseq's own Transformer and other peers"
	@echo "make runtime               a wheel that captions without torch, with the released captioner: build/runtime"
	@echo "make parameters            parameter counts of the architectures, by part"

# The Python of the environment, or where there is none, the one that would make it, is looked at first: pip would refuse it
# later, and the environment would stay with it.
define CHECK_PYTHON
import sys
name, remedy = sys.argv[1:]
if not (3, 11) <= sys.version_info < (3, 13):
    sys.exit(f"error: {name} is Python {sys.version_info[0]}.{sys.version_info[1]}; 3.11 or 3.12 is needed: {remedy}")
endef
export CHECK_PYTHON

# pip would compile every module of every package, a minute of it: Python compiles those that are used, when they are.
# fairseq is compiled here: while it is, Python warns of its code, which users should not see.
$(INSTALLED): setup.py constraints.txt runtime/pyproject.toml
	@if test -x $(BIN)/python; then \
		$(BIN)/python -c "$$CHECK_PYTHON" $(BIN)/python "remove $(VENV), then make install PYTHON=python3.11"; \
	else $(PYTHON) -c "$$CHECK_PYTHON" "$(PYTHON)" "make install PYTHON=python3.11"; fi
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable ".[all,dev]" --editable ./runtime
	$(BIN)/python -W ignore -m compileall -qq $(VENV)/lib/python3.*/site-packages/fairseq
	touch $@

install: $(INSTALLED)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Bytecode is kept, also where the environment says otherwise: what pip leaves uncompiled would be compiled at every start.
export PYTHONDONTWRITEBYTECODE :=

test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

test-thorough: $(INSTALLED)
	XGPT_THOROUGH=1 $(BIN)/python -m pytest -n $(JOBS) -m "thorough or more"

test-gpu: $(INSTALLED)
	$(BIN)/python -m pytest tests/gpu -rs

test-faults: $(INSTALLED)
	$(BIN)/python -m tests.faults.run $(ARGS)

test-fuzz: $(INSTALLED)
	$(BIN)/python -m tests.fuzz.run $(ARGS)

test-endurance: $(INSTALLED)
	$(BIN)/python -m tests.endurance.run $(ARGS)

test-matrix:
	$(PYTHON) -m tests.matrix.run $(ARGS)

coverage: $(INSTALLED)
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -n $(JOBS) --dist worksteal
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

$(VENV)/.mutants: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[mutants]"
	touch $@

mutants: $(VENV)/.mutants
	$(BIN)/python -m tests.mutants.run $(ARGS)

# As a variable of the shell, which may have any character.
quickstart: export QUICKSTART_DATA := $(value DATA)
quickstart: $(INSTALLED)
	PATH="$$(cd $(BIN) && pwd):$$PATH" bash examples/quickstart/run.sh "$$QUICKSTART_DATA"

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "the site: build/site/index.html"

bench: $(INSTALLED)
	$(BIN)/python -m tests.benchmarks.bench $(NAMES)

parameters: $(INSTALLED)
	$(BIN)/xgpt-parameters

# The released captioner as ONNX graphs, into the package of runtime/; and the wheel of both, without what is left of an
# earlier build.
runtime: $(INSTALLED)
	$(BIN)/xgpt-export xgpt_fairseq/released --onnx --output runtime/xgpt_runtime/captioner --overwrite
	rm -rf runtime/build
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/runtime ./runtime
	@ls -l build/runtime

clean:
	rm -rf $(VENV) build *.egg-info runtime/build runtime/*.egg-info .mypy_cache .pytest_cache .ruff_cache
