#!/usr/bin/env bash
# A MinIO server on loopback for tests: S3, built from its sources by the Go proxy.
#
#   minio.sh fetch       build it, where it is not (some minutes)
#   minio.sh start DIR   start it in DIR, an empty folder; DIR/env has the variables
#                        for tests
#   minio.sh stop DIR    stop it, by its own pid

# shellcheck source-path=SCRIPTDIR source=engine.sh
. "$(dirname "$0")/engine.sh"
version=v0.0.0-20260212201848-7aac2a2c5b7c
minio=$cache/minio-$version/minio

fetch() {
	[ -x "$minio" ] && return
	GOBIN=$(dirname "$minio") go install "github.com/minio/minio@$version" >&2
}

start() {
	local dir=$1 port
	fetch
	port=$(free_ports 1)
	mkdir "$dir/data"
	MINIO_ROOT_USER=naru MINIO_ROOT_PASSWORD=naru-for-tests MINIO_BROWSER=off MINIO_UPDATE=off MINIO_CALLHOME_ENABLE=off \
		setsid "$minio" server --quiet --address "127.0.0.1:$port" "$dir/data" >"$dir/server.log" 2>&1 </dev/null &
	echo $! >"$dir/pid"
	await "$dir" 30 curl -sf -o /dev/null "http://127.0.0.1:$port/minio/health/ready"
	echo "export NARU_TEST_MINIO=http://naru:naru-for-tests@127.0.0.1:$port" >"$dir/env"
}

main "$@"
