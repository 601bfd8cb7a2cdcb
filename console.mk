# The console and /me in a real browser (tests/console/).

NPM_CONSOLE := tests/console/npm
CHROMIUM ?= $(or $(shell command -v chromium),/usr/bin/chromium)

.PHONY: test-console console-pictures chromium

test-console: chromium $(NPM_CONSOLE)/node_modules/.package-lock.json $(VENV)/.dev ## every page of the console in Chromium: width, light and dark, keyboard, axe, figures
	CONSOLE=required CHROMIUM=$(CHROMIUM) $(BIN)/python -m pytest tests/console -o faulthandler_timeout=900 $(PYTEST_ARGS)

console-pictures: chromium $(NPM_CONSOLE)/node_modules/.package-lock.json $(VENV)/.dev ## write docs/pictures/console*.png again
	CHROMIUM=$(CHROMIUM) $(BIN)/python -m tests.console.pictures

# Not `npm ci`: it refuses a lock without the addresses of packages, which not every registry has.
$(NPM_CONSOLE)/node_modules/.package-lock.json: $(NPM_CONSOLE)/package-lock.json
	cd $(NPM_CONSOLE) && npm install --no-save --silent --no-audit --no-fund
	@touch $@

# Only what is missing: npm that came with Node.js from elsewhere is in the way of Debian's.
chromium:
	@missing="$$(command -v npm >/dev/null || echo npm) $$([ -x "$(CHROMIUM)" ] || echo chromium fonts-dejavu-core pngquant)"; \
	[ -z "$${missing# }" ] \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; } \
	|| { echo "make test-console needs these of Debian's packages: $$missing" >&2; exit 1; }
