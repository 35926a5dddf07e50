# `make` alone lists what there is.

TARGET := x86_64-unknown-linux-gnu
OUT    := $(or $(CARGO_TARGET_DIR),target)/$(TARGET)
# Cargo's name for a profile and the name of its folder differ only for `dev`.
PROFILE ?= release

.DEFAULT_GOAL := help
.PHONY: help demo clean-demo test check openapi bench fuzz dist

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## a real Minecraft server under the agent, in .demo (Ctrl-C ends it)
	@cargo build --quiet -p zlh-agent -p zlhctl
	@exec $(OUT)/debug/zlhctl demo --dir .demo

clean-demo: ## stop a running demo and remove .demo
	@if [ -d .demo ]; then \
	  cargo build --quiet -p zlh-agent -p zlhctl && \
	  $(OUT)/debug/zlhctl demo --dir .demo --stop && \
	  rm -rf .demo; \
	fi

test: ## the whole suite: fetches a real server, real players and a container's files once
	@tests/prepare.sh
	@cargo nextest --version >/dev/null 2>&1 || { \
	  echo "error: cargo-nextest is missing" >&2; \
	  echo "hint: cargo install cargo-nextest --locked" >&2; exit 1; }
	cargo build --workspace --bins --tests
	ZLH_TEST_THOROUGH=$(or $(ZLH_TEST_THOROUGH),1) cargo nextest run --workspace
	cargo test --workspace --doc
	@tests/lxc/acceptance.sh

check: ## formatting and lints
	cargo fmt --all -- --check
	cargo fmt --manifest-path tests/fuzz/Cargo.toml -- --check
	cargo clippy --workspace --all-targets -- -D warnings

openapi: ## write agent/api/openapi.json anew
	UPDATE_OPENAPI=1 cargo test --quiet -p zlh-agent --bin zlh-agent the_checked_in_document

bench: ## measure what is promised (PROFILE=dist for the shipped binary, ONLY=writer for a part)
	cargo build --profile $(PROFILE) -p zlh-agent -p zlhctl -p zlh-tests --bins
	@$(OUT)/$(PROFILE)/zlh-bench $(ONLY)

fuzz: ## look for what breaks the parsers, by coverage (ONLY=tar for a part, SECONDS_EACH=60)
	@tests/fuzz/run.sh $(ONLY)

dist: ## the shipped binaries in dist/, checked to be static, small and free of NSS
	cargo build --profile dist -p zlh-agent -p zlhctl --bins
	@mkdir -p dist
	@for name in zlh-agent zlhctl; do \
	  packaging/check-static.sh $(OUT)/dist/$$name || exit 1; \
	  strip -o dist/$$name.new $(OUT)/dist/$$name && mv dist/$$name.new dist/$$name || exit 1; \
	done
	@packaging/check-size.sh dist/zlh-agent 10
	@cd dist && sha256sum zlh-agent zlhctl > SHA256SUMS && ls -l
