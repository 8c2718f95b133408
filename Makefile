# make demo    install into .venv, run the multi-task example, show what was found (LAB=0: without JupyterLab)
# make test    install into .venv, run everything that has to pass
# make examples  run every example notebook, leave them as HTML with their reports in build/examples (TENSORFLOW=0: without
#                the one that needs TensorFlow's environment)
# make docs    build the documentation into build/docs; warnings are errors
# make lint    ruff and mypy alone
# make bench   what a watch costs: tables, and whether each target is met (about ten minutes; nothing else should run meanwhile)
# make contract  write the report's format for the front end and the documentation, from its dataclasses
# make clean   remove what the other targets made
#
# PYTHON=...   the Python (3.11 or newer) to make .venv with
# JOBS=2       test processes

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
LAB ?= 1
export PYTHON

# One thread a process, and no message of a newer version.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# What the installation builds the notebook panel from.
FRONT_END := hatch_build.py install.json $(shell find labextension -type f \
    -not -path '*/node_modules/*' -not -path 'labextension/lib/*' -not -path 'labextension/tests/*')

.PHONY: bench contract fuzz tensorflow-test venv demo examples docs test lint front-end-test browser python-test clean

venv: $(VENV)/.installed-test

$(VENV)/.installed-%: pyproject.toml constraints.txt tools/make_venv.sh $(FRONT_END)
	@tools/make_venv.sh $(VENV) $*
	@touch $@

demo: $(VENV)/.installed-demo
	@$(BIN)/python examples/run_demo.py --output build/demo $(if $(filter 0,$(LAB)),,--lab)

# TensorFlow is large and pins other packages: it has an environment of its own.
TENSORFLOW_VENV := .venv-tensorflow
TENSORFLOW ?= 1

examples: $(VENV)/.installed-demo $(if $(filter 0,$(TENSORFLOW)),,$(TENSORFLOW_VENV)/.installed)
	@$(BIN)/python examples/run_all.py --output build/examples
	@$(if $(filter 0,$(TENSORFLOW)),,$(TENSORFLOW_VENV)/bin/python examples/run_all.py --output build/examples tensorflow)

# With --quiet no warning would count, and --strict would let all of them pass.
docs: $(VENV)/.installed-docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --site-dir build/docs
	@echo "the documentation: build/docs/index.html"

# The suites stand in the order of their cost; each says its own name.
test: lint front-end-test python-test tensorflow-test

lint: $(VENV)/.installed-test
	@echo "== ruff" && $(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "== mypy" && $(BIN)/mypy

# The browser tests drive Chromium. Where it may be installed, it is.
browser:
	@command -v chromium chromium-browser >/dev/null || { \
	    echo "== installing Chromium" && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	    apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core; } || \
	    { echo "make: chromium is missing (Debian: apt-get install chromium fonts-dejavu-core)" >&2; exit 1; }

# What Google Colab pins, in a folder of its own: a test puts it before the rest.
$(VENV)/ipython-7.34: $(VENV)/.installed-test constraints-colab.txt
	@echo "== installing the versions of Google Colab beside" && rm -rf $@ && \
	    $(BIN)/python -m pip install --quiet --no-deps --target $@ --requirement constraints-colab.txt && touch $@

python-test: $(VENV)/.installed-test $(VENV)/ipython-7.34 front-end-test browser
	@for room in tests/same_program tests/channels tests/rewrite tests/browser; do \
	    echo "== pytest $$room" && $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $$room || exit 1; done
	@echo "== pytest" && $(BIN)/python -m pytest -n $(JOBS) --dist worksteal --ignore=tests/same_program \
	    --ignore=tests/channels --ignore=tests/rewrite --ignore=tests/browser --ignore=tests/fuzz \
	    --ignore=tests/tensorflow
	@echo "== 500 random programs" && $(BIN)/python -m pytest -q -p no:xdist tests/fuzz/fuzz.py
	@echo "== 300 random programs of each family" && $(BIN)/python -m pytest -q -p no:xdist tests/fuzz tests/fuzz/random_families.py

$(TENSORFLOW_VENV)/.installed: pyproject.toml constraints.txt constraints-tensorflow.txt tools/make_venv.sh $(FRONT_END)
	@CONSTRAINTS=constraints-tensorflow.txt tools/make_venv.sh $(TENSORFLOW_VENV) tensorflow-test
	@touch $@

tensorflow-test: $(TENSORFLOW_VENV)/.installed
	@echo "== pytest tests/tensorflow" && $(TENSORFLOW_VENV)/bin/python -c "import tensorflow" && \
	    $(TENSORFLOW_VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile tests/tensorflow

# Other random programs than those of `make test`: watched as unwatched (EXAMPLES=500), and against differences (PROGRAMS=5000 of
# each family; what fails is written to build/fuzz).
fuzz: $(VENV)/.installed-test
	@cd tests/fuzz && FUZZ_EXAMPLES=$${EXAMPLES:-500} $(CURDIR)/$(BIN)/python -m pytest -q -p no:xdist fuzz.py
	@$(BIN)/python tests/fuzz/run_families.py --programs $${PROGRAMS:-5000} --jobs $(JOBS)

# Every table is printed, whichever target is missed.
bench: $(VENV)/.installed-test
	@missed=0; for part in overhead loops scale start; do echo "== $$part"; $(BIN)/python -m benchmarks.$$part || missed=1; done; exit $$missed

# What is written is committed; a test fails where it lags behind.
contract: $(VENV)/.installed-test
	@$(BIN)/python tools/make_contract.py

clean:
	rm -rf $(VENV) $(TENSORFLOW_VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis labextension/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

front-end-test: labextension/node_modules/.installed-dev
	@echo "== front end" && cd labextension && npm run --silent check

# The installation leaves out what only the front end's tests need.
labextension/node_modules/.installed-dev: labextension/package-lock.json
	@command -v npm >/dev/null || { echo "make: npm is missing; the notebook panel is built with it" >&2; exit 1; }
	@echo "== installing the front end's packages" && cd labextension && npm ci --no-audit --no-fund
	@touch $@
