#!/usr/bin/env bash
# ClickHouse on loopback for tests: the engine of the package chdb-core behind
# clickhouse.py, which says what of it is real.
#
#   clickhouse.sh fetch       install it into ENGINES_HOME (600 MB); needs python3
#   clickhouse.sh start DIR   start it in DIR, an empty folder; DIR/env has the
#                             variables for tests
#   clickhouse.sh stop DIR    stop it, by its own pid
set -euo pipefail

version=26.9.0
here=$(cd "$(dirname "$0")" && pwd)
home=${ENGINES_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/naru-engines}/clickhouse
venv=$home/chdb-core-$version

fetch() {
	[ -e "$venv/installed" ] && return
	rm -rf "$venv"
	mkdir -p "$home"
	if ! python3 -m venv "$venv" >/dev/null 2>&1; then
		echo "clickhouse: python3 has no venv; installing python3-venv" >&2
		local as_root=
		[ "$(id -u)" = 0 ] || as_root=sudo
		$as_root apt-get update -qq >&2
		$as_root apt-get install -y -qq python3-venv >&2
		rm -rf "$venv"
		python3 -m venv "$venv"
	fi
	timeout 300 "$venv/bin/pip" install --quiet --disable-pip-version-check chdb-core==$version >&2
	touch "$venv/installed"
}

start() {
	local dir=$1 port
	fetch
	port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
	: >"$dir/server.log"
	setsid "$venv/bin/python" "$here/clickhouse.py" "$port" "$dir/data" >"$dir/server.log" 2>&1 &
	echo $! >"$dir/pid"
	for _ in $(seq 1200); do
		kill -0 "$(cat "$dir/pid")" 2>/dev/null || break
		if grep -q '^ready' "$dir/server.log"; then
			cat >"$dir/env" <<-EOF
				export NARU_TEST_CLICKHOUSE='http://127.0.0.1:$port'
				export NARU_TEST_CLICKHOUSE_PASSWORD=naru-test
			EOF
			return
		fi
		sleep 0.1
	done
	echo "clickhouse did not start:" >&2
	tail -20 "$dir/server.log" >&2
	return 1
}

stop() {
	local pid
	[ -s "$1/pid" ] || return 0
	pid=$(cat "$1/pid")
	kill "$pid" 2>/dev/null || return 0
	for _ in $(seq 50); do
		kill -0 "$pid" 2>/dev/null || return 0
		sleep 0.1
	done
	kill -KILL "$pid" 2>/dev/null || true
}

case ${1:-} in
fetch) fetch ;;
start) start "$2" ;;
stop) stop "$2" ;;
*)
	sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac
