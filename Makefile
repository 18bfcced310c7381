# make run     set up .venv and start the demonstration daemon
# make test    set up everything and run all functional tests
# make proof   run the storms, soaks and crash series
# make check   format, lint and type checks, and the tests that need no other server
# make bench   measure
# make fuzz    search longer with every property test
#
# PYTHON chooses the interpreter of .venv; ARGS is handed on, as in make test ARGS="-k prosody".

PYTHON ?= $(shell for python in /usr/bin/python3 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
PYTHON := $(or $(PYTHON),python3)
BIN := .venv/bin
COVERAGE := --cov --cov-report=term:skip-covered
WHOLE := $(if $(filter true,$(CI)),--cov-fail-under=95)  # where nothing may be left out
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder

.PHONY: run test proof check bench fuzz prepare-run prepare-test

run: prepare-run
	$(BIN)/extauth serve --demo $(ARGS)

test: prepare-test
	$(BIN)/pytest -m "not proof" $(PARALLEL) $(COVERAGE) $(WHOLE) $(ARGS)

proof: prepare-test
	$(BIN)/pytest -m proof -o faulthandler_timeout=0 $(ARGS)

check: prepare-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/pytest -m "not proof and not needs" $(PARALLEL) $(COVERAGE) $(ARGS)

bench: prepare-test
	$(BIN)/python -m bench $(ARGS)

fuzz: prepare-test
	HYPOTHESIS_PROFILE=fuzz $(BIN)/pytest -m "hypothesis and not needs and not proof" $(PARALLEL) $(ARGS)

prepare-run:
	@$(PYTHON) tools/prepare.py run

prepare-test:
	@$(PYTHON) tools/prepare.py test
