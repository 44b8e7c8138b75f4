# make quickstart: sets up an environment and runs the main job.   make test: sets up and passes the tests.   make fuzz: reads random input for an hour.
VENV ?= .venv
PYTHON = $(VENV)/bin/python

.PHONY: quickstart test lint fuzz

quickstart: $(VENV)/installed
	$(VENV)/bin/pip install -q --no-deps --require-hashes -r examples/quickstart/requirements.txt
	@$(PYTHON) examples/quickstart/quickstart.py

test: $(VENV)/installed
	$(PYTHON) -m pytest

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	mkdir -p $(VENV)/types && ln -sfn "$(CURDIR)" $(VENV)/types/efficientbert
	MYPYPATH=$(VENV)/types $(VENV)/bin/mypy

fuzz: $(VENV)/installed
	FUZZ_EXAMPLES=10000 $(PYTHON) -m pytest tests/test_fuzz.py

$(VENV)/installed: setup.py constraints.txt
	@echo "Setting up $(VENV): torch and all else are downloaded, which takes some minutes."
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install -q -c constraints.txt torch
	$(VENV)/bin/pip install -q -c constraints.txt -e ".[test]"
	touch $@
