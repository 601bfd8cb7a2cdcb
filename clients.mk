# Real agents and SDKs against a gateway, at pinned versions (docs/clients/).

CLIENTS := .tools/clients
NPM_CLIENTS := tests/clients/npm

.PHONY: test-clients client-tools client-proxy lock-clients

test-clients: client-tools client-proxy $(VENV)/.dev ## agents and SDKs from npm and PyPI do through the gateway what they do without it
	CLIENTS=required $(BIN)/python -m pytest tests/clients/programs -n 4 $(PYTEST_ARGS)

client-tools: $(CLIENTS)/sdks/.done $(CLIENTS)/older/.done $(NPM_CLIENTS)/node_modules/.package-lock.json

lock-clients: $(VENV)/.dev ## write requirements/clients*.txt from scratch; UPGRADE=--upgrade takes newer versions
	for name in clients clients-older; do $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--custom-compile-command "make lock-clients" $(UPGRADE) requirements/$$name.in -o requirements/$$name.txt || exit 1; done

$(CLIENTS)/sdks/.done: requirements/clients.txt | $(VENV)/.dev
	$(BIN)/python -m venv $(CLIENTS)/sdks
	$(BIN)/uv pip install --quiet --python $(CLIENTS)/sdks/bin/python --require-hashes -r requirements/clients.txt
	@touch $@

# Programs that need older releases of the same SDKs.
$(CLIENTS)/older/.done: requirements/clients-older.txt | $(VENV)/.dev
	$(BIN)/python -m venv $(CLIENTS)/older
	$(BIN)/uv pip install --quiet --python $(CLIENTS)/older/bin/python --require-hashes -r requirements/clients-older.txt
	@touch $@

# Not `npm ci`: it refuses a lock without the binaries of other systems, which not every registry has.
$(NPM_CLIENTS)/node_modules/.package-lock.json: $(NPM_CLIENTS)/package-lock.json
	cd $(NPM_CLIENTS) && npm install --no-save --silent --no-audit --no-fund
	@touch $@

client-proxy:
	@command -v npm >/dev/null && command -v tinyproxy >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends npm tinyproxy; } \
	|| { echo "make test-clients needs these of Debian's packages: npm tinyproxy" >&2; exit 1; }
