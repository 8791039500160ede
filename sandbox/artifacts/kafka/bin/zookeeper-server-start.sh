#!/bin/bash
# Run a ZooKeeper server in the foreground: zookeeper-server-start.sh ZOO.CFG
set -euo pipefail

if (($# == 0)); then
  echo "USAGE: $0 ZOO.CFG" >&2
  exit 1
fi
bin=$(dirname "${BASH_SOURCE[0]}")
log4j=$bin/../config/log4j.properties
export KAFKA_HEAP_OPTS=${KAFKA_HEAP_OPTS:--Xmx512M -Xms512M}
export KAFKA_LOG4J_OPTS=${KAFKA_LOG4J_OPTS:--Dlog4j.configuration=file:$log4j}
# shellcheck disable=SC2086  # a list of options
exec "$bin/kafka-run-class.sh" ${EXTRA_ARGS--name zookeeper -loggc} \
  org.apache.zookeeper.server.quorum.QuorumPeerMain "$@"
