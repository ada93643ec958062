# Development commands. `make` lists all targets.

SHELL := /bin/sh
VENV := target/venv
DATA ?= data
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help run test lint bench setup release compose proto-baseline access-docs

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

run: ## build and start the mesh on embedded stores (data in ./data, certificates in ./certs/dev)
	cargo build --package drystone-cli
	target/debug/drystone up --data-dir $(DATA)

test: setup ## build everything and run every test
	cargo test --workspace

lint: ## check formatting, clippy, dependencies, and contracts for breaking changes and loosened rules
	scripts/setup lint
	cargo fmt --all --check
	scripts/check-dependencies
	cargo clippy --workspace --all-targets -- --deny warnings
	cargo clippy --package drystone-cli --all-targets --features workload-api -- --deny warnings
	cargo test --quiet --workspace --no-run
	target/debug/drystone contract export --output target/drystone.binpb
	buf lint target/drystone.binpb --config buf.yaml
	scripts/proto-baseline check target/drystone.binpb
	target/debug/drystone access diff proto/baseline.binpb target/drystone.binpb --changes docs/access-changes.md --after proto/baseline.access-entry

proto-baseline: setup ## replace the baseline of the breaking-change check with the current contracts
	cargo build --package drystone-cli
	target/debug/drystone contract export --output target/drystone.binpb
	scripts/proto-baseline renew target/drystone.binpb

access-docs: ## write docs/access.md, the rule of every RPC, from the contracts
	cargo build --package drystone-cli
	target/debug/drystone access show --format markdown > target/access.md
	mv target/access.md docs/access.md

bench: setup ## run the benchmarks and write target/bench.json; run parts with PART="startup transport sign-in connections ingress stores growth sqlite import roles messages abuse"
	cargo build --release --package drystone-cli --package drystone-bench
	target/release/drystone-bench $(PART)

setup: ## install the tools that the tests need into target/venv
	scripts/setup

release: ## build the optimised binary
	cargo build --release --package drystone-cli

compose: ## build the image, create certificates and missing passwords, and start all containers
	docker compose build
	deploy/compose/setup
	docker compose up --detach
