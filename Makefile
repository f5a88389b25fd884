# The two commands of the README are `make run` and `make test`; `make help` lists all.
SHELL := /bin/sh
PYTHON := .venv/bin/python
SEEDS ?= 1:200
ARGS ?=
SECONDS ?= 60
SEED ?= 1

.PHONY: help run test check format bench chaos sim clean
.DEFAULT_GOAL := help

help:
	@echo 'make run    start an embedded cluster on 127.0.0.1:9000 (ARGS="--listen ... --data ...")'
	@echo 'make test   install what the tests need and run them all (ARGS="-k name" narrows)'
	@echo 'make check  formatting, lint, types and import rules'
	@echo 'make sim    simulate whole clusters under faults (SEEDS=1:200; members change from 1000000 on)'
	@echo 'make bench  measure speed and memory (ARGS="...")'
	@echo 'make chaos  real processes under real faults (SECONDS=60 SEED=n ARGS="...")'
	@echo 'make clean  delete .venv, caches and test servers'

# `exec`: signals reach the cluster itself, not a shell that waits for it.
run: .venv/run.stamp
	@exec $(PYTHON) -P -m astra.cli.main dev $(ARGS)

test: .venv/test.stamp
	@scripts/install-services
	@exec $(PYTHON) scripts/testrun.py $(ARGS)

check: .venv/test.stamp
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m mypy
	@.venv/bin/lint-imports

format: .venv/test.stamp
	@$(PYTHON) -m ruff format .
	@$(PYTHON) -m ruff check --fix .

bench: .venv/test.stamp
	@exec $(PYTHON) -m bench $(ARGS)

chaos: .venv/test.stamp
	@exec $(PYTHON) -m tests.chaos --seconds $(SECONDS) --seed $(SEED) $(ARGS)

sim: .venv/test.stamp
	@exec $(PYTHON) -m tests.sim --regressions $(SEEDS)

.venv/run.stamp: requirements/run.txt scripts/venv scripts/python
	@scripts/venv run

.venv/test.stamp: requirements/test.txt .venv/run.stamp
	@scripts/venv test

clean:
	@for dir in .services .services/test .services/make-test; do \
	  if [ -e $$dir/services.json ]; then scripts/services down --wipe --dir $$dir; fi; done
	rm -rf .venv .venv.lock .services .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
