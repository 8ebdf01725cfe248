# `make` alone lists the targets. Every target works on a clean clone.

SWIFT ?= swift
ARGS ?=
# Of `make up`: 1 serves https:// and wss://.
TLS ?=
# Of `make chaos`; without a seed it takes one and prints it.
MINUTES ?= 10
SEED ?=
ONLY ?=
# Of `make fuzz`: how long each target, which (all), an input to run alone, so many inputs instead of a time.
SECONDS ?= 60
TARGET ?=
REPLAY ?=
RUNS ?=
SANITIZERS ?= fuzzer,address
MARTLET := .build/release/martlet

# What the build links against, and what `make up` and the tests run.
PACKAGES := libhiredis-dev libssl-dev zlib1g-dev pkg-config
# What the tests need besides; openssl makes the certificates for TLS, haproxy and nginx stand before nodes in place of a
# router.
TEST_PACKAGES := python3 python3-venv openssl haproxy nginx
BROWSER_PACKAGES := chromium chromium-driver

.DEFAULT_GOAL := help
.PHONY: help deps deps-test deps-python browser-there swift-there build up down test test-build test-unit test-redis test-cluster test-chaos test-browser test-conformance test-sanitize conformance chaos fuzz lint format docs client protobuf bench flood docker-check clean

help: ## List the targets.
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: swift-there ## Install the apt packages that are missing (says which; asks sudo unless root).
	@missing=""; \
	for package in $(PACKAGES); do \
		dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
	done; \
	command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	$(install_missing)

deps-test: deps deps-python browser-there ## Install what the browser and conformance tests need: Chromium, its driver, Python.

deps-python:
	@missing=""; \
	for package in $(TEST_PACKAGES); do \
		dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
	done; \
	$(install_missing)

# Debian has Chromium as packages, Ubuntu as a snap alone, which brings its driver along.
browser-there:
	@if command -v chromedriver >/dev/null || command -v chromium.chromedriver >/dev/null; then exit 0; fi; \
	sudo=""; [ "$$(id -u)" = 0 ] || sudo="sudo"; \
	if command -v apt-get >/dev/null; then $$sudo apt-get update -qq; fi; \
	if LC_ALL=C apt-cache policy chromium 2>/dev/null | grep 'Candidate: ' | grep -qv -e '(none)' -e snap; then \
		missing=" $(BROWSER_PACKAGES)"; \
		$(install_missing); \
	elif command -v snap >/dev/null; then \
		echo "Installing with $$sudo snap: chromium"; \
		$$sudo snap install chromium; \
	else \
		echo "There is no package of Chromium here: install it with its chromedriver, so that chromedriver is in the PATH." >&2; \
		exit 1; \
	fi

# Installs $$missing. A policy-rc.d keeps apt from starting a redis-server of the system on port 6379, an nginx on port 80,
# an haproxy: Martlet starts its own. One that the machine already has stays as it is.
define install_missing
if [ -z "$$missing" ]; then echo "Nothing to install."; exit 0; fi; \
command -v apt-get >/dev/null || { echo "Missing:$$missing. This machine has no apt-get: install them its own way." >&2; exit 1; }; \
sudo=""; [ "$$(id -u)" = 0 ] || sudo="sudo"; \
echo "Installing with $$sudo apt-get:$$missing"; \
policy=/usr/sbin/policy-rc.d; \
if [ ! -e $$policy ]; then \
	printf '#!/bin/sh\nexit 101\n' | $$sudo tee $$policy >/dev/null && $$sudo chmod +x $$policy; \
	trap "$$sudo rm -f $$policy" EXIT INT TERM; \
fi; \
$$sudo env DEBIAN_FRONTEND=noninteractive apt-get update -qq && \
$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$missing
endef

swift-there:
	@command -v $(SWIFT) >/dev/null || { \
		echo "Swift is missing. Install 6.2 or later from https://www.swift.org/install/linux/, for example:" >&2; \
		echo "  curl -O https://download.swift.org/swiftly/linux/swiftly-$$(uname -m).tar.gz" >&2; \
		echo "  tar zxf swiftly-$$(uname -m).tar.gz && ./swiftly init" >&2; \
		exit 1; }
	@version=$$($(SWIFT) --version 2>/dev/null | sed -n 's/.*Swift version \([0-9]*\)\.\([0-9]*\).*/\1 \2/p' | head -1); \
	set -- $$version; \
	if [ "$${1:-0}" -lt 6 ] || { [ "$${1:-0}" -eq 6 ] && [ "$${2:-0}" -lt 2 ]; }; then \
		echo "Swift 6.2 or later is needed, $(SWIFT) is $${1:-unknown}.$${2:-}: see https://www.swift.org/install/linux/." >&2; \
		exit 1; \
	fi

build: swift-there ## Build the release binary, .build/release/martlet.
	$(SWIFT) build -c release --product martlet

up: deps build ## Run a cluster here: Redis, three nodes, a router on port 8080 (make up TLS=1 ARGS="--nodes 5").
	@exec $(MARTLET) dev $(if $(filter-out 0,$(TLS)),--tls) $(ARGS)

down: ## End the cluster that `make up` started in this checkout, from another terminal.
	@if [ -x $(MARTLET) ]; then $(MARTLET) dev --down; else echo "No cluster runs here."; fi

# One build for all tests; each group then runs even when one before it failed, and the end says which did.
test: deps-test test-build ## Run all tests: unit, Redis, cluster, chaos, browser, conformance.
	@failed=""; \
	for group in unit redis cluster chaos browser conformance; do \
		echo "== test-$$group"; \
		$(MAKE) --no-print-directory SKIP_BUILD=1 test-$$group || failed="$$failed test-$$group"; \
	done; \
	if [ -n "$$failed" ]; then echo "Failed:$$failed" >&2; exit 1; fi; \
	echo "All tests passed."

