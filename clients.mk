# Real agents and SDKs against a gateway, at pinned versions (docs/clients/).

CLIENTS := .tools/clients
NPM_CLIENTS := tests/clients/npm

.PHONY: test-clients client-tools client-proxy lock-clients

test-clients: client-tools client-proxy $(VENV)/.dev ## agents and SDKs from npm and PyPI do through the gateway what they do without it
	CLIENTS=required $(BIN)/python -m pytest tests/clients/programs -n 4 --dist loadgroup $(PYTEST_ARGS)

client-tools: $(CLIENTS)/sdks/.done $(CLIENTS)/older/.done $(CLIENTS)/proxy/.done $(NPM_CLIENTS)/node_modules/.package-lock.json

lock-clients: $(VENV)/.dev ## write requirements/clients*.txt from scratch; UPGRADE=--upgrade takes newer versions
	for name in clients clients-older clients-proxy; do $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--custom-compile-command "make lock-clients" $(UPGRADE) requirements/$$name.in -o requirements/$$name.txt || exit 1; done

# `older` has programs that need older releases of the same SDKs, `proxy` LiteLLM's proxy, whose pins hold its SDK back.
$(CLIENTS)/sdks/.done: requirements/clients.txt
$(CLIENTS)/older/.done: requirements/clients-older.txt
$(CLIENTS)/proxy/.done: requirements/clients-proxy.txt
$(CLIENTS)/%/.done: | $(VENV)/.dev
	$(BIN)/python -m venv $(@D)
	$(BIN)/uv pip install --quiet --python $(@D)/bin/python --require-hashes -r $<
	@touch $@

# Not `npm ci`: it refuses a lock without the binaries of other systems, which not every registry has.
$(NPM_CLIENTS)/node_modules/.package-lock.json: $(NPM_CLIENTS)/package-lock.json
	cd $(NPM_CLIENTS) && npm install --no-save --silent --no-audit --no-fund
	@touch $@

# Only what is missing: npm that came with Node.js from elsewhere is in the way of Debian's.
client-proxy:
	@missing=; for program in npm tinyproxy; do command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	[ -z "$$missing" ] \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; } \
	|| { echo "make test-clients needs these of Debian's packages:$$missing" >&2; exit 1; }
