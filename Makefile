# naru. `make help` lists the targets. Needs Go, gcc and g++ (for DuckDB).

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# No -trimpath: it would build all dependencies a second time, beside those that go test has.
LDFLAGS := -s -w -X main.version=$(VERSION)
BUILD_FLAGS := -ldflags '$(LDFLAGS)'

# Each group of tests ends by itself: a hang is a failure, not a night.
UNIT_TIMEOUT ?= 5m
E2E_TIMEOUT  ?= 15m
FUZZTIME     ?= 20s

.DEFAULT_GOAL := build
.PHONY: build demo test test-race test-world bench bench-full lint soak fuzz mutants clean help

build: ## build bin/naru
	@mkdir -p bin
	go build $(BUILD_FLAGS) -o bin/naru ./cmd/naru

demo: build ## send the Wikipedia edits and ask three questions (ARGS=--exit: end by itself)
	@go build -o .cache/demo ./examples/wikipedia
	@.cache/demo --naru bin/naru $(ARGS)

test: lint ## vet and lint, unit tests, a moment of fuzzing, then the black-box tests of the real binary
	go test -timeout $(UNIT_TIMEOUT) ./internal/... ./cmd/... ./examples/... ./bench/...
	FUZZTIME=5000x ./scripts/fuzz.sh --short
	go test -timeout $(E2E_TIMEOUT) -count=1 ./e2e/... ./soak/...

test-race: ## the race detector over unit tests and over the binary under load
	./scripts/race.sh

test-world: build ## foreign readers of the tables (PyIceberg, DuckDB), and real servers that sinks write to
	./test-world/run

bench: build ## short form of the rows of the performance table
	./bench/run

bench-full: build ## all rows with their peers, more than an hour; installs the peers, writes bench/RESULTS.md
	./bench/run --full

lint: ## gofmt, go vet, staticcheck (pinned in tools/go.mod)
	./scripts/lint.sh

soak: build ## all random tests, a steady load with kills, and 50 aimed kills (DURATION=5m RATE=50000 SEED=n KILLS=50 ONLY=random|load|kills)
	DURATION=$(DURATION) RATE=$(RATE) SEED=$(SEED) KILLS=$(KILLS) ONLY=$(ONLY) SOAK_DIR=$(SOAK_DIR) ./scripts/soak.sh

fuzz: ## every fuzz target for FUZZTIME each
	FUZZTIME=$(FUZZTIME) ./scripts/fuzz.sh

mutants: ## take each protection away in turn (testdata/mutants): a named test must fail
	./scripts/mutants.sh

clean: ## remove what was built
	rm -rf bin .cache

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
