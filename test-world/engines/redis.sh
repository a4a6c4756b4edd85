#!/usr/bin/env bash
# A Redis server on loopback for tests, from Debian's package.
#
#   redis.sh fetch       install it, where it is not
#   redis.sh start DIR   start it in DIR, an empty folder; DIR/env has the variables
#                        for tests
#   redis.sh stop DIR    stop it, by its own pid
set -euo pipefail

fetch() {
	command -v redis-server >/dev/null && return
	local as_root=
	[ "$(id -u)" = 0 ] || as_root=sudo
	$as_root apt-get update -qq >&2
	$as_root apt-get install -y -qq redis-server >&2
}

start() {
	local dir=$1 port
	fetch
	port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
	setsid redis-server --bind 127.0.0.1 --port "$port" --dir "$dir" --appendonly yes --appendfsync everysec --save '' \
		--daemonize no >"$dir/server.log" 2>&1 </dev/null &
	echo $! >"$dir/pid"
	for _ in $(seq 100); do
		if grep -qs 'Ready to accept connections' "$dir/server.log"; then
			echo "export NARU_TEST_REDIS=127.0.0.1:$port" >"$dir/env"
			return
		fi
		sleep 0.1
	done
	echo "redis did not start:" >&2
	tail -20 "$dir/server.log" >&2
	return 1
}

stop() {
	local pid
	[ -s "$1/pid" ] || return 0
	pid=$(cat "$1/pid")
	kill "$pid" 2>/dev/null || return 0
	for _ in $(seq 100); do
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
	sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac
