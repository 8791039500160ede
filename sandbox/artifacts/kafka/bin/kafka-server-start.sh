#!/bin/bash
# Run a broker in the foreground: kafka-server-start.sh SERVER.PROPERTIES [--override KEY=VALUE]...
set -euo pipefail

if (($# == 0)); then
  echo "USAGE: $0 SERVER.PROPERTIES [--override KEY=VALUE]..." >&2
  exit 1
fi
bin=$(dirname "${BASH_SOURCE[0]}")
log4j=$bin/../config/log4j.properties
export KAFKA_HEAP_OPTS=${KAFKA_HEAP_OPTS:--Xmx1G -Xms1G}
export KAFKA_LOG4J_OPTS=${KAFKA_LOG4J_OPTS:--Dlog4j.configuration=file:$log4j}
# shellcheck disable=SC2086  # a list of options
exec "$bin/kafka-run-class.sh" ${EXTRA_ARGS--name kafkaServer -loggc} kafka.Kafka "$@"
