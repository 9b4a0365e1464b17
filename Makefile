# One word for each thing one does with a checkout. PYTHON chooses the interpreter, VENV where it installs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What is compiled when the package is installed.
COMPILED := hatch_build.py $(wildcard obsserve/speedups/*.[ch])
# As many at a time as there are processors: most of their time, tests wait for servers. A file stays together.
PARALLEL ?= -n auto --dist loadfile

.PHONY: run test test-units versions floors full lint type docs dashboards look bench loadtest clean

run: $(VENV)/.installed  ## serve the demo application, with metrics
	$(BIN)/obsserve obsserve.demo:app --metrics-port 9100

test: $(VENV)/.installed-test  ## what CI runs
	$(BIN)/python -m pytest $(PARALLEL)

test-units: $(VENV)/.installed-test  ## without the tests that start servers
	$(BIN)/python -m pytest $(PARALLEL) --ignore tests/integration --ignore tests/contracts

versions:  ## the tests that start no servers, with every supported Python that is here
	.ci/versions

floors:  ## the tests with the oldest releases that pyproject.toml admits
	.ci/floors

full: $(VENV)/.installed-test  ## also what takes long: more examples, the test suite five times, other Pythons, old dependencies
	PYTHON=$(BIN)/python PARALLEL="$(PARALLEL)" .ci/full

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: $(VENV)/.installed-test
	$(BIN)/mypy

docs: $(VENV)/.installed  ## write the generated pages
	$(BIN)/python -m obsserve.options > docs/configuration.md
	$(BIN)/python -m obsserve.telemetry.catalogue > docs/telemetry.md

dashboards: $(VENV)/.installed-test  ## write dashboards, rules and alerts anew from dashboards/src
	$(BIN)/python -m dashboards.src
	$(BIN)/python deploy/kubernetes/rules.py

look: $(VENV)/.installed-test  ## draw the dashboards with live data, by Grafana's components in Chromium: docs/images
	$(BIN)/python -m tests.dashboards.draw docs/images

bench: $(VENV)/.installed-bench  ## SUITE=hello, otlp, signals, post, stream, pipeline, fastapi, latency, scrape, idle, startup
	$(BIN)/python -m loadtests.bench $(or $(SUITE),hello)

loadtest: $(VENV)/.installed-loadtest  ## SCENARIO=steady, api_mix, overload … against the demo; ARGUMENTS="--run-time 5m"
	$(BIN)/python -m loadtests $(or $(SCENARIO),steady) $(ARGUMENTS)

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml $(COMPILED)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.created pyproject.toml $(COMPILED)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: $(VENV)/.created pyproject.toml $(COMPILED)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-loadtest: $(VENV)/.created pyproject.toml $(COMPILED)
	$(BIN)/python -m pip install --quiet --editable '.[loadtest]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
