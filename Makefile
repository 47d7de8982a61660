# Everything that Valise needs installs itself into .venv, pinned with hashes; nothing here names a host.
# Debian's own Python where it can make environments: it was compiled with profiles, which others often are not, and
# spares some 8 % of the work. Any other: make PYTHON=…
PYTHON ?= $(shell /usr/bin/python3.11 -c 'import ensurepip, venv' 2>/dev/null && echo /usr/bin/python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data
# What only `make test` has time for, though it needs nothing but Python.
LONG := $(foreach each,mutants exact oracle proofread cases bad_policies,--ignore=tests/policy/test_$(each).py)
# Hundreds of processes start in a run, and each would compile all its modules anew where the environment says to keep
# none, as those of containers often do.
export PYTHONDONTWRITEBYTECODE :=
UNITS := tests/test_architecture.py tests/steps tests/policy tests/schemas tests/adapters tests/member tests/model

.PHONY: demo test check real bench clean

demo: $(VENV)/.runtime
	$(BIN)/valise demo

# All of it: lint, types, the architecture, policy cases, units, Kafka, Chromium where pages exist, kill -9. Nothing is skipped.
test: $(VENV)/.dev
	deploy/system-packages java mvn kcat node openssl softhsm2-util go
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

# The quick answer while working: lint, types, unit tests. Under a minute once installed.
check: $(VENV)/.dev
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not kafka and not slow" $(LONG) $(UNITS)

.PHONY: lint
lint:
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# Both public lists of DATA from end to end, through broker and trail to a collector.
real: $(VENV)/.runtime
	$(BIN)/python -m cli.real --data $(DATA)

bench: $(VENV)/.dev
	for each in embedded kafka_fanout latency memory policy trail; do $(BIN)/python -m bench.$$each --quick || exit 1; done

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: lock/runtime.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r lock/runtime.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.dev: lock/dev.txt $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r lock/dev.txt
	touch $@

clean:
	rm -rf $(VENV) deploy/kafka/target .mypy_cache .ruff_cache .pytest_cache .hypothesis
