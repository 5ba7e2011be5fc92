# Everyday tasks. `make up` and `make test` are the two that matter; CI runs `make test`.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
DATA ?= ./logmesh-data
# Said by `logmesh --version`.
export LOGMESH_VERSION ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1) ($(shell git rev-parse --short=12 HEAD 2>/dev/null || echo no revision))

# Binaries under test can be told to fail (an index that crawls, a clock that is off); those that people run cannot.
FAULTS := --features logmesh/faults,logmesh-bus/contract,logmesh-processor/contract

.PHONY: help
help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

.PHONY: setup
setup: ## Install missing system packages (Debian), or name them
	@packages=(); \
	command -v cc >/dev/null || packages+=(gcc libc6-dev); \
	command -v c++ >/dev/null || packages+=(g++); \
	command -v unshare >/dev/null || packages+=(util-linux); \
	command -v git >/dev/null || packages+=(git); \
	command -v pkg-config >/dev/null || packages+=(pkg-config); \
	pkg-config --exists openssl 2>/dev/null || packages+=(libssl-dev); \
	command -v curl >/dev/null || packages+=(curl); \
	[[ -x /usr/sbin/logrotate ]] || packages+=(logrotate); \
	command -v systemd-analyze >/dev/null || packages+=(systemd); \
	{ [[ -x /lib/systemd/systemd-journal-remote ]] && command -v journalctl >/dev/null; } || packages+=(systemd systemd-journal-remote); \
	command -v mvn >/dev/null || packages+=(maven); \
	jdk=openjdk-17-jdk-headless; \
	for javac in "$${JAVA_HOME:-}/bin/javac" javac /usr/lib/jvm/*/bin/javac; do \
	  [[ "$$("$$javac" -version 2>&1)" =~ ^javac\ ([0-9]+) ]] && (( BASH_REMATCH[1] >= 17 )) && jdk="" && break; \
	done; \
	[[ -z $$jdk ]] || packages+=($$jdk); \
	if (( $${#packages[@]} )); then \
	  sudo=""; [[ $$(id -u) == 0 ]] || sudo="sudo -n"; \
	  if command -v apt-get >/dev/null && $$sudo true 2>/dev/null; then \
	    $$sudo apt-get update -q; \
	    apt-cache show openjdk-17-jdk-headless >/dev/null 2>&1 || packages=("$${packages[@]/openjdk-17-jdk-headless/default-jdk-headless}"); \
	    $$sudo apt-get install -q -y --no-install-recommends "$${packages[@]}"; \
	  else \
	    echo "missing: $${packages[*]}; install them with your package manager, then try again" >&2; exit 1; \
	  fi; \
	fi
	@command -v $(CARGO) >/dev/null || { echo "missing: cargo (Rust $$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer): see https://rustup.rs" >&2; exit 1; }

.PHONY: up
up: setup ## Build, and run the whole pipeline on living sample logs
	$(CARGO) build --locked -p logmesh
	@echo "Search it from another terminal: target/debug/logmesh search error --data $(DATA)"
	target/debug/logmesh up --demo --data $(DATA)

# All programs that test something. Examples are compiled by the lints alone.
TESTS := $(CARGO) test --locked --workspace $(FAULTS)

# Scenarios wait more than they compute: three at a time even on two cores (with four, servers that start at once starve),
# and the lints beside them with what the tests leave of the machine. They begin a little later, for cargo builds for one at
# a time and the tests come first.
.PHONY: test
test: setup ## Everything that CI runs
	$(CARGO) fmt --all --check
	$(TESTS) --tests --no-run
	@mkdir -p target; set -m; { sleep 20; nice -n 19 $(MAKE) --no-print-directory lint; } >target/lint.log 2>&1 & lint=$$!; set +m; \
	trap 'kill -- -$$lint 2>/dev/null || true' EXIT; \
	$(TESTS) --tests -- --test-threads=3; \
	$(TESTS) --doc; \
	wait $$lint && said=0 || said=$$?; cat target/lint.log; exit $$said

.PHONY: lint
lint: ## Formatting, lints, documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets $(FAULTS) -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items --quiet

.PHONY: soak
soak: setup ## The end-to-end scenarios at their full counts
	$(TESTS) --tests --no-run
	LOGMESH_SOAK=1 $(TESTS) --no-fail-fast --test '*' -- --test-threads=1 --nocapture
	LOGMESH_SOAK=1 $(TESTS) --lib model -- --test-threads=2

.PHONY: agent
agent: ## Build the agent for hosts: target/agent/logmesh-agent (needs Rust and a C compiler, nothing else)
	$(CARGO) build --locked --profile agent -p logmesh-agent

.PHONY: bench
bench: setup agent ## One table of figures, beside limits measured in the same run
	$(CARGO) build --locked --release -p logmesh
	$(CARGO) run --locked --release -p logmesh-tests --bin bench

.PHONY: docs
docs: ## The crates' documentation, in target/doc
	$(CARGO) doc --locked --workspace --no-deps --document-private-items

.PHONY: generate
generate: ## Generate the wire types anew after a change of the proto
	LOGMESH_GENERATE=1 $(CARGO) test --locked -p logmesh-proto --test generated
