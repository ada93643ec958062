# What a contributor types. Each target says what it does; `make` alone lists them.

SHELL := /bin/sh
VENV := target/venv
DATA ?= data
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help run test lint bench setup release compose proto-baseline

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

run: ## build and start the whole mesh on embedded stores (data in ./data, certificates in ./certs/dev)
	cargo build --package drystone-cli
	target/debug/drystone up --data-dir $(DATA)

test: setup ## build everything and run every test
	cargo test --workspace

lint: ## formatting, clippy, dependencies, contracts; and no contract breaks its clients
	scripts/setup lint
	cargo fmt --all --check
	scripts/check-dependencies
	cargo clippy --workspace --all-targets -- --deny warnings
	cargo test --quiet --workspace --no-run
	target/debug/drystone contract export --output target/drystone.binpb
	buf lint target/drystone.binpb --config buf.yaml
	scripts/proto-baseline check target/drystone.binpb

proto-baseline: setup ## make the contracts of today the baseline that later ones are compared with
	cargo build --package drystone-cli
	target/debug/drystone contract export --output target/drystone.binpb
	scripts/proto-baseline renew target/drystone.binpb

bench: setup ## measure, and write target/bench.json; a part of it with PART=startup, transport, sign-in, stores or growth
	cargo build --release --package drystone-cli --package drystone-bench
	target/release/drystone-bench $(PART)

setup: ## install what the tests need: Python packages into target/venv
	scripts/setup

release: ## build the one binary, optimised
	cargo build --release --package drystone-cli

compose: ## build the image, make certificates and passwords where they are missing, and start everything in containers
	docker compose build
	deploy/compose/setup
	docker compose up --detach
