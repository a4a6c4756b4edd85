# What the scripts of the engines share. A script begins with its help, sources this,
# defines fetch and start, and ends with: main "$@"
# shellcheck shell=bash
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
engine=$(basename "$0" .sh)
# shellcheck disable=SC2034 # of the scripts
cache=${ENGINES_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/naru-engines}

# free_ports N: so many ports of loopback that nobody listens at.
free_ports() {
	python3 -c '
import socket, sys
s = [socket.socket() for _ in range(int(sys.argv[1]))]
for x in s: x.bind(("127.0.0.1", 0))
print(*[x.getsockname()[1] for x in s])' "$1"
}

# install PACKAGE...: Debian's packages.
install() {
	local as_root=
	[ "$(id -u)" = 0 ] || as_root=sudo
	$as_root apt-get update -qq >&2
	$as_root apt-get install -y -qq "$@" >&2
}

# fetch_jars: the jars of ENGINE.pom.xml in version, into home.
fetch_jars() {
	command -v java >/dev/null || install default-jre-headless
	command -v mvn >/dev/null || install maven
	[ -e "$home/complete" ] && return
	rm -rf "$home"
	mkdir -p "$home"
	timeout 600 mvn -q -B "-Dversion.$engine=$version" -f "$here/$engine.pom.xml" dependency:copy-dependencies \
		-DoutputDirectory="$home/libs" -DincludeScope=runtime >&2
	touch "$home/complete"
}

# fetch_jar GROUP:ARTIFACT:VERSION SUM: one jar, into home/part.
fetch_jar() {
	rm -rf "$home/part" && mkdir -p "$home/part"
	timeout 300 mvn -q -B dependency:copy -DoutputDirectory="$home/part" -Dartifact="$1" >&2
	echo "$2  $(ls "$home"/part/*.jar)" | sha256sum --quiet -c -
}

# await DIR SECONDS COMMAND...: until the command succeeds. When the server of DIR/pid
# ends before that, or the time is over, its last words are told.
await() {
	local dir=$1 tries=$((10 * $2))
	shift 2
	while [ "$tries" -gt 0 ] && kill -0 "$(cat "$dir/pid")" 2>/dev/null; do
		"$@" && return
		tries=$((tries - 1))
		sleep 0.1
	done
	echo "$engine did not start:" >&2
	tail -20 "$dir/server.log" >&2
	return 1
}

# says DIR TEXT: whether it is in the server's log.
says() { grep -qs -- "$2" "$1/server.log"; }

stop() {
	local pid
	[ -s "$1/pid" ] || return 0
	pid=$(cat "$1/pid")
	kill "-${stop_signal:-TERM}" "$pid" 2>/dev/null || return 0
	for _ in $(seq 100); do
		kill -0 "$pid" 2>/dev/null || return 0
		sleep 0.1
	done
	kill -KILL "$pid" 2>/dev/null || true
}

main() {
	case ${1:-} in
	fetch) fetch ;;
	start) start "$2" ;;
	stop) stop "$2" ;;
	*)
		sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2
		exit 2
		;;
	esac
}
