# Two commands: `make demo` and `make test`. Both make the environment in .venv first, if it is missing.
.DEFAULT_GOAL := help
.PHONY: help env demo test test-cluster check bench clean

PYTHON ?= python3
VENV := .venv
# With the environment active, as a user would have it: rules call `python`, and tests call `snakemake`.
ACTIVE := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

env: $(VENV)/.installed ## install the pinned environment into .venv

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "phasegraph needs Python 3.11 or newer; say which: make env PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { echo "this Python lacks venv; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV); this takes some minutes"
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@# Without bytecode every job would compile what it imports; some installers and settings leave it out.
	-$(VENV)/bin/python -m compileall -q -j 0 $(VENV)/lib workflow/phasegraph >/dev/null 2>&1
	@touch $@

demo: env ## train the embedded model, study its checkpoints, print where the report is
	@$(ACTIVE) snakemake --cores all
	@for page in results/*/report.html; do echo "report: $(CURDIR)/$$page"; done

test: env ## run all tests
	@$(ACTIVE) python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/workflow tests

test-cluster: env ## run the cluster's tests on a SLURM that is started for them (Debian or Ubuntu, as root)
	@bash tests/cluster/start.sh
	@$(ACTIVE) python -m pytest -n 2 -m slurm tests/workflow/test_cluster.py; \
	  status=$$?; bash tests/cluster/stop.sh; exit $$status

check: env ## linters and formatters, as in CI
	@$(ACTIVE) ruff check .
	@$(ACTIVE) ruff format --check .
	@$(ACTIVE) snakefmt --check Snakefile workflow
	@$(ACTIVE) snakemake --lint

bench: env ## time the engine and the metrics against other ways; about 35 minutes, see benchmarks/engine.py, network.py
	@$(ACTIVE) python benchmarks/engine.py
	@$(ACTIVE) python benchmarks/network.py

clean: ## delete all results (the trained checkpoints too), logs and caches
	rm -rf results/* logs .snakemake .pytest_cache .ruff_cache
