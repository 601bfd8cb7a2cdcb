# What is hard to break: endurance, fuzzing, and the listeners against their own description.

OPENAPI := .tools/openapi
FUZZING := .tools/fuzzing
SOAK_MINUTES ?= 30
SOAK_GATEWAYS ?= 3
SOAK_SEED ?= 1
SOAK_CLUSTER ?=
FUZZ_SECONDS ?= 960
FUZZ_SEED ?= 0
FUZZ_INPUTS ?= -1

.PHONY: chaos soak fuzz test-openapi lock-robustness

soak: redis-server $(VENV)/.dev ## 30 minutes of everything that happens to gateways; SOAK_MINUTES=, SOAK_GATEWAYS= and SOAK_SEED= change it, SOAK_CLUSTER=1 takes a Redis cluster
	$(BIN)/python -m tests.soak --minutes $(SOAK_MINUTES) --gateways $(SOAK_GATEWAYS) --seed $(SOAK_SEED) $(if $(SOAK_CLUSTER),--cluster)

chaos: redis-server $(VENV)/.dev ## processes killed at every stage of every kind of request, some minutes
	CHAOS=all $(BIN)/python -m pytest -n $(WORKERS) -o faulthandler_timeout=1200 tests/journeys/test_gateway_is_killed.py $(PYTEST_ARGS)

fuzz: $(FUZZING)/.done ## atheris on every reader of bytes from outside, a minute each; FUZZ_SECONDS=, FUZZ_SEED= and FUZZ_INPUTS= change it
	$(FUZZING)/bin/python -m tests.fuzz --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED) --inputs $(FUZZ_INPUTS)

test-openapi: $(OPENAPI)/.done $(VENV)/.dev ## both listeners answer what their /openapi.json says, whatever is sent
	$(BIN)/python -m tests.openapi $(OPENAPI)/bin/schemathesis

lock-robustness: $(VENV)/.dev ## write requirements/openapi.txt and fuzzing.txt again; UPGRADE=--upgrade takes newer versions
	for tool in openapi fuzzing; do $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--custom-compile-command "make lock-robustness" $(UPGRADE) requirements/$$tool.in -o requirements/$$tool.txt; done

$(OPENAPI)/.done: requirements/openapi.txt | $(VENV)/pyvenv.cfg
	$(BIN)/python -m venv $(OPENAPI)
	$(OPENAPI)/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes -r requirements/openapi.txt
	@touch $@

# Beside atheris, what the gateway itself imports.
$(FUZZING)/.done: requirements/fuzzing.txt requirements/runtime.txt | $(VENV)/pyvenv.cfg
	$(BIN)/python -m venv $(FUZZING)
	$(FUZZING)/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes \
		-r requirements/runtime.txt -r requirements/fuzzing.txt
	@touch $@
