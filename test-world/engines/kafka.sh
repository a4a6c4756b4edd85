#!/usr/bin/env bash
# Apache Kafka, one node, on loopback for tests, from the jars on Maven Central.
#
#   kafka.sh fetch       download it into ENGINES_HOME (50 MB); needs mvn and Java 17,
#                        which are installed from Debian's packages where they lack
#   kafka.sh start DIR   start it with its data in DIR, an empty folder; DIR/env has
#                        the variables for tests
#   kafka.sh stop DIR    stop it, by its own pid

# shellcheck source-path=SCRIPTDIR source=engine.sh
. "$(dirname "$0")/engine.sh"

version=4.3.1
home=$cache/kafka-$version

fetch() { fetch_jars; }

# listens PORT: whether somebody does.
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

start() {
	local dir=$1 port control
	fetch
	read -r port control < <(free_ports 2)
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
	await "$dir" 60 listens "$port"
	echo "export NARU_TEST_KAFKA=127.0.0.1:$port" >"$dir/env"
}

main "$@"
