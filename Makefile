# What people and CI call. The work is done in scripts/.
.PHONY: help run test soak bench bench-quick bench-growth bench-overload profile lint fmt descriptor envoy-validate tools
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | awk -F '\t' '{ printf "make %-16s %s\n", $$1, $$2 }'

run: ## start the service and Envoy with demo data (HTTP_PORT, GRPC_PORT, OPS_PORT, DATA_DIR)
	@scripts/run

test: ## run every test
	@scripts/test

soak: ## run the long forms of tests, which `make test` leaves out
	@scripts/test -- --ignored --nocapture

bench: ## measure each operation next to its ceiling, in under 4 minutes (docs/performance.md)
	@scripts/bench

bench-quick: ## the same in a minute, with a wider spread
	@scripts/bench --sessions 10000 --rounds 3 --seconds 0.12

bench-growth: ## measure with 1,000, 100,000 and 1,000,000 sessions, and plot it
	@scripts/bench growth --svg docs/growth.svg

profile: ## draw flame graphs of the operations with OPERATION in their names, as OPERATION='refresh (durable)'
	@scripts/profile "$(OPERATION)"

bench-overload: ## offer four times what can be served
	@scripts/bench overload

lint: ## check formatting, clippy, protos and scripts
	@scripts/lint

fmt: ## format the Rust sources
	@cargo fmt --all

descriptor: ## write envoy/descriptor.pb anew, after a change in proto/
	@cargo run --quiet --locked -- descriptor > envoy/descriptor.pb.new && mv envoy/descriptor.pb.new envoy/descriptor.pb || { rm -f envoy/descriptor.pb.new; exit 1; }

envoy-validate: ## let Envoy read its configuration
	@scripts/envoy-validate

tools: ## get Envoy and the Python that the tests use, into .tools/
	@scripts/tools
