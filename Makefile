# `make run`: the quick sweep and its report. `make test`: the tests, a quarter of an hour on two cores; `make test-all`:
# the longest too. While you work: `make fast`; before a commit: `make check`.
PYTHON ?= python3
BIN := .venv/bin
# What runs need, and with it what tests and pages need too.
READY := .venv/.ready
TOOLS := .venv/.tools
# One more than there are processors, because many tests wait for programs that they start.
WORKERS = $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')
# Where this is set, each of the hundreds of programs that tests start would compile torch, transformers and TuneBench
# anew: 20 seconds of processor instead of 9 before it has imported them.
export PYTHONDONTWRITEBYTECODE :=
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.PHONY: run test test-all fast check docs release-check mutants clean

run: $(READY)
	$(BIN)/tunebench run sweeps/quick.yaml
	$(BIN)/tunebench report results/quick --out reports/quick

test: $(TOOLS)
	$(PYTEST) -m 'not long'

test-all: $(TOOLS)
	$(PYTEST)

# Two processes for two processors: these tests wait for no other program, and each process imports everything.
fast: WORKERS = logical
fast: $(TOOLS)
	$(PYTEST) -m 'not long and not slow and not browser and not slurm and not ray and not gpu'

check: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, from pages and notebooks as they are: build/site/index.html. Warnings, such as dead links, are errors.
docs: $(TOOLS)
	$(BIN)/python docs/site/build.py

# Builds the sdist and the wheel, checks what they say and hold, and runs a trial from the wheel far from this folder.
release-check: $(TOOLS)
	$(PYTEST) tests/repository/test_release.py tests/cli/test_install.py

# An hour on two cores: breaks the code line by line, and prints what no test notices.
mutants: $(TOOLS)
	PYTHONPATH=tests $(BIN)/python tests/mutants/hunt.py

# Made again when the requirements change; a half-made one is not taken for whole. Most of the 20,000 files are never
# imported, so Python compiles what it imports and pip compiles nothing.
define install
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "TuneBench needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
$(PYTHON) -m venv .venv
$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '$(1)'
endef

$(READY): pyproject.toml constraints.txt
	$(call install,.)
	touch $@

$(TOOLS): pyproject.toml constraints.txt
	$(call install,.[test])
	touch $(READY) $@

clean:
	rm -rf .venv
