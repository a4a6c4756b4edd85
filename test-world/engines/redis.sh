#!/usr/bin/env bash
# A Redis server on loopback for tests, from Debian's package.
#
#   redis.sh fetch       install it, where it is not
#   redis.sh start DIR   start it in DIR, an empty folder; DIR/env has the variables
#                        for tests
#   redis.sh stop DIR    stop it, by its own pid

# shellcheck source-path=SCRIPTDIR source=engine.sh
. "$(dirname "$0")/engine.sh"

fetch() {
	command -v redis-server >/dev/null || install redis-server
}

start() {
	local dir=$1 port
	fetch
	port=$(free_ports 1)
	setsid redis-server --bind 127.0.0.1 --port "$port" --dir "$dir" --appendonly yes --appendfsync everysec --save '' \
		--daemonize no >"$dir/server.log" 2>&1 </dev/null &
	echo $! >"$dir/pid"
	await "$dir" 10 says "$dir" 'Ready to accept connections'
	echo "export NARU_TEST_REDIS=127.0.0.1:$port" >"$dir/env"
}

main "$@"
