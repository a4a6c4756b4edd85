#!/usr/bin/env bash
# Apache Kafka, one node, on loopback for tests, from the jars on Maven Central.
#
#   kafka.sh fetch       download it into ENGINES_HOME (50 MB); needs mvn and Java 17,
#                        which are installed from Debian's packages where they lack
#   kafka.sh start DIR   start it with its data in DIR, an empty folder; DIR/env has
#                        the variables for tests
#   kafka.sh stop DIR    stop it, by its own pid
set -euo pipefail

version=4.3.1
here=$(cd "$(dirname "$0")" && pwd)
home=${ENGINES_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/naru-engines}/kafka-$version

need() {
	local missing=
	command -v java >/dev/null || missing="$missing default-jre-headless"
	command -v mvn >/dev/null || missing="$missing maven"
	[ -n "$missing" ] || return 0
	local as_root=
	[ "$(id -u)" = 0 ] || as_root=sudo
	$as_root apt-get update -qq >&2
	# shellcheck disable=SC2086 # a list of words
	$as_root apt-get install -y -qq $missing >&2
}

fetch() {
	need
	[ -e "$home/complete" ] && return
	rm -rf "$home"
	mkdir -p "$home"
	timeout 600 mvn -q -B -Dversion.kafka=$version -f "$here/kafka.pom.xml" dependency:copy-dependencies \
		-DoutputDirectory="$home/libs" -DincludeScope=runtime >&2
	touch "$home/complete"
}

start() {
	local dir=$1 port control
	fetch
	read -r port control < <(python3 -c '
import socket
a, b = socket.socket(), socket.socket()
a.bind(("127.0.0.1", 0)); b.bind(("127.0.0.1", 0))
print(a.getsockname()[1], b.getsockname()[1])')
	cat >"$dir/server.properties" <<-EOF
		process.roles=broker,controller
		node.id=1
		controller.quorum.voters=1@127.0.0.1:$control
		listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$control
		advertised.listeners=PLAINTEXT://127.0.0.1:$port
		controller.listener.names=CONTROLLER
		inter.broker.listener.name=PLAINTEXT
		listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
		log.dirs=$dir/logs
		auto.create.topics.enable=false
		offsets.topic.replication.factor=1
		offsets.topic.num.partitions=1
		transaction.state.log.replication.factor=1
		transaction.state.log.min.isr=1
		transaction.state.log.num.partitions=4
		share.coordinator.state.topic.replication.factor=1
		share.coordinator.state.topic.min.isr=1
		group.initial.rebalance.delay.ms=0
	EOF
	cat >"$dir/log4j2.properties" <<-EOF
		rootLogger.level=WARN
		rootLogger.appenderRef.c.ref=C
		appender.c.type=Console
		appender.c.name=C
		appender.c.layout.type=PatternLayout
		appender.c.layout.pattern=[%d] %p %m (%c)%n
	EOF
	java -cp "$dir:$home/libs/*" kafka.tools.StorageTool format -t "$(java -cp "$home/libs/*" kafka.tools.StorageTool random-uuid)" \
		-c "$dir/server.properties" >"$dir/format.log" 2>&1
	setsid java -Xms256m -Xmx768m -XX:+UseSerialGC -Djava.awt.headless=true -cp "$dir:$home/libs/*" \
		kafka.Kafka "$dir/server.properties" >"$dir/server.log" 2>&1 </dev/null &
	echo $! >"$dir/pid"
	for _ in $(seq 600); do
		if ! kill -0 "$(cat "$dir/pid")" 2>/dev/null; then
			break
		fi
		if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
			echo "export NARU_TEST_KAFKA=127.0.0.1:$port" >"$dir/env"
			return
		fi
		sleep 0.1
	done
	echo "kafka did not start:" >&2
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
