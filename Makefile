# The recipes of this project. `make demo` and `make test` do all their own set-up.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMPS := .build
PYTHON ?= python3
UV_COMPILE := $(BIN)/uv pip compile -q --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
    --python-version 3.11
CARGO_FILES := Cargo.toml Cargo.lock $(shell find crates -name '*.rs' -o -name Cargo.toml)
RIG_FILES := $(CARGO_FILES) $(shell find benches/rig -name '*.rs' -o -name Cargo.toml)
KUBE_FILES := tools/build-kube $(shell find kube -name '*.go' -o -name 'go.*')

.PHONY: help
help: ## List the recipes
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: demo
demo: build ## Build what is missing and show a meshed application with true numbers
	@$(BIN)/linkerd-demo up

.PHONY: down
down: ## End the demo's cluster; nothing is left behind
	@if [ -x $(BIN)/linkerd ]; then $(BIN)/linkerd cluster stop; else echo "nothing is built, so nothing runs"; fi

.PHONY: build
build: $(STAMPS)/python ## Build all programs into .venv/bin
	@# Side by side: linking is serial in both languages, and each leaves a core to the other meanwhile.
	@$(MAKE) --silent --no-print-directory -j2 $(STAMPS)/kube $(STAMPS)/proxy

.PHONY: test
test: build $(STAMPS)/python-dev lint proto-check test-rust test-unit test-integration test-e2e ## Pass all tests

.PHONY: lint
lint: $(STAMPS)/python-dev ## Check style, types of errors we forbid, and the rings
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	@cargo fmt --all --check
	@# Every crate takes the workspace's lints: no unsafe code, and nothing unwrapped that the network decides.
	@without=$$(grep -LPz '\[lints\]\nworkspace = true\n' crates/*/Cargo.toml || true); \
	    if [ -n "$$without" ]; then echo "without the workspace's lints: $$without" >&2; exit 1; fi
	@$(BIN)/cargo-deny --locked --log-level error check bans licenses sources

.PHONY: test-rust
test-rust: h2spec ## Clippy and the proxy's tests
	@cargo clippy --workspace --all-targets --locked -q -- -D warnings
	@cargo test --workspace --locked -q

.PHONY: h2spec
h2spec: ## Build the conformance suite of HTTP/2
	@if [ ! -x $(STAMPS)/h2spec ] || [ tests/h2spec/go.sum -nt $(STAMPS)/h2spec ]; then \
	    mkdir -p $(STAMPS); \
	    (cd tests/h2spec && CGO_ENABLED=0 go build -trimpath -o ../../$(STAMPS)/h2spec github.com/summerwind/h2spec/cmd/h2spec) || \
	    echo "h2spec cannot be built, so its test is skipped (the reason is above)" >&2; fi

.PHONY: test-unit
test-unit: $(STAMPS)/python-dev ## The pure parts
	@$(BIN)/pytest -q tests/unit

.PHONY: test-integration
test-integration: build $(STAMPS)/python-dev $(STAMPS)/promtool ## Real programs on loopback and in namespaces, no cluster
	@$(BIN)/pytest -q tests/integration

.PHONY: test-e2e
test-e2e: build $(STAMPS)/python-dev ## The whole on an embedded cluster of its own
	@$(BIN)/pytest -q tests/e2e

.PHONY: bench
bench: build $(STAMPS)/bench ## Measure: footprint, start-up, the proxy beside its peers, control plane, command line
	@$(BIN)/python benches/footprint.py
	@$(BIN)/python benches/proxy.py
	@$(BIN)/python benches/control_plane.py
	@$(BIN)/python benches/commands.py

.PHONY: format
format: $(STAMPS)/python-dev ## Lay the code out
	@$(BIN)/ruff check --fix-only -q . && $(BIN)/ruff format -q . && cargo fmt --all

.PHONY: proto
proto: $(STAMPS)/python-dev ## Generate both sides of the wire from proto/
	@tools/generate-python-proto
	@tools/generate-rust-proto

.PHONY: proto-check
proto-check: proto ## See that what is committed is what proto/ generates
	@git diff --exit-code --stat -- python/linkerd/proto crates/linkerd-proto/src/gen demo

.PHONY: lock
lock: $(STAMPS)/python ## Resolve the Python requirements anew, with hashes
	@for name in uv build runtime dev bench; do $(UV_COMPILE) requirements/$$name.in -o requirements/$$name.txt; done

$(STAMPS)/tools: tools/prepare
	@mkdir -p $(STAMPS)
	@tools/prepare
	@touch $@

$(STAMPS)/venv: requirements/uv.txt $(STAMPS)/tools
	@echo "==> Python environment"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

$(STAMPS)/python: $(STAMPS)/venv requirements/runtime.txt requirements/build.txt pyproject.toml
	@echo "==> Python packages"
	@$(BIN)/uv pip install -q --compile-bytecode --require-hashes -r requirements/runtime.txt -r requirements/build.txt
	@$(BIN)/uv pip install -q --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q python demo
	@touch $@

$(STAMPS)/python-dev: $(STAMPS)/python requirements/dev.txt
	@echo "==> Python packages of the tests"
	@$(BIN)/uv pip install -q --require-hashes -r requirements/dev.txt
	@touch $@

$(STAMPS)/kube: $(STAMPS)/venv $(KUBE_FILES)
	@echo "==> Kubernetes, etcd, CoreDNS, Prometheus (upstream's code; the first build takes minutes)"
	@tools/build-kube
	@touch $@

$(STAMPS)/promtool: $(STAMPS)/kube $(KUBE_FILES)
	@tools/build-kube --promtool
	@touch $@

$(STAMPS)/proxy: $(STAMPS)/venv $(CARGO_FILES)
	@echo "==> the proxy"
	@cargo build --release --locked -p linkerd-proxy
	@install -m 755 $${CARGO_TARGET_DIR:-target}/release/linkerd2-proxy $(BIN)/linkerd2-proxy
	@touch $@

$(STAMPS)/bench: $(STAMPS)/venv requirements/bench.txt $(RIG_FILES)
	@echo "==> the benches' peers and clients"
	@tools/prepare-bench
	@$(BIN)/uv pip install -q --require-hashes -r requirements/bench.txt
	@cargo build --profile profiling --locked -q -p linkerd-rig
	@install -m 755 $${CARGO_TARGET_DIR:-target}/profiling/rig $(BIN)/rig
	@touch $@
