# make help lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export CGO_ENABLED ?= 0

GO      ?= go
BIN     := bin/millrace
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
BUILT   := $(shell git log -1 --format=%cI 2>/dev/null || date -u +%FT%TZ)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.built=$(BUILT)
LINT    := $(GO) tool -modfile=.config/lint.mod golangci-lint run -c .config/golangci.yml

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/millrace
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/millrace

run: build ## build and start everything on this machine, with a demonstration
	$(BIN) dev --try

test: ## unit tests and the tests with real parts (Docker, Python, Node)
	.ci/test

unit: ## tests that need nothing but Go
	$(GO) test ./...

race: ## unit tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -short -timeout 20m ./...

lint: ## formatting, imports between rooms, smells
	$(LINT) ./...

fuzz: ## run every fuzz target for FUZZTIME (default 10s)
	.ci/fuzz $${FUZZTIME:-10s}

bench: ## measure the hot paths as ratios against baselines of the same run
	.ci/bench

generate: ## write generated files again
	$(GO) generate ./...

image: ## build the container image millrace:latest
	docker build -f .ci/Dockerfile -t millrace:latest .

.PHONY: help build run test unit race lint fuzz bench generate image
