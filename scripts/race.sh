#!/usr/bin/env bash
# The race detector over the unit tests, and over the real binary under
# everything at once. What works on one goroutine only, and takes long, is left
# out here: make test runs it.
set -euo pipefail
cd "$(dirname "$0")/.."

timeout=${RACE_TIMEOUT:-20m}
alone='^(TestMemoryBounded|TestCuts|TestMergeLongRows|TestWriteErrors|TestPowerCut.*|TestFaultsAndPowerCuts|TestSameInputSameLake|TestEveryByteFlipped|TestEveryFlippedByteIsFound|TestCommitsStayFlat|TestFiveThousandColumns|TestTenThousandTypesOnOneNode)$'

mapfile -t packages < <(go list ./internal/... ./cmd/... | grep -v '/sink/table$')
go test -race -short -timeout "$timeout" -skip "$alone" "${packages[@]}"
go test -race -short -timeout "$timeout" -skip "$alone" ./internal/sink/table -seeds 3

mkdir -p .cache
go build -race -o .cache/naru-race ./cmd/naru
NARU_BIN=$PWD/.cache/naru-race go test -timeout "$timeout" -count=1 -run '^TestEverythingAtOnce$' ./e2e/
