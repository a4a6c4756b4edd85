#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other, for FUZZTIME each.
set -euo pipefail
cd "$(dirname "$0")/.."

grep -rlE '^func Fuzz[A-Z]' --include='*_test.go' . | while read -r file; do
  dir=$(dirname "$file")
  sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' "$file" | while read -r target; do
    printf '== %s %s\n' "$dir" "$target"
    go test -run '^$' -fuzz "^${target}\$" -fuzztime "${FUZZTIME:-20s}" "$dir" </dev/null
  done
done
