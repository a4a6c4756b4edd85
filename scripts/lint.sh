#!/usr/bin/env bash
# Formatting, vet and staticcheck over every package of the module.
set -euo pipefail
cd "$(dirname "$0")/.."

unformatted=$(git ls-files '*.go' | xargs -r gofmt -l)
if [ -n "$unformatted" ]; then
  printf 'not formatted, run gofmt -w on:\n%s\n' "$unformatted" >&2
  exit 1
fi
go vet ./...
go tool -modfile=tools/go.mod staticcheck ./...
