#!/usr/bin/env bash
# The long tests, one part after the other; all run even if one fails.
#
#   random  every random test, sharing DURATION between them
#   load    RATE events a second for DURATION, with a SIGKILL every minute (soak/)
#   kills   KILLS kills at aimed and random moments under full load (e2e TestKill)
#
# DURATION  how long a part takes, like 30m or 1h30m (default 5m)
# RATE      events a second (default 50000)
# SEED      of load and kills (default: another one each time; it is printed)
# KILLS     default 50
# ONLY      one part alone
# SOAK_DIR  where load works; some GB for each ten minutes (default /tmp)
set -uo pipefail
cd "$(dirname "$0")/.."

duration=${DURATION:-5m}
rate=${RATE:-50000}
kills=${KILLS:-50}
only=${ONLY:-}
seed=${SEED:-$(date +%s%N)}
out=.cache/soak
mkdir -p "$out"

# The packages whose tests read NARU_SOAK; soak/soak_test.go holds the list complete.
packages=(
  ./internal/stream/seglog
  ./internal/lake/iceberg
  ./internal/sink/table
  ./internal/simulation
  ./e2e
)

# seconds of a duration like 1h30m.
seconds() {
  awk -v d="$1" 'BEGIN {
    if (d !~ /^([0-9]+h)?([0-9]+m)?([0-9]+s)?$/ || d == "") exit 1
    while (match(d, /^[0-9]+[hms]/)) {
      n = substr(d, 1, RLENGTH - 1); u = substr(d, RLENGTH, 1)
      s += n * (u == "h" ? 3600 : u == "m" ? 60 : 1)
      d = substr(d, RLENGTH + 1)
    }
    print s
  }'
}
total=$(seconds "$duration") || { echo "soak: DURATION=$duration: want a duration like 30m or 1h30m" >&2; exit 2; }

failed=()

# failures shows what the tests that failed have said.
failures() {
  grep -B 60 -E '^ *--- FAIL|^panic:|^FAIL' "$1" | grep -vE '^(=== |--- PASS|--$)' | tail -n 200
  echo "all of it: $1"
}

random() {
  local share=$((total / ${#packages[@]}))
  [ "$share" -ge 10 ] || share=10
  for package in "${packages[@]}"; do
    local log
    log=$out/$(basename "$package").log
    printf '== random tests of %s, %ds each\n' "$package" "$share"
    # A package may have several such tests; the timeout is there to end a hang.
    if NARU_BIN=$PWD/bin/naru NARU_SOAK=${share}s go test -count=1 -v -timeout $((share * 20 + 1800))s "$package" >"$log" 2>&1; then
      grep -iE 'seed|^ok' "$log"
    else
      failures "$log"
      failed+=("random $package")
    fi
  done
}

load() {
  printf '== load, %s at %s events/s, SEED=%s\n' "$duration" "$rate" "$seed"
  go build -o "$out/soak" ./soak &&
    "$out/soak" --naru bin/naru --duration "$duration" --rate "$rate" --seed "$seed" \
      --dir "${SOAK_DIR:-/tmp}" --json "$out/load.json" --summary "$out/load.md" || failed+=("load SEED=$seed")
}

kills() {
  printf '== %s kills under full load, NARU_SEED=%s\n' "$kills" "$seed"
  local log=$out/kills.log
  if NARU_BIN=$PWD/bin/naru NARU_SEED=$seed NARU_KILLS=$kills go test -count=1 -v -timeout $((kills * 60 + 1800))s -run '^TestKill$' ./e2e/ >"$log" 2>&1; then
    grep -E 'NARU_SEED|kill |kills with|proved|^ok' "$log"
  else
    failures "$log"
    failed+=("kills NARU_SEED=$seed")
  fi
}

case $only in
'') random; load; kills ;;
random | load | kills) "$only" ;;
*) echo "soak: ONLY=$only: want random, load or kills" >&2; exit 2 ;;
esac

if [ ${#failed[@]} -gt 0 ]; then
  printf 'soak: failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
echo 'soak: all passed'
