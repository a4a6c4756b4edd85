#!/usr/bin/env bash
# ClickHouse on loopback for tests: the engine of the package chdb-core behind
# clickhouse.py, which says what of it is real.
#
#   clickhouse.sh fetch       install it into ENGINES_HOME (600 MB); needs python3
#   clickhouse.sh start DIR   start it in DIR, an empty folder; DIR/env has the
#                             variables for tests
#   clickhouse.sh stop DIR    stop it, by its own pid

# shellcheck source-path=SCRIPTDIR source=engine.sh
. "$(dirname "$0")/engine.sh"

version=26.9.0
home=$cache/clickhouse
venv=$home/chdb-core-$version

fetch() {
	[ -e "$venv/installed" ] && return
	rm -rf "$venv"
	mkdir -p "$home"
	if ! python3 -m venv "$venv" >/dev/null 2>&1; then
		echo "clickhouse: python3 has no venv; installing python3-venv" >&2
		install python3-venv
		rm -rf "$venv"
		python3 -m venv "$venv"
	fi
	timeout 300 "$venv/bin/pip" install --quiet --disable-pip-version-check chdb-core==$version >&2
	touch "$venv/installed"
}

start() {
	local dir=$1 port
	fetch
	port=$(free_ports 1)
	: >"$dir/server.log"
	setsid "$venv/bin/python" "$here/clickhouse.py" "$port" "$dir/data" >"$dir/server.log" 2>&1 &
	echo $! >"$dir/pid"
	await "$dir" 120 says "$dir" '^ready'
	cat >"$dir/env" <<-EOF
		export NARU_TEST_CLICKHOUSE='http://127.0.0.1:$port'
		export NARU_TEST_CLICKHOUSE_PASSWORD=naru-test
	EOF
}

main "$@"
