# Everything from the first look to a release; `make help` lists it.

VENV ?= .venv
BIN := $(VENV)/bin
# The first Python that is new enough; `make PYTHON=/path/to/python3` overrides it.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
WORKERS ?= 2
PYTEST_ARGS ?=
BENCH_ARGS ?=
UPGRADE ?=
PORT ?= 8080
# Left empty: 1010 above PORT, so 9090.
ADMIN_PORT ?=

INSTALL := $(BIN)/python -m pip --quiet --disable-pip-version-check install
OR_SAY_WHY := || { echo "The locked packages could not be installed: pip says why above. The first time it needs a package" \
	"index: pypi.org, or yours in PIP_INDEX_URL. A second run needs none." >&2; exit 1; }
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make lock" $(UPGRADE)
# Some tests take a minute, most of them a moment: a process that has none left takes over from another.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
PARSERS := tests/parsers/npm
# What has a target of its own, since it needs more than this environment.
WITHOUT_OTHERS := --ignore=tests/parsers --ignore=tests/clients/programs --ignore=tests/console --ignore=tests/clone
FOCUS := .tools/focus
PEERS := .tools/peers

.DEFAULT_GOAL := help
.PHONY: help demo test test-demo test-parsers test-focus quick lint types layers unit bench bench-peers bench-programs bench-check format lock redis-server valgrind clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime ## run the gateway with a demo upstream, or with UPSTREAM=https://host/v1 UPSTREAM_API_KEY=...; PORT=, ADMIN_PORT=
	@exec $(BIN)/gateway serve $(if $(UPSTREAM),--upstream "$(UPSTREAM)",--demo) --listen 127.0.0.1:$(PORT) \
		$(if $(ADMIN_PORT),--admin-listen 127.0.0.1:$(ADMIN_PORT))

test: lint types layers redis-server ## lint, types, layers and every test; PYTEST_ARGS= passes on
	$(PYTEST) $(WITHOUT_OTHERS) $(PYTEST_ARGS)

quick: redis-server $(VENV)/.dev ## every test but the slow ones
	$(PYTEST) -m "not slow" $(WITHOUT_OTHERS) $(PYTEST_ARGS)

test-parsers: $(PARSERS)/node_modules/.package-lock.json $(VENV)/.dev ## what the gateway judges is what servers in Python, Go and Node.js read
	PARSERS=required $(PYTEST) tests/parsers $(PYTEST_ARGS)

test-demo: $(VENV)/.dev ## `make demo` from a fresh clone: on each Python from 3.11 on, with spaces in its path, as another user, offline
	$(BIN)/python -m pytest -o faulthandler_timeout=1200 tests/clone $(PYTEST_ARGS)

test-focus: $(FOCUS)/bin/focus-validator $(VENV)/.dev ## the rows of `gateway usage --focus` pass the FinOps validator (needs Python 3.12 or 3.13)
	FOCUS_VALIDATOR=$< $(BIN)/python -m pytest tests/unit/finance/test_focus.py $(PYTEST_ARGS)

unit: $(VENV)/.dev ## the tests without network or processes
	$(BIN)/python -m pytest tests/unit $(PYTEST_ARGS)

lint: $(VENV)/.dev ## ruff: the rules and the format; plain words in documentation, messages and help
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tests.house.prose

types: $(VENV)/.dev ## mypy, strict, on gateway/, bench/ and most tests but those of units, journeys and clients
	$(BIN)/mypy

layers: $(VENV)/.dev ## who may import whom
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.dev ## write the format and the fixes that ruff is sure of
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: $(VENV)/.dev redis-server ## measure speed and memory (docs/performance.md); BENCH_ARGS= passes on
	$(BIN)/python -m bench $(BENCH_ARGS)
	$(BIN)/python -m bench.admission $(filter --json --write,$(BENCH_ARGS))

bench-peers: $(VENV)/.dev redis-server bench-programs ## measure the gateway beside TensorZero, vLLM's router, LiteLLM and nginx
	$(BIN)/python -m bench.peers $(BENCH_ARGS)

# Each in an environment of its own, since their dependencies contradict each other.
bench-programs: $(PEERS)/tensorzero/.done-2026.6.0 $(PEERS)/vllm-router/.done-0.1.17 $(PEERS)/litellm/.done-1.81.10
	@for program in wrk nginx; do command -v $$program >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq \
		&& apt-get install -y -qq --no-install-recommends $$program; } \
		|| { echo "make bench-peers needs $$program. On Debian and Ubuntu: apt-get install $$program" >&2; exit 1; }; done

bench-check: $(VENV)/.dev redis-server valgrind ## fail where a request costs more instructions than bench/instructions.json allows
	$(BIN)/python -m bench.instructions --check

lock: $(VENV)/.dev ## write requirements/*.txt again after a change of pyproject.toml; UPGRADE=--upgrade takes newer versions
	$(COMPILE) requirements/build.in -o requirements/build.txt
	$(COMPILE) pyproject.toml -o requirements/runtime.txt
	$(COMPILE) pyproject.toml --extra dev -c requirements/runtime.txt -o requirements/dev.txt
	$(COMPILE) pyproject.toml --extra otel -c requirements/dev.txt -o requirements/otel.txt

clean: ## remove what was built and every cache
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find gateway tests bench -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## and the virtual environment
	rm -rf $(VENV)

$(PEERS)/tensorzero/.done-%: PROGRAM = tensorzero==$*
$(PEERS)/vllm-router/.done-%: PROGRAM = vllm-router==$*
$(PEERS)/litellm/.done-%: PROGRAM = 'litellm[proxy]==$*' httptools uvloop
$(PEERS)/tensorzero/.done-% $(PEERS)/vllm-router/.done-% $(PEERS)/litellm/.done-%: | $(VENV)/pyvenv.cfg
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/pip --quiet --disable-pip-version-check install $(PROGRAM)
	@touch $@

# It pins an old numpy, for which newer versions of pyarrow are too new.
$(FOCUS)/bin/focus-validator:
	$$(command -v python3.12 || command -v python3.13) -m venv $(FOCUS)
	$(FOCUS)/bin/pip --quiet --disable-pip-version-check install focus-validator==2.2.1 'pyarrow<19'

# A stamp is as new as the lock that it was installed from, so a second run installs nothing.

$(VENV)/pyvenv.cfg:
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 or newer is needed. Install it, or say where it is:" \
		"make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "$(PYTHON) is not Python 3.11 or" \
		"newer. Install one, or say where it is: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) comes without venv. On Debian and Ubuntu:" \
		"apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing the locked packages into $(VENV): about a minute, the first time."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.runtime: requirements/runtime.txt requirements/build.txt pyproject.toml | $(VENV)/pyvenv.cfg
	@$(INSTALL) --require-hashes -r requirements/build.txt -r requirements/runtime.txt $(OR_SAY_WHY)
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.runtime
	@$(INSTALL) --require-hashes -r requirements/dev.txt $(OR_SAY_WHY)
	@touch $@

$(PARSERS)/node_modules/.package-lock.json: $(PARSERS)/package-lock.json
	cd $(PARSERS) && npm ci --silent --no-audit --no-fund
	@touch $@

valgrind:
	@command -v valgrind >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
		&& apt-get update -qq && apt-get install -y -qq --no-install-recommends valgrind; } \
	|| { echo "Instructions are counted by valgrind and there is none. On Debian and Ubuntu:" \
		"apt-get install valgrind" >&2; exit 1; }

redis-server:
	@command -v redis-server >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
		&& apt-get update -qq && apt-get install -y -qq --no-install-recommends redis-server; } \
	|| { echo "The tests start redis-server and there is none. On Debian and Ubuntu:" \
		"apt-get install redis-server. On macOS: brew install redis" >&2; exit 1; }

include deploy.mk
include robustness.mk
include clients.mk
include console.mk
