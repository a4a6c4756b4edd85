#!/usr/bin/env bash
# Apache Cassandra, one node, on loopback for tests, from the jars on Maven Central.
#
#   cassandra.sh fetch       download it into ENGINES_HOME (66 MB); needs mvn and Java 17,
#                            which are installed from Debian's packages where they lack
#   cassandra.sh start DIR   start it with its data in DIR, an empty folder; DIR/env has
#                            the variables for tests
#   cassandra.sh stop DIR    stop it, by its own pid

# shellcheck source-path=SCRIPTDIR source=engine.sh
. "$(dirname "$0")/engine.sh"

version=5.0.5
home=$cache/cassandra-$version

fetch() { fetch_jars; }

# What Cassandra asks of Java 17 (its conf/jvm17-server.options).
java_options() {
	local p
	for p in java.base/jdk.internal.misc java.base/jdk.internal.ref java.base/sun.nio.ch java.management.rmi/com.sun.jmx.remote.internal.rmi \
		java.rmi/sun.rmi.registry java.rmi/sun.rmi.server java.rmi/sun.rmi.transport.tcp java.sql/java.sql; do
		echo "--add-exports=$p=ALL-UNNAMED"
	done
	for p in java.base/java.io java.base/java.lang java.base/java.lang.module java.base/java.nio java.base/java.util java.base/java.util.concurrent \
		java.base/java.util.concurrent.atomic java.base/jdk.internal.loader java.base/jdk.internal.math java.base/jdk.internal.module \
		java.base/jdk.internal.ref java.base/jdk.internal.reflect java.base/jdk.internal.util.jar java.base/sun.nio.ch \
		jdk.management/com.sun.management.internal; do
		echo "--add-opens=$p=ALL-UNNAMED"
	done
}

start() {
	local dir=$1 port storage secure
	fetch
	read -r port storage secure < <(free_ports 3)
	cat >"$dir/cassandra.yaml" <<-EOF
		cluster_name: naru-test
		num_tokens: 1
		partitioner: org.apache.cassandra.dht.Murmur3Partitioner
		data_file_directories: [$dir/data]
		commitlog_directory: $dir/commitlog
		saved_caches_directory: $dir/saved
		hints_directory: $dir/hints
		commitlog_sync: periodic
		commitlog_sync_period: 10000ms
		endpoint_snitch: SimpleSnitch
		listen_address: 127.0.0.1
		rpc_address: 127.0.0.1
		storage_port: $storage
		ssl_storage_port: $secure
		native_transport_port: $port
		start_native_transport: true
		auto_snapshot: false
		seed_provider:
		  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
		    parameters:
		      - seeds: "127.0.0.1:$storage"
	EOF
	cat >"$dir/logback.xml" <<-EOF
		<configuration>
		  <appender name="C" class="ch.qos.logback.core.ConsoleAppender"><encoder><pattern>%-5level %d %logger{20} %msg%n</pattern></encoder></appender>
		  <root level="INFO"><appender-ref ref="C"/></root>
		</configuration>
	EOF
	# shellcheck disable=SC2046 # a list of words
	setsid java -Xms512m -Xmx1g -XX:+UseSerialGC $(java_options) -Djdk.attach.allowAttachSelf=true \
		-Dcassandra.config="file://$dir/cassandra.yaml" -Dcassandra.storagedir="$dir" -Dcassandra-foreground=yes \
		-Dcassandra.ring_delay_ms=1 -Dcassandra.skip_wait_for_gossip_to_settle=0 \
		-cp "$dir:$home/libs/*" org.apache.cassandra.service.CassandraDaemon >"$dir/server.log" 2>&1 </dev/null &
	echo $! >"$dir/pid"
	await "$dir" 120 says "$dir" 'Startup complete'
	echo "export NARU_TEST_CASSANDRA=127.0.0.1:$port" >"$dir/env"
}

main "$@"
