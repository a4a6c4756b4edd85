#!/usr/bin/env bash
# Fuzzes, one target after the other, for FUZZTIME each.
#
#   scripts/fuzz.sh          every fuzz target of the module
#   scripts/fuzz.sh --short  one for each kind of bytes that meets the network or
#                            is read back from the disk: what make test runs
set -euo pipefail
cd "$(dirname "$0")/.."

short='stream/seglog:FuzzFrame recordbatch:FuzzDecode collect/native:FuzzLines collect/native:FuzzBinary client/records:FuzzRecords serve/sql:FuzzParseBody query:FuzzJudge web:FuzzPlainHead contract:FuzzCheck'

targets() {
  if [ "${1:-}" = --short ]; then
    for t in $short; do echo "./internal/$t"; done
    return
  fi
  grep -rlE '^func Fuzz[A-Z]' --include='*_test.go' . | while read -r file; do
    sed -nE "s|^func (Fuzz[A-Za-z0-9_]+)\(.*|$(dirname "$file"):\1|p" "$file"
  done
}

targets "$@" | while IFS=: read -r dir target; do
  printf '== %s %s\n' "$dir" "$target"
  go test -run '^$' -fuzz "^${target}\$" -fuzztime "${FUZZTIME:-20s}" "$dir" </dev/null
done