test-build: swift-there
	@[ -n "$(SKIP_BUILD)" ] || $(SWIFT) build --build-tests

test-unit: test-build ## Run the tests that need nothing but the code.
	@$(SWIFT) test --skip-build --skip RedisIntegrationTests --skip ClusterTests --skip ChaosTests $(ARGS)

test-redis: test-build ## Run the tests against a redis-server of their own.
	@$(SWIFT) test --skip-build --filter RedisIntegrationTests $(ARGS)

test-cluster: test-build ## Run the tests that start real nodes, kill, pause and cut them.
	@$(SWIFT) test --skip-build --filter ClusterTests $(ARGS)

test-chaos: test-build ## Run each chaos scenario briefly: what the network and the machines do to a cluster.
	@$(SWIFT) test --skip-build --filter ChaosTests $(ARGS)

# One seed gives one order of harms and victims; what the machine does meanwhile it does not give. The servers are those of
# the release build, so that silences are theirs.
chaos: build test-build ## Harm clusters under load for long, print what became of it (make chaos MINUTES=10 SEED=7 ONLY=Redis).
	@TEST_PROGRAM=$(abspath $(MARTLET)) CHAOS_MINUTES=$(MINUTES) CHAOS_SEED=$(SEED) CHAOS_ONLY="$(ONLY)" \
		$(SWIFT) test --skip-build --filter ChaosTests.LongRunTests $(ARGS)

# A build of its own for each: what a sanitizer watches is compiled otherwise. Leaks are not looked for: docs/fuzzing.md.
test-sanitize: swift-there ## Run the unit tests under the thread and the address sanitizer; builds twice, takes ten minutes.
	@failed=""; \
	for sanitizer in thread address; do \
		echo "== $$sanitizer sanitizer"; \
		$(SWIFT) build --build-tests --sanitize=$$sanitizer --scratch-path .build-$$sanitizer && \
		$$(dirname "$$(command -v $(SWIFT))")/clang -shared -fPIC -O1 Tests/Sanitizers/mutex.c -o .build-$$sanitizer/mutex.so && \
		env MARTLET_TEST_KEYS=100000 $$([ $$sanitizer = address ] && echo ASAN_OPTIONS=detect_leaks=0 || \
			echo LD_PRELOAD=$(abspath .build-thread/mutex.so) TSAN_OPTIONS=suppressions=$(abspath Tests/Sanitizers/thread.supp)) \
			$(SWIFT) test --skip-build --sanitize=$$sanitizer --scratch-path .build-$$sanitizer --skip RedisIntegrationTests \
			--skip ClusterTests --skip ChaosTests $(ARGS) || failed="$$failed $$sanitizer"; \
	done; \
	if [ -n "$$failed" ]; then echo "Failed:$$failed" >&2; exit 1; fi

fuzz: swift-there ## Give each decoder bytes that nobody sent, for SECONDS each (make fuzz SECONDS=60 TARGET=json).
	@SWIFT="$(SWIFT)" REPLAY="$(REPLAY)" RUNS="$(RUNS)" SANITIZERS="$(SANITIZERS)" Tests/Fuzz/run $(SECONDS) $(TARGET)

test-browser: test-build ## Run the chat page in headless Chromium.
	@Tests/BrowserTests/run

test-conformance: test-build ## Run a selection of the Autobahn test suite, half of its cases, in seconds.
	@ECHO_SERVER=$(abspath .build/debug/EchoServer) Tests/Autobahn/run --short $(ARGS)

# The suite is downloaded the first time (docs/conformance.md).
conformance: deps deps-python ## Run all 517 cases of the Autobahn test suite; takes ten minutes (make conformance ARGS="--cases 7.*").
	$(SWIFT) build -c release --product EchoServer
	@ECHO_SERVER=$(abspath .build/release/EchoServer) Tests/Autobahn/run $(ARGS)

lint: swift-there ## Check format, arrows between targets, docs, settings, docker files, Lua heads.
	@command -v python3 >/dev/null || { echo "python3 is missing: \`make deps-test\` installs it." >&2; exit 1; }
	@.ci/lint --self-test
	@.ci/lint

format: swift-there ## Format all Swift files.
	$(SWIFT) format --in-place --parallel --recursive Package.swift Sources Tests

docs: build ## Write what comes from the code: .env.example, the settings in operations.md, the tests in guarantees.md.
	@$(MARTLET) config env-example > .env.example.new && mv .env.example.new .env.example
	@.ci/generated.py

client: ## Write the martlet.js that nodes serve out of its source (needs esbuild).
	@.ci/client.py

protobuf: swift-there ## Write the Swift code of martlet.proto (needs protoc).
	@SWIFT="$(SWIFT)" .ci/protobuf.py

bench: build ## Measure against the socket floor and a ws + redis server, write docs/performance.md; takes seven minutes (make bench ARGS=proxies: beside HAProxy and NGINX).
	@command -v python3 >/dev/null || { echo "python3 is missing: \`make deps-test\` installs it." >&2; exit 1; }
	@Tests/Peers/bench.py $(MARTLET) $(ARGS)

flood: build ## Measure what well-behaved users notice of a flood beside them, at a node and through a router; four minutes.
	@command -v python3 >/dev/null || { echo "python3 is missing: \`make deps-test\` installs it." >&2; exit 1; }
	@Tests/Peers/flood.py $(MARTLET) $(ARGS)

docker-check: ## Build the image, run a cluster of containers, send messages through it (docker, or podman and buildah).
	@docker/check.sh

clean: ## Remove what was built, but not .martlet/ (the data of `make up`).
	rm -rf .build
