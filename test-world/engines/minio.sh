#!/usr/bin/env bash
# A MinIO server on loopback for tests: S3, built from its sources by the Go proxy.
#
#   minio.sh fetch       build it, where it is not (some minutes)
#   minio.sh start DIR   start it in DIR, an empty folder; DIR/env has the variables
#                        for tests
#   minio.sh stop DIR    stop it, by its own pid
set -euo pipefail
home=${ENGINES_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/naru-engines}
version=v0.0.0-20260212201848-7aac2a2c5b7c
minio=$home/minio-$version/minio

fetch() {
	[ -x "$minio" ] && return
	GOBIN=$(dirname "$minio") go install "github.com/minio/minio@$version" >&2
}

start() {
	local dir=$1 port
	fetch
	port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
	mkdir "$dir/data"
	MINIO_ROOT_USER=naru MINIO_ROOT_PASSWORD=naru-for-tests MINIO_BROWSER=off MINIO_UPDATE=off MINIO_CALLHOME_ENABLE=off \
		setsid "$minio" server --quiet --address "127.0.0.1:$port" "$dir/data" >"$dir/server.log" 2>&1 </dev/null &
	echo $! >"$dir/pid"
	for _ in $(seq 300); do
		if curl -sf -o /dev/null "http://127.0.0.1:$port/minio/health/ready"; then
			echo "export NARU_TEST_MINIO=http://naru:naru-for-tests@127.0.0.1:$port" >"$dir/env"
			return
		fi
		sleep 0.1
	done
	echo "minio did not start:" >&2
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
