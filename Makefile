# Two commands matter: `make run` and `make test`. Each sets up what it needs and says what it does.
SHELL := /bin/bash
.SHELLFLAGS := -eo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run test unit bench compare-policies soak fuzz plugins plugins-testing plugins-c lint audit setup setup-test fmt loom

CARGO ?= cargo
export CARGO_TERM_COLOR ?= auto
RUN_ARGS ?= serve --config config/gateway.toml

help: ## What there is to make.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: ## The toolchain's WebAssembly target, once.
	@rustc --print target-libdir --target wasm32-unknown-unknown 2>/dev/null | xargs -I{} test -d {} \
		|| rustup target add wasm32-unknown-unknown

run: setup plugins ## Build and serve config/gateway.toml: HTTPS, a SQLite demo, policies as components.
	$(CARGO) build --release --locked
	./target/release/sluicegate $(RUN_ARGS)

plugins: setup ## Build the policies into plugins/dist.
	cd plugins && $(CARGO) run --release --locked --quiet -p build-plugins

plugins-testing: setup ## The same, and the components that only tests use.
	cd plugins && $(CARGO) run --release --locked --quiet -p build-plugins -- --testing

plugins-c: setup ## The policies in C into plugins/dist, where clang is installed.
	$(MAKE) --no-print-directory -C plugins/c

setup-test: setup ## PostgreSQL, PgBouncer, nginx, curl, h2load, openssl and Node, from Debian's packages, where they are missing; drivers from npm.
	./tests/setup.sh

test: setup-test plugins-testing lint ## Everything that must pass: lints, documentation, unit, property, loom and integration tests.
	$(CARGO) build --locked --bin sluicegate
	cd plugins && $(CARGO) test --locked --workspace --quiet
	$(MAKE) --no-print-directory loom
	$(MAKE) --no-print-directory unit

unit: ## Tests alone (with nextest where it is installed).
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
		$(CARGO) nextest run --locked --no-fail-fast; \
	else \
		$(CARGO) test --locked --no-fail-fast; \
	fi

loom: ## The pool's gate under the model checker.
	LOOM_MAX_PREEMPTIONS=3 $(CARGO) test --locked --lib --features loom loom_ | tee /dev/stderr | grep "[1-9][0-9]* passed" >/dev/null

lint: ## Formatting, clippy, documentation, licences and sources of dependencies.
	$(CARGO) fmt --check
	cd plugins && $(CARGO) fmt --check
	cd benches && $(CARGO) fmt --check
	cd fuzz && $(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets --quiet -- -D warnings
	cd plugins && $(CARGO) clippy --release --locked --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items --quiet
	@case "$$(cargo-deny --version 2>/dev/null)" in \
		"cargo-deny 0."[0-9].*|"cargo-deny 0.1"[0-5].*) echo "cargo-deny is too old for this Cargo: licences and sources are left to the tests" ;; \
		"cargo-deny "*) cargo-deny --log-level error check bans licenses sources ;; \
		*) echo "cargo-deny is not installed: licences and sources are left to the tests" ;; \
	esac

audit: ## Known vulnerabilities in dependencies; needs the advisory database from the network.
	cargo-deny check advisories

bench: setup plugins-testing ## Figures beside peers, those that are installed. (BENCH="pool --seconds 1": a part, and short)
	$(CARGO) build --release --locked
	cd benches && CARGO_TARGET_DIR=../target $(CARGO) run --release --locked --quiet -- $(BENCH)

compare-policies: setup plugins ## Sizing policies on the same loads, 12 min. (INTO=docs/policies.md: puts the tables there)
	cd benches && CARGO_TARGET_DIR=../target $(CARGO) run --release --locked --quiet -- \
		policies $(if $(INTO),--into $(abspath $(INTO))) $(BENCH)

soak: setup-test plugins-testing ## 1,000 plugin swaps and reloads under load; a million requests of 500 clients; memory flat. (SOAK_ROUNDS=100, SOAK_REQUESTS=100000: shorter)
	$(CARGO) build --release --locked
	$(CARGO) test --release --locked --lib a_flood_of_keys
	$(CARGO) test --release --locked --test integration soak -- --nocapture --ignored

fuzz: setup-test ## What reads strangers' bytes, with coverage as the guide; keeps what it finds in fuzz/corpus. (FUZZ_SECONDS=600: longer, each)
	cd fuzz && RUSTC_WRAPPER=$(CURDIR)/fuzz/instrument CARGO_TARGET_DIR=$(CURDIR)/target/fuzz $(CARGO) build --release --locked
	./fuzz/run.sh

fmt:
	$(CARGO) fmt
	cd plugins && $(CARGO) fmt
