# One command each. Everything is installed into .venv from the locked, hashed requirements.
#   make run [ARGS=...]  start Aquifer on this machine          make check  lint, types, fast tests
#   make test            everything that CI checks              make lock   renew the locked requirements
#   make servers         real Kafka, Cassandra and Redis here   make clean  remove what was generated
#   make compiled        the domain as machine code: less CPU, the same decisions

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes
PYTEST := $(PY) -m pytest --numprocesses auto --maxprocesses 4 --dist loadgroup --durations 12
LOCK := $(PY) -m uv pip compile --quiet --universal --generate-hashes --no-emit-index-url \
	--python-version 3.11

.PHONY: run test check lint compiled servers lock clean
.DEFAULT_GOAL := test

run: $(VENV)/runtime-installed
	@$(PY) -m aquifer run $(ARGS)

test:
	@$(MAKE) --no-print-directory --jobs 2 lint compiled
	$(PYTEST)

check: lint
	$(PYTEST) -m "not servers and not slow"

lint: $(VENV)/dev-installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

compiled: $(VENV)/dev-installed
	@$(PY) -m infra.compiled

servers: $(VENV)/dev-installed
	@$(PY) -m infra.local

lock: $(VENV)/dev-installed
	$(LOCK) pyproject.toml -o requirements.lock
	$(LOCK) --group dev pyproject.toml -o requirements-dev.lock

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf .import_linter_cache .coverage *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are newer than the lock they were installed from. The dev lock holds the other one.
$(VENV)/runtime-installed: requirements.lock | $(PY)
	$(INSTALL) -r requirements.lock
	@touch $@

$(VENV)/dev-installed: requirements-dev.lock requirements.lock | $(PY)
	$(INSTALL) -r requirements-dev.lock
	@touch $@ $(VENV)/runtime-installed

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Aquifer needs Python 3.11 or newer as '$(PYTHON)'; or say make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "python3 -m venv failed (on Debian: install python3-venv)" >&2; exit 1; }
